// Medusa and Hydra around their networks: exact trees, waves, caches, batches, stale state, folders.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <outrider/core/error.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <set>
#include <type_traits>
#include <vector>

#include "../../temporary_folder.hpp"
#include "heads_fixture.hpp"
#include "paths_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

struct Kind {
    std::string name;
    std::function<std::unique_ptr<DraftModel>(HeadDraftOptions)> make;
    Conditional (*law)(const Text&, std::int64_t pending);  ///< by plain loops
};

template <typename Draft, typename Config>
std::unique_ptr<DraftModel> made(const Config& config, const HeadDraftOptions& options) {
    const TargetHead head = toy_head();
    return std::make_unique<Draft>(config, toy_weights(config, head), head, options);
}

std::vector<Numbers> rows_of_text(const Text& text, std::int64_t n) {
    std::vector<Numbers> rows;
    for (std::int64_t j = 0; j < n; ++j) rows.push_back(numbers(text.features[j]));
    return rows;
}

template <HeadOutput Output>
Conditional medusa_law(const Text& text, std::int64_t pending) {
    const TargetHead head = toy_head();
    const MedusaConfig config = toy_medusa(Output, 2);
    const MedusaWeights weights = toy_weights(config, head);
    const Numbers h = numbers(text.features[pending - 1]);
    const TargetTables tables = make_target_tables(head, config.vocabulary, 1.0, at::kFloat, at::kCPU);
    std::vector<Numbers> laws;
    for (std::size_t k = 0; k < 3; ++k)
        laws.push_back(log_softmax(
            plain_medusa(weights, medusa_output(config, weights, tables, static_cast<std::int64_t>(k)), k, h)));
    return [laws](const Path& path) { return laws[path.size()]; };
}

template <bool Prefix, HydraResidual Residual, HeadOutput Output, std::int64_t Blocks>
Conditional hydra_law(const Text& text, std::int64_t pending) {
    const TargetHead head = toy_head();
    const HydraConfig config = toy_hydra(Prefix, Residual, Output, Blocks);
    const HydraWeights weights = toy_weights(config, head);
    const Numbers ground = plain_ground(config, weights, rows_of_text(text, pending));
    const at::Tensor rows = head.output_rows(config.vocabulary);
    const TokenId root = text.tokens[static_cast<std::size_t>(pending)];
    return [=](const Path& path) {
        Path whole{root};
        whole.insert(whole.end(), path.begin(), path.end());
        return log_softmax(plain_hydra(config, weights, rows, head, ground, whole));
    };
}

std::vector<Kind> kinds() {
    const auto medusa = [](HeadOutput output) {
        return [output](const HeadDraftOptions& o) { return made<MedusaDraft>(toy_medusa(output, 2), o); };
    };
    const auto hydra = [](bool prefix, HydraResidual residual, HeadOutput output, std::int64_t blocks) {
        return
            [=](const HeadDraftOptions& o) { return made<HydraDraft>(toy_hydra(prefix, residual, output, blocks), o); };
    };
    using enum HydraResidual;
    return {{"medusa, shared", medusa(HeadOutput::shared), medusa_law<HeadOutput::shared>},
            {"medusa, own", medusa(HeadOutput::own), medusa_law<HeadOutput::own>},
            {"hydra", hydra(false, feature, HeadOutput::target, 1), hydra_law<false, feature, HeadOutput::target, 1>},
            {"hydra++", hydra(true, feature, HeadOutput::shared, 1), hydra_law<true, feature, HeadOutput::shared, 1>},
            {"hydra++, as published", hydra(true, matrix, HeadOutput::own, 2),
             hydra_law<true, matrix, HeadOutput::own, 2>}};
}

}  // namespace

