// What is kept for a drafter that is not asked has a bound.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"
#include "../../property/plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const FakeLaw kLaw{.order = 3};

/// What a drafter was told, and whether that was every token once, with its features.
struct Told {
    std::map<SequenceId, std::vector<TokenId>> seen;
    std::int64_t calls = 0, longest = 0, most_nodes = 0;
    std::int64_t throws_at = 0;  ///< tokens of a sequence at which it breaks; 0: never
    std::vector<SequenceId> forgotten;
};

/// Proposes roots; notes what it is told.
class ListeningDraft final : public DraftModel {
public:
    explicit ListeningDraft(Told& told, FeatureRequest features = {}) : told_(told), features_(std::move(features)) {}
    [[nodiscard]] std::string_view kind() const override { return "listening"; }
    [[nodiscard]] FeatureRequest features() const override { return features_; }
    void forget(SequenceId sequence) override { told_.forgotten.push_back(sequence); }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        ++told_.calls;
        told_.most_nodes = std::max(told_.most_nodes, budget.nodes);
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            std::vector<TokenId>& seen = told_.seen[f.sequence];
            REQUIRE(std::ssize(seen) + std::ssize(f.tokens) == f.committed);
            REQUIRE(f.features.size(0) == std::ssize(f.tokens));
            for (std::int64_t i = 0; i < std::ssize(f.tokens); ++i) {
                seen.push_back(f.tokens[static_cast<std::size_t>(i)]);
                std::array<float, kFakeFeatures> expected{};
                fake_features(kLaw, seen, expected.data());
                REQUIRE(std::ranges::equal(
                    std::span(f.features.const_data_ptr<float>() + i * kFakeFeatures, kFakeFeatures), expected));
            }
            if (told_.throws_at > 0 && std::ssize(seen) >= told_.throws_at) throw std::runtime_error("drafter broke");
            told_.longest = std::max(told_.longest, std::ssize(f.tokens));
            trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
        }
        return trees;
    }

private:
    Told& told_;
    FeatureRequest features_;
};

/// A target whose passes cost so much by the row that no draft could gain.
FakeTarget hopeless() {
    FakeTarget target(kLaw);
    target.times = {{1, 1.0}, {1024, 1024.0}};
    return target;
}

/// One after another: passes of one row alone are seen, so what was said of larger ones stands.
std::vector<std::vector<TokenId>> texts_of(auto&& decoder) {
    std::vector<std::vector<TokenId>> texts;
    for (TokenId first = 0; first < 3; ++first)
        texts.push_back(decoder.generate({{first, 1, 2, 3}}, {.max_tokens = 40 + 20 * std::int64_t{first}}).tokens);
    return texts;
}

}  // namespace

TEST_CASE("a drafter that is not asked is given what waits for it before that is much", "[decode]") {
    const auto plain = texts_of(SpeculativeDecoder{NoDraft{}, FakeTarget(kLaw)});
    Told told;
    CHECK(texts_of(SpeculativeDecoder{ListeningDraft{told}, hopeless(), {.owed_tokens = 8}}) == plain);
    CHECK(told.most_nodes == 0);  // it never drafts
    CHECK(told.longest == 9);     // a round of one token past the bound
    CHECK(told.seen.size() == 3);
    CHECK(told.calls >= 80 / 9);
    for (const auto& [id, tokens] : told.seen) CHECK(std::ssize(tokens) >= 4 + 40 - 1 - 9);

    Told later;  // the default is more than these texts hold
    CHECK(texts_of(SpeculativeDecoder{ListeningDraft{later}, hopeless()}) == plain);
    CHECK(later.calls == 0);
}

TEST_CASE("token ids alone wait without a bound, and nothing waits where no node is asked for", "[decode]") {
    Told told;
    (void)texts_of(SpeculativeDecoder{ListeningDraft{told, FeatureRequest::none()}, hopeless(), {.owed_tokens = 1}});
    CHECK(told.calls == 0);
    (void)texts_of(SpeculativeDecoder{ListeningDraft{told}, FakeTarget(kLaw), {.nodes = 0, .owed_tokens = 1}});
    CHECK(told.calls == 0);
    CHECK_THROWS_AS((SpeculativeDecoder{ListeningDraft{told}, FakeTarget(kLaw), {.owed_tokens = 0}}), Error);
}

