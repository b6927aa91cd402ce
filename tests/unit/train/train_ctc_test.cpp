// A whole small training: data, features, steps, checkpoints, and agreement of training with inference.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include "train/ctc_loss.hpp"
#include "train/feature_store.hpp"
#include <outrider/train/detail/teacher_forcing.hpp>
#include <outrider/train/distill.hpp>
#include <outrider/train/train.hpp>

#include "train/anchor_batches.hpp"
#include "train_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

CtcTrainOptions toy_ctc() {
    CtcTrainOptions options;
    options.frames = 4, options.labels = 3, options.prefix_rank = 16, options.intermediate = 64;
    return options;
}

}  // namespace

TEST_CASE("train_ctc starts with frames that say what the target said, whatever the prefix") {
    const TargetHead head = toy_head();
    CtcConfig config = toy_config(CtcConditioning::prefix);
    config.prefix_output = GENERATE(HeadOutput::own, HeadOutput::target);
    config.prefix_bottleneck = GENERATE(0, 8);
    config.feature_layers = {1}, config.feature_scale = 0.4;
    const CtcWeights weights = init_ctc_weights(config, head, 3);
    const CtcTables tables = make_ctc_tables(config, head, at::kFloat, at::kCPU);
    const at::Tensor features = noise({5, 2 * kToyHidden}, 31, 2).to(at::kFloat),
                     final = features.slice(1, 0, kToyHidden);
    const at::Tensor tokens = at::arange(5, at::kLong), positions = at::arange(5, at::kLong);
    const CtcContext context = ctc_context(config, weights, tables, tokens, features, positions, at::kFloat);
    const CtcFrameScores frames =
        ctc_frames(config, weights, tables, context.fused.slice(0, 4), at::full({1}, 5, at::kLong),
                   {{{context.layers[0].keys, context.layers[0].values, 1}}}, at::kFloat);
    // Queries tell the frames apart; without them each of these is the target's own scores, up to the norm's scale.
    CtcWeights unasked = weights;
    unasked.queries = at::zeros_like(weights.queries);
    const CtcFrameScores same =
        ctc_frames(config, unasked, tables, context.fused.slice(0, 4), at::full({1}, 5, at::kLong),
                   {{{context.layers[0].keys, context.layers[0].values, 1}}}, at::kFloat);
    const at::Tensor last = final[4] / final[4].pow(2).mean().sqrt() / config.feature_scale;
    for (std::int64_t t = 0; t < config.frames; ++t)
        CHECK(at::allclose(same.logits[t], at::mv(tables.output, last), 1e-3, 1e-3));
    CHECK(!at::allclose(frames.logits[0], frames.logits[1], 1e-3, 1e-3));
    const at::Tensor prefix = ctc_prefix_scores(config, weights, tables, tokens.view({1, 5}), tokens.view({1, 5}),
                                                features.slice(0, 4), at::kFloat);
    CHECK(prefix.abs().max().item<float>() == 0.0F);
}

