// The drafter around the network: exact search, caches, batches, stale state, folders.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include <filesystem>
#include <fstream>

#include <outrider/core/error.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/draft/ctc_draft.hpp>
#include <outrider/tree/tree_layout.hpp>

#include "../../../src/draft/ctc_search.hpp"
#include "ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

CtcDraft toy_draft(CtcConditioning conditioning = CtcConditioning::prefix, CtcDraftOptions options = {.threads = 1}) {
    const TargetHead head = toy_head();
    const CtcConfig config = toy_config(conditioning);
    return {config, toy_weights(config, head), head, options};
}

}  // namespace

TEST_CASE("CtcSearch finds the tree of the exact prefix search over all tokens") {
    for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
        const std::int64_t T = 5, V = 50;
        const at::Tensor logits = noise({T, V}, seed, 3).to(at::kFloat), gate = noise({T}, seed + 50, 2).to(at::kFloat);
        const at::Tensor scores = noise({V + 1, V + 1, V}, seed + 100, 2).to(at::kFloat);  // by last two tokens
        std::vector<TokenId> vocabulary;
        for (TokenId c = 0; c < V; ++c) vocabulary.push_back(3 * c + 1);
        const auto row = [&](std::int32_t last, std::int32_t second) {
            return scores.const_data_ptr<float>() + ((last + 1) * (V + 1) + second + 1) * V;
        };
        const std::span<const float> a(logits.const_data_ptr<float>(), static_cast<std::size_t>(T * V)),
            g(gate.const_data_ptr<float>(), static_cast<std::size_t>(T));

        CtcSearch search;
        const TokenTree tree = search.tree(7, a, g, vocabulary, 24,
                                           [&](std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
                                               for (std::size_t i = 0; i < prefixes.size(); ++i)
                                                   std::copy_n(row(prefixes[i].last, prefixes[i].last_but_one), V,
                                                               out + static_cast<std::int64_t>(i) * stride);
                                           });

        FrameBuilder builder;
        const CtcFrames frames =
            builder.build({a, g, static_cast<std::size_t>(V), vocabulary, DenseFrames::Kind::gated_logits},
                          {static_cast<std::size_t>(V), true});
        PrefixTreeSearch exact;
        const TokenTree expected = exact.tree(7, frames, 24, [&](const PrefixContext& l, std::span<float> factors) {
            const auto n = l.tokens.size();
            const float* s = row(n > 0 ? (l.tokens[n - 1] - 1) / 3 : -1, n > 1 ? (l.tokens[n - 2] - 1) / 3 : -1);
            for (std::size_t c = 0; c < factors.size(); ++c) factors[c] = std::exp(s[(frames.tokens()[c] - 1) / 3]);
        });
        const auto got = paths_of(tree), wanted = paths_of(expected);
        REQUIRE(got.size() == 24);
        REQUIRE(wanted.size() == 24);
        for (const auto& [path, log_psi] : wanted) {
            REQUIRE(got.contains(path));
            CHECK(std::abs(got.at(path) - log_psi) < 1e-4);
        }
    }
}

TEST_CASE("CtcSearch: frames and prefixes that hold NaN or infinities say nothing") {
    const std::vector<TokenId> vocabulary{0, 1, 2};
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const auto flat = [](std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
        std::fill_n(out, static_cast<std::int64_t>(prefixes.size()) * stride, 0.0F);
    };
    CtcSearch search;
    const std::vector<float> spoiled{nan, 0, 0, 0, inf, 0}, gate{0, 0};
    CHECK(search.tree(9, spoiled, gate, vocabulary, 8, flat).size() == 1);
    const std::vector<float> half{nan, 0, 0, 1, 2, 3};
    const TokenTree tree = search.tree(9, half, gate, vocabulary, 8, flat);
    CHECK(tree.height() == 1);
    CHECK(tree.size() == 4);
    CHECK(search
              .tree(9, half, gate, vocabulary, 8,
                    [&](std::span<const CtcPrefix>, float* out, std::int64_t) { out[0] = nan; })
              .size() == 1);
    CHECK(search.tree(9, half, gate, vocabulary, 0, flat).size() == 1);
}

