// The drafter around the network: caches, batches, stale state, folders.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <filesystem>
#include <fstream>

#include <outrider/core/error.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/tree/token_tree.hpp>

#include <outrider/draft/ctc/detail/ctc_per_frame.hpp>
#include <outrider/draft/nn/detail/row_team.hpp>
#include "../../temporary_folder.hpp"
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

TEST_CASE("Frames without collapse draft one depth each: repeats stay, a blank keeps its rank and ends the path") {
    const std::vector<TokenId> vocabulary{5, 8, 9};
    const std::vector<float> logits{3, 2, 1, 1, 2, 3};  // the best first: 5, 8, 9, and then 9, 8, 5
    const TokenTree none = per_frame_tree(7, logits, std::vector<float>{-9, -9}, vocabulary, 63);
    CHECK(none.child(0, 5) != kNoNode);
    CHECK(none.child(none.child(0, 5), 9) != kNoNode);  // ranks 0, 0
    CHECK(none.child(none.child(0, 9), 9) != kNoNode);  // ranks 2, 0: the same token twice
    CHECK(std::abs(none.log_q()[static_cast<std::size_t>(none.child(0, 5))] -
                   (std::log(std::exp(3.0F) / (std::exp(3.0F) + std::exp(2.0F) + std::exp(1.0F))) -
                    std::log1p(std::exp(-9.0F)))) < 1e-5F);
    const TokenTree second =
        per_frame_tree(7, logits, std::vector<float>{-9, 9}, vocabulary, 63);  // a blank, most likely
    const NodeIndex best = second.child(0, 5);
    CHECK(second.child(best, 9) != kNoNode);  // now of rank 1
    CHECK(second.size() < none.size());
    for (const TokenId token : second.tokens()) CHECK(token != kNoToken);
    const TokenTree first = per_frame_tree(7, logits, std::vector<float>{9, -9}, vocabulary, 63);
    CHECK(first.child(0, 5) != kNoNode);
    CHECK(first.size() < none.size());
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK(per_frame_tree(7, logits, std::vector<float>{nan, -9}, vocabulary, 63).size() == 1);
    CHECK(per_frame_tree(7, logits, std::vector<float>{-9, -9}, vocabulary, 2).size() == 3);
}

TEST_CASE("Drafters take the target's threads where they are as many as asked for") {
    TargetHead head = toy_head();
    CHECK(drafting_team(head, 3)->size() == 3);
    head.team = std::make_shared<ThreadTeam>(2);
    CHECK(drafting_team(head, 0) == head.team);
    CHECK(drafting_team(head, 2) == head.team);
    CHECK(drafting_team(head, 1) != head.team);
    CHECK(drafting_team(head, 1)->size() == 1);
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

TEST_CASE("CtcDraft: a chain goes on as far as nodes and frames last, the likeliest token each time") {
    const Text text(30);
    const auto check = [](const TokenTree& chain, std::int64_t nodes, const TokenTree& larger) {
        check_chain(chain, chain.drafted(), larger);
        std::int64_t frames = std::ssize(chain.tokens()) - 1;
        for (std::size_t i = 2; i < chain.size(); ++i) frames += chain.tokens()[i] == chain.tokens()[i - 1];  // a blank
        CHECK((static_cast<std::int64_t>(chain.drafted()) == nodes || frames == 4));
    };
    for (const CtcConditioning conditioning : {CtcConditioning::none, CtcConditioning::prefix})
        for (const bool kernels : {false, true})
            for (const std::int64_t nodes : {1, 2, 4, 9}) {
                CAPTURE(static_cast<int>(conditioning), kernels, nodes);
                CtcDraft draft = toy_draft(conditioning, {.threads = 2, .kernels = kernels}),
                         wide = toy_draft(conditioning, {.threads = 2, .kernels = kernels});
                check(chain_of(draft, text.feedback(0, 20), nodes), nodes, one(wide, text.feedback(0, 20), 3000));
                // The next round, and several texts at once.
                check(chain_of(draft, text.feedback(20, 22), nodes), nodes, one(wide, text.feedback(20, 22), 3000));
                const std::vector<SequenceFeedback> both{text.feedback(0, 9, 2), text.feedback(0, 13, 3)};
                const auto chains = draft.propose(both, {.nodes = nodes, .chains = true});
                for (std::size_t i = 0; i < both.size(); ++i) check(chains[i].tree, nodes, one(wide, both[i], 3000));
            }
    CtcDraft drawn = toy_draft(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 3, .threads = 1});
    const TokenTree one_chain = chain_of(drawn, text.feedback(0, 20), 9);
    CHECK(static_cast<std::size_t>(one_chain.height()) == one_chain.drafted());
}

