#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include <outrider/core/error.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/target/detail/features.hpp>
#include <outrider/tree/token_tree.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;

static_assert(Drafter<DraftModel> && Drafter<NoDraft> && Drafter<NgramDraft> && Drafter<MergedDraft>);

namespace {

/// Plays a known text to a drafter, the way the loop would: accepts along the text.
class Replay {
public:
    Replay(DraftModel& drafter, std::vector<TokenId> text, std::size_t prompt, SequenceId id = 1)
        : drafter_(drafter), text_(std::move(text)), id_(id), committed_(prompt - 1) {
        feedback_ = told(0, committed_);
    }

    /// One round. Returns the tree; `accepted` tells how many of its nodes came true.
    TokenTree round(std::int64_t nodes) {
        const std::vector<SequenceFeedback> feedback{feedback_};
        TokenTree tree = drafter_.propose(feedback, {nodes}).front().tree;
        std::size_t kept = 0;
        for (NodeIndex at = 0; committed_ + kept + 2 < text_.size(); ++kept) {
            at = tree.child(at, text_[committed_ + kept + 1]);
            if (at == kNoNode) break;
        }
        accepted = kept;
        feedback_ = told(committed_, committed_ + kept + 1);
        committed_ += kept + 1;
        return tree;
    }

    [[nodiscard]] bool done() const { return committed_ + 2 >= text_.size(); }
    std::size_t accepted = 0;

private:
    [[nodiscard]] SequenceFeedback told(std::size_t from, std::size_t to) const {
        SequenceFeedback f;
        f.sequence = id_;
        f.tokens.assign(text_.begin() + static_cast<std::ptrdiff_t>(from),
                        text_.begin() + static_cast<std::ptrdiff_t>(to));
        f.pending = text_[to];
        f.committed = static_cast<std::int64_t>(to);
        return f;
    }

    DraftModel& drafter_;
    std::vector<TokenId> text_;
    SequenceId id_;
    std::size_t committed_;
    SequenceFeedback feedback_;
};

/// Always proposes the same children of the root, with the same probability.
class FixedDraft final : public DraftModel {
public:
    FixedDraft(std::vector<TokenId> tokens, float q, DraftDraws draws = DraftDraws::unknown)
        : tokens_(std::move(tokens)), q_(q), draws_(draws) {}
    [[nodiscard]] std::string_view kind() const override { return "fixed"; }
    [[nodiscard]] DraftDraws draws() const override { return draws_; }
    std::int64_t forgotten = 0, fed = 0;

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            ++fed;
            TokenTree::Builder tree(f.pending);
            for (std::size_t i = 0; i < tokens_.size() && static_cast<std::int64_t>(i) < budget.nodes; ++i)
                tree.add(0, tokens_[i], std::log(q_));
            trees.push_back({f.sequence, std::move(tree).build()});
        }
        return trees;
    }
    void forget(SequenceId) override { ++forgotten; }

private:
    std::vector<TokenId> tokens_;
    float q_;
    DraftDraws draws_;
};

std::vector<TokenId> path_tokens(const TokenTree& tree, NodeIndex node) {
    std::vector<TokenId> tokens;
    for (const NodeIndex n : path_to(tree, node)) tokens.push_back(tree.token(n));
    return tokens;
}

}  // namespace

TEST_CASE("ngram continues the longest match of the newest tokens", "[ngram]") {
    NgramDraft drafter({.branches = 1});
    //                                      0  1  2  3  4  5  6  7  8  9
    Replay replay(drafter, std::vector<TokenId>{7, 1, 2, 3, 9, 2, 3, 5, 1, 2, 3, 9}, 11);
    const TokenTree tree = replay.round(4);  // suffix 1 2 3 was followed by 9; the newer 2 3 by 5
    REQUIRE(tree.drafted() == 4);
    CHECK(path_tokens(tree, 4) == std::vector<TokenId>{9, 2, 3, 5});
}