TEST_CASE("CtcDraft: rounds one by one give the draft of the whole text at once") {
    const Text text(30);
    for (const CtcConditioning conditioning : {CtcConditioning::none, CtcConditioning::prefix})
        for (const bool kernels : {false, true}) {
            CtcDraft draft = toy_draft(conditioning, {.threads = 1, .kernels = kernels});
            (void)one(draft, text.feedback(0, 5));
            (void)one(draft, text.feedback(5, 6), 0);  // no nodes wanted: the state must follow all the same
            (void)one(draft, text.feedback(6, 13));
            const TokenTree stepped = one(draft, text.feedback(13, 20));
            CtcDraft fresh = toy_draft(conditioning, {.threads = 1, .kernels = kernels});
            const TokenTree whole = one(fresh, text.feedback(0, 20));
            const auto a = paths_of(stepped), b = paths_of(whole);
            INFO("conditioning " << static_cast<int>(conditioning) << ", kernels " << kernels);
            REQUIRE(a.size() == 12);
            for (const auto& [path, log_psi] : b) {
                REQUIRE(a.contains(path));
                CHECK(std::abs(a.at(path) - log_psi) < 1e-4);
            }
            // Another text must give another draft, else nothing above means anything.
            CtcDraft other = toy_draft(conditioning, {.threads = 1, .kernels = kernels});
            CHECK(!same(one(other, Text(30, 2).feedback(0, 20)), whole));
        }
}

TEST_CASE("CtcDraft: kernels follow tensor operations") {
    const Text text(40);
    CtcDraft reference = toy_draft(CtcConditioning::prefix, {.threads = 1, .kernels = false}),
             fast = toy_draft(CtcConditioning::prefix, {.threads = 2});
    const auto a = paths_of(one(reference, text.feedback(0, 33), 40)),
               b = paths_of(one(fast, text.feedback(0, 33), 40));
    std::size_t shared = 0;
    for (const auto& [path, log_psi] : a) {
        if (!b.contains(path)) continue;
        ++shared;
        CHECK(std::abs(b.at(path) - log_psi) < 0.25);  // 8-bit weights and rows
    }
    CHECK(shared >= 30);
}

TEST_CASE("CtcDraft: a batch gives every sequence the draft it gets alone, bit for bit") {
    const std::vector<Text> texts{Text(20, 1), Text(9, 2), Text(31, 3)};
    const std::vector<std::int64_t> pending{12, 0, 25};  // the second has a prompt of one token
    CtcDraft together = toy_draft();
    Feedback feedback;
    for (std::size_t i = 0; i < texts.size(); ++i)
        feedback.push_back(texts[i].feedback(0, pending[i], static_cast<SequenceId>(i)));
    const auto trees = together.propose(feedback, {12});
    for (std::size_t i = 0; i < texts.size(); ++i) {
        CtcDraft alone = toy_draft();
        CHECK(same(trees[i].tree, one(alone, feedback[i])));
        CHECK(trees[i].tree.drafted() == 12);
    }
    // The next round of the one-token prompt begins from nothing committed.
    const auto next = texts[1].feedback(0, 3, 1);
    CHECK(one(together, next).drafted() == 12);
}

TEST_CASE("CtcDraft: a batch's trees do not depend on the number of threads, bit for bit") {
    Feedback feedback;
    for (std::uint64_t i = 0; i < 7; ++i) {
        const auto tokens = static_cast<std::int64_t>(4 + 5 * i);
        feedback.push_back(Text(tokens, i + 1).feedback(0, i == 2 ? 0 : tokens - 1, static_cast<SequenceId>(i)));
    }
    for (const CtcConditioning conditioning : {CtcConditioning::prefix, CtcConditioning::none})
        for (const CtcTree tree : {CtcTree::best_first, CtcTree::static_tree, CtcTree::sampled}) {
            CtcDraft one_thread = toy_draft(conditioning, {.tree = tree, .seed = 5, .threads = 1});
            const auto expected = one_thread.propose(feedback, {14});
            for (const int threads : {2, 3, 16}) {
                CtcDraft many = toy_draft(conditioning, {.tree = tree, .seed = 5, .threads = threads});
                const auto trees = many.propose(feedback, {14});
                CAPTURE(static_cast<int>(conditioning), static_cast<int>(tree), threads);
                for (std::size_t i = 0; i < feedback.size(); ++i) {
                    CHECK(trees[i].sequence == feedback[i].sequence);
                    CHECK(same(trees[i].tree, expected[i].tree));
                    CHECK((trees[i].samples == nullptr) == (tree != CtcTree::sampled));
                }
            }
        }
}