TEST_CASE("CtcDraft: kernels follow tensor operations") {
    const Text text(40);
    const TargetHead head = toy_head();
    const auto [output, bottleneck] = GENERATE(table<HeadOutput, std::int64_t>(
        {{HeadOutput::own, 0}, {HeadOutput::target, 0}, {HeadOutput::own, 8}, {HeadOutput::target, 8}}));
    for (const CtcTree tree : {CtcTree::best_first, CtcTree::static_tree}) {
        CAPTURE(static_cast<int>(output), bottleneck, static_cast<int>(tree));
        CtcConfig config = toy_config(CtcConditioning::prefix);
        config.prefix_output = output, config.prefix_bottleneck = bottleneck;
        const CtcWeights weights = toy_weights(config, head);
        CtcDraft reference(config, weights, head, {.tree = tree, .threads = 1, .kernels = false}),
            fast(config, weights, head, {.tree = tree, .threads = 2, .eight_bits = true});
        check_follows(reference, fast, text);
    }
}

TEST_CASE("CtcDraft: layers in 4 bits and output rows in 5 are what the network of such weights drafts") {
    const Text text(40);
    const TargetHead head = toy_head();
    TargetHead rounded_head = head;
    rounded_head.output_rows = [&](std::span<const TokenId> tokens) { return rounded(head.output_rows(tokens), 31); };
    CtcConfig config = toy_config(GENERATE(CtcConditioning::none, CtcConditioning::prefix));
    config.layers = 2;
    const CtcWeights weights = toy_weights(config, head);
    CtcWeights coarse = weights;
    coarse.fuse = rounded(weights.fuse, 15);
    for (LayerWeights& layer : coarse.layers)
        for (at::Tensor* matrix : {&layer.qkv, &layer.attn_out, &layer.gate_up, &layer.down})
            *matrix = rounded(*matrix, 15);
    CtcDraft exact(config, weights, head, {.threads = 1, .kernels = false}),
        reference(config, coarse, rounded_head, {.threads = 1, .kernels = false}),
        fast(config, weights, head, {.threads = 2});
    check_follows(reference, fast, text);
    const TokenTree whole = one(exact, text.feedback(0, 20), 40);
    reference.forget(1);
    CHECK(!same(one(reference, text.feedback(0, 20), 40), whole));  // rounding tells
}

TEST_CASE("CtcDraft: the target's output rows behind the prediction network are a matrix of their product") {
    const TargetHead head = toy_head();
    CtcConfig tied = toy_config(CtcConditioning::prefix), own = tied;
    tied.prefix_output = HeadOutput::target;
    const CtcWeights weights = toy_weights(tied, head);
    CtcWeights product = weights;
    product.prefix_out = at::matmul(head.output_rows(own.vocabulary), weights.prefix_out);
    const Text text(40);
    CtcDraft a(tied, weights, head, {.threads = 1, .kernels = false}),
        b(own, product, head, {.threads = 1, .kernels = false});
    check_follows(a, b, text);
    CHECK_THROWS_AS(CtcDraft(own, weights, head), Error);  // [H, R] where [V, R] is asked for
    tied.prefix_output = HeadOutput::shared;
    CHECK_THROWS_AS(CtcDraft(tied, weights, head), Error);
}