TEST_CASE("train_ctc: the draft's probabilities are those of the loss") {
    const TargetHead head = toy_head();
    CtcConfig config = toy_config(CtcConditioning::prefix);
    config.prefix_output = GENERATE(HeadOutput::own, HeadOutput::target);
    config.prefix_bottleneck = GENERATE(0, 8);
    const CtcWeights weights = toy_weights(config, head);
    const fs::path folder = scratch();
    const auto text = read_conversations(toy_text(folder, 64), encode);
    ToyVerifier verifier;
    FeatureStore store(folder, "toy", kToyHidden, text, &verifier);
    std::vector<std::int32_t> column(static_cast<std::size_t>(kToyVocabulary), -1);
    for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
        column[static_cast<std::size_t>(config.vocabulary[i])] = static_cast<std::int32_t>(i);
    ThreadTeam team(1);
    CtcDraft draft(config, weights, head, {.threads = 1, .kernels = false});
    const CtcTables tables = make_ctc_tables(config, head, at::kFloat, at::kCPU);
    int compared = 0;
    for (const std::int64_t n : {4, 9, 17}) {
        const std::vector<AnchorGroup> group{{5, {n}}};
        const AnchorBatch batch = make_anchor_batch(group, text, store, column, {3, 3});
        const CtcContext context =
            ctc_context(config, weights, tables, batch.next, batch.features, batch.positions, at::kFloat);
        const CtcFrameScores frames =
            ctc_frames(config, weights, tables, context.fused.index_select(0, batch.row), batch.committed,
                       {{{context.layers[0].keys, context.layers[0].values, 1}}}, at::kFloat);
        const at::Tensor prefix = ctc_prefix_scores(config, weights, tables, batch.last, batch.last_but_one,
                                                    batch.features.index_select(0, batch.row), at::kFloat);
        LossStats stats;
        (void)ctc_loss({frames.logits, frames.gate, prefix, batch.labels}, {CtcLossKind::prefix, {1, 1, 1}}, stats,
                       team);

        const Conversation& c = text[5];
        const SequenceFeedback feedback{n,
                                        {c.tokens.begin(), c.tokens.begin() + n},
                                        store.features(5).slice(0, 0, n).to(at::kFloat),
                                        c.tokens[static_cast<std::size_t>(n)],
                                        n};
        const TokenTree tree = draft.propose(std::span(&feedback, 1), {20000}).at(0).tree;
        NodeIndex node = 0;
        for (std::int64_t k = 1; k <= 3; ++k) {
            node = tree.child(node, c.tokens[static_cast<std::size_t>(n + k)]);
            if (node == kNoNode) break;  // not among the most probable
            ++compared;
            CHECK(tree.log_q()[static_cast<std::size_t>(node)] ==
                  Catch::Approx(-stats.nll[static_cast<std::size_t>(k - 1)]).margin(2e-4));
        }
    }
    CHECK(compared >= 6);
}

TEST_CASE("train_ctc learns, resumes exactly, and leaves a drafter") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    TrainOptions untrained = toy_options(folder, 64);
    untrained.output = folder / "untrained";
    const TrainResult start = train_ctc(untrained, toy_ctc(), toy_target(&verifier));
    REQUIRE(start.last.held_out_beta.has_value());
    CHECK(*start.last.held_out_beta < 2.0);

    TrainOptions options = toy_options(folder, 24000);
    std::vector<TrainProgress> lines;
    options.progress = [&](const TrainProgress& line) { return lines.push_back(line), true; };
    const TrainResult whole = train_ctc(options, toy_ctc(), toy_target(&verifier));
    CHECK(whole.finished);
    CHECK(whole.last.anchors >= 24000);
    CHECK(whole.last.loss < 0.5 * lines.front().loss);
    REQUIRE(whole.last.held_out_beta.has_value());
    CHECK(*whole.last.held_out_beta > 2.5);  // the text follows a rule, which held-out text follows too
    CHECK(whole.last.skipped_steps == 0);

    CtcDraft drafter = CtcDraft::load(options.output, toy_head(), {.threads = 1});
    CHECK(nlohmann::json::parse(drafter.config().training).at("anchors") == whole.last.anchors);

    // A shorter run, whole and stopped twice.
    TrainOptions parts = toy_options(folder, 7000);
    parts.output = folder / "whole";
    CHECK(train_ctc(parts, toy_ctc(), toy_target(nullptr)).finished);
    parts.output = folder / "parts";
    parts.progress = [](const TrainProgress& line) { return line.step != 40 && line.step != 90; };
    CHECK(!train_ctc(parts, toy_ctc(), toy_target(nullptr)).finished);
    parts.resume = true;
    CHECK(!train_ctc(parts, toy_ctc(), toy_target(nullptr)).finished);
    CHECK(train_ctc(parts, toy_ctc(), toy_target(nullptr)).finished);
    const TrainResult again = train_ctc(parts, toy_ctc(), toy_target(nullptr));  // nothing is left to do
    CHECK((again.finished && again.last.anchors >= 7000));
    const SafeTensors a = SafeTensors::open(folder / "whole/checkpoint.safetensors"),
                      b = SafeTensors::open(parts.output / "checkpoint.safetensors");
    for (const SafeTensor& tensor : a.tensors()) {
        INFO(tensor.name);
        CHECK(std::ranges::equal(tensor.data, b.tensor(tensor.name).data));
    }
    CtcTrainOptions shared = toy_ctc();
    shared.output = HeadOutput::shared;
    CHECK_THROWS_AS(train_ctc(parts, shared, toy_target(nullptr)), Error);
    CtcTrainOptions narrow = toy_ctc();
    narrow.prefix_rank = 8;
    CHECK_THROWS_WITH(train_ctc(parts, narrow, toy_target(nullptr)),
                      ContainsSubstring("prefix rank 8") && ContainsSubstring("has 16"));
    fs::remove_all(folder);
}

