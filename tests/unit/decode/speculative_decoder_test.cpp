#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <outrider/accept/greedy_match.hpp>
#include <outrider/accept/sampled_match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram_draft.hpp>
#include <outrider/draft/no_draft.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// The independent loop: the target's own greedy text.
std::vector<TokenId> plain_greedy(const FakeLaw& law, std::vector<TokenId> text, std::int64_t tokens) {
    const std::size_t prompt = text.size();
    std::vector<float> logits(static_cast<std::size_t>(law.vocabulary));
    for (std::int64_t i = 0; i < tokens; ++i) {
        fake_logits(law, text, logits.data());
        text.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    return {text.begin() + static_cast<std::ptrdiff_t>(prompt), text.end()};
}

}  // namespace

TEST_CASE("one prompt decodes to the target's own greedy text", "[decode]") {
    const FakeLaw law{.order = 2};
    for (const std::vector<TokenId>& prompt : {std::vector<TokenId>{3}, std::vector<TokenId>{1, 2, 3, 4}}) {
        SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}, GreedyMatch{}};
        SpeculativeDecoder ngram{NgramDraft{}, FakeTarget{law}, SampledMatch{}};
        const auto expected = plain_greedy(law, prompt, 60);
        const GenerationResult a = plain.generate({prompt}, {.max_tokens = 60});
        const GenerationResult b = ngram.generate({prompt}, {.max_tokens = 60});
        CHECK(a.tokens == expected);
        CHECK(b.tokens == expected);
        CHECK(a.stats.rounds == 60);
        CHECK(b.stats.rounds < 40);
        CHECK(a.finish == FinishReason::length);
    }
}
