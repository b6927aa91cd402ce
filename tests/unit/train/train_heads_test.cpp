// Whole small trainings of Medusa and Hydra, the labels they learn from, starts from a drafter, and joined texts.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fmt/format.h>

#include <numeric>

#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include "train/feature_store.hpp"
#include <outrider/train/train.hpp>

#include "train/anchor_batches.hpp"
#include "train/head_network.hpp"
#include "train_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

HydraTrainOptions toy_hydra(bool prefix_layer) {
    HydraTrainOptions options;
    options.heads = 3, options.prefix_layer = prefix_layer, options.intermediate = 64;
    return options;
}

/// Moves every weight away from where it starts, which is the target's own output for any input.
template <typename Weights>
Weights stirred(Weights weights) {
    std::uint64_t seed = 400;
    for (auto& [name, weight] : weights.named())
        *weight = *weight + noise(weight->sizes().vec(), ++seed, 0.2).to(at::kFloat);
    return weights;
}

/// Compares the log_q of a draft along the text with what the loss calls the labels' cross-entropy.
struct Agreement {
    std::vector<Conversation> text;
    ToyVerifier verifier;
    FeatureStore store;
    std::vector<TokenId> vocabulary;
    int compared = 0;

    explicit Agreement(const fs::path& folder)
        : text(read_conversations(toy_text(folder, 64), encode)), store(folder, "toy", kToyHidden, text, &verifier) {
        for (TokenId token = 1; token < kToyVocabulary; token += 2) vocabulary.push_back(token);
    }

    /// `logits` of a batch: [K, A, V].
    void check(DraftModel& draft, std::int64_t heads, const std::function<at::Tensor(const AnchorBatch&)>& logits) {
        std::vector<std::int32_t> column(static_cast<std::size_t>(kToyVocabulary), -1);
        for (std::size_t i = 0; i < vocabulary.size(); ++i)
            column[static_cast<std::size_t>(vocabulary[i])] = static_cast<std::int32_t>(i);
        ThreadTeam team(1);
        for (const std::int64_t n : {4, 9, 17}) {
            const std::vector<AnchorGroup> group{{5, {n}}};
            const AnchorBatch batch =
                make_anchor_batch(group, text, store, column, {.labels = heads, .prefixes = heads});
            LossStats stats;
            (void)label_loss({logits(batch), batch.labels, {}},
                             {std::vector<double>(static_cast<std::size_t>(heads), 1.0), 0.0}, stats, team);
            const Conversation& c = text[5];
            const SequenceFeedback feedback{n,
                                            {c.tokens.begin(), c.tokens.begin() + n},
                                            store.features(5).slice(0, 0, n).to(at::kFloat),
                                            c.tokens[static_cast<std::size_t>(n)],
                                            n};
            const TokenTree tree = draft.propose(std::span(&feedback, 1), {420}).at(0).tree;
            NodeIndex node = 0;
            for (std::int64_t k = 1; k <= heads; ++k) {
                node = tree.child(node, c.tokens[static_cast<std::size_t>(n + k)]);
                if (node == kNoNode) break;  // not among the most probable
                ++compared;
                CHECK(tree.log_q()[static_cast<std::size_t>(node)] ==
                      Catch::Approx(-stats.nll[static_cast<std::size_t>(k - 1)]).margin(2e-4));
            }
        }
    }
};

/// All numbers of a checkpoint.
void check_same(const fs::path& one, const fs::path& other) {
    const SafeTensors a = SafeTensors::open(one / "checkpoint.safetensors"),
                      b = SafeTensors::open(other / "checkpoint.safetensors");
    REQUIRE(a.tensors().size() == b.tensors().size());
    for (const SafeTensor& tensor : a.tensors()) {
        INFO(tensor.name);
        CHECK(std::ranges::equal(tensor.data, b.tensor(tensor.name).data));
    }
}

}  // namespace