TEST_CASE("ngram branches into what followed elsewhere, likeliest first", "[ngram]") {
    NgramDraft drafter;
    Replay replay(drafter, std::vector<TokenId>{7, 1, 2, 3, 9, 2, 3, 5, 1, 2, 3, 9}, 11);
    const TokenTree tree = replay.round(12);
    CHECK(tree.child(0, 9) == 1);
    CHECK(tree.child(0, 5) != kNoNode);
    double children = 0;
    for (std::size_t i = 1; i < tree.size(); ++i) {
        CHECK(tree.log_q()[i] <= 0.0F);
        if (tree.parents()[i] == 0) children += std::exp(tree.log_q()[i]);
    }
    CHECK(children <= 1.0);
}

TEST_CASE("the first n nodes of an n-gram tree are the tree of n nodes", "[ngram]") {
    std::mt19937 engine(11);
    for (const NgramOptions& options : {NgramOptions{}, NgramOptions{.mode = NgramMode::max_gram}}) {
        std::vector<TokenId> text(200);
        for (TokenId& token : text) token = static_cast<TokenId>(engine() % 6);
        NgramDraft large(options);
        Replay of_large(large, text, 120);
        const TokenTree whole = of_large.round(16);
        REQUIRE(whole.drafted() == 16);
        for (std::int64_t nodes = 1; nodes < 16; ++nodes) {
            NgramDraft small(options);
            Replay of_small(small, text, 120);
            const TokenTree tree = of_small.round(nodes);
            REQUIRE(tree.drafted() == static_cast<std::size_t>(nodes));
            CHECK(std::ranges::equal(tree.tokens(), whole.tokens().first(tree.size())));
            CHECK(std::ranges::equal(tree.parents(), whole.parents().first(tree.size())));
        }
    }
}

TEST_CASE("ngram proposes nothing where nothing repeats, and keeps within the budget", "[ngram]") {
    NgramDraft drafter;
    std::vector<TokenId> text(40);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<TokenId>(i);
    Replay fresh(drafter, text, 10, 1);
    CHECK(fresh.round(8).drafted() == 0);
    std::vector<TokenId> loop(40, 3);
    Replay same(drafter, loop, 10, 2);
    for (const std::int64_t nodes : {0, 1, 5, 8}) CHECK(same.round(nodes).drafted() == static_cast<std::size_t>(nodes));
}

TEST_CASE("ngram finds every period, however rounds cut the text", "[ngram]") {
    std::mt19937 engine(5);
    for (int trial = 0; trial < 20; ++trial) {
        NgramDraft drafter;
        const std::size_t period = 1 + engine() % 9;
        std::vector<TokenId> text(120);
        for (std::size_t i = 0; i < text.size(); ++i)
            text[i] = i < period ? static_cast<TokenId>(100 + engine() % 50) : text[i - period];
        Replay replay(drafter, text, period + 1);
        std::size_t rounds = 0;
        for (; !replay.done(); ++rounds) replay.round(8);
        CHECK(rounds < 40);  // 110 tokens; a drafter that lost its index would need one round each
    }
}

TEST_CASE("ngram's log_q follows what comes true", "[ngram]") {
    // After 1 comes 2 with the given share, else a new token; a new token before each 1 keeps every match at one token.
    const auto learned = [](double share) {
        NgramDraft drafter({.max_match = 1, .branches = 1});
        std::mt19937 engine(9);
        std::vector<TokenId> text;
        for (TokenId i = 0; i < 600; ++i) {
            text.push_back(2000 + i);
            text.push_back(1);
            text.push_back(std::uniform_real_distribution<>(0, 1)(engine) < share ? 2 : 1000 + i);
        }
        Replay replay(drafter, text, 5);
        double q = 0;
        while (!replay.done()) {
            const TokenTree tree = replay.round(1);
            if (tree.token(0) == 1 && tree.drafted() == 1) q = std::exp(tree.log_q()[1]);
        }
        return q;
    };
    for (const double share : {0.9, 0.3})
        CHECK(learned(share) == Catch::Approx(share).margin(0.12));  // 2 has most votes
}