TEST_CASE("train_ctc learns from features of layers what final features do not tell", "[features]") {
    const fs::path folder = scratch();
    LayeredVerifier verifier;
    const TrainTarget target{verifier.head(), &verifier, "toy target", encode},
        absent{verifier.head(), nullptr, "toy target", encode};
    TrainOptions options = toy_options(folder, 2500);
    options.output = folder / "blind";
    CtcTrainOptions ctc = toy_ctc();
    ctc.conditioning = CtcConditioning::none;
    const TrainResult blind = train_ctc(options, ctc, target);
    options.output = folder / "seeing";
    ctc.feature_layers = {2, 3};
    // Held-out beta is measured with a drafter that reads the stored columns, not the target's.
    const TrainResult seeing = train_ctc(options, ctc, target);
    CHECK(*seeing.last.held_out_loss < 0.9 * *blind.last.held_out_loss);
    CHECK(*seeing.last.held_out_beta > *blind.last.held_out_beta + 0.1);
    CHECK(read_ctc_config(options.output).feature_layers == ctc.feature_layers);
    CHECK(read_ctc_config(folder / "blind").feature_layers.empty());
    CHECK(read_ctc_config(options.output).feature_scale == read_ctc_config(folder / "blind").feature_scale);

    TrainOptions parts = options;
    parts.output = folder / "parts";
    parts.progress = [](const TrainProgress& line) { return line.step != 20; };
    CHECK(!train_ctc(parts, ctc, absent).finished);
    parts.resume = true;
    CtcTrainOptions other = ctc;
    other.feature_layers = {3};
    CHECK_THROWS_WITH(train_ctc(parts, other, target), ContainsSubstring("layers 3,") && ContainsSubstring("has 2, 3"));
    CHECK(train_ctc(parts, ctc, absent).finished);
    CHECK(std::ranges::equal(SafeTensors::open(folder / "seeing/model.safetensors").tensor("fuse").data,
                             SafeTensors::open(folder / "parts/model.safetensors").tensor("fuse").data));
    options.overwrite = true;
    for (const auto& wrong : std::vector<std::vector<std::int64_t>>{{3, 2}, {2, 2}, {0, 3}, {2, 9}}) {
        other.feature_layers = wrong;
        CHECK_THROWS_AS(train_ctc(options, other, target), Error);
    }
    CHECK_THROWS_WITH(train_ctc(toy_options(folder, 64), ctc, toy_target(&verifier)), ContainsSubstring("layers 2, 3"));
    fs::remove_all(folder);
}

TEST_CASE("train_ctc trains every decoder layer, and goes on with them", "[layers]") {
    const fs::path folder = scratch();
    TrainOptions options = toy_options(folder, 600);
    options.output = folder / "deep";
    CtcTrainOptions ctc = toy_ctc();
    ctc.layers = 2;
    ToyVerifier verifier;
    const TrainResult deep = train_ctc(options, ctc, toy_target(&verifier));
    CHECK(deep.finished);
    const CtcConfig config = read_ctc_config(options.output);
    CHECK(config.layers == 2);
    const CtcWeights trained = read_ctc_weights(options.output, config),
                     start = init_ctc_weights(config, toy_target(&verifier).head, options.seed);
    REQUIRE(trained.layers.size() == 2);
    for (std::size_t l = 0; l < 2; ++l) {
        CHECK((trained.layers[l].qkv - start.layers[l].qkv).abs().max().item<double>() > 1e-3);
        CHECK((trained.layers[l].down - start.layers[l].down).abs().max().item<double>() > 1e-3);
    }
    options.resume = true;
    ctc.layers = 1;
    CHECK_THROWS_WITH(train_ctc(options, ctc, toy_target(&verifier)), ContainsSubstring("layers"));
    fs::remove_all(folder);
}