TEST_CASE("make_anchor_batch: labels that end or are left out, features at the labels") {
    const fs::path folder = scratch();
    const auto text = read_conversations(toy_text(folder, 64), encode);
    ToyVerifier verifier;
    FeatureStore store(folder, "toy", kToyHidden, text, &verifier);
    const std::vector<TokenId>& tokens = text[2].tokens;
    const auto length = static_cast<std::int64_t>(tokens.size());
    // A draft vocabulary without the second label of the first anchor.
    const auto token = [&](std::int64_t i) { return tokens[static_cast<std::size_t>(i)]; };
    std::int64_t n = text[2].answer;
    while (token(n + 1) == token(n + 2) || token(n + 2) == token(n + 3)) ++n;
    REQUIRE(n + 3 < length);
    std::vector<std::int32_t> column(static_cast<std::size_t>(kToyVocabulary), 1);
    column[static_cast<std::size_t>(token(n + 2))] = -1;
    const std::vector<AnchorGroup> group{{2, {n, length - 2}}};
    const AnchorBatch ends = make_anchor_batch(group, text, store, column, {.labels = 3}),
                      left_out = make_anchor_batch(group, text, store, column,
                                                   {.labels = 3, .label_ends = false, .ahead = true});
    const auto third = [&](const AnchorBatch& batch) { return batch.labels[0][2].item<int>(); };
    CHECK((ends.labels[0][0].item<int>() == 1 && ends.labels[0][1].item<int>() == -1 && third(ends) == -1));
    CHECK((left_out.labels[0][0].item<int>() == 1 && left_out.labels[0][1].item<int>() == -1));
    CHECK(third(left_out) == 1);
    CHECK(left_out.labels[1][1].item<int>() == -1);  // behind the text's end

    CHECK(!ends.ahead.defined());
    REQUIRE(left_out.ahead.sizes() == at::IntArrayRef({3, 2, kToyHidden}));
    for (std::int64_t k = 0; k < 3; ++k) CHECK(at::equal(left_out.ahead[k][0], store.features(2)[n + k]));
    CHECK(at::equal(left_out.ahead[0][1], store.features(2)[length - 2]));
}

TEST_CASE("RankTally counts at which rank the label was") {
    RankTally tally(2);
    const at::Tensor logits = at::tensor({0.1, 0.9, 0.5, 3.0, 2.0, 1.0,   // head 0: two anchors
                                          0.0, 1.0, 2.0, 1.0, 0.0, 2.0},  // head 1
                                         at::kFloat)
                                  .view({2, 2, 3});
    tally.add(logits, at::tensor({2, 0, 0, -1}, at::kInt).view({2, 2}));  // rows: anchors
    const auto shares = tally.shares();
    REQUIRE((shares.size() == 2 && shares[0].size() == RankTally::kRanks));
    CHECK((shares[0][0] == 0.5 && shares[0][1] == 0.5 && shares[0][2] == 0.0));
    CHECK((shares[1][0] == 0.0 && shares[1][1] == 0.0 && shares[1][2] == 1.0));
    CHECK(RankTally(1).shares()[0][0] == 0.0);
}

TEST_CASE("Heads: the draft's probabilities are those of the loss") {
    Agreement agreement(scratch());
    const TargetHead head = toy_head();
    const HeadDraftOptions plain{.threads = 1, .kernels = false};
    {
        MedusaConfig config;
        config.hidden = kToyHidden, config.heads = 2, config.vocabulary = agreement.vocabulary;
        config.target_fingerprint = "toy";
        const MedusaWeights weights = stirred(init_medusa_weights(config, head, 7));
        const TargetTables tables = make_target_tables(head, config.vocabulary, 1.0, at::kFloat, at::kCPU);
        MedusaDraft draft(config, weights, head, plain);
        agreement.check(draft, 2, [&](const AnchorBatch& batch) {
            return medusa_logits(config, weights, tables, batch.features.index_select(0, batch.row), at::kFloat);
        });
    }
    for (const bool prefix_layer : {false, true}) {
        HydraConfig config;
        config.hidden = kToyHidden, config.heads = 2, config.vocabulary = agreement.vocabulary;
        config.target_fingerprint = "toy", config.prefix_layer = prefix_layer;
        config.embedding_scale = 1.5, config.feature_scale = 0.5;
        if (prefix_layer)
            config.attention_heads = 2, config.kv_heads = 1, config.head_dim = 16, config.intermediate = 48;
        const HydraWeights weights = stirred(init_hydra_weights(config, head, 7));
        const TargetTables tables =
            make_target_tables(head, config.vocabulary, config.embedding_scale, at::kFloat, at::kCPU);
        HydraDraft draft(config, weights, head, plain);
        agreement.check(draft, 2, [&](const AnchorBatch& batch) {
            std::vector<ContextGroup> groups;
            if (prefix_layer) {
                const LayerContext context =
                    hydra_context(config, weights, batch.features, batch.positions, at::kFloat);
                groups = context_groups(batch, context.keys, context.values);
            }
            const at::Tensor ground = hydra_ground(config, weights, batch.features.index_select(0, batch.row),
                                                   batch.committed, groups, at::kFloat);
            return hydra_logits(config, weights, tables, ground, batch.last, at::kFloat);
        });
    }
    CHECK(agreement.compared >= 12);
}