TEST_CASE("ngram:copy follows the prompt, and finds its place again behind a divergence", "[ngram]") {
    NgramDraft drafter({.mode = NgramMode::copy});
    CHECK(drafter.kind() == "ngram:copy");
    //                                       the prompt: 10 .. 19, then 1; the output: 10 11 12, 99 for 13, 14 15 ...
    std::vector<TokenId> text{10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 1, 10, 11, 12, 99, 14, 15, 16, 17, 18, 19, 2, 2};
    Replay replay(drafter, text, 11);
    CHECK(replay.round(4).drafted() == 0);  // nothing is said yet
    TokenTree tree = replay.round(4);       // 10 is unique in the prompt
    CHECK(path_tokens(tree, 4) == std::vector<TokenId>{11, 12, 13, 14});
    CHECK(replay.accepted == 2);
    CHECK(replay.round(4).drafted() == 0);  // 99 is nowhere in the prompt
    tree = replay.round(9);                 // behind 14 the prompt goes on to its end, and no further
    CHECK(path_tokens(tree, 6) == std::vector<TokenId>{15, 16, 17, 18, 19, 1});
    CHECK(tree.drafted() == 6);
    CHECK(replay.accepted == 5);
    NgramDraft twice({.mode = NgramMode::copy, .max_match = 2});
    Replay unsure(twice, std::vector<TokenId>{5, 6, 7, 5, 8, 1, 5, 8, 1, 3}, 6);
    unsure.round(4);
    CHECK(unsure.round(4).drafted() == 0);  // 5 stands in the prompt twice
    CHECK(path_tokens(unsure.round(4), 1) == std::vector<TokenId>{1});
}

TEST_CASE("ngram:maxgram copies behind the longest match and goes on by bigrams of all texts", "[ngram]") {
    NgramDraft drafter({.mode = NgramMode::max_gram});
    CHECK(drafter.kind() == "ngram:maxgram");
    Replay replay(drafter, std::vector<TokenId>{7, 1, 2, 3, 9, 2, 3, 5, 1, 2, 3, 9}, 11);
    const TokenTree tree = replay.round(4);  // as prompt lookup without branches
    CHECK(path_tokens(tree, 4) == std::vector<TokenId>{9, 2, 3, 5});
    Replay other(drafter, std::vector<TokenId>{40, 41, 7, 50}, 3, 2);  // 7 never occurred here, but in the first text
    const TokenTree learned = other.round(2);
    REQUIRE(learned.drafted() >= 1);
    CHECK(learned.token(1) == 1);
    NgramDraft lookup;
    Replay fresh(lookup, std::vector<TokenId>{7, 1, 2}, 2, 1), blank(lookup, std::vector<TokenId>{40, 41, 7, 50}, 3, 2);
    fresh.round(2);
    CHECK(blank.round(2).drafted() == 0);
}

TEST_CASE("ngram says that its likeliest path is certain", "[ngram]") {
    NgramDraft drafter;
    const std::vector<SequenceFeedback> feedback{
        {.sequence = 1, .tokens = {7, 1, 2, 3, 9, 2, 3, 5, 1, 2}, .features = {}, .pending = 3, .committed = 10}};
    const SequenceTree drawn = drafter.propose(feedback, {8}).front();
    REQUIRE(drawn.samples != nullptr);
    CHECK(drawn.samples->is_chosen());
    CHECK(drawn.samples->is_chain());
    REQUIRE(drawn.samples->draws(0).size() == 1);
    CHECK(drawn.samples->draws(0)[0].token == drawn.tree.token(1));
    std::vector<double> q(10, 0.0);
    drawn.samples->law().conditional({}, q);
    CHECK(q[static_cast<std::size_t>(drawn.tree.token(1))] == 1.0);
}

