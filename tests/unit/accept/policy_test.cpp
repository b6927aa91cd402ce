#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cmath>
#include <limits>

#include <outrider/accept/match.hpp>
#include <outrider/accept/policy.hpp>
#include <outrider/core/error.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;

static_assert(Acceptor<Match> && Acceptor<Match> && Acceptor<AcceptancePolicy>);

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// root 5 -> {1 -> {2}, 3}
TokenTree small_tree() {
    TokenTree::Builder tree(5);
    const NodeIndex one = tree.add(0, 1, -0.1F);
    tree.add(0, 3, -0.2F);
    tree.add(one, 2, -0.3F);
    return std::move(tree).build();
}

/// [4, 6] rows whose picks are given, all other logits 0.
at::Tensor rows_picking(const std::vector<std::int64_t>& picks) {
    at::Tensor logits = at::zeros({static_cast<std::int64_t>(picks.size()), 6});
    for (std::size_t i = 0; i < picks.size(); ++i) logits[static_cast<std::int64_t>(i)][picks[i]] = 1.0;
    return logits;
}

struct Request {
    SamplingOptions sampling;
    std::vector<TokenId> text{4, 5};
    [[nodiscard]] SequenceContext context() const { return {1, &sampling, text}; }
};

}  // namespace

TEST_CASE("greedy walks while the pick is a child", "[accept]") {
    const TokenTree tree = small_tree();
    const Request request;
    const auto walk = [&](const std::vector<std::int64_t>& picks) {
        return Match{}.accept(tree, {rows_picking(picks), {}}, request.context());
    };
    CHECK(walk({1, 2, 0, 4}).path == std::vector<NodeIndex>{1, 3});
    CHECK(walk({1, 2, 0, 4}).pending == 4);
    CHECK(walk({3, 2, 0, 4}).path == std::vector<NodeIndex>{2});
    CHECK(walk({3, 2, 0, 4}).pending == 0);
    CHECK(walk({2, 2, 2, 2}).path.empty());
    CHECK(walk({2, 2, 2, 2}).pending == 2);
    CHECK(Match{}.accept(tree, {at::zeros({4, 6}), {}}, request.context()).pending == 0);  // ties: the lowest id
}

TEST_CASE("a given argmax is used, and stands for the logits", "[accept]") {
    const TokenTree tree = small_tree();
    const Request request;
    const at::Tensor argmax = at::tensor(std::vector<std::int64_t>{3, 0, 5, 0});
    const Acceptance a = Match{}.accept(tree, {rows_picking({1, 1, 1, 1}), argmax}, request.context());
    CHECK(a.path == std::vector<NodeIndex>{2});
    CHECK(a.pending == 5);
    CHECK(Match{}.accept(tree, {rows_picking({1, 1, 1, 1}), argmax}, request.context()).pending == 5);
    CHECK(Match{}.accept(tree, {{}, argmax}, request.context()).pending == 5);
    CHECK_THROWS_WITH(Match{}.accept(tree, {rows_picking({1, 1, 1, 1}), argmax + 10}, request.context()),
                      ContainsSubstring("outside the vocabulary"));
}

TEST_CASE("given picks stand for the logits where sampling asks for them, and nowhere else", "[accept]") {
    const TokenTree tree = small_tree();
    Request request;
    const TreeRows rows{rows_picking({1, 1, 1, 1}) * 100, {}, at::tensor(std::vector<std::int64_t>{3, 0, 5, 0})};
    CHECK(Match{}.accept(tree, rows, request.context()).path == std::vector<NodeIndex>{1});  // greedy
    request.sampling.temperature = 1.0;
    const Acceptance a = Match{}.accept(tree, rows, request.context());
    CHECK((a.path == std::vector<NodeIndex>{2} && a.pending == 5));
    // Where the verifier says nothing of a row, its logits tell.
    const TreeRows silent{rows.logits, {}, at::tensor(std::vector<std::int64_t>{-1, 4, 0, 0})};
    const Acceptance b = Match{}.accept(tree, silent, request.context());
    CHECK((b.path == std::vector<NodeIndex>{1} && b.pending == 4));
    CHECK_THROWS_WITH(Match{}.accept(tree, {rows.logits, {}, rows.picks + 10}, request.context()),
                      ContainsSubstring("outside the vocabulary"));
    CHECK_THROWS_WITH(Match{}.accept(tree, {rows.logits, {}, rows.picks.slice(0, 0, 1)}, request.context()),
                      ContainsSubstring("no pick for node 2"));
    request.sampling.repetition_penalty = 1.5;
    CHECK(Match{}.accept(tree, rows, request.context()).path == std::vector<NodeIndex>{1});
    request.sampling = {.temperature = 1.0};
    request.sampling.logit_hook = [](std::span<const TokenId>, std::span<float> logits) { logits[1] = -kInf; };
    CHECK(Match{}.accept(tree, rows, request.context()).pending != 5);
}

