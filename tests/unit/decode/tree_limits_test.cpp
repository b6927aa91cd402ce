// Limits of a target: trees are cut to them, sequences wait for them, and texts stay the same.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <functional>
#include <future>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include <outrider/decode/async_decoder.hpp>
#include <outrider/decode/check_lossless.hpp>
#include <outrider/decode/detail/tree_limits.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Drafts bushes with branches everywhere: a full binary tree of three levels, or its first nodes.
class Bushes final : public DraftModel {
public:
    [[nodiscard]] std::string_view kind() const override { return "bushes"; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees;
        for (const auto& f : feedback) trees.push_back({f.sequence, bush(f.pending, budget.nodes)});
        return trees;
    }

public:
    static TokenTree bush(TokenId root, std::int64_t nodes = 14) {
        TokenTree::Builder tree(root);
        for (std::int64_t node = 0; node < nodes; ++node)
            (void)tree.add(static_cast<NodeIndex>(node / 2), static_cast<TokenId>((root + node / 2 + node % 2) % 12),
                           0.0F);
        return std::move(tree).build();
    }
};

std::int64_t leaves_of(const TokenTree& tree) {
    std::vector<bool> inner(tree.size());
    for (std::size_t i = 1; i < tree.size(); ++i) inner[static_cast<std::size_t>(tree.parents()[i])] = true;
    return std::count(inner.begin(), inner.end(), false);
}

/// A target that breaks where its limits are not kept.
class Limited final : public FakeTarget {
public:
    Limited(FakeLaw law, VerifierLimits limits) : FakeTarget(law), limits_(limits) {}
    [[nodiscard]] VerifierLimits limits() const override { return limits_; }
    [[nodiscard]] Feedback prefill(std::span<const Prefill> sequences) override {
        Feedback feedback = FakeTarget::prefill(sequences);
        if (limits_.sequences > 0 && static_cast<std::int64_t>(held()) > limits_.sequences)
            throw std::logic_error("too many sequences");
        return feedback;
    }
    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override {
        std::int64_t rows_now = 0, leaves = 0;
        for (const SequenceTree& one : trees) {
            rows_now += static_cast<std::int64_t>(one.tree.size()), leaves += leaves_of(one.tree);
            if (limits_.chains_only && leaves_of(one.tree) > 1) throw std::logic_error("a branch");
        }
        if (limits_.rows > 0 && rows_now > limits_.rows) throw std::logic_error("too many rows");
        if (limits_.leaves > 0 && leaves > limits_.leaves) throw std::logic_error("too many leaves");
        return FakeTarget::verify(trees);
    }

private:
    VerifierLimits limits_;
};

}  // namespace

TEST_CASE("a tree is cut to its first nodes, parents and children together", "[decode]") {
    const auto cut = [](VerifierLimits limits) {
        return TreeLimits(limits).fit({{1, Bushes::bush(3), nullptr}}).front().tree;
    };
    CHECK(cut({}).size() == 15);
    CHECK(cut({.rows = 15, .leaves = 8}).size() == 15);
    CHECK(cut({.rows = 4}).size() == 4);
    CHECK(cut({.rows = 1}).size() == 1);
    const TokenTree chain = cut({.chains_only = true});
    CHECK(chain.size() == 4);
    CHECK(leaves_of(chain) == 1);
    for (const std::int64_t leaves : {1, 2, 3, 7}) CHECK(leaves_of(cut({.leaves = leaves})) == leaves);
    const auto shared = TreeLimits({.rows = 9}).fit({{1, Bushes::bush(3)}, {2, Bushes::bush(4)}});
    CHECK(shared[0].tree.size() == 4);
    CHECK(shared[1].tree.size() == 4);
    CHECK(TreeLimits({.rows = 5, .leaves = 3, .sequences = 9}).sequences(64) == 3);
    CHECK(TreeLimits().sequences(64) == 64);
}