namespace {

/// 9 follows nothing, so that n-grams alone draft nothing there.
const std::vector<TokenId> kCounting{1, 2, 3, 4, 5, 6, 7, 8, 9};

SequenceFeedback counted(SequenceId id) {
    return {.sequence = id,
            .tokens = {kCounting.begin(), kCounting.end() - 1},
            .features = {},
            .pending = 9,
            .committed = 8};
}

TokenTree drafted_by_others() {
    TokenTree::Builder tree(9);
    tree.add(0, 2, std::log(0.6F));
    tree.add(0, 20, std::log(0.3F));
    tree.add(1, 3, std::log(0.5F));
    tree.add(1, 8, std::log(0.4F));
    return std::move(tree).build();
}

}  // namespace

TEST_CASE("ngram goes on where other drafters' paths end, and has a say on them", "[ngram]") {
    NgramDraft drafter;
    REQUIRE(drafter.propose(std::vector<SequenceFeedback>{counted(1)}, {8}).front().tree.drafted() == 0);
    const TokenTree others = drafted_by_others();
    const TokenTree all = drafter.extend(1, others, {12});
    REQUIRE(all.size() > others.size());
    CHECK(all.size() <= others.size() + 12);
    for (std::size_t i = 1; i < others.size(); ++i) {
        CHECK(all.tokens()[i] == others.tokens()[i]);
        CHECK(all.parents()[i] == others.parents()[i]);
    }
    CHECK(std::isinf(all.log_q()[1]));      // nothing followed 9
    CHECK(std::isinf(all.log_q()[4]));      // 8 never followed 2
    CHECK(std::exp(all.log_q()[3]) > 0.1);  // 3 did
    NodeIndex at = 3;
    for (const TokenId next : {4, 5, 6}) {
        at = all.child(at, next);
        REQUIRE(at != kNoNode);
        CHECK(std::isfinite(all.log_q()[static_cast<std::size_t>(at)]));
    }
    for (std::size_t i = others.size(); i < all.size(); ++i) CHECK(std::isfinite(all.log_q()[i]));
    CHECK(drafter.extend(1, others, {0}).size() == others.size());
    CHECK_THROWS_WITH(drafter.extend(2, others, {6}), ContainsSubstring("propose for it first"));
    CHECK_THROWS_WITH(drafter.extend(1, TokenTree::root_only(3), {6}), ContainsSubstring("propose for it first"));
}

TEST_CASE("ngram learns from what it said about other drafters' paths", "[ngram]") {
    NgramDraft drafter;
    const auto say = [&](SequenceId id) {
        (void)drafter.propose(std::vector<SequenceFeedback>{counted(id)}, {8});
        return drafter.extend(id, drafted_by_others(), {6}).log_q()[3];
    };
    float before = say(1);
    for (SequenceId id = 1; id < 20; ++id) {
        const SequenceFeedback right{
            .sequence = id, .tokens = {9, 2, 3}, .features = {}, .pending = 4, .committed = 11};
        (void)drafter.propose(std::vector<SequenceFeedback>{right}, {0});
        const float after = say(id + 1);
        CHECK(after > before);
        before = after;
    }
    const SequenceFeedback wrong{.sequence = 20, .tokens = {9, 2}, .features = {}, .pending = 8, .committed = 10};
    (void)drafter.propose(std::vector<SequenceFeedback>{wrong}, {0});
    CHECK(say(21) < before);
}

TEST_CASE("ngram:copy leaves the paths of others as they are", "[ngram]") {
    NgramDraft drafter({.mode = NgramMode::copy});
    (void)drafter.propose(std::vector<SequenceFeedback>{counted(1)}, {8});
    const TokenTree all = drafter.extend(1, drafted_by_others(), {6});
    CHECK(all.size() == drafted_by_others().size());
    for (std::size_t i = 1; i < all.size(); ++i) CHECK(std::isinf(all.log_q()[i]));
}