TEST_CASE("heads draft the likeliest paths by their network, restated") {
    const Text text(20);
    for (const Kind& kind : kinds()) {
        INFO(kind.name);
        const auto draft = kind.make({.threads = 1, .kernels = false});
        const auto vocabulary = toy_draft_vocabulary();
        const auto expected = all_paths(kind.law(text, 12), vocabulary, 3);
        check_best(one(*draft, text.feedback(0, 12), 25), expected, 25, 1e-4);
        // The next round sees the committed path's features.
        check_best(one(*draft, text.feedback(12, 15), 10), all_paths(kind.law(text, 15), vocabulary, 3), 10, 1e-4);
        // 8-bit weights and rows: nearly the same tree.
        const auto fast = kind.make({.threads = 2, .eight_bits = true});
        const auto got = paths_of(one(*fast, text.feedback(0, 12), 25));
        std::size_t shared = 0;
        double off = 0;
        for (std::size_t i = 0; i < 25; ++i) {
            const auto found = got.find(expected[i].second);
            if (found == got.end()) continue;
            ++shared;
            off += std::abs(found->second - expected[i].first);
            CHECK(std::abs(found->second - expected[i].first) < 0.6);
        }
        CHECK(shared >= 20);
        CHECK(off / static_cast<double>(shared) < 0.15);
    }
}

TEST_CASE("Hydra++: a prefix layer in 4 bits is what the network of such weights drafts") {
    const Text text(40);
    const TargetHead head = toy_head();
    const HydraConfig config = toy_hydra(true);
    const HydraWeights weights = toy_weights(config, head);
    HydraWeights coarse = weights;
    for (at::Tensor* matrix :
         {&coarse.prefix.qkv, &coarse.prefix.attn_out, &coarse.prefix.gate_up, &coarse.prefix.down})
        *matrix = rounded(*matrix, 15);
    HydraDraft exact(config, weights, head, {.threads = 1, .kernels = false}),
        reference(config, coarse, head, {.threads = 1, .kernels = false}), fast(config, weights, head, {.threads = 2});
    // Rows and heads in 8 bits are noise in both comparisons: means over several contexts.
    double from_exact = 0, from_coarse = 0;
    for (const std::int64_t pending : {9, 16, 23, 30, 37}) {
        const SequenceFeedback feedback = text.feedback(0, pending, pending);
        const auto a = paths_of(one(exact, feedback, 40)), b = paths_of(one(reference, feedback, 40)),
                   c = paths_of(one(fast, feedback, 40));
        std::size_t shared = 0;
        for (const auto& [path, log_psi] : c) {
            if (!a.contains(path) || !b.contains(path)) continue;
            ++shared;
            from_exact += std::abs(a.at(path) - log_psi), from_coarse += std::abs(b.at(path) - log_psi);
        }
        CHECK(shared >= 25);
    }
    CAPTURE(from_exact, from_coarse);
    CHECK(4 * from_coarse < from_exact);  // rounding tells, and it is this rounding
}

TEST_CASE("heads: rounds one by one give the draft of the whole text at once") {
    const Text text(30);
    for (const Kind& kind : kinds())
        for (const bool kernels : {false, true}) {
            INFO(kind.name << ", kernels " << kernels);
            const auto draft = kind.make({.threads = 1, .kernels = kernels});
            (void)one(*draft, text.feedback(0, 5));
            (void)one(*draft, text.feedback(5, 6), 0);  // no nodes wanted: the state must follow all the same
            (void)one(*draft, text.feedback(6, 13));
            const auto stepped = paths_of(one(*draft, text.feedback(13, 20)));
            const auto fresh = kind.make({.threads = 1, .kernels = kernels});
            const TokenTree whole = one(*fresh, text.feedback(0, 20));
            REQUIRE(stepped.size() == 12);
            for (const auto& [path, log_psi] : paths_of(whole)) {
                REQUIRE(stepped.contains(path));
                CHECK(std::abs(stepped.at(path) - log_psi) < 1e-4);
            }
            const auto other = kind.make({.threads = 1, .kernels = kernels});
            CHECK(!same(one(*other, Text(30, 2).feedback(0, 20)), whole));
        }
}

