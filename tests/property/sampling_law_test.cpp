// The law of sampled texts is the target's, whatever was drafted; and the test would see a rule that is biased.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include <outrider/accept/draw.hpp>
#include <outrider/accept/rules/dice.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "text_law.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Always drafts token 0, then 1 and 2 beside it: a guess that has nothing to do with the target.
class StubbornDraft final : public KnowingDraft {
public:
    explicit StubbornDraft(FakeLaw law) : KnowingDraft(law) {}

protected:
    TokenTree grow(SequenceId, const std::vector<TokenId>& text, std::int64_t) override {
        TokenTree::Builder tree(text.back());
        const NodeIndex first = tree.add(0, 0, -0.5F);
        tree.add(first, 0, -0.5F);
        tree.add(first, 3, -0.7F);
        tree.add(tree.add(0, 1, -1.0F), 2, -1.0F);
        return std::move(tree).build();
    }
};

/// Samples chains of at most 3 tokens from a law of its own, and chooses two nodes beside them. One that lies states
/// that all tokens were equally likely.
class DrawingDraft final : public KnowingDraft {
public:
    explicit DrawingDraft(std::size_t chains, bool lies = false) : KnowingDraft(kLaw), chains_(chains), lies_(lies) {}

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees = KnowingDraft::propose(feedback, budget);
        for (SequenceTree& t : trees) t.samples = std::move(drawn_[t.sequence]);
        return trees;
    }

protected:
    class Leaning final : public DraftLaw {
    public:
        explicit Leaning(double top) : top_(top) {}

        /// `top` for one token, the rest of 0.9 for the four others, 0.1 for the end.
        void conditional(std::span<const TokenId> path, std::span<double> q) const override {
            for (double& x : q) x = (0.9 - top_) / static_cast<double>(q.size() - 1);
            q[(path.size() * 2 + 1) % q.size()] = top_;
        }

    private:
        double top_;
    };

    TokenTree grow(SequenceId sequence, const std::vector<TokenId>& text, std::int64_t nodes) override {
        if (nodes < 11) return TokenTree::root_only(text.back());
        const auto law = std::make_shared<Leaning>(0.5);
        KeyedDice dice(1234, static_cast<std::uint64_t>(sequence), static_cast<std::int64_t>(text.size()));
        std::vector<DraftSamples::Chain> chains(chains_, {{}, true});
        TokenTree::Builder tree(text.back());
        for (DraftSamples::Chain& chain : chains) {
            NodeIndex at = 0;
            while (chain.cut && chain.tokens.size() < 3) {
                std::vector<double> q(static_cast<std::size_t>(law_.vocabulary) + 1);
                law->conditional(chain.tokens, std::span(q).first(q.size() - 1));
                q.back() = 0.1;
                const auto symbol = static_cast<TokenId>(dice.pick(q));
                if (symbol == law_.vocabulary) {
                    chain.cut = false;
                } else {
                    chain.tokens.push_back(symbol);
                    at = tree.add(at, symbol, -0.7F);
                }
            }
        }
        tree.add(tree.add(0, 4, -1.0F), 2, -1.0F);
        const auto stated = lies_ ? std::make_shared<Leaning>(0.18) : law;
        drawn_[sequence] = std::make_shared<DraftSamples>(DraftSamples::from_chains(stated, chains));
        return std::move(tree).build();
    }

private:
    std::size_t chains_;
    bool lies_;
    std::map<SequenceId, std::shared_ptr<const DraftSamples>> drawn_;
};

/// The negative control: a rule that draws afresh when its draw is no child, as if each path deserved a chance. It
/// favours what was drafted.
class RedrawMatch final : public AcceptancePolicy {
public:
    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override {
        const Match honest;
        const Acceptance first = honest.accept(tree, rows, context);
        if (!first.path.empty()) return first;
        SamplingOptions again = *context.sampling;
        again.stream += 1000;
        return honest.accept(tree, rows, {context.sequence, &again, context.text});
    }
};

}  // namespace

TEST_CASE("sampled texts follow the target's law under a hostile drafter", "[property][law]") {
    for (const GenerationOptions& o :
         {GenerationOptions{.temperature = 1.0}, GenerationOptions{.temperature = 0.7, .top_p = 0.9},
          GenerationOptions{.temperature = 1.5, .top_k = 3, .repetition_penalty = 1.2},
          GenerationOptions{.temperature = 1.0, .min_p = 0.2}}) {
        CAPTURE(o.temperature, o.top_p, o.top_k, o.min_p);
        CHECK(excess(o, Match{}, 12000, StubbornDraft{kLaw}) < 3.5);
    }
}

TEST_CASE("the test of the law sees a rule that redraws after rejection", "[property][law]") {
    CHECK(excess({.temperature = 1.0}, RedrawMatch{}, 12000, StubbornDraft{kLaw}) > 20.0);
}

TEST_CASE("the test of the law sees draws that come from another law than is stated", "[property][law]") {
    const GenerationOptions o{.temperature = 0.9, .top_k = 4};
    CHECK(excess(o, RejectionAccept{}, 6000, DrawingDraft{1, true}) > 20.0);
    CHECK(excess(o, BlockAccept{}, 6000, DrawingDraft{1, true}) > 20.0);
    CHECK(excess(o, KSeqAccept{}, 6000, DrawingDraft{2, true}) > 20.0);
    CHECK(excess(o, TraversalAccept{}, 6000, DrawingDraft{3, true}) > 20.0);
    CHECK(excess(o, UnifiedAccept{}, 6000, DrawingDraft{3, true}) > 20.0);
}

TEST_CASE("a drafter's draws reach the policy, and texts keep the target's law", "[property][law]") {
    const GenerationOptions o{.temperature = 0.9, .top_k = 4};
    CHECK(excess(o, RejectionAccept{}, 6000, DrawingDraft{1}) < 3.5);
    CHECK(excess(o, BlockAccept{}, 6000, DrawingDraft{1}) < 3.5);
    CHECK(excess(o, KSeqAccept{}, 6000, DrawingDraft{2}) < 3.5);
    CHECK(excess(o, TraversalAccept{}, 6000, DrawingDraft{3}) < 3.5);
    CHECK(excess(o, UnifiedAccept{}, 6000, DrawingDraft{3}) < 3.5);
    CHECK(excess(o, UnifiedAccept{}, 6000, DrawingDraft{2}, kAutoNodes) < 3.5);
    SpeculativeDecoder chosen{StubbornDraft{kLaw}, FakeTarget{kLaw}, BlockAccept{}, {.nodes = 8}};
    CHECK_THROWS_AS(chosen.generate({kPrompt}, {.max_tokens = 3, .temperature = 1.0}), Error);
    SpeculativeDecoder greedy{DrawingDraft{3}, FakeTarget{kLaw}, TraversalAccept{}};
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{kLaw}, Match{}};
    const GenerationOptions forty{.max_tokens = 40};
    CHECK(greedy.generate({kPrompt}, forty).tokens == plain.generate({kPrompt}, forty).tokens);
}