TEST_CASE("merged lets n-grams go on from a path that another part drafted, unless that is drawn", "[merged]") {
    const std::vector<SequenceFeedback> feedback{counted(1)};
    MergedDraft chosen(FixedDraft({2}, 0.6F, DraftDraws::none), NgramDraft{});
    const TokenTree tree = chosen.propose(feedback, {4}).front().tree;
    CHECK(path_tokens(tree, 4) == std::vector<TokenId>{2, 3, 4, 5});
    MergedDraft other_order(NgramDraft{}, FixedDraft({2}, 0.6F, DraftDraws::none));
    CHECK(other_order.propose(feedback, {4}).front().tree.drafted() == 4);
    for (const DraftDraws draws : {DraftDraws::unknown, DraftDraws::chain}) {
        MergedDraft drawn(FixedDraft({2}, 0.6F, draws), NgramDraft{});
        CHECK(drawn.propose(feedback, {4}).front().tree.drafted() == 1);
    }
    MergedDraft alone(NgramDraft{}, FixedDraft({}, 0.6F, DraftDraws::none));
    CHECK(alone.propose(feedback, {4}).front().tree.drafted() == 0);
}

TEST_CASE("ngram rejects feedback with a gap and starts afresh after forget", "[ngram]") {
    NgramDraft drafter;
    SequenceFeedback f{.sequence = 4, .tokens = {1, 2, 3}, .features = {}, .pending = 4, .committed = 3};
    const auto propose = [&] { return drafter.propose(std::vector<SequenceFeedback>{f}, {4}); };
    CHECK(propose().size() == 1);
    f = {.sequence = 4, .tokens = {5}, .features = {}, .pending = 6, .committed = 5};  // 4 was never committed
    CHECK_THROWS_WITH(propose(), ContainsSubstring("every round"));
    f = {.sequence = 4, .tokens = {1, 2, 3}, .features = {}, .pending = 4, .committed = 3};
    CHECK(propose().size() == 1);
    f = {.sequence = 4, .tokens = {7}, .features = {}, .pending = 8, .committed = 4};  // the pending token was 4
    CHECK_THROWS_WITH(propose(), ContainsSubstring("every round"));
    f = {.sequence = 9, .tokens = {1}, .features = {}, .pending = 4, .committed = 3};  // joined late
    CHECK_THROWS_WITH(propose(), ContainsSubstring("from the prompt on"));
    f = {.sequence = 5, .tokens = {1, 2}, .features = {}, .pending = 1, .committed = 2};
    CHECK(propose().front().tree.drafted() > 0);
    drafter.forget(5);
    CHECK(propose().front().tree.drafted() > 0);
}

TEST_CASE("merged joins trees by token path and keeps the likeliest nodes", "[merged]") {
    MergedDraft drafter(FixedDraft({1, 2, 3}, 0.1F), FixedDraft({3, 4}, 0.2F));
    CHECK(drafter.kind() == "fixed+fixed");
    const std::vector<SequenceFeedback> feedback{
        {.sequence = 1, .tokens = {8}, .features = {}, .pending = 9, .committed = 1}};
    const TokenTree all = drafter.propose(feedback, {16}).front().tree;
    CHECK(all.drafted() == 4);
    CHECK(all.token(1) == 3);  // both propose it: 1 - 0.9 * 0.8
    CHECK(std::exp(all.log_q()[1]) == Catch::Approx(0.28).epsilon(1e-3));
    CHECK(all.token(2) == 4);
    MergedDraft two(FixedDraft({1, 2, 3}, 0.1F), FixedDraft({3, 4}, 0.2F));
    const TokenTree best = two.propose(feedback, {2}).front().tree;
    CHECK(std::vector<TokenId>(best.tokens().begin(), best.tokens().end()) == std::vector<TokenId>{9, 3, 4});
    CHECK(two.propose(std::vector<SequenceFeedback>{{2, {8}, {}, 9, 1}}, {0}).front().tree.drafted() == 0);
}