TEST_CASE("heads: a chain has a node of every head that the budget allows, the likeliest each time") {
    const Text text(20);
    for (const Kind& kind : kinds())
        for (const bool kernels : {false, true}) {
            const auto wide = kind.make({.threads = 1, .kernels = kernels});
            const TokenTree larger = one(*wide, text.feedback(0, 12), 3000);
            for (const HeadTree tree : {HeadTree::best_first, HeadTree::static_tree, HeadTree::measured})
                for (const std::int64_t nodes : {1, 2, 3, 7}) {
                    INFO(kind.name << ", kernels " << kernels << ", " << nodes << " nodes");
                    const auto draft = kind.make({.tree = tree, .threads = 1, .kernels = kernels});
                    check_chain(chain_of(*draft, text.feedback(0, 12), nodes),
                                static_cast<std::size_t>(std::min<std::int64_t>(nodes, 3)), larger);
                }
            const auto drawn = kind.make({.tree = HeadTree::sampled, .chains = 2, .threads = 1, .kernels = kernels});
            const TokenTree chain = chain_of(*drawn, text.feedback(0, 12), 6);
            CHECK(chain.drafted() == 3);
            CHECK(chain.height() == 3);
        }
}

TEST_CASE("Hydra does not draft what is too unlikely for its price") {
    const Text text(20);
    const std::vector<double> prices{0.0, 0.1, 0.2,
                                     0.3};  // a tenth of a token for each node: a chance of 0.05 at least
    for (const Kind& kind : kinds()) {
        if (!kind.name.starts_with("hydra")) continue;
        const auto whole = kind.make({.threads = 1, .kernels = false}),
                   priced = kind.make({.threads = 1, .kernels = false});
        const auto all = paths_of(one(*whole, text.feedback(0, 12), 25));
        const SequenceFeedback feedback = text.feedback(0, 12);
        const auto some = paths_of(priced->propose(std::span(&feedback, 1), {25, 10.0, prices}).at(0).tree);
        CHECK(some.size() < all.size());
        for (const auto& [path, log_psi] : all)
            if (std::abs(log_psi - std::log(0.05)) > 1e-6) CHECK(some.contains(path) == (log_psi > std::log(0.05)));
        const auto chain = kind.make({.threads = 1, .kernels = false});
        for (const auto& [path, log_psi] :
             paths_of(chain->propose(std::span(&feedback, 1), {25, 10.0, prices, kOwedTokens, true}).at(0).tree))
            CHECK(log_psi > std::log(0.05));
    }
}

TEST_CASE("heads: a batch gives every sequence the draft it gets alone, bit for bit") {
    const std::vector<Text> texts{Text(20, 1), Text(9, 2), Text(31, 3)};
    const std::vector<std::int64_t> pending{12, 0, 25};  // the second has a prompt of one token
    for (const Kind& kind : kinds()) {
        INFO(kind.name);
        const auto together = kind.make({.threads = 2});
        Feedback feedback;
        for (std::size_t i = 0; i < texts.size(); ++i)
            feedback.push_back(texts[i].feedback(0, pending[i], static_cast<SequenceId>(i)));
        const auto trees = together->propose(feedback, {12});
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto alone = kind.make({.threads = 1});
            CHECK(same(trees[i].tree, one(*alone, feedback[i])));
            CHECK(trees[i].tree.drafted() == (pending[i] == 0 ? 0 : 12));  // nothing committed, nothing to draft from
        }
        CHECK(one(*together, texts[1].feedback(0, 3, 1)).drafted() == 12);
        CHECK(together->propose({}, {12}).empty());
    }
}

/// Numbers in all weights of a drafter.
template <typename Weights>
std::size_t count_of(const Weights& weights) {
    std::size_t sum = 0;
    for (const auto& [name, weight] : weights.named()) sum += static_cast<std::size_t>(weight->numel());
    return sum;
}