TEST_CASE("train_ctc: a start with fewer layers is the same function before the first step", "[features]") {
    const fs::path folder = scratch();
    LayeredVerifier verifier;
    const TrainTarget target{verifier.head(), &verifier, "toy target", encode};
    const auto text = read_conversations(toy_text(folder, 160), encode);
    constexpr std::int64_t H = kToyHidden;
    CtcTrainOptions ctc = toy_ctc();
    const auto train = [&](const char* output, std::vector<std::int64_t> layers, const char* from) {
        TrainOptions options = toy_options(folder, from != nullptr ? 64 : 1000);
        options.output = folder / output;
        if (from != nullptr) options.from = folder / from, options.learning_rate = 0;  // no step moves a weight
        ctc.feature_layers = std::move(layers);
        (void)train_ctc(options, ctc, target);
        return read_ctc_weights(options.output, read_ctc_config(options.output)).fuse;
    };
    const at::Tensor zeros = at::zeros({H, H});
    const at::Tensor plain = train("plain", {}, nullptr), two = train("two", {3}, nullptr);
    CHECK(at::equal(train("same", {3}, "two"), two));
    CHECK(at::equal(train("plain+", {2, 3}, "plain"), at::cat({plain, zeros, zeros}, 1)));
    CHECK(at::equal(train("two+", {2, 3, 5}, "two"),
                    at::cat({two.slice(1, 0, 2 * H), zeros, two.slice(1, 2 * H), zeros}, 1)));
    CHECK_THROWS_WITH(train("no", {2, 5}, "two"), ContainsSubstring("layers 2, 5") && ContainsSubstring("has 3"));
    CHECK_THROWS_WITH(train("no", {}, "two"), ContainsSubstring("layers none"));

    const TargetHead head = verifier.head();
    for (const auto& [from, to] : {std::pair{"plain", "plain+"}, std::pair{"two", "two+"}}) {
        INFO(to);
        CtcDraft before = CtcDraft::load(folder / from, head, {.threads = 1, .kernels = false}),
                 after = CtcDraft::load(folder / to, head, {.threads = 1, .kernels = false});
        const auto paths = [&](CtcDraft& draft) {
            const Prefill prompt{.sequence = 1, .tokens = text[3].tokens, .pending = 5, .features = draft.features()};
            return paths_of(draft.propose(verifier.prefill(std::span(&prompt, 1)), {12}).at(0).tree);
        };
        const auto a = paths(before), b = paths(after);
        REQUIRE(a.size() == 12);
        for (const auto& [path, log_psi] : a) {
            REQUIRE(b.contains(path));
            CHECK(b.at(path) == Catch::Approx(log_psi).margin(1e-4));
        }
    }
    fs::remove_all(folder);
}

