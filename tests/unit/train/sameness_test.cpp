// One plan, one set of weights: repeated or resumed, whatever features are on disk, on both sides of a block's border.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <ATen/Parallel.h>

#include <map>
#include <set>

#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/train/train.hpp>

#include "train/anchor_batches.hpp"
#include "train_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using ContainsSubstringMatcher = Catch::Matchers::StringContainsMatcher;

namespace {

constexpr std::size_t kShard = FeatureStore::kShard;

/// A run of `shards` shards, one of them held out, over answers of six tokens: two anchors each an epoch.
TrainOptions long_text(const fs::path& folder, int shards, std::int64_t epochs) {
    TrainOptions options = toy_options(folder, 0);
    options.data = {toy_text(folder, shards * static_cast<int>(kShard), 0, 6)};
    options.anchors = epochs * 2 * static_cast<std::int64_t>(kShard) * (shards - 1);
    options.batch_anchors = 128, options.overwrite = true;
    return options;
}

MedusaTrainOptions one_head() {
    MedusaTrainOptions options;
    options.heads = 1;
    return options;
}

TrainResult train(const TrainOptions& options) {
    ToyVerifier verifier;
    return train_medusa(options, one_head(), toy_target(&verifier));
}

/// Name to bytes of all weights.
std::map<std::string, std::string> weights_in(const fs::path& folder) {
    std::map<std::string, std::string> all;
    const SafeTensors file = SafeTensors::open(folder / "model.safetensors");
    for (const SafeTensor& tensor : file.tensors())
        all[tensor.name].assign(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    return all;
}

/// Shards of a features folder, in order.
std::vector<fs::path> shards_in(const fs::path& features) {
    std::set<fs::path> all;
    for (const auto& entry : fs::recursive_directory_iterator(features))
        if (entry.path().extension() == ".safetensors") all.insert(entry.path());
    return {all.begin(), all.end()};
}

}  // namespace

TEST_CASE("an epoch's order is a function of seed and epoch; the first comes in blocks, later ones whole") {
    std::vector<Conversation> text(35 * kShard);
    for (Conversation& conversation : text)
        conversation.tokens = {1, 2, 3, 4, 5}, conversation.answer = 2;  // three anchors
    std::vector<std::size_t> shards;
    for (std::size_t shard = 1; shard < 35; ++shard) shards.push_back(shard);
    AnchorSampler sampler(text, shards, 8, 64, 5);
    std::set<std::pair<std::size_t, std::int64_t>> seen;
    std::int64_t groups = 0, late = 0;
    while (sampler.place().epoch < 3) {
        const std::int64_t epoch = sampler.place().epoch, block = sampler.place().block;
        if (block > 0) CHECK(epoch == 0);
        for (const AnchorGroup& group : sampler.next()) {
            if (sampler.place().epoch == 3) break;
            const std::size_t shard = group.conversation / kShard;
            CHECK(shard >= 1);
            if (epoch == 0 && sampler.place().epoch == 0 && block == 0 && sampler.place().block == 0)
                CHECK(shard <= 32);
            if (epoch == 1 && groups < 200) late += shard > 32 ? 1 : 0;  // among the first of the second epoch
            groups = epoch == 1 ? groups + 1 : 0;
            CHECK(seen.insert({group.conversation, group.committed.front()}).second);
        }
    }
    CHECK(seen.size() > 3 * 34 * kShard - 130);
    CHECK(late > 2);
}

TEST_CASE("a run planned by anchors is the same, repeated or with features on disk") {
    const fs::path folder = scratch();
    for (const int shards : {3, 34, 35}) {  // with the one held out: 2, 33 and 34 to train on
        INFO(shards << " shards");
        TrainOptions options = long_text(folder, shards, shards > 3 ? 2 : 4);
        options.features = folder / fmt::format("features-{}", shards);
        options.output = folder / "fresh";
        CHECK(train(options).finished);
        const auto fresh = weights_in(options.output);
        REQUIRE(shards_in(options.features).size() == static_cast<std::size_t>(shards));
        options.output = folder / "again";
        CHECK(train(options).last.feature_tokens == 0);
        CHECK(weights_in(options.output) == fresh);
        fs::remove(shards_in(options.features).back());
        options.output = folder / "one-missing", options.threads = 1;
        CHECK(train(options).last.feature_tokens > 0);
        CHECK(weights_in(options.output) == fresh);
        options.output = folder / "other", options.seed = 4;
        CHECK(train(options).finished);
        CHECK(weights_in(options.output) != fresh);  // the comparison can fail
    }
    fs::remove_all(folder);
}

TEST_CASE("a resumed run is the same, wherever it stopped and whatever is on disk by then") {
    const fs::path folder = scratch();
    TrainOptions options = long_text(folder, 35, 2);
    options.output = folder / "whole", options.features = folder / "whole-features";
    CHECK(train(options).finished);
    const auto whole = weights_in(options.output);
    int number = 0;
    for (const auto& [epoch, block] : {std::pair{0, 0}, {0, 1}, {1, 0}})
        for (const bool complete : {false, true}) {
            INFO("stopped in epoch " << epoch << ", block " << block << (complete ? ", then all features" : ""));
            TrainOptions parts = options;
            parts.output = folder / fmt::format("parts-{}", number);
            parts.features = folder / fmt::format("features-{}", number++);
            // 34 shards of 128 anchors an epoch, 32 of them in the first block.
            const std::int64_t enough = epoch * 34 * 128 + block * 32 * 128 + 100;
            parts.progress = [&](const TrainProgress& line) { return line.anchors < enough; };
            const TrainResult stopped = train(parts);
            CHECK((!stopped.finished && stopped.last.epoch == epoch));
            if (complete) {
                parts.features_only = true, parts.progress = {};
                CHECK(train(parts).finished);
                parts.features_only = false;
            }
            parts.progress = {}, parts.resume = true, parts.overwrite = false;
            CHECK(train(parts).finished);
            CHECK(weights_in(parts.output) == whole);
        }
    fs::remove_all(folder);
}

TEST_CASE("a run over stored features goes on with what it began with") {
    const fs::path folder = scratch();
    TrainOptions options = long_text(folder, 6, 4);
    options.features_only = true, options.report_seconds = 1e6;
    CHECK(train(options).finished);
    const std::vector<fs::path> shards = shards_in(options.features);
    REQUIRE(shards.size() == 6);
    fs::remove(shards[3]), fs::remove(shards[5]);
    options.features_only = false, options.stored_features = true, options.report_seconds = 0;
    options.output = folder / "whole";
    const TrainResult whole = train(options);
    CHECK((whole.finished && whole.last.feature_tokens == 0));
    options.output = folder / "parts";
    options.progress = [](const TrainProgress& line) { return line.step < 3; };
    CHECK_FALSE(train(options).finished);
    TrainOptions features = options;
    features.stored_features = false, features.features_only = true, features.progress = {};
    CHECK(train(features).finished);  // now all of them are there
    options.progress = {}, options.resume = true, options.overwrite = false;
    CHECK(train(options).finished);
    CHECK(weights_in(folder / "parts") == weights_in(folder / "whole"));
    options.resume = false, options.overwrite = true, options.output = folder / "all";
    CHECK(train(options).finished);
    CHECK(weights_in(folder / "all") != weights_in(folder / "whole"));
    fs::remove_all(options.features);
    CHECK_THROWS_WITH(train(options), ContainsSubstring("no features"));
    fs::remove_all(folder);
}

TEST_CASE("a drafter that is there goes only when that was said") {
    const fs::path folder = scratch();
    TrainOptions options = toy_options(folder, 128);
    CHECK(train(options).finished);
    const auto first = weights_in(options.output);
    options.seed = 9;
    CHECK_THROWS_WITH(train(options), ContainsSubstring("holds a drafter already") && ContainsSubstring("resume"));
    for (const char* file : {"config.json", "model.safetensors"}) fs::remove(options.output / file);
    CHECK_THROWS_WITH(train(options), ContainsSubstring("checkpoint.safetensors"));  // of a run that was killed early
    options.features_only = true;
    CHECK(train(options).finished);  // which writes no drafter
    options.features_only = false, options.overwrite = true;
    CHECK(train(options).finished);
    CHECK(weights_in(options.output) != first);
    options.resume = true;
    CHECK_THROWS_WITH(train(options), ContainsSubstring("choose one"));
    options.overwrite = false, options.output = folder / "nowhere";
    CHECK_THROWS_WITH(train(options), ContainsSubstring("no checkpoint"));
    options.resume = false, options.output = options.data.front();
    CHECK_THROWS_WITH(train(options), ContainsSubstring("no folder"));
    fs::remove_all(folder);
}

TEST_CASE("a text that is too small is told as that, by every kind") {
    const fs::path folder = scratch();
    ToyVerifier verifier;
    for (const int rows : {1, 40, 64, 100, 128}) {
        INFO(rows << " conversations");
        TrainOptions options = toy_options(folder, 128);
        options.data = {toy_text(folder, rows)}, options.held_out = 65, options.overwrite = true;  // rounded up: 128
        const ContainsSubstringMatcher says(
            {fmt::format("the text has {} conversations, and {} are held out", rows, rows), Catch::CaseSensitive::Yes});
        CHECK_THROWS_WITH(train_ctc(options, {}, toy_target(&verifier)), says);
        CHECK_THROWS_WITH(train_medusa(options, {}, toy_target(&verifier)), says);
        CHECK_THROWS_WITH(train_hydra(options, {}, toy_target(&verifier)), says);
        options.features_only = true;
        CHECK(train_medusa(options, {}, toy_target(&verifier)).finished);  // features of few texts are features
    }
    TrainOptions limited = toy_options(folder, 128);
    limited.conversations.limit = 64;
    CHECK_THROWS_WITH(train(limited), ContainsSubstring("64 conversations"));
    limited.conversations.limit = 65;
    CHECK(train(limited).finished);
    fs::remove_all(folder);
}

TEST_CASE("what cannot be trained is refused before anything is computed") {
    const fs::path folder = scratch();
    const auto refused = [&](const char* words, auto change) {
        INFO(words);
        TrainOptions options = toy_options(folder, 128);
        change(options);
        CHECK_THROWS_WITH(train(options), ContainsSubstring(words));
    };
    refused("vocabulary", [](TrainOptions& o) { o.vocabulary = -1; });
    refused("learning_rate", [](TrainOptions& o) { o.learning_rate = NAN; });
    refused("ema", [](TrainOptions& o) { o.ema = 1; });
    refused("clip", [](TrainOptions& o) { o.clip = 0; });
    refused("label_decay", [](TrainOptions& o) { o.label_decay = 1.5; });
    refused("batch_anchors", [](TrainOptions& o) { o.batch_anchors = 0; });
    refused("minutes", [](TrainOptions& o) { o.anchors = 0, o.minutes = 0; });
    refused("held-out", [](TrainOptions& o) { o.held_out = 0; });
    refused("threads", [](TrainOptions& o) { o.threads = 5000; });
    refused("choose one", [](TrainOptions& o) { o.features_only = o.stored_features = true; });
    ToyVerifier verifier;
    TrainTarget target = toy_target(&verifier);
    target.name = "mod\xE9l.gguf";
    CHECK_THROWS_WITH(train_medusa(toy_options(folder, 128), {}, target), ContainsSubstring("UTF-8"));
    MedusaTrainOptions heads;
    heads.heads = 16;
    CHECK_THROWS_WITH(train_medusa(toy_options(folder, 128), heads, toy_target(&verifier)), ContainsSubstring("heads"));
    CtcTrainOptions ctc;
    ctc.frames = 65;
    CHECK_THROWS_WITH(train_ctc(toy_options(folder, 128), ctc, toy_target(&verifier)), ContainsSubstring("frames"));
    CHECK(verifier.calls == 0);
    CHECK_FALSE(fs::exists(folder / "features"));
    fs::remove_all(folder);
}

TEST_CASE("training leaves the host's threads as they were") {
    const fs::path folder = scratch();
    const int before = at::get_num_threads();
    at::set_num_threads(3);
    CHECK(train(toy_options(folder, 128)).finished);
    CHECK(at::get_num_threads() == 3);
    at::set_num_threads(before);
    fs::remove_all(folder);
}
