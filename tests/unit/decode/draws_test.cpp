// A drafter says what it drew where the policy reads it, and nowhere else.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/accept/draw.hpp>
#include <outrider/accept/lossy.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/lm.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_causal_model.hpp"
#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const FakeLaw kLaw{.order = 2};

/// Trees with nodes that came from a drafter, and those of them that said what was drawn.
struct Count {
    std::int64_t drafted = 0, with_draws = 0;
};

/// Another drafter, counted.
template <typename D>
class CountedDraft final : public DraftModel {
public:
    CountedDraft(D inner, Count& count) : inner_(std::move(inner)), count_(count) {}
    [[nodiscard]] std::string_view kind() const override { return inner_.kind(); }
    [[nodiscard]] DraftDraws draws() const override { return inner_.draws(); }
    [[nodiscard]] FeatureRequest features() const override { return inner_.features(); }
    void forget(SequenceId sequence) override { inner_.forget(sequence); }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees = inner_.propose(feedback, budget);
        for (const SequenceTree& one : trees) {
            if (one.tree.drafted() > 0) ++count_.drafted;
            if (one.samples != nullptr) ++count_.with_draws;
        }
        return trees;
    }

private:
    D inner_;
    Count& count_;
};

/// A text of 200 tokens.
template <typename D, typename A>
std::vector<TokenId> text_of(D drafter, A policy, Count& count) {
    SpeculativeDecoder decoder{
        CountedDraft<D>{std::move(drafter), count}, FakeTarget(kLaw), std::move(policy), {.nodes = 6}};
    return decoder.generate({{1, 2, 3}}, {.max_tokens = 200, .temperature = 0.5, .seed = 3}).tokens;
}

LmDraft lm(LmDraftOptions options) {
    return LmDraft(std::make_unique<FakeCausalModel>(kLaw), fake_head(kLaw), options);
}

/// `make` makes the drafter.
void check_counts(auto&& make) {
    Count unread;
    CHECK(text_of(make(), Match{}, unread) == text_of(NoDraft{}, Match{}, unread));
    (void)text_of(make(), LossyTypical{}, unread);
    CHECK(unread.drafted > 20);
    CHECK(unread.with_draws == 0);
    Count read;
    (void)text_of(make(), UnifiedAccept{}, read);
    CHECK(read.drafted > 10);
    CHECK(read.with_draws == read.drafted);
}

}  // namespace

TEST_CASE("no draws are noted for policies that read none", "[decode]") {
    check_counts([] { return NgramDraft{}; });
    check_counts([] { return MergedDraft{NgramDraft{}, NgramDraft{{.mode = NgramMode::max_gram}}}; });
    check_counts([] { return lm({.tree = LmTree::sampled, .chains = 2}); });
    check_counts([] { return lm({.tree = LmTree::chain}); });
}