TEST_CASE("CtcDraft: a stale state is an error, never a bad draft") {
    const Text text(20);
    CtcDraft draft = toy_draft();
    (void)one(draft, text.feedback(0, 5));
    CHECK_THROWS_AS(one(draft, text.feedback(7, 9)), Error);  // a gap
    CHECK_THROWS_AS(one(draft, text.feedback(0, 5)), Error);  // the prompt again
    SequenceFeedback other = text.feedback(5, 8);
    other.tokens[0] = other.tokens[0] == 0 ? 1 : 0;  // not the pending token of the last round
    CHECK_THROWS_AS(one(draft, other), Error);
    SequenceFeedback bare = text.feedback(5, 8);
    bare.features = bare.features.slice(0, 0, 2);
    CHECK_THROWS_AS(one(draft, bare), Error);
    CHECK(one(draft, text.feedback(5, 8)).drafted() == 12);  // errors changed nothing
    draft.forget(1);
    CHECK(one(draft, text.feedback(0, 4)).drafted() == 12);
    draft.forget(77);
}

TEST_CASE("CtcDraft: the other ways from frames to a tree") {
    const Text text(20);
    CtcDraft chains =
        toy_draft(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 3, .seed = 4, .threads = 1});
    CtcDraft again =
        toy_draft(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 3, .seed = 4, .threads = 1});
    CtcDraft seed =
        toy_draft(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 3, .seed = 5, .threads = 1});
    bool differs = false;
    for (std::int64_t n = 3; n < 15; ++n) {
        const TokenTree a = one(chains, text.feedback(n == 3 ? 0 : n - 1, n));
        CHECK(same(a, one(again, text.feedback(n == 3 ? 0 : n - 1, n))));
        differs = differs || !same(a, one(seed, text.feedback(n == 3 ? 0 : n - 1, n)));
        CHECK(leaves(a).size() <= 3);
    }
    CHECK(differs);
    for (const CtcConditioning conditioning : {CtcConditioning::none, CtcConditioning::prefix}) {
        CtcDraft ranked = toy_draft(conditioning, {.tree = CtcTree::static_tree, .threads = 1}),
                 best = toy_draft(conditioning, {.threads = 1});
        const TokenTree a = one(ranked, text.feedback(0, 12), 63),
                        b = one(best, text.feedback(0, 12), static_cast<std::int64_t>(a.drafted()));
        const auto mass = [](const TokenTree& tree) {
            double sum = 0;
            for (const auto& [path, log_psi] : paths_of(tree)) sum += std::exp(log_psi);
            return sum;
        };
        CHECK(a.drafted() > 10);
        CHECK(mass(b) >= mass(a) - 0.02);  // best first is best by its own belief, up to 8-bit rounding
    }
}

TEST_CASE("CtcDraft: folders keep a drafter, and refuse what does not fit") {
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / "outrider_ctc_draft_test";
    std::filesystem::remove_all(folder);
    const TargetHead head = toy_head();
    CtcConfig config = toy_config(CtcConditioning::prefix);
    config.training = R"({"anchors":17})";
    CtcWeights weights = toy_weights(config, head);
    for (auto& [name, weight] : weights.named()) *weight = weight->to(at::kBFloat16).to(at::kFloat);
    write_ctc_config(folder, config);
    write_ctc_weights(folder, weights);
    CtcDraft stored = CtcDraft::load(folder, head), direct(config, weights, head);
    const Text text(20);
    CHECK(same(one(stored, text.feedback(0, 12)), one(direct, text.feedback(0, 12))));
    CHECK(stored.config().training == config.training);
    CHECK(stored.config().vocabulary == config.vocabulary);
    CHECK(stored.kind() == "ctc");

    TargetHead other = head;
    other.fingerprint = "another";
    CHECK_THROWS_AS(CtcDraft::load(folder, other), Error);
    CHECK_THROWS_AS(CtcDraft::load(folder / "nowhere", head), Error);
    CtcConfig larger = config;
    larger.intermediate = 64;
    write_ctc_config(folder, larger);
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
    std::ofstream(folder / "config.json") << "{\"kind\": \"ctc\", \"version\": 1}";
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
    std::ofstream(folder / "config.json") << "no json";
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
    std::filesystem::remove_all(folder);
}
