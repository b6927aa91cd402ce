// What is kept for a drafter that is not asked has a bound.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const FakeLaw kLaw{.order = 3};

/// What a drafter was told, and whether that was every token once, with its features.
struct Told {
    std::map<SequenceId, std::int64_t> seen;
    std::int64_t calls = 0, longest = 0, most_nodes = 0;
};

/// Proposes roots; notes what it is told.
class ListeningDraft final : public DraftModel {
public:
    explicit ListeningDraft(Told& told, FeatureRequest features = {}) : told_(told), features_(std::move(features)) {}
    [[nodiscard]] std::string_view kind() const override { return "listening"; }
    [[nodiscard]] FeatureRequest features() const override { return features_; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        ++told_.calls;
        told_.most_nodes = std::max(told_.most_nodes, budget.nodes);
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            REQUIRE(told_.seen[f.sequence] + std::ssize(f.tokens) == f.committed);
            REQUIRE(f.features.size(0) == std::ssize(f.tokens));
            told_.seen[f.sequence] = f.committed;
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
    for (const auto& [id, tokens] : told.seen) CHECK(tokens >= 4 + 40 - 1 - 9);

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
