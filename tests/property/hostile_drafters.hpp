// Drafters that try to make the text depend on them. All derive from one that knows the whole text, and that refuses
// stale or wrong features (I6).
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/draft/drafter.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include "fake_target.hpp"
#include "plain_loop.hpp"

namespace outrider::test {

class KnowingDraft : public DraftModel {
public:
    explicit KnowingDraft(FakeLaw law) : law_(law) {}
    [[nodiscard]] std::string_view kind() const override { return "test"; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            std::vector<TokenId>& text = texts_[f.sequence];
            const std::size_t before = text.size();
            text.insert(text.end(), f.tokens.begin(), f.tokens.end());
            check(static_cast<std::int64_t>(text.size()) == f.committed, "the feedback leaves a gap");
            check(f.features.size(0) == static_cast<std::int64_t>(f.tokens.size()), "features of other tokens");
            for (std::size_t i = before; i < text.size(); ++i) {
                float expected[kFakeFeatures];
                fake_features(law_, std::span(text).first(i + 1), expected);
                const float* got =
                    f.features.const_data_ptr<float>() + static_cast<std::int64_t>(i - before) * kFakeFeatures;
                check(std::equal(expected, expected + kFakeFeatures, got), "stale or wrong features");
            }
            std::vector<TokenId> whole = text;
            whole.push_back(f.pending);
            trees.push_back({f.sequence, grow(f.sequence, whole, budget.nodes)});
        }
        return trees;
    }
    void forget(SequenceId sequence) override { texts_.erase(sequence); }

protected:
    /// `text`: prompt, output, and the pending token, which is the root.
    virtual TokenTree grow(SequenceId sequence, const std::vector<TokenId>& text, std::int64_t nodes) = 0;

    static void check(bool holds, const char* what) {
        if (!holds) throw std::logic_error(std::string("KnowingDraft: ") + what);
    }

    FakeLaw law_;

private:
    std::unordered_map<SequenceId, std::vector<TokenId>> texts_;
};

/// Random trees: any shape from a chain to a star, random tokens, tokens added twice.
class RandomDraft final : public KnowingDraft {
public:
    RandomDraft(FakeLaw law, std::uint64_t seed, double depth_bias)
        : KnowingDraft(law), engine_(seed), depth_bias_(depth_bias) {}

protected:
    TokenTree grow(SequenceId, const std::vector<TokenId>& text, std::int64_t nodes) override {
        TokenTree::Builder tree(text.back());
        std::uniform_real_distribution<> uniform(0, 1);
        for (std::int64_t tries = 0; tries < nodes; ++tries) {
            const auto size = static_cast<NodeIndex>(tree.size());
            const NodeIndex parent =
                uniform(engine_) < depth_bias_ ? size - 1 : static_cast<NodeIndex>(uniform(engine_) * size);
            const auto token = static_cast<TokenId>(uniform(engine_) * static_cast<double>(law_.vocabulary));
            const NodeIndex node = tree.add(parent, token, -1.0F);
            if (tree.add(parent, token, -2.0F) != node) throw std::logic_error("RandomDraft: a duplicate was kept");
        }
        return std::move(tree).build();
    }

private:
    std::mt19937_64 engine_;
    double depth_bias_;
};

/// Knows the target's choices. Right with probability `right` at each step of a chain, wrong beside it; with `right` =
/// 0 every node is wrong, with 1 the whole budget comes true.
class OracleDraft final : public KnowingDraft {
public:
    OracleDraft(FakeLaw law, std::uint64_t seed, double right, bool siblings)
        : KnowingDraft(law), engine_(seed), right_(right), siblings_(siblings) {}

    /// What a sequence was asked for, and what all others were; without either, greedy.
    std::unordered_map<SequenceId, SamplingOptions> asked;
    SamplingOptions asked_of_others;

protected:
    TokenTree grow(SequenceId sequence, const std::vector<TokenId>& text, std::int64_t nodes) override {
        TokenTree::Builder tree(text.back());
        std::vector<TokenId> path = text;
        std::uniform_real_distribution<> uniform(0, 1);
        const auto named = asked.find(sequence);
        const SamplingOptions& sampling = named == asked.end() ? asked_of_others : named->second;
        for (NodeIndex at = 0; static_cast<std::int64_t>(tree.size()) <= nodes;) {
            const TokenId truth = plain_pick(law_, path, sampling);
            const auto other = static_cast<TokenId>((truth + 1) % law_.vocabulary);
            if (siblings_ && static_cast<std::int64_t>(tree.size()) < nodes) tree.add(at, other, -3.0F);
            const TokenId token = uniform(engine_) < right_ ? truth : other;
            const std::size_t size = tree.size();
            at = tree.add(at, token, -0.1F);
            if (tree.size() == size) break;
            path.push_back(token);
        }
        return std::move(tree).build();
    }

private:
    std::mt19937_64 engine_;
    double right_;
    bool siblings_;
};

}  // namespace outrider::test