TEST_CASE("train_ctc: a start without a bottleneck gets one that loses as little as it can", "[bottleneck]") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    const TargetHead head = toy_head();
    CtcTrainOptions ctc = toy_ctc();
    ctc.output = GENERATE(HeadOutput::own, HeadOutput::target);
    const auto train = [&](const char* output, std::int64_t bottleneck, const char* from) {
        TrainOptions options = toy_options(folder, from != nullptr ? 64 : 3000);
        options.output = folder / output, options.overwrite = true;
        if (from != nullptr) options.from = folder / from, options.learning_rate = 0;  // no step moves a weight
        ctc.prefix_bottleneck = bottleneck;
        (void)train_ctc(options, ctc, toy_target(&verifier));
        const CtcConfig config = read_ctc_config(options.output);
        CHECK(config.prefix_bottleneck == (bottleneck < ctc.prefix_rank ? bottleneck : 0));
        const CtcWeights weights = read_ctc_weights(options.output, config);
        const at::Tensor p =
            config.prefix_bottleneck > 0 ? at::matmul(weights.prefix_out, weights.prefix_narrow) : weights.prefix_out;
        return ctc.output == HeadOutput::own ? p : at::matmul(head.output_rows(config.vocabulary), p);
    };
    const at::Tensor whole = train("whole", 0, nullptr);
    CHECK(at::equal(train("no narrower", 16, "whole"), whole));
    const at::Tensor values = at::linalg_svdvals(whole.to(at::kDouble));
    for (const std::int64_t r : {3, 9}) {
        const at::Tensor narrow = train(r == 3 ? "3" : "9", r, "whole");
        const double lost = (whole - narrow).norm().item<double>(), least = values.slice(0, r).norm().item<double>();
        INFO("rank " << r << ": " << lost << " of " << whole.norm().item<double>());
        CHECK(least > 0.02 * whole.norm().item<double>());                // else any projection would do
        CHECK(lost < 1.02 * least + 0.01 * whole.norm().item<double>());  // stored as bfloat16
    }
    CHECK(at::equal(train("3 again", 3, "3"), train("3", 3, "whole")));
    CHECK_THROWS_WITH(train("no", 4, "3"), ContainsSubstring("bottleneck 4") && ContainsSubstring("has 3"));
    CHECK_THROWS_WITH(train("no", 0, "3"), ContainsSubstring("bottleneck 0"));
    fs::remove_all(folder);
}

TEST_CASE("train_ctc: the paper's objective and plain frames learn too") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    TrainOptions options = toy_options(folder, 12000);
    CtcTrainOptions paper = toy_ctc();
    paper.loss = CtcLossKind::ctc, paper.conditioning = CtcConditioning::none;
    double first = 0;
    options.progress = [&](const TrainProgress& line) {
        if (line.step == 1) first = line.loss;
        return true;
    };
    const TrainResult result = train_ctc(options, paper, toy_target(&verifier));
    CHECK(result.last.loss < 0.7 * first);
    CHECK(CtcDraft::load(options.output, toy_head(), {.threads = 1}).config().conditioning == CtcConditioning::none);
    fs::remove_all(folder);
}

TEST_CASE("teacher_forced_rounds counts what a decoder would") {
    /// Drafts the next `right` tokens of the text and a wrong one.
    struct Knowing final : DraftModel {
        std::vector<TokenId> text;
        std::int64_t right = 2, forgotten = 0;
        std::string_view kind() const override { return "knowing"; }
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
            std::vector<SequenceTree> trees;
            for (const SequenceFeedback& it : feedback) {
                CHECK(it.pending == text[static_cast<std::size_t>(it.committed)]);
                TokenTree::Builder builder(it.pending);
                NodeIndex node = 0;
                for (std::int64_t k = 1; k <= right && it.committed + k < static_cast<std::int64_t>(text.size()); ++k)
                    node = builder.add(node, text[static_cast<std::size_t>(it.committed + k)], 0.0F);
                builder.add(node, 0, -1.0F);
                trees.push_back({it.sequence, std::move(builder).build()});
            }
            return trees;
        }
        void forget(SequenceId) override { ++forgotten; }
    } draft;
    draft.text = {5, 6, 7, 8, 9, 10, 11, 12};  // prompt of two, six to emit
    const std::vector<TeacherText> texts{{draft.text, 2, at::zeros({8, 4})}};
    const DecodeStats stats = teacher_forced_rounds(draft, texts, 16);
    CHECK(stats.tokens == 6);
    CHECK(stats.rounds == 2);
    CHECK(stats.accepted == 4);
    CHECK(stats.beta() == 3.0);
    CHECK(stats.accepted_per_depth == std::vector<std::int64_t>{2, 2, 0});
    CHECK(draft.forgotten == 1);
}
