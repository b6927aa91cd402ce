// N-grams and merged drafters where the target takes no branches (DraftBudget::chains).
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/tree/token_tree.hpp>

using namespace outrider;

namespace {

SequenceFeedback told(std::vector<TokenId> text) {
    const TokenId pending = text.back();
    text.pop_back();
    const auto committed = static_cast<std::int64_t>(text.size());
    return {.sequence = 1, .tokens = std::move(text), .features = {}, .pending = pending, .committed = committed};
}

SequenceTree draft(DraftModel& drafter, const std::vector<TokenId>& text, const DraftBudget& budget) {
    const SequenceFeedback feedback = told(text);
    return drafter.propose(std::span(&feedback, 1), budget).front();
}

DraftBudget chain_of(std::int64_t nodes) { return {.nodes = nodes, .chains = true}; }

std::vector<TokenId> tokens_of(const TokenTree& tree) { return {tree.tokens().begin() + 1, tree.tokens().end()}; }

bool is_chain(const TokenTree& tree) { return static_cast<std::size_t>(tree.height()) == tree.drafted(); }

/// Proposes paths of its own, each of a probability of its own for every token.
class Paths final : public DraftModel {
public:
    struct Path {
        std::vector<TokenId> tokens;
        double q;
    };
    explicit Paths(std::vector<Path> paths, bool draws = false) : paths_(std::move(paths)), draws_(draws) {}
    [[nodiscard]] std::string_view kind() const override { return "paths"; }
    [[nodiscard]] DraftDraws draws() const override { return draws_ ? DraftDraws::chain : DraftDraws::none; }
    [[nodiscard]] FeatureRequest features() const override { return FeatureRequest::none(); }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        CHECK(budget.chains);
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            TokenTree::Builder tree(f.pending);
            std::int64_t added = 0;
            for (const Path& path : paths_) {
                NodeIndex at = 0;
                for (const TokenId token : path.tokens)
                    if (added++ < budget.nodes) at = tree.add(at, token, static_cast<float>(std::log(path.q)));
            }
            trees.push_back({f.sequence, std::move(tree).build()});
            if (draws_ && budget.draws)
                trees.back().samples = std::make_shared<const DraftSamples>(drawn(trees.back().tree));
        }
        return trees;
    }

private:
    static DraftSamples drawn(const TokenTree& tree) {
        auto law = std::make_shared<ListedLaw>();
        DraftSamples::Chain chain{tokens_of(tree), true};
        for (std::size_t i = 0; i < chain.tokens.size(); ++i) {
            const std::vector<TokenShare> all{{chain.tokens[i], 1.0}};
            law->add({chain.tokens.begin(), chain.tokens.begin() + static_cast<std::ptrdiff_t>(i)}, all);
        }
        return DraftSamples::from_chains(law, std::span(&chain, 1));
    }

    std::vector<Path> paths_;
    bool draws_;
};

}  // namespace

TEST_CASE("ngram spends all nodes on one path where there is room for no other", "[ngram][chains]") {
    const std::vector<TokenId> text{7, 1, 2, 3, 9, 2, 3, 5, 1, 2, 3};
    NgramDraft tree, chain;
    CHECK_FALSE(is_chain(draft(tree, text, {.nodes = 12}).tree));  // 9 or 5 may follow
    const SequenceTree path = draft(chain, text, chain_of(6));
    CHECK(tokens_of(path.tree) == std::vector<TokenId>{9, 2, 3, 5, 1, 2});
    CHECK(path.samples->is_chosen());
    std::mt19937 engine(3);
    std::vector<TokenId> noise(200);
    for (TokenId& token : noise) token = static_cast<TokenId>(engine() % 6);
    for (const NgramMode mode : {NgramMode::lookup, NgramMode::max_gram})
        for (const std::int64_t nodes : {0, 1, 2, 5, 16}) {
            NgramDraft one({.mode = mode});
            const TokenTree drafted = draft(one, noise, chain_of(nodes)).tree;
            CHECK(is_chain(drafted));
            CHECK(std::ssize(tokens_of(drafted)) == nodes);
        }
}