TEST_CASE("drafters say how much memory their weights take") {
    const TargetHead head = toy_head();
    const auto check = [&]<typename Draft>(std::type_identity<Draft>, const auto& config, bool looks_up_output) {
        const auto weights = toy_weights(config, head);
        const std::size_t rows = looks_up_output ? config.vocabulary.size() * kToyHidden : 0,
                          own = count_of(weights) + rows;
        Draft exact(config, weights, head, {.threads = 1, .kernels = false}),
            packed(config, weights, head, {.threads = 1});
        CHECK(exact.weight_bytes() >= 4 * own);
        CHECK(exact.weight_bytes() <= 4 * (own + kToyVocabulary * kToyHidden));  // embeddings may be kept too
        CHECK(packed.weight_bytes() > own / 2);
        CHECK(packed.weight_bytes() < exact.weight_bytes());
        const std::size_t bytes = packed.weight_bytes();
        std::vector<std::unique_ptr<DraftModel>> parts;
        parts.push_back(std::make_unique<Draft>(std::move(packed)));
        parts.push_back(std::make_unique<Draft>(std::move(exact)));
        const std::size_t both = bytes + parts[1]->weight_bytes();
        CHECK(MergedDraft(std::move(parts)).weight_bytes() == both);
    };
    check(std::type_identity<MedusaDraft>{}, toy_medusa(HeadOutput::shared), false);
    check(std::type_identity<MedusaDraft>{}, toy_medusa(HeadOutput::own), false);
    check(std::type_identity<HydraDraft>{}, toy_hydra(true), true);
    check(std::type_identity<HydraDraft>{}, toy_hydra(false, HydraResidual::matrix, HeadOutput::shared), false);
    check(std::type_identity<CtcDraft>{}, toy_config(CtcConditioning::none), true);
}

TEST_CASE("heads: a stale state is an error, never a bad draft") {
    const Text text(20);
    for (const Kind& kind : kinds()) {
        INFO(kind.name);
        const auto draft = kind.make({.threads = 1});
        (void)one(*draft, text.feedback(0, 5));
        CHECK_THROWS_AS(one(*draft, text.feedback(7, 9)), Error);
        CHECK_THROWS_AS(one(*draft, text.feedback(0, 5)), Error);
        SequenceFeedback other = text.feedback(5, 8);
        other.tokens[0] = other.tokens[0] == 0 ? 1 : 0;
        CHECK_THROWS_AS(one(*draft, other), Error);
        SequenceFeedback bare = text.feedback(5, 8);
        bare.features = bare.features.slice(1, 0, 8);
        CHECK_THROWS_AS(one(*draft, bare), Error);
        CHECK(one(*draft, text.feedback(5, 8)).drafted() == 12);  // errors changed nothing
        draft->forget(1);
        CHECK(one(*draft, text.feedback(0, 4)).drafted() == 12);
        draft->forget(77);
    }
}

TEST_CASE("heads: static and measured shapes") {
    const Text text(20);
    for (const Kind& kind : kinds()) {
        INFO(kind.name);
        HeadDraftOptions options{.tree = HeadTree::static_tree, .choices = {{0}, {0, 1}, {1}}, .threads = 1};
        const auto fixed = kind.make(options);
        const TokenTree small = one(*fixed, text.feedback(0, 12), 63);
        CHECK(small.drafted() == 3);
        CHECK(small.height() == 2);
        // Medusa's shape is four deep, these have three heads.
        const auto published = kind.make({.tree = HeadTree::static_tree, .threads = 1});
        CHECK(one(*published, text.feedback(0, 12), 63).drafted() == 61);
        // {0} .5, {1} .2, {0,0} .15, {2} .1, then {1,0} .06, {0,1} .05
        const auto measured = kind.make({.tree = HeadTree::measured, .threads = 1});
        const TokenTree four = one(*measured, text.feedback(0, 12), 4);
        CHECK(four.drafted() == 4);
        CHECK(std::ranges::count(four.depths(), 1) == 3);
        CHECK(std::ranges::count(four.depths(), 2) == 1);
        options.choices = {{0}, {0, 0}, {0, 0, 0}, {0, 0, 0, 0}};
        CHECK_THROWS_MATCHES(kind.make(options), Error, MessageMatches(ContainsSubstring("depth 4")));
        options.choices = {{20}};
        CHECK_THROWS_MATCHES(kind.make(options), Error, MessageMatches(ContainsSubstring("rank 20")));
        options.choices = {{0, 1}};
        CHECK_THROWS_MATCHES(kind.make(options), Error, MessageMatches(ContainsSubstring("no parent")));
    }
    MedusaConfig unmeasured = toy_medusa(HeadOutput::shared);
    unmeasured.accuracies.clear();
    CHECK_THROWS_MATCHES(made<MedusaDraft>(unmeasured, {.tree = HeadTree::measured}), Error,
                         MessageMatches(ContainsSubstring("no accuracies")));
}

