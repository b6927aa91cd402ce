// Conversations whose texts the target keeps: the same words with and without, whatever is drafted, cut or cancelled.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>

#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "../unit/temporary_folder.hpp"
#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const std::filesystem::path kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

std::vector<TokenId> random_tokens(std::mt19937_64& random, std::int64_t count, TokenId vocabulary) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(count));
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % static_cast<std::uint64_t>(vocabulary));
    return tokens;
}

/// A turn of a conversation: what was said so far and what the user says now.
struct Turn {
    std::vector<TokenId> prompt;
    GenerationOptions options;
};

}  // namespace

TEST_CASE("random conversations say the same with and without kept texts", "[property][conversation]") {
    std::int64_t resumed = 0, prompts = 0;
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
        CAPTURE(seed);
        std::mt19937_64 random(seed);
        const auto pick = [&](std::int64_t low, std::int64_t high) {
            return std::uniform_int_distribution<std::int64_t>(low, high)(random);
        };
        const FakeLaw law{.vocabulary = 14, .order = pick(1, 4), .seed = seed};
        FakeTarget target(law);
        target.keeps_texts = true;
        SpeculativeDecoder decoder{
            RandomDraft{law, seed, 0.6},
            std::ref(target),
            Match{},
            {.nodes = pick(0, 9), .max_batch = static_cast<std::size_t>(pick(1, 5)), .prefill_rows = pick(1, 70)}};
        const std::vector<TokenId> system = random_tokens(random, pick(1, 80), 14);
        std::vector<std::vector<TokenId>> talks(static_cast<std::size_t>(pick(1, 4)), system);
        for (int round = 0; round < 4; ++round) {
            std::map<SequenceId, std::pair<std::size_t, Turn>> turns;
            for (std::size_t t = 0; t < talks.size(); ++t) {
                const std::vector<TokenId> user = random_tokens(random, pick(1, 40), 14);
                talks[t].insert(talks[t].end(), user.begin(), user.end());
                Turn turn{talks[t], {.max_tokens = pick(1, 30), .seed = seed}};
                if (pick(0, 1) == 0) turn.options.temperature = 0.9;
                for (std::int64_t copies = pick(1, 3); copies > 0; --copies) {  // n > 1
                    turn.options.stream = static_cast<std::uint64_t>(copies);
                    const SequenceId id = decoder.join({turn.prompt}, turn.options);
                    turns[id] = {t, turn};
                }
                for (std::int64_t steps = pick(0, 2); steps > 0; --steps) decoder.step();
                if (pick(0, 5) == 0) decoder.cancel(turns.begin()->first);
            }
            decoder.run();
            for (const auto& [id, turn] : turns) {
                const GenerationResult result = decoder.take(id);
                std::vector<TokenId> expected =
                    plain_loop(law, turn.second.prompt, turn.second.options, turn.second.options.max_tokens);
                if (result.finish == FinishReason::cancelled) expected.resize(result.tokens.size());
                REQUIRE(result.tokens == expected);
                REQUIRE(result.prompt == turn.second.prompt);
                resumed += result.stats.resumed, prompts += result.stats.prompt_tokens;
                talks[turn.first] = turn.second.prompt;
                talks[turn.first].insert(talks[turn.first].end(), result.tokens.begin(), result.tokens.end());
            }
        }
        REQUIRE(target.held() == 0);
    }
    CHECK(resumed > prompts / 2);
}

TEST_CASE("requests of one prompt read it once", "[property][conversation]") {
    const FakeLaw law{};
    FakeTarget target(law);
    target.keeps_texts = true;
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 50}};
    std::mt19937_64 random(1);
    const std::vector<TokenId> prompt = random_tokens(random, 1001, 12);
    std::vector<SequenceId> ids;
    for (std::uint64_t n = 0; n < 5; ++n)
        ids.push_back(decoder.join({prompt}, {.max_tokens = 4, .temperature = 1.0, .seed = 1, .stream = n}));
    decoder.run();
    CHECK(target.prefilled == 1000);
    for (std::uint64_t n = 0; n < 5; ++n) {
        const GenerationOptions options{.temperature = 1.0, .seed = 1, .stream = n};
        CHECK(decoder.take(ids[n]).tokens == plain_loop(law, prompt, options, 4));
    }
}