TEST_CASE("CtcDraft: a bottleneck behind the prediction network is a matrix of a product") {
    const TargetHead head = toy_head();
    CtcConfig narrow = toy_config(CtcConditioning::prefix);
    narrow.prefix_output = GENERATE(HeadOutput::own, HeadOutput::target);
    CtcConfig wide = narrow;
    narrow.prefix_bottleneck = 8;
    const CtcWeights weights = toy_weights(narrow, head);
    CtcWeights product = weights;
    product.prefix_out = at::matmul(weights.prefix_out, weights.prefix_narrow);
    product.prefix_narrow = at::Tensor();
    const Text text(40);
    for (const CtcTree tree : {CtcTree::best_first, CtcTree::static_tree}) {
        const CtcDraftOptions options{.tree = tree, .threads = 1, .kernels = false};
        CtcDraft a(narrow, weights, head, options), b(wide, product, head, options);
        check_follows(a, b, text);
    }
    CHECK_THROWS_AS(CtcDraft(wide, weights, head), Error);  // narrower than its config asks for
    narrow.prefix_bottleneck = narrow.prefix_rank + 1;
    CHECK_THROWS_AS(CtcDraft(narrow, weights, head), Error);
    narrow.prefix_bottleneck = -1;
    CHECK_THROWS_AS(CtcDraft(narrow, weights, head), Error);
}