TEST_CASE("merged learns whom to believe, and feeds everybody", "[merged]") {
    auto liar = std::make_unique<FixedDraft>(std::vector<TokenId>{1}, 0.9F);
    auto modest = std::make_unique<FixedDraft>(std::vector<TokenId>{2}, 0.1F);
    FixedDraft &first = *liar, &second = *modest;
    std::vector<std::unique_ptr<DraftModel>> list;
    list.push_back(std::move(liar));
    list.push_back(std::move(modest));
    MergedDraft drafter(std::move(list));
    std::vector<TokenId> text(200, 2);  // the modest one is always right
    Replay replay(drafter, text, 2);
    std::size_t rounds = 0, right = 0;
    for (; !replay.done(); ++rounds) {
        const TokenTree tree = replay.round(1);
        right += replay.accepted;
        REQUIRE(tree.drafted() == 1);
    }
    CHECK(right + 12 > rounds);  // a few rounds to find out
    CHECK(first.fed == static_cast<std::int64_t>(rounds));
    CHECK(second.fed == static_cast<std::int64_t>(rounds));
    drafter.forget(1);
    CHECK(first.forgotten == 1);
    CHECK(second.forgotten == 1);
}

TEST_CASE("merged trees stay prefix-closed and within one at every node", "[merged]") {
    MergedDraft drafter(NgramDraft{}, NgramDraft({.max_match = 2, .candidates = 2}), FixedDraft({1, 2, 3, 4}, 0.6F));
    std::mt19937 engine(11);
    std::vector<TokenId> text(400);
    for (TokenId& t : text) t = static_cast<TokenId>(engine() % 5);
    Replay replay(drafter, text, 20);
    while (!replay.done()) {
        const std::int64_t nodes = static_cast<std::int64_t>(engine() % 20);
        const TokenTree tree = replay.round(nodes);
        CHECK(static_cast<std::int64_t>(tree.drafted()) <= nodes);
        std::vector<double> claimed(tree.size(), 0.0);
        for (std::size_t i = 1; i < tree.size(); ++i)
            claimed[static_cast<std::size_t>(tree.parents()[i])] += std::exp(tree.log_q()[i]);
        for (const double sum : claimed) CHECK(sum < 1.0001);
    }
}

TEST_CASE("rows that came piece by piece are joined in order", "[merged]") {
    const at::Tensor all = at::arange(12, at::kFloat).reshape({4, 3});
    const std::vector<at::Tensor> pieces{all.slice(0, 0, 1), all.slice(0, 1, 4)};
    CHECK(at::equal(join_rows(pieces), all));
    const std::vector<at::Tensor> uneven{all, at::zeros({1, 2})};
    CHECK_THROWS_WITH(join_rows(uneven), ContainsSubstring("width 3 and 2"));
}

TEST_CASE("merged needs drafters", "[merged]") {
    CHECK_THROWS_AS(MergedDraft(std::vector<std::unique_ptr<DraftModel>>{}), Error);
    std::vector<std::unique_ptr<DraftModel>> with_null;
    with_null.push_back(nullptr);
    CHECK_THROWS_AS(MergedDraft(std::move(with_null)), Error);
}

TEST_CASE("no_draft proposes roots", "[none]") {
    NoDraft drafter;
    const auto trees = drafter.propose(std::vector<SequenceFeedback>{{3, {1}, {}, 9, 1}, {4, {1}, {}, 8, 1}}, {16});
    CHECK(trees.size() == 2);
    CHECK(trees[1].tree.size() == 1);
    CHECK(trees[1].tree.token(0) == 8);
    CHECK(drafter.kind() == "none");
}