TEST_CASE("a merged chain is the path along which most tokens are expected", "[merged][chains]") {
    const std::vector<TokenId> text{1, 2};
    // A sure token and nothing behind it; four of which each is likely.
    MergedDraft longer(Paths({{{5}, 0.9}}), Paths({{{6, 7, 8, 9}, 0.8}}));
    CHECK(tokens_of(draft(longer, text, chain_of(8)).tree) == std::vector<TokenId>{6, 7, 8, 9});
    MergedDraft shorter(Paths({{{5}, 0.9}}), Paths({{{6, 7, 8, 9}, 0.8}}));
    CHECK(tokens_of(draft(shorter, text, chain_of(1)).tree) == std::vector<TokenId>{5});
    // A part of a host's own that knows nothing of chains.
    MergedDraft bushy(Paths({{{5, 6}, 0.3}, {{7, 8, 9}, 0.7}}), Paths({{{5, 10}, 0.2}}));
    CHECK(tokens_of(draft(bushy, text, chain_of(8)).tree) == std::vector<TokenId>{7, 8, 9});
}

TEST_CASE("n-grams go on behind a merged chain, as far as the nodes go", "[merged][chains]") {
    const std::vector<TokenId> text{1, 2, 3, 4, 5, 6, 7, 8, 9};  // 9 follows nothing
    for (const std::int64_t nodes : {1, 2, 5, 7}) {
        MergedDraft drafter(Paths({{{2}, 0.6}}), NgramDraft{});
        const TokenTree tree = draft(drafter, text, chain_of(nodes)).tree;
        const std::vector<TokenId> whole{2, 3, 4, 5, 6, 7, 8};
        CHECK(tokens_of(tree) == std::vector<TokenId>(whole.begin(), whole.begin() + nodes));
    }
}

TEST_CASE("merged chains of texts of few tokens are chains in every round, with prices and without",
          "[merged][chains]") {
    std::mt19937 engine(7);
    const std::vector<double> prices{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
    for (const bool priced : {false, true}) {
        std::vector<TokenId> text(40);
        for (TokenId& token : text) token = static_cast<TokenId>(engine() % 5);
        MergedDraft drafter(NgramDraft{}, NgramDraft({.max_match = 2, .candidates = 2}), Paths({{{1, 2, 3}, 0.6}}));
        DraftBudget budget = chain_of(6);
        if (priced) budget.second_price = 1e-3, budget.tree_prices = prices;
        std::size_t drafted = 0;
        (void)draft(drafter, text, budget);
        for (int round = 0; round < 100; ++round) {
            const SequenceFeedback f{.sequence = 1,
                                     .tokens = {text.back()},
                                     .features = {},
                                     .pending = static_cast<TokenId>(engine() % 5),
                                     .committed = std::ssize(text)};
            text.push_back(f.pending);
            const TokenTree tree = drafter.propose(std::span(&f, 1), budget).front().tree;
            REQUIRE(is_chain(tree));
            drafted += tree.drafted();
        }
        CHECK(drafted > 100);
    }
}

// Which nodes of a chain stay must not depend on draws, or the law would be another one.
TEST_CASE("where one part samples, the merged chain is the drawn one, however unlikely", "[merged][chains]") {
    const std::vector<TokenId> text{1, 2};
    MergedDraft drafter(Paths({{{5, 6, 7}, 0.9}}), Paths({{{8, 9}, 0.01}}, true));
    const SequenceTree tree = draft(drafter, text, chain_of(4));
    CHECK(tokens_of(tree.tree) == std::vector<TokenId>{8, 9});
    REQUIRE(tree.samples != nullptr);
    CHECK_FALSE(tree.samples->is_chosen());
    MergedDraft unread(Paths({{{5, 6, 7}, 0.9}}), Paths({{{8, 9}, 0.01}}, true));
    DraftBudget budget = chain_of(4);
    budget.draws = false;
    CHECK(tokens_of(draft(unread, text, budget).tree) == std::vector<TokenId>{5, 6, 7});
}