TEST_CASE("train_medusa learns what independent heads can, with every kind of output and with a teacher") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    for (const HeadOutput output : {HeadOutput::own, HeadOutput::shared, HeadOutput::target}) {
        TrainOptions options = toy_options(folder, 6000);
        options.output = folder / fmt::format("drafter-{}", static_cast<int>(output));
        MedusaTrainOptions medusa;
        medusa.heads = 2, medusa.output = output, medusa.teacher = output == HeadOutput::own ? 0.5 : 0.0;
        double first = 0;
        options.progress = [&](const TrainProgress& line) { return first = line.step == 1 ? line.loss : first, true; };
        const TrainResult result = train_medusa(options, medusa, toy_target(&verifier));
        INFO("output " << static_cast<int>(output));
        CHECK(result.finished);
        CHECK(result.last.loss_by_label.size() == 2);
        CHECK(result.last.loss < 0.75 * first);
        CHECK(result.last.held_out_loss.has_value());
        CHECK(result.last.held_out_beta.value_or(0.0) > 1.0);
        const MedusaConfig config = read_medusa_config(options.output);
        CHECK((config.heads == 2 && config.output == output));
        CHECK(config.target_fingerprint == "toy");
        CHECK(nlohmann::json::parse(config.training).at("anchors") == result.last.anchors);
        CHECK(read_medusa_weights(options.output, config).heads.size() == 2);
        REQUIRE(config.accuracies.size() == 2);
        const std::vector<double>& shares = config.accuracies[0];
        CHECK(std::accumulate(shares.begin(), shares.end(), 0.0) == Catch::Approx(1.0));  // fewer columns than ranks
        CHECK(shares[0] > 0.1);                                                           // chance is 1 in 20
    }
    fs::remove_all(folder);
}

TEST_CASE("train_hydra: heads see the tokens before theirs, the prefix layer sees the text") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    std::vector<double> with, without;
    for (const bool prefix_layer : {false, true}) {
        TrainOptions options = toy_options(folder, 8000);
        options.output = folder / (prefix_layer ? "with" : "without");
        const TrainResult result = train_hydra(options, toy_hydra(prefix_layer), toy_target(&verifier));
        (prefix_layer ? with : without) = result.last.loss_by_label;
        const HydraConfig config = read_hydra_config(options.output);
        CHECK(config.prefix_layer == prefix_layer);
        CHECK(config.embedding_scale != 1.0);
        REQUIRE(config.accuracies.size() == 3);
        CHECK(config.accuracies[1][0] > 0.5);  // head 1 is told what it needs to know
        CHECK(result.last.held_out_beta.value_or(0.0) > (prefix_layer ? 2.0 : 1.2));
        CHECK(config.prefix_layer == read_hydra_weights(options.output, config).prefix.qkv.defined());
    }
    // The next token is a function of the last two. Head 0 knows one of them from its feature and the other from the
    // prefix layer only; head 1 is told both.
    CHECK(without[1] < 0.6 * without[0]);
    CHECK(with[0] < 0.7 * without[0]);

    // A run that was stopped ends with the very same weights.
    TrainOptions parts = toy_options(folder, 8000);
    parts.output = folder / "parts";
    parts.progress = [](const TrainProgress& line) { return line.step != 30; };
    CHECK(!train_hydra(parts, toy_hydra(true), toy_target(nullptr)).finished);
    parts.resume = true;
    CHECK(train_hydra(parts, toy_hydra(true), toy_target(nullptr)).finished);
    check_same(folder / "with", folder / "parts");

    // This teacher's distribution has nothing to do with the text (its rows are noise): heads that follow it alone end
    // further from the text than heads that follow the text.
    HydraTrainOptions taught = toy_hydra(true);
    taught.teacher = 1.0;
    TrainOptions options = toy_options(folder, 1280);
    const double by_text = train_hydra(options, toy_hydra(true), toy_target(nullptr)).last.loss;
    options.overwrite = true;
    const double by_teacher = train_hydra(options, taught, toy_target(nullptr)).last.loss;
    CHECK(by_teacher > by_text + 0.5);
    CHECK_THROWS_AS(train_hydra(options, {.heads = 16}, toy_target(nullptr)), Error);
    fs::remove_all(folder);
}