TEST_CASE("a target's limits are kept, and texts stay the same", "[decode]") {
    const FakeLaw law{.order = 3};
    for (const VerifierLimits limits :
         {VerifierLimits{.rows = 6}, VerifierLimits{.leaves = 3}, VerifierLimits{.sequences = 2},
          VerifierLimits{.chains_only = true}, VerifierLimits{.rows = 9, .leaves = 4, .sequences = 3}}) {
        Limited target(law, limits);
        SpeculativeDecoder decoder{Bushes{}, std::ref(target), {.nodes = 14}};
        std::vector<SequenceId> ids;
        for (TokenId i = 0; i < 8; ++i) ids.push_back(decoder.join({{i, 1}}, {.max_tokens = 25}));
        CHECK_NOTHROW(decoder.run());
        for (TokenId i = 0; i < 8; ++i) {
            SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}};
            CHECK(decoder.take(ids[static_cast<std::size_t>(i)]).tokens ==
                  plain.generate({{i, 1}}, {.max_tokens = 25}).tokens);
        }
    }
}

TEST_CASE("a verifier is checked within its limits", "[decode]") {
    const std::vector<std::vector<TokenId>> prompts{{1, 2, 3}, {4}};
    for (const VerifierLimits limits :
         {VerifierLimits{.sequences = 1}, VerifierLimits{.rows = 1}, VerifierLimits{.rows = 2},
          VerifierLimits{.rows = 3}, VerifierLimits{.rows = 7, .leaves = 3}, VerifierLimits{.leaves = 1},
          VerifierLimits{.leaves = 2}, VerifierLimits{.chains_only = true}, VerifierLimits{.tokens = 30},
          VerifierLimits{.rows = 5, .leaves = 2, .sequences = 1, .chains_only = true}}) {
        CAPTURE(limits.rows, limits.leaves, limits.sequences, limits.tokens, limits.chains_only);
        Limited target(FakeLaw{}, limits);
        const LosslessReport report = check_lossless(target, prompts, {.tokens = 12});
        CHECK(report.exact());
        CHECK(report.tokens == 2 * 12);
        CHECK(report.rows == 2 * 12);
        CHECK(target.held() == 0);
    }
    Limited small(FakeLaw{}, {.tokens = 6});
    CHECK_THROWS_AS(check_lossless(small, prompts), Error);
    Limited one(FakeLaw{}, {.sequences = 1});  // no companion is wanted, so none is made
    CHECK(check_lossless(one, prompts, {.tokens = 5, .companions = false}).exact());
}

TEST_CASE("a drafter is asked for no more than a target takes", "[decode]") {
    /// Notes what it is asked for.
    class Asked final : public DraftModel {
    public:
        [[nodiscard]] std::string_view kind() const override { return "asked"; }
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
            most = std::max(most, budget.nodes * std::ssize(feedback));
            chains = chains || budget.chains;
            CHECK((budget.tree_prices.empty() || std::ssize(budget.tree_prices) == budget.nodes + 1));
            std::vector<SequenceTree> trees;
            for (const auto& f : feedback) trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
            return trees;
        }
        std::int64_t most = 0;
        bool chains = false;
    };
    const auto ask = [](VerifierLimits limits, std::int64_t nodes) {
        Limited target(FakeLaw{}, limits);
        Asked draft;
        SpeculativeDecoder decoder{std::ref(draft), std::ref(target), {.nodes = nodes}};
        for (TokenId i = 0; i < 3; ++i) (void)decoder.join({{i, 1}}, {.max_tokens = 9});
        decoder.run();
        return std::pair(draft.most, draft.chains);
    };
    CHECK(ask({}, 14) == std::pair(std::int64_t{42}, false));
    CHECK(ask({.rows = 12}, 14) == std::pair(std::int64_t{9}, false));  // three roots
    CHECK(ask({.rows = 3}, 14) == std::pair(std::int64_t{0}, false));   // the roots alone: not at all
    CHECK(ask({.chains_only = true}, 14) == std::pair(std::int64_t{42}, true));
    CHECK(ask({.rows = 12}, kAutoNodes).first <= 12);
}

TEST_CASE("requests wait for the tokens that a target says it can hold", "[decode][async]") {
    Limited target(FakeLaw{}, {.tokens = 50});
    AsyncDecoder decoder{SpeculativeDecoder{NoDraft{}, std::ref(target)}};
    CHECK_THROWS_AS(decoder.submit({{1}}, {.max_tokens = 50}), RequestRefused);
    std::vector<std::future<GenerationResult>> futures;
    for (TokenId i = 0; i < 6; ++i) futures.push_back(decoder.submit({{i}}, {.max_tokens = 20}));
    for (auto& future : futures) CHECK(future.get().tokens.size() == 20);
}