TEST_CASE("heads: sampled chains tell the law that they were drawn from") {
    const Text text(20);
    const SequenceFeedback feedback = text.feedback(0, 12);
    for (const Kind& kind : kinds()) {
        INFO(kind.name);
        // Plain products: eight bits would blur the comparison.
        HeadDraftOptions options{
            .tree = HeadTree::sampled, .chains = 2, .top_k = 5, .seed = 3, .threads = 1, .kernels = false};
        CHECK(kind.make(options)->draws() == DraftDraws::independent);
        const SequenceTree drawn = kind.make(options)->propose(std::span(&feedback, 1), {6}).at(0);
        REQUIRE(drawn.samples != nullptr);
        CHECK(drawn.samples->kind() == DraftSamples::Kind::independent);
        CHECK(drawn.samples->draws(0).size() == 2);
        CHECK(drawn.tree.height() == 3);  // six nodes for two chains, three heads
        CHECK(same(kind.make(options)->propose(std::span(&feedback, 1), {6}).at(0).tree, drawn.tree));
        // q at every place of a draw: the head's five likeliest tokens, made to sum to one.
        const Conditional law = kind.law(text, 12);
        const std::vector<TokenId> columns = toy_draft_vocabulary();
        for (NodeIndex node = 1; node < static_cast<NodeIndex>(drawn.tree.size()); ++node) {
            Path path;
            for (NodeIndex n = drawn.tree.parents()[static_cast<std::size_t>(node)]; n > 0;
                 n = drawn.tree.parents()[static_cast<std::size_t>(n)])
                path.insert(path.begin(), drawn.tree.token(n));
            std::vector<TokenShare> shares;
            drawn.samples->law().list(path, static_cast<std::size_t>(kToyVocabulary), shares);
            const Numbers q = law(path);
            Numbers best = q;
            std::sort(best.begin(), best.end(), std::greater<>{});
            double sum = 0, mass = 0, own = 0;
            for (std::size_t i = 0; i < 5; ++i) mass += std::exp(best[i]);
            REQUIRE(shares.size() == 5);
            for (const TokenShare& share : shares) {
                sum += share.q;
                const auto column = std::find(columns.begin(), columns.end(), share.token);
                const bool whole = q.size() == static_cast<std::size_t>(kToyVocabulary);
                const auto at =
                    whole ? static_cast<std::size_t>(share.token) : static_cast<std::size_t>(column - columns.begin());
                CHECK(share.q == Catch::Approx(std::exp(q[at]) / mass).epsilon(1e-4));
                if (share.token == drawn.tree.token(node)) own = share.q;
            }
            CHECK(sum == Catch::Approx(1.0).epsilon(1e-9));
            CHECK(drawn.tree.log_q()[static_cast<std::size_t>(node)] == Catch::Approx(std::log(own)).epsilon(1e-5));
        }
        std::set<Path> seen;
        for (options.seed = 0; options.seed < 12; ++options.seed) {
            const TokenTree one_chain = one(*kind.make(options), feedback, 1);
            seen.insert({one_chain.token(1)});
        }
        CHECK(seen.size() > 1);  // another seed, another draw
        options.chains = 1;
        CHECK(kind.make(options)->draws() == DraftDraws::chain);
        CHECK(one(*kind.make(options), feedback, 9).drafted() == 3);
    }
}