namespace {

std::vector<TokenId> long_prompt(std::int64_t tokens) {
    std::vector<TokenId> prompt;
    for (std::int64_t i = 0; i < tokens; ++i) prompt.push_back(static_cast<TokenId>(i % 11));
    return prompt;
}

/// A text that runs while a prompt of 400 tokens enters and is decoded; both as plain decoding has them.
void check_beside(Told& told, FakeTarget& target, const DecoderOptions& options, FeatureRequest features = {}) {
    SpeculativeDecoder decoder{ListeningDraft{told, std::move(features)}, std::ref(target), options};
    const SequenceId running = decoder.join({{1, 2}}, {.max_tokens = 100});
    decoder.step();
    const SequenceId second = decoder.join({long_prompt(400)}, {.max_tokens = 20});
    decoder.run();
    CHECK(decoder.take(running).tokens == plain_loop(kLaw, {{1, 2}}, {}, 100));
    CHECK(decoder.take(second).tokens == plain_loop(kLaw, long_prompt(400), {}, 20));
    CHECK(std::ssize(told.seen[second]) >= 400 - options.owed_tokens);  // and each with its features: ListeningDraft
}

}  // namespace

TEST_CASE("a long prompt is taken up while it enters, so that no text waits for all of it", "[decode]") {
    for (const std::int64_t nodes : {kAutoNodes, std::int64_t{4}})
        for (const bool mixed : {false, true}) {
            Told told;
            FakeTarget target(kLaw);
            target.mixes_prompts = mixed;
            check_beside(told, target, {.nodes = nodes, .prefill_rows = 12, .owed_tokens = 30});
            CHECK(told.longest <= 30 + 12);
        }
}

TEST_CASE("a prompt that enters whole is taken up in pieces beside others, and at once alone", "[decode]") {
    Told told, tokens_alone, alone;
    FakeTarget target(kLaw);
    target.takes_pieces = false;
    check_beside(told, target, {.nodes = 4, .owed_tokens = 30});
    CHECK(told.longest == 30);
    check_beside(tokens_alone, target, {.nodes = 4, .owed_tokens = 30}, FeatureRequest::none());
    CHECK(tokens_alone.longest == 30);
    SpeculativeDecoder decoder{ListeningDraft{alone}, std::ref(target), {.nodes = 4, .owed_tokens = 30}};
    (void)decoder.generate({long_prompt(400)}, {.max_tokens = 5});
    CHECK(alone.longest == 399);
}

TEST_CASE("what a kept text brings is taken up in pieces too", "[decode]") {
    Told told;
    FakeTarget target(kLaw);
    target.keeps_texts = true;
    target.kept.push_back(long_prompt(400));
    check_beside(told, target, {.nodes = 4, .prefill_rows = 12, .owed_tokens = 30});
    CHECK(told.longest <= 30 + 12);
}

TEST_CASE("a drafter that breaks while it takes up a prompt ends that sequence alone", "[decode]") {
    Told told;
    told.throws_at = 60;
    FakeTarget target(kLaw);
    SpeculativeDecoder decoder{
        ListeningDraft{told}, std::ref(target), {.nodes = 4, .prefill_rows = 12, .owed_tokens = 30}};
    const SequenceId running = decoder.join({{1, 2}}, {.max_tokens = 40});
    decoder.step();
    const SequenceId second = decoder.join({long_prompt(400)}, {.max_tokens = 20});
    while (decoder.try_step().more) continue;
    CHECK(decoder.take(running).tokens == plain_loop(kLaw, {{1, 2}}, {}, 40));
    const GenerationResult failed = decoder.take(second);
    CHECK(failed.finish == FinishReason::failed);
    CHECK(told.forgotten == std::vector{second, running});
    CHECK(target.held() == 0);
}