TEST_CASE("a text forks, while it is decoded and after it has ended", "[property][conversation]") {
    const FakeLaw law{};
    FakeTarget target(law);
    target.keeps_texts = true;
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0}};
    const SequenceId first = decoder.join({{1, 2, 3}}, {.max_tokens = 20});
    for (int i = 0; i < 6; ++i) decoder.step();
    const SequenceId early = decoder.fork(first, {}, {.max_tokens = 10});
    decoder.run();
    const std::vector<TokenId> whole = plain_loop(law, {1, 2, 3}, {}, 20);
    const std::vector<TokenId> continued(whole.begin() + 6, whole.begin() + 16);
    const SequenceId late = decoder.fork(first, {{7, 8}}, {.max_tokens = 5});
    decoder.run();
    CHECK(decoder.take(early).tokens == continued);
    std::vector<TokenId> behind{1, 2, 3};
    behind.insert(behind.end(), whole.begin(), whole.end());
    behind.push_back(7), behind.push_back(8);
    const GenerationResult result = decoder.take(late);
    CHECK(result.tokens == plain_loop(law, behind, {}, 5));
    CHECK(result.stats.resumed == 22);
    CHECK(target.prefilled == 2 + 2);  // the first prompt, and what was added; a fork reads nothing again
    CHECK_THROWS_AS(decoder.fork(late, {}), Error);
}

TEST_CASE("the Llama target keeps texts, bit for bit, within its memory", "[property][conversation]") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    std::mt19937_64 random(4);
    const TokenId vocabulary = 280;
    std::int64_t resumed = 0;
    std::size_t most = 0;
    for (const std::size_t bytes : {std::size_t{1} << 16, std::size_t{1} << 18, std::size_t{1} << 26}) {
        LlamaVerifier keeping(model, {.pass_times_file = "", .kept_bytes = bytes});
        SpeculativeDecoder decoder{NgramDraft{}, std::ref(keeping), Match{}, {.nodes = 5, .prefill_rows = 20}};
        std::vector<std::vector<TokenId>> talks(3, random_tokens(random, 40, vocabulary));
        for (int turn = 0; turn < 4; ++turn)
            for (auto& talk : talks) {
                const std::vector<TokenId> user = random_tokens(random, 9, vocabulary);
                talk.insert(talk.end(), user.begin(), user.end());
                const GenerationOptions options{
                    .max_tokens = 20, .temperature = turn % 2 == 0 ? 0.0 : 1.0, .seed = 3, .logprobs = 2};
                const GenerationResult with = decoder.generate({talk}, options);
                SpeculativeDecoder fresh{NoDraft{}, LlamaVerifier(model), Match{}, {.nodes = 0}};
                const GenerationResult without = fresh.generate({talk}, options);
                REQUIRE(with.tokens == without.tokens);
                REQUIRE((with.logprobs == without.logprobs));
                resumed += with.stats.resumed;
                CHECK(keeping.kept().bytes() <= bytes);
                most = std::max(most, keeping.kept().size());
                talk.insert(talk.end(), with.tokens.begin(), with.tokens.end());
            }
        CHECK(keeping.active() == 0);
    }
    CHECK(resumed > 1000);
    CHECK(most >= 3);
}

TEST_CASE("kept texts go along with the features that a drafter reads", "[property][conversation]") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    std::mt19937_64 random(6);
    const std::vector<TokenId> text = random_tokens(random, 70, 280);
    const FeatureRequest all{.wanted = true, .layers = {1}};
    LlamaVerifier keeping(model, {.kept_bytes = 1 << 26}), fresh(model);
    const Prefill first{.sequence = 1, .tokens = std::span(text).first(50), .pending = text[50], .features = all};
    (void)keeping.prefill(std::span(&first, 1));
    for (const FeatureRequest& asked : {all, FeatureRequest{}, FeatureRequest::none()}) {
        for (const SequenceId id : {2, 3}) {  // beside the first, and after it has ended
            const Prefill next{.sequence = id, .tokens = text, .pending = 5, .features = asked};
            const SequenceFeedback told = keeping.resume(next);
            CHECK(told.committed == 50);
            const Prefill alone{
                .sequence = 9, .tokens = std::span(text).first(50), .pending = text[50], .features = asked};
            const at::Tensor features = fresh.prefill(std::span(&alone, 1))[0].features;
            fresh.release(9);
            CHECK(features.defined() == told.features.defined());
            if (features.defined()) CHECK(at::equal(features, told.features));
            keeping.release(id);
            keeping.retire(1);
        }
    }
    const Prefill wider{.sequence = 7, .tokens = text, .pending = 5, .features = {.wanted = true, .layers = {1, 2}}};
    CHECK(keeping.resume(wider).committed == 0);  // what was not noted cannot be handed out
}

namespace {

/// Drafts by the features alone, and notes what it was given.
class FeatureReader final : public DraftModel {
public:
    [[nodiscard]] std::string_view kind() const override { return "reads"; }
    [[nodiscard]] FeatureRequest features() const override { return {.wanted = true, .layers = {1}}; }
    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            if (f.features.size(0) > 0) seen.push_back(f.features.clone());
            TokenTree::Builder tree(f.pending);
            const float read = at::cat(seen).select(0, -1).abs().sum().item<float>();
            if (budget.nodes > 0) (void)tree.add(0, static_cast<TokenId>(std::fmod(read, 280.0F)), 0.0F);
            trees.push_back({f.sequence, std::move(tree).build()});
        }
        return trees;
    }
    std::vector<at::Tensor> seen;
};

}  // namespace