TEST_CASE("rows are read in any dtype and layout", "[accept]") {
    const TokenTree tree = small_tree();
    const Request request;
    const at::Tensor logits = rows_picking({1, 2, 0, 4});
    const at::Tensor spread = at::stack({logits, logits}, 2).select(2, 0);  // stride 2
    for (const at::Tensor& form : {logits.to(at::kHalf), logits.to(at::kDouble), spread})
        CHECK(Match{}.accept(tree, {form, {}}, request.context()).pending == 4);
}

TEST_CASE("logits that are not a number are an error, in visited rows only", "[accept]") {
    const TokenTree tree = small_tree();
    Request request;
    at::Tensor logits = rows_picking({1, 2, 0, 4});
    logits[2].fill_(NAN);  // node 2 is never visited
    CHECK(Match{}.accept(tree, {logits, {}}, request.context()).pending == 4);
    logits[1][5] = NAN;
    CHECK_THROWS_WITH(Match{}.accept(tree, {logits, {}}, request.context()), ContainsSubstring("node 1"));
    CHECK_THROWS_WITH(Match{}.accept(tree, {logits, at::argmax(logits, 1)}, request.context()),
                      ContainsSubstring("not a number"));
    request.sampling.temperature = 1.0;
    request.sampling.logit_hook = [](std::span<const TokenId> text, std::span<float> row) {
        if (text.size() == 2) row[1] = 100.0F;
    };
    CHECK_THROWS_WITH(Match{}.accept(tree, {logits, {}}, request.context()), ContainsSubstring("not finite"));
    request.sampling.logit_hook = [](std::span<const TokenId>, std::span<float> row) {
        std::fill(row.begin(), row.end(), -kInf);
    };
    CHECK_THROWS_WITH(Match{}.accept(tree, {logits, {}}, request.context()), ContainsSubstring("forbidden"));
}

TEST_CASE("the hook sees prompt, text and drafted path, and masks before anything else", "[accept]") {
    const TokenTree tree = small_tree();
    Request request;
    std::vector<std::vector<TokenId>> seen;
    request.sampling.logit_hook = [&](std::span<const TokenId> text, std::span<float> logits) {
        seen.emplace_back(text.begin(), text.end());
        if (text.size() == 4) logits[4] = -kInf;
    };
    const Acceptance a = Match{}.accept(tree, {rows_picking({1, 2, 0, 4}), {}}, request.context());
    CHECK(seen == std::vector<std::vector<TokenId>>{{4, 5}, {4, 5, 1}, {4, 5, 1, 2}});
    CHECK(a.pending == 0);
}

TEST_CASE("the penalty counts the drafted path too", "[accept]") {
    const TokenTree tree = small_tree();
    Request request;
    request.sampling.repetition_penalty = 4.0;
    at::Tensor logits = at::zeros({4, 6});
    logits[0][1] = 3.0, logits[0][5] = 8.0;                      // 5 is in the text: 8 / 4 < 3
    logits[1][2] = 1.0, logits[1][1] = 3.0;                      // 1 is on the path: 3 / 4 < 1
    logits[3][0] = 1.0, logits[3][2] = 3.0, logits[3][4] = 3.0;  // 2 on the path, 4 in the prompt
    const Acceptance a = Match{}.accept(tree, {logits, {}}, request.context());
    CHECK(a.path == std::vector<NodeIndex>{1, 3});
    CHECK(a.pending == 0);
}

TEST_CASE("a hook may decode something else on its thread", "[accept]") {
    const TokenTree tree = small_tree();
    Request inner, outer;
    inner.sampling.repetition_penalty = 4.0;
    inner.text.assign(500, 3);
    const at::Tensor others = at::ones({4, 900});
    outer.sampling.temperature = 1e-4;
    outer.sampling.logit_hook = [&](std::span<const TokenId> text, std::span<float> logits) {
        (void)Match{}.accept(tree, {others, {}}, inner.context());
        CHECK(text[0] == 4);
        CHECK(logits.size() == 6);
        if (text.size() == 4) logits[0] = 50.0F;
    };
    const Acceptance a = Match{}.accept(tree, {rows_picking({1, 2, 0, 4}), {}}, outer.context());
    CHECK(a.path == std::vector<NodeIndex>{1, 3});
    CHECK(a.pending == 0);
}

TEST_CASE("rows that are not there and ids outside the row are refused", "[accept]") {
    const TokenTree tree = small_tree();
    Request request;
    const at::Tensor logits = rows_picking({1, 2, 0, 4}), few = logits.slice(0, 0, 3);
    CHECK_THROWS_WITH(Match{}.accept(tree, {few, {}}, request.context()), ContainsSubstring("node 3"));
    CHECK_THROWS_WITH(Match{}.accept(tree, {few, at::argmax(logits, 1)}, request.context()),
                      ContainsSubstring("node 3"));
    CHECK_THROWS_WITH(Match{}.accept(tree, {logits, at::argmax(few, 1)}, request.context()),
                      ContainsSubstring("node 3"));
    request.sampling.repetition_penalty = 2.0;
    for (const TokenId token : {-1, 6}) {
        request.text = {4, token, 5};
        CHECK_THROWS_WITH(Match{}.accept(tree, {logits, {}}, request.context()),
                          ContainsSubstring("outside the vocabulary of 6"));
    }
}