TEST_CASE("A run may start from a drafter: its weights, vocabulary and scales") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    MedusaTrainOptions medusa{.heads = 2};
    TrainOptions first = toy_options(folder, 6000);
    first.vocabulary = 12;
    const TrainResult before = train_medusa(first, medusa, toy_target(&verifier));

    TrainOptions options = toy_options(folder, 128);
    options.output = folder / "second", options.from = first.output;
    std::vector<double> losses;
    options.progress = [&](const TrainProgress& line) { return losses.push_back(line.loss), true; };
    const TrainResult after = train_medusa(options, medusa, toy_target(nullptr));
    CHECK(losses.front() < before.last.loss + 0.3);
    CHECK(after.last.anchors < 256);  // a schedule of its own
    const MedusaConfig one = read_medusa_config(first.output), two = read_medusa_config(options.output);
    CHECK(one.vocabulary.size() == 12);
    CHECK(two.vocabulary == one.vocabulary);
    const auto record = nlohmann::json::parse(two.training);
    CHECK(record.at("from").at("anchors") == before.last.anchors);

    // Going on with it needs the first drafter no more, and keeps what is known of it.
    options.from.clear(), options.resume = true, options.anchors = 256;
    (void)train_medusa(options, medusa, toy_target(nullptr));
    CHECK(nlohmann::json::parse(read_medusa_config(options.output).training).at("from") == record.at("from"));

    options.resume = false, options.from = first.output, options.output = folder / "third";
    CHECK_THROWS_WITH(train_medusa(options, {.heads = 3}, toy_target(nullptr)),
                      ContainsSubstring("draft heads 3") && ContainsSubstring("has 2"));
    CHECK_THROWS_WITH(train_ctc(options, {}, toy_target(nullptr)), ContainsSubstring("\"ctc\""));
    TrainTarget other = toy_target(nullptr);
    other.head.fingerprint = "another";
    options.features = folder / "other features";
    CHECK_THROWS_WITH(train_medusa(options, medusa, {other.head, &verifier, "other", encode}),
                      ContainsSubstring("belongs to target toy"));
    fs::remove_all(folder);
}

TEST_CASE("Several texts are one set, and each keeps its own features") {
    const fs::path folder = scratch();
    const std::vector<fs::path> both{toy_text(folder, 160), toy_text(folder, 100, 160)};
    const auto joined = read_conversations(both, encode);
    REQUIRE(joined.size() == 260);
    for (std::size_t text = 0; text < 2; ++text) {
        const auto alone = read_conversations(both[text], encode);
        std::size_t at = 0;
        for (const Conversation& c : joined)
            if (c.text == text) CHECK(c.tokens == alone[at++].tokens);
        CHECK(at == alone.size());
        CHECK(hash_of(joined, text) == hash_of(alone));
    }
    // Mixed, not one behind the other: a first part is a sample of all.
    const auto second = std::count_if(joined.begin(), joined.begin() + 64, [](const auto& c) { return c.text == 1; });
    CHECK((second > 10 && second < 54));
    CHECK_THROWS_WITH(read_conversations(std::vector<fs::path>{both[0], both[0]}, encode), ContainsSubstring("twice"));

    // Trained on the first text alone, with a limit: its features are those of the whole file.
    ToyVerifier verifier;
    const MedusaTrainOptions medusa{.heads = 2};
    TrainOptions options = toy_options(folder, 64);
    options.conversations.limit = 128;
    (void)train_medusa(options, medusa, toy_target(&verifier));
    options.conversations.limit = 0, options.anchors = 640, options.overwrite = true;
    (void)train_medusa(options, medusa, toy_target(&verifier));
    CHECK(verifier.calls == 160);

    // With the second one they are found again, and only its own are computed, or left out.
    options.data = both, options.stored_features = true, options.output = folder / "stored";
    (void)train_medusa(options, medusa, toy_target(nullptr));
    const auto trained = [&] {
        return nlohmann::json::parse(read_medusa_config(options.output).training).at("conversations").get<int>();
    };
    CHECK((trained() > 100 && trained() < 160));
    options.stored_features = false;
    (void)train_medusa(options, medusa, toy_target(&verifier));
    CHECK(verifier.calls == 260);
    CHECK(trained() == 260 - 64);
    fs::remove_all(folder);
}