TEST_CASE("heads: folders keep a drafter, and refuse what does not fit") {
    const test::TemporaryFolder own;
    const std::filesystem::path folder = own.path() / "drafter";
    const TargetHead head = toy_head();
    const Text text(20);
    const auto rounded = [](auto weights) {
        for (auto& [name, weight] : weights.named()) *weight = weight->to(at::kBFloat16).to(at::kFloat);
        return weights;
    };
    for (const HeadOutput output : {HeadOutput::own, HeadOutput::shared, HeadOutput::target}) {
        std::filesystem::remove_all(folder);
        MedusaConfig config = toy_medusa(output, 2, output == HeadOutput::own);
        config.training = R"({"anchors":17})";
        const MedusaWeights weights = rounded(toy_weights(config, head));
        write_medusa_config(folder, config), write_medusa_weights(folder, weights);
        MedusaDraft stored = MedusaDraft::load(folder, head), direct(config, weights, head);
        CHECK(same(one(stored, text.feedback(0, 12)), one(direct, text.feedback(0, 12))));
        CHECK(stored.config().training == config.training);
        CHECK(stored.config().vocabulary == config.vocabulary);
        CHECK(stored.config().accuracies == config.accuracies);
        CHECK_THROWS_AS(HydraDraft::load(folder, head), Error);
    }
    for (const bool prefix : {false, true})
        for (const HydraResidual residual : {HydraResidual::feature, HydraResidual::matrix}) {
            std::filesystem::remove_all(folder);
            const HydraConfig config = toy_hydra(prefix, residual, prefix ? HeadOutput::shared : HeadOutput::target, 2);
            const HydraWeights weights = rounded(toy_weights(config, head));
            write_hydra_config(folder, config), write_hydra_weights(folder, weights);
            HydraDraft stored = HydraDraft::load(folder, head), direct(config, weights, head);
            CHECK(same(one(stored, text.feedback(0, 12)), one(direct, text.feedback(0, 12))));
            CHECK(stored.config().prefix_layer == prefix);
            CHECK(stored.config().accuracies == config.accuracies);
        }
    TargetHead other = head;
    other.fingerprint = "another";
    CHECK_THROWS_MATCHES(HydraDraft::load(folder, other), Error,
                         MessageMatches(ContainsSubstring("belongs to target toy")));
    CHECK_THROWS_AS(HydraDraft::load(folder / "nowhere", head), Error);
    HydraConfig larger = toy_hydra(true, HydraResidual::matrix, HeadOutput::shared, 2);
    larger.intermediate = 64;
    write_hydra_config(folder, larger);
    CHECK_THROWS_MATCHES(HydraDraft::load(folder, head), Error, MessageMatches(ContainsSubstring("prefix.gate_up")));
    larger = toy_hydra(true, HydraResidual::matrix, HeadOutput::shared, 1);
    write_hydra_config(folder, larger);
    CHECK_THROWS_MATCHES(HydraDraft::load(folder, head), Error, MessageMatches(ContainsSubstring("heads.0.1.")));
    larger.heads = 4;
    write_hydra_config(folder, larger);
    CHECK_THROWS_MATCHES(HydraDraft::load(folder, head), Error,
                         MessageMatches(ContainsSubstring("heads.3.0.weight is missing")));
    std::ofstream(folder / "config.json") << R"({"kind": "hydra", "version": 1})";
    CHECK_THROWS_MATCHES(HydraDraft::load(folder, head), Error, MessageMatches(ContainsSubstring("target")));
    std::ofstream(folder / "config.json") << R"({"kind": "medusa", "version": 9})";
    CHECK_THROWS_MATCHES(MedusaDraft::load(folder, head), Error, MessageMatches(ContainsSubstring("version is 9")));
    std::filesystem::remove_all(folder);
}