TEST_CASE("a saved text brings the features that a drafter reads", "[property][conversation]") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    std::mt19937_64 random(9);
    const std::vector<TokenId> talk = random_tokens(random, 60, 280);
    const std::filesystem::path folder = std::filesystem::temp_directory_path(),
                                file = folder / "outrider_features_test.safetensors",
                                other = folder / "outrider_features_test_2.safetensors";
    LlamaVerifier writer(model, {.kept_bytes = 1 << 26}), reader(model, {.kept_bytes = 1 << 26});
    FeatureReader fresh, resumed;
    SpeculativeDecoder first{std::ref(fresh), std::ref(writer), {.nodes = 1}};
    SpeculativeDecoder second{std::ref(resumed), std::ref(reader), {.nodes = 1}};
    const GenerationOptions options{.max_tokens = 12, .logprobs = 1};
    const GenerationResult before = first.generate({talk}, options);
    CHECK(writer.save(talk, file) == 60);
    CHECK(reader.load(file) == talk);
    const GenerationResult after = second.generate({talk}, options);
    CHECK(after.stats.resumed == 59);
    CHECK(after.tokens == before.tokens);
    CHECK((after.logprobs == before.logprobs));
    CHECK(after.stats.rounds == before.stats.rounds);
    CHECK(at::equal(at::cat(fresh.seen), at::cat(resumed.seen)));
    const auto rewritten = [&](std::int64_t rows, std::int64_t width, const std::string& layers) {
        const SafeTensors stored = SafeTensors::open(file);
        std::vector<SafeTensorView> views;
        for (const char* name : {"tokens", "slots"}) {
            const SafeTensor& one = stored.tensor(name);
            views.push_back({name, one.dtype, one.shape, one.data});
        }
        const std::vector<float> numbers(static_cast<std::size_t>(rows * width));
        views.push_back({"features", SafeDtype::f32, {rows, width}, std::as_bytes(std::span(numbers))});
        auto metadata = stored.metadata();
        metadata["feature_layers"] = layers;
        write_safetensors(other, views, {metadata.begin(), metadata.end()});
        return other;
    };
    const std::int64_t width = 2 * model.config().hidden;
    CHECK(reader.load(rewritten(60, width, "1")) == talk);
    CHECK_THROWS_AS(reader.load(rewritten(60, width - 2, "1")), Error);
    CHECK_THROWS_AS(reader.load(rewritten(59, width, "1")), Error);
    CHECK_THROWS_AS(reader.load(rewritten(60, width, "99")), Error);
    CHECK_THROWS_AS(reader.load(rewritten(60, 3 * width / 2, "1,1")), Error);
    std::filesystem::remove(file), std::filesystem::remove(other);
}

TEST_CASE("a text is saved and loaded, and damage is told", "[property][conversation]") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    std::mt19937_64 random(8);
    const std::vector<TokenId> talk = random_tokens(random, 60, 280);
    const TemporaryFolder folder;
    const std::filesystem::path file = folder.path() / "text.safetensors";
    const GenerationOptions options{.max_tokens = 12, .logprobs = 1};
    LlamaVerifier writer(model, {.kept_bytes = 1 << 26});
    SpeculativeDecoder first{NoDraft{}, std::ref(writer), {.nodes = 0}};
    CHECK_THROWS_AS(writer.save(talk, file), Error);
    const GenerationResult before = first.generate({talk}, options);
    CHECK(writer.save(talk, file) == 60);
    LlamaVerifier reader(model, {.kept_bytes = 1 << 26});
    CHECK(reader.load(file) == talk);
    SpeculativeDecoder second{NoDraft{}, std::ref(reader), {.nodes = 0}};
    const GenerationResult after = second.generate({talk}, options);
    CHECK(after.stats.resumed == 59);
    CHECK(after.tokens == before.tokens);
    CHECK((after.logprobs == before.logprobs));
    LlamaVerifier wide(LlamaModel::load(kTiny, {.weights = Weights::f32, .threads = 1}), {.kept_bytes = 1 << 26});
    CHECK_THROWS_AS(wide.load(file), Error);
    LlamaVerifier keeps_none(model);
    CHECK_THROWS_AS(keeps_none.load(file), Error);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
    CHECK_THROWS_AS(reader.load(file), Error);
    std::ofstream(file) << "nothing";
    CHECK_THROWS_AS(reader.load(file), Error);
    std::filesystem::remove(file);
    CHECK_THROWS_AS(reader.load(file), Error);
}