TEST_CASE("CtcDraft does not draft what is too unlikely for its price") {
    const std::vector<Text> texts{Text(20, 1), Text(9, 2), Text(31, 3)};
    Feedback feedback;
    for (std::size_t i = 0; i < texts.size(); ++i)
        feedback.push_back(texts[i].feedback(0, 8, static_cast<SequenceId>(i)));
    const std::vector<double> prices{0.0, 0.1, 0.2,
                                     0.3};  // a tenth of a token for each node: a chance of 0.05 at least
    std::size_t left_out = 0;
    for (const std::size_t batch : {1, 3}) {  // searched by all threads, and one by each
        CtcDraft whole = toy_draft(), priced = toy_draft();
        const auto all = whole.propose(std::span(feedback).first(batch), {40});
        const auto some = priced.propose(std::span(feedback).first(batch), {40, 10.0, prices});
        for (std::size_t i = 0; i < batch; ++i) {
            const auto likely = paths_of(some[i].tree);
            CHECK(likely.size() > 0);
            left_out += all[i].tree.drafted() - likely.size();
            for (const auto& [path, log_psi] : paths_of(all[i].tree))
                if (std::abs(log_psi - std::log(0.05)) > 1e-5)
                    CHECK(likely.contains(path) == (log_psi > std::log(0.05)));
        }
    }
    CHECK(left_out > 0);
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

TEST_CASE("CtcDraft: features of layers, by kernels and tensor operations", "[features]") {
    CtcConfig config = toy_config(CtcConditioning::prefix);
    config.feature_layers = {2, 5};
    config.feature_scale = 0.7;  // of the final features alone
    constexpr std::int64_t H = kToyHidden;
    TargetHead head = toy_head();
    head.feature_layers = 5;
    Text narrow(40);
    const at::Tensor final = narrow.features, second = noise({40, H}, 61, 1.7).to(at::kFloat),
                     fifth = noise({40, H}, 62, 1.7).to(at::kFloat);
    Text wide = narrow;
    wide.features = at::cat({final, second, fifth}, 1);
    const CtcWeights weights = toy_weights(config, head);
    TargetHead shallow = toy_head();
    shallow.feature_layers = 4;
    CHECK_THROWS_AS(CtcDraft(config, weights, shallow), Error);
    for (const bool kernels : {false, true}) {
        INFO("kernels " << kernels);
        const CtcDraftOptions options{.threads = 2, .kernels = kernels};
        CtcDraft a(config, weights, head, options);
        CHECK((a.features() == FeatureRequest{.layers = {2, 5}}));
        (void)one(a, wide.feedback(0, 20));
        const TokenTree stepped = one(a, wide.feedback(20, 33), 40);
        CtcDraft fresh(config, weights, head, options);
        CHECK_THROWS_AS(one(fresh, narrow.feedback(0, 20)), Error);
        Text short_of_one = wide;
        short_of_one.features = wide.features.slice(1, 0, 3 * H - 1);
        CHECK_THROWS_AS(one(fresh, short_of_one.feedback(0, 20)), Error);
        const TokenTree whole = one(fresh, wide.feedback(0, 33), 40);
        for (const std::int64_t column : {H, 2 * H}) {  // each layer matters
            Text changed = wide;
            changed.features = wide.features.clone();
            changed.features.slice(1, column, column + H).neg_();
            CtcDraft other(config, weights, head, options);
            CHECK(!same(one(other, changed.feedback(0, 33), 40), whole));
        }
    }
    CtcDraft reference(config, weights, head, {.threads = 1, .kernels = false}),
        fast(config, weights, head, {.threads = 2, .eight_bits = true});
    check_follows(reference, fast, wide);
    CHECK_THROWS_AS(CtcDraft(config, weights, toy_head()), Error);  // a target without features of layers
}

TEST_CASE("CtcDraft: several decoder layers, by kernels and tensor operations, however rounds cut the text",
          "[layers]") {
    CtcConfig config = toy_config(CtcConditioning::prefix);
    config.layers = 3;
    const TargetHead head = toy_head();
    const CtcWeights weights = toy_weights(config, head);
    REQUIRE(weights.layers.size() == 3);
    const Text text(40);
    for (const bool kernels : {false, true}) {
        INFO("kernels " << kernels);
        const CtcDraftOptions options{.threads = 2, .kernels = kernels};
        CtcDraft at_once(config, weights, head, options), stepped(config, weights, head, options);
        (void)one(stepped, text.feedback(0, 9));
        (void)one(stepped, text.feedback(9, 10));
        const TokenTree whole = one(at_once, text.feedback(0, 33), 40);
        const TokenTree last = one(stepped, text.feedback(10, 33), 40);
        if (kernels) CHECK(same(last, whole));  // a library's products depend on the rows beside them
        for (std::size_t l = 0; l < 3; ++l) {   // each layer matters, and so do its keys of what is committed
            CtcWeights changed = weights;
            changed.layers[l].down = -weights.layers[l].down;
            CtcDraft other(config, changed, head, options);
            CHECK(!same(one(other, text.feedback(0, 33), 40), whole));
            changed = weights;
            changed.layers[l].qkv = weights.layers[l].qkv.clone();
            changed.layers[l].qkv.slice(0, config.heads * config.head_dim).neg_();
            CtcDraft elsewhere(config, changed, head, options);
            CHECK(!same(one(elsewhere, text.feedback(0, 33), 40), whole));
        }
    }
    CtcDraft reference(config, weights, head, {.threads = 1, .kernels = false}),
        fast(config, weights, head, {.threads = 2, .eight_bits = true});
    check_follows(reference, fast, text);
}

TEST_CASE("ctc_context fuses embedding, final feature and features of layers", "[features]") {
    const TargetHead head = toy_head();
    CtcConfig config = toy_config(CtcConditioning::none);
    config.feature_layers = {1, 2, 7};
    config.embedding_scale = 1.3, config.feature_scale = 0.7;
    const CtcWeights weights = toy_weights(config, head);
    REQUIRE(weights.fuse.sizes() == at::IntArrayRef({kToyHidden, 5 * kToyHidden}));
    const at::Tensor features = noise({6, 4 * kToyHidden}, 71, 2).to(at::kFloat);
    const std::vector<TokenId> next{3, 8, 8, 21, 0, 39};
    const CtcContext context = ctc_context(config, weights, make_ctc_tables(config, head, at::kFloat, at::kCPU),
                                           at::tensor(std::vector<std::int64_t>(next.begin(), next.end())), features,
                                           at::arange(6), at::kFloat);
    const at::Tensor input =
        at::cat({head.embed(next) * 1.3, features.slice(1, 0, kToyHidden) * 0.7, features.slice(1, kToyHidden)}, 1);
    // Tokens that the drafter never meets may have rows of zeros; these it does.
    CHECK((context.fused - at::matmul(input, weights.fuse.t())).abs().max().item<double>() < 1e-4);
}

TEST_CASE("CtcDraft: folders keep a drafter, and refuse what does not fit") {
    const test::TemporaryFolder own;
    const std::filesystem::path folder = own.path() / "drafter";
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
    CtcConfig nameless = config;
    nameless.target_fingerprint.clear();
    CHECK_THROWS_AS(CtcDraft(nameless, read_ctc_weights(folder, config), head), Error);
    CtcConfig larger = config;
    larger.intermediate = 64;
    write_ctc_config(folder, larger);
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
    std::ofstream(folder / "config.json") << "{\"kind\": \"ctc\", \"version\": 1}";
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
    std::ofstream(folder / "config.json") << "no json";
    CHECK_THROWS_AS(CtcDraft::load(folder, head), Error);
}
