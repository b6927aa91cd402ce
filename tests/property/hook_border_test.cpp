// Logit hooks at the borders of a text: what a draft leads to beyond an end is never asked, and where a hook fails, the
// text before is the same as without drafts.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <memory>
#include <random>
#include <string>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Token t is two letters, so that stop strings cross the borders of tokens.
class Letters final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return {static_cast<char>('a' + token % 3), static_cast<char>('a' + token / 3 % 3)};
    }
};

std::string text_of(std::span<const TokenId> tokens) {
    std::string text;
    for (const TokenId token : tokens) text += Letters{}.bytes(token);
    return text;
}

struct Border {
    std::vector<TokenId> prompt;
    GenerationOptions options;
    std::int64_t fails_at = -1;  ///< the hook throws when it is asked for this token of the answer
    std::int64_t asked_behind_end = 0;
};

/// A hook as grammar engines are: it knows nothing of what follows an end.
LogitHook strict_hook(Border& border) {
    return [&border](std::span<const TokenId> text, std::span<float> logits) {
        const std::span<const TokenId> answer = text.subspan(border.prompt.size());
        const bool ended = std::ranges::any_of(answer, [&](TokenId token) {
            return std::ranges::find(border.options.end_ids, token) != border.options.end_ids.end();
        });
        const std::string words = text_of(answer);
        const bool stopped = std::ranges::any_of(
            border.options.stop, [&](const std::string& stop) { return words.find(stop) != std::string::npos; });
        if (ended || stopped) {
            ++border.asked_behind_end;
            throw std::logic_error("asked for what follows an end");
        }
        if (std::ssize(answer) == border.fails_at) throw std::runtime_error("no token is allowed here");
        logits[0] -= 0.5F;  // and it has a say
    };
}

GenerationResult decode(const FakeLaw& law, Border& border, std::unique_ptr<DraftModel> draft, std::int64_t nodes) {
    SpeculativeDecoder decoder(std::move(draft), std::make_unique<FakeTarget>(law), DecoderOptions{.nodes = nodes});
    GenerationOptions options = border.options;
    options.logit_hook = strict_hook(border);
    const SequenceId id = decoder.join({border.prompt, {}, std::make_shared<Letters>()}, options);
    try {
        decoder.run();
    } catch (const std::exception&) {
        decoder.run();  // nothing is left
    }
    return decoder.take(id);
}

/// Knows what the target says under the hook's own edit, beyond every end.
std::unique_ptr<OracleDraft> oracle(const FakeLaw& law, const Border& border, std::uint64_t seed, double right) {
    auto draft = std::make_unique<OracleDraft>(law, seed, right, true);
    SamplingOptions sampling = border.options.sampling();
    sampling.logit_hook = [](std::span<const TokenId>, std::span<float> logits) { logits[0] -= 0.5F; };
    draft->asked_of_others = sampling;
    return draft;
}

}  // namespace

TEST_CASE("a hook is never asked what follows an end, and its failure loses no text", "[property][hook]") {
    std::mt19937_64 random(5);
    const auto pick = [&](std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    int stopped = 0, failed = 0;
    std::int64_t saved = 0;
    for (int trial = 0; trial < 400; ++trial) {
        FakeLaw law;
        law.vocabulary = 9, law.order = pick(1, 3), law.levels = 41, law.seed = static_cast<std::uint64_t>(trial);
        Border border;
        for (std::int64_t i = pick(1, 4); i > 0; --i) border.prompt.push_back(static_cast<TokenId>(pick(0, 8)));
        border.options.max_tokens = pick(1, 30);
        border.options.seed = 7;
        if (pick(0, 1) == 0) border.options.temperature = 0.8;
        if (pick(0, 2) > 0) border.options.end_ids = {static_cast<TokenId>(pick(0, 8))};
        if (pick(0, 2) > 0)
            border.options.stop = {text_of(std::vector<TokenId>{static_cast<TokenId>(pick(0, 8))}) + "a"};
        if (pick(0, 2) == 0) border.options.repetition_penalty = 1.3;
        if (pick(0, 2) == 0) border.fails_at = pick(0, 20);
        const GenerationResult plain = decode(law, border, std::make_unique<NoDraft>(), 0);
        const double right = std::array{0.0, 0.7, 1.0}[static_cast<std::size_t>(pick(0, 2))];
        const GenerationResult drafted = decode(law, border, oracle(law, border, 3, right), pick(1, 12));
        CAPTURE(trial, right, plain.text, plain.error, drafted.error);
        REQUIRE(border.asked_behind_end == 0);
        REQUIRE(drafted.tokens == plain.tokens);
        REQUIRE(drafted.text == plain.text);
        REQUIRE(drafted.finish == plain.finish);
        REQUIRE(drafted.error == plain.error);
        stopped += plain.finish == FinishReason::stop, failed += plain.finish == FinishReason::failed;
        saved += plain.stats.rounds - drafted.stats.rounds;
    }
    CHECK(stopped > 50);
    CHECK(failed > 20);
    CHECK(saved > 200);  // drafts were accepted up to those borders
}

TEST_CASE("nodes at end tokens leave the drafts", "[property][hook]") {
    FakeLaw law;
    law.vocabulary = 9, law.order = 2, law.levels = 41, law.seed = 11;
    Border border{.prompt = {1}, .options = {.max_tokens = 40, .seed = 1}};
    const std::vector<TokenId> text = plain_loop(law, border.prompt, border.options, 12);
    border.options.end_ids = {text[4]};
    const GenerationResult plain = decode(law, border, std::make_unique<NoDraft>(), 0);
    REQUIRE(plain.finish == FinishReason::stop);
    const GenerationResult drafted = decode(law, border, oracle(law, border, 3, 1.0), 12);
    CHECK(drafted.tokens == plain.tokens);
    CHECK(drafted.stats.accepted < std::ssize(plain.tokens));  // the end itself is chosen, not drafted
}
