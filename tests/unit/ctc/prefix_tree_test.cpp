#include "alignment_reference.hpp"
#include "allocation_count.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/tree/token_tree.hpp>

#include <algorithm>
#include <limits>
#include <queue>

using namespace outrider;
using namespace outrider::reference;

namespace {

/// The largest sum of Psi over all prefix-closed sets of at most `nodes` prefixes, by trying every set.
class BestTree {
public:
    explicit BestTree(const Law& law) : law_(law) {}

    double value(std::size_t nodes) {
        best_ = 0;
        grow(children({}), 0, 0.0, nodes);
        return best_;
    }
    [[nodiscard]] std::size_t tried() const { return tried_; }

private:
    [[nodiscard]] std::vector<Prefix> children(const Prefix& prefix) const {
        std::vector<Prefix> result;
        for (const auto& [other, psi] : law_.psi)
            if (other.size() == prefix.size() + 1 && std::equal(prefix.begin(), prefix.end(), other.begin()))
                result.push_back(other);
        return result;
    }

    /// Takes each of frontier[from..] as the next node; what stands before it is given up for good.
    void grow(const std::vector<Prefix>& frontier, std::size_t from, double sum, std::size_t left) {
        ++tried_;
        best_ = std::max(best_, sum);
        if (left == 0) return;
        for (std::size_t i = from; i < frontier.size(); ++i) {
            std::vector<Prefix> next = frontier;
            const auto more = children(frontier[i]);
            next.insert(next.end(), more.begin(), more.end());
            grow(next, i + 1, sum + law_.psi.at(frontier[i]), left - 1);
        }
    }

    const Law& law_;
    double best_ = 0;
    std::size_t tried_ = 0;
};

/// Best-first search without any pruning, on the forward variables (which enumeration has checked).
template <typename Condition>
std::vector<double> naive_search(const BasicCtcFrames<double>& frames, std::size_t nodes, Condition&& condition,
                                 std::span<const double> exponents = {}) {
    BasicPrefixForward<double> forward;
    forward.start(frames);
    struct Open {
        double psi;
        std::int32_t parent, candidate;
        std::size_t depth;
    };
    const auto less = [](const Open& a, const Open& b) { return a.psi < b.psi; };
    std::priority_queue<Open, std::vector<Open>, decltype(less)> heap(less);
    const auto push = [&](std::int32_t state, double psi, std::size_t depth) {
        const double e = exponents.empty() ? 1.0 : exponents[std::min(depth, exponents.size()) - 1];
        for (std::size_t c = 0; c < frames.candidates(); ++c) {
            const double q = forward.child(state, static_cast<std::int32_t>(c));
            if (q > 0) heap.push({psi * std::pow(q, e), state, static_cast<std::int32_t>(c), depth});
        }
    };
    push(forward.root(condition), 1.0, 1);
    std::vector<double> found;
    while (found.size() < nodes && !heap.empty()) {
        const Open top = heap.top();
        heap.pop();
        found.push_back(top.psi);
        push(forward.expand(top.parent, top.candidate, condition), top.psi, top.depth + 1);
    }
    return found;
}

CtcFrames to_float(const BasicCtcFrames<double>& frames) {
    std::vector<float> pi, blank;
    for (std::size_t t = 0; t < frames.frames(); ++t) {
        blank.push_back(static_cast<float>(frames.blank(t)));
        for (std::size_t c = 0; c < frames.candidates(); ++c) pi.push_back(static_cast<float>(frames.pi(t, c)));
    }
    return CtcFrames::from_probabilities(frames.tokens(), std::span<const float>(pi), std::span<const float>(blank));
}

double sum_of(const auto& nodes) {
    double sum = 0;
    for (const auto& node : nodes) sum += node.psi;
    return sum;
}

}  // namespace

TEST_CASE("best-first search finds the best of all prefix-closed trees") {
    Random random(20);
    BasicPrefixTreeSearch<double> search;
    std::size_t tried = 0;
    for (const auto& [frames, candidates, nodes] : std::vector<std::tuple<std::size_t, std::size_t, std::size_t>>{
             {3, 2, 3}, {3, 2, 4}, {3, 2, 5}, {2, 3, 4}, {4, 2, 5}, {4, 2, 6}, {3, 3, 5}, {1, 3, 2}})
        for (int trial = 0; trial < 6; ++trial)
            for (const bool conditioned : {false, true}) {
                const auto made = random_frames<double>(random, {frames, candidates, 1.5, trial == 1 ? 0.4 : 0.0, 0.0});
                const Factor factor = conditioned ? prefix_factor(static_cast<std::uint64_t>(trial)) : Factor{};
                const Law law = enumerate(made, factor);
                BestTree best(law);
                const double expected = best.value(nodes);
                tried += best.tried();
                const double got =
                    conditioned
                        ? sum_of(search.search(made, static_cast<std::int64_t>(nodes), condition_of<double>(factor)))
                        : sum_of(search.search(made, static_cast<std::int64_t>(nodes)));
                REQUIRE(std::abs(got - expected) < 1e-12);
                // One node fewer is strictly worse, so the comparison can fail.
                REQUIRE(sum_of(search.search(made, static_cast<std::int64_t>(nodes) - 1)) <
                        sum_of(search.search(made, static_cast<std::int64_t>(nodes))));
            }
    CHECK(tried > 5000);
}

TEST_CASE("the pruned search equals the unpruned one at full size, in double and in float") {
    Random random(21);
    BasicPrefixTreeSearch<double> search;
    PrefixTreeSearch search32;
    for (int trial = 0; trial < 60; ++trial) {
        const std::size_t frames = 1 + random.below(12), candidates = 1 + random.below(60);
        const auto made = random_frames<double>(random, {frames, candidates, random.uniform(0.5, 5),
                                                         trial % 4 == 0 ? 0.5 : 0.0, trial % 5 == 0 ? 0.5 : 0.0});
        const auto made32 = to_float(made);
        for (const std::size_t nodes : {1U, 7U, 64U, 300U})
            for (const bool conditioned : {false, true}) {
                const auto run = [&](auto&& condition, auto&& condition32) {
                    const auto expected = naive_search(made, nodes, condition);
                    const auto found = search.search(made, static_cast<std::int64_t>(nodes), condition);
                    REQUIRE(found.size() == expected.size());
                    for (std::size_t i = 0; i < found.size(); ++i)
                        REQUIRE(found[i].psi == Catch::Approx(expected[i]).epsilon(1e-10));
                    CHECK(search.expanded() <= nodes);
                    double mass = 0;
                    for (const double psi : expected) mass += psi;
                    CHECK(sum_of(search32.search(made32, static_cast<std::int64_t>(nodes), condition32)) ==
                          Catch::Approx(mass).epsilon(1e-5));
                };
                const Factor factor = prefix_factor(static_cast<std::uint64_t>(trial), 2.0);
                if (conditioned)
                    run(condition_of<double>(factor), condition_of<float>(factor));
                else
                    run(Unconditioned{}, Unconditioned{});
            }
    }
}

TEST_CASE("exponents change the ranking by depth, and neither psi nor q") {
    Random random(25);
    BasicPrefixTreeSearch<double> search;
    bool changed = false;
    for (int trial = 0; trial < 40; ++trial) {
        const auto frames = random_frames<double>(random, {8, 20, 2.5, 0.0, 0.0});
        const std::vector<double> exponents{1.0, random.uniform(0.3, 2.0), random.uniform(0.3, 2.0)};
        const auto plain = search.search(frames, 24);
        const double best = sum_of(plain);
        const auto expected = naive_search(frames, 24, Unconditioned{}, exponents);
        const auto found = search.search(frames, 24, Unconditioned{}, exponents);
        REQUIRE(found.size() == expected.size());
        std::vector<double> score(found.size() + 1, 1.0);
        std::vector<std::size_t> depth(found.size() + 1, 0);
        for (std::size_t i = 0; i < found.size(); ++i) {
            const auto parent = static_cast<std::size_t>(found[i].parent);
            depth[i + 1] = depth[parent] + 1;
            score[i + 1] = score[parent] * std::pow(found[i].q, exponents[std::min<std::size_t>(depth[i + 1], 3) - 1]);
            REQUIRE(score[i + 1] == Catch::Approx(expected[i]).epsilon(1e-10));
            REQUIRE(found[i].psi ==
                    Catch::Approx((parent == 0 ? 1.0 : found[parent - 1].psi) * found[i].q).epsilon(1e-12));
        }
        REQUIRE(sum_of(found) <= best * (1 + 1e-12));
        changed = changed || sum_of(found) < best * 0.999;
        // One exponent for all depths keeps the order.
        const std::vector<double> one{0.7};
        CHECK(sum_of(search.search(frames, 24, Unconditioned{}, one)) == Catch::Approx(best).epsilon(1e-12));
    }
    CHECK(changed);
    const auto frames = random_frames<double>(random, {2, 2, 1.0, 0.0, 0.0});
    for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
        const std::vector<double> exponents{bad};
        CHECK_THROWS_AS(search.search(frames, 2, Unconditioned{}, exponents), Error);
    }
}

TEST_CASE("the tree: parents first, psi descending and monotone, log_q exact, tokens of the draft vocabulary") {
    Random random(22);
    PrefixTreeSearch search;
    for (int trial = 0; trial < 30; ++trial) {
        const auto exact = random_frames<double>(random, {8, 40, 3.0, 0.0, 0.0});
        const auto frames = to_float(exact);
        const Factor factor = prefix_factor(static_cast<std::uint64_t>(trial));
        const auto nodes = search.search(frames, 64, condition_of<float>(factor));
        REQUIRE(nodes.size() == 64);
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            REQUIRE(nodes[i].parent <= static_cast<NodeIndex>(i));
            const double above = nodes[i].parent == 0 ? 1.0 : nodes[static_cast<std::size_t>(nodes[i].parent) - 1].psi;
            REQUIRE(nodes[i].psi == Catch::Approx(above * double(nodes[i].q)).epsilon(1e-6));
            REQUIRE(nodes[i].psi <= above);
            if (i > 0) REQUIRE(nodes[i].psi <= nodes[i - 1].psi);
        }
        const TokenTree tree = search.tree(7, frames, 64, condition_of<float>(factor));
        REQUIRE(tree.size() == 65);
        REQUIRE(tree.token(0) == 7);
        for (NodeIndex node = 1; node < 65; ++node) {
            std::vector<TokenId> path;
            for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
            const auto expected =
                prefix_probability(exact, std::span<const TokenId>(path), condition_of<double>(factor));
            REQUIRE(expected.log_q.size() == path.size());
            REQUIRE(double(tree.log_q()[static_cast<std::size_t>(node)]) ==
                    Catch::Approx(expected.log_q.back()).margin(2e-5));
        }
    }
}

TEST_CASE("equal probabilities are taken in order of parent and index, and scratch leaves no trace") {
    const std::vector<TokenId> tokens{5, 3, 9, 4};
    const std::vector<float> pi(8, 0.125F), blank(2, 0.5F);
    const auto even = CtcFrames::from_probabilities(tokens, std::span<const float>(pi), std::span<const float>(blank));
    PrefixTreeSearch search;
    const TokenTree tree = search.tree(0, even, 3);
    CHECK(std::vector<TokenId>(tree.tokens().begin(), tree.tokens().end()) == std::vector<TokenId>{0, 5, 3, 9});
    const TokenTree more = search.tree(0, even, 6);
    CHECK(std::vector<TokenId>(more.tokens().begin(), more.tokens().end()) ==
          std::vector<TokenId>{0, 5, 3, 9, 4, 3, 9});
    CHECK(more.parent(5) == 1);

    Random random(23);
    const auto frames = random_frames<float>(random, {8, 30, 2.0, 0.0, 0.0});
    const TokenTree first = PrefixTreeSearch{}.tree(1, frames, 50);
    (void)search.tree(0, random_frames<float>(random, {16, 99, 2.0, 0.0, 0.0}), 300,
                      condition_of<float>(prefix_factor(1)));
    const TokenTree again = search.tree(1, frames, 50);
    CHECK(std::equal(first.tokens().begin(), first.tokens().end(), again.tokens().begin(), again.tokens().end()));
    CHECK(std::equal(first.log_q().begin(), first.log_q().end(), again.log_q().begin(), again.log_q().end()));
    CHECK(std::equal(first.parents().begin(), first.parents().end(), again.parents().begin(), again.parents().end()));
}

TEST_CASE("a condition that doubles the scores of tokens that are not there yet, as docs/ctc.md shows it") {
    Random random(26);
    const auto frames = random_frames<float>(random, {8, 100, 2.0, 0.0, 0.0});
    const TokenId pending = 0;
    // [condition]
    PrefixTreeSearch search;
    const TokenTree tree = search.tree(pending, frames, 16, [&](const PrefixContext& l, std::span<float> factors) {
        for (std::size_t c = 0; c < factors.size(); ++c)  // f_l of the candidate frames.tokens()[c]
            factors[c] = std::ranges::find(l.tokens, frames.tokens()[c]) == l.tokens.end() ? 2.0F : 1.0F;
    });
    // [condition]
    CHECK(tree.size() == 17);
}

TEST_CASE("a search that has grown allocates nothing") {
    Random random(24);
    const auto frames = random_frames<float>(random, {8, 100, 2.0, 0.0, 0.0});
    PrefixTreeSearch search;
    const auto condition = [](const PrefixContext& prefix, std::span<float> factors) {
        for (std::size_t c = 0; c < factors.size(); ++c) factors[c] = 1.0F + float((c + prefix.tokens.size()) % 5);
    };
    for (int pass = 0; pass < 2; ++pass) {
        const std::size_t before = allocation_count();
        const double plain = sum_of(search.search(frames, 64));
        const double conditioned = sum_of(search.search(frames, 64, condition));
        const std::size_t made = allocation_count() - before;
        CHECK(plain > 0);
        CHECK(conditioned > 0);
        CHECK((pass == 0) == (made > 0));
    }
}

TEST_CASE("degenerate drafts give small trees, never errors") {
    PrefixTreeSearch search;
    const auto size = [&](const CtcFrames& frames, std::int64_t nodes) { return search.tree(0, frames, nodes).size(); };
    const auto from = [](std::vector<TokenId> tokens, std::vector<float> pi, std::vector<float> blank) {
        return CtcFrames::from_probabilities(tokens, std::span<const float>(pi), std::span<const float>(blank));
    };
    CHECK(size(from({}, {}, {}), 16) == 1);                       // no frames
    CHECK(size(from({1, 2}, {}, {}), 16) == 1);                   // candidates, no frames
    CHECK(size(from({}, {}, {1.0F, 1.0F}), 16) == 1);             // no candidates
    CHECK(size(from({1}, {0.0F, 0.0F}, {1.0F, 1.0F}), 16) == 1);  // all blank

    const auto one_path = from({1, 2}, {1, 0, 0, 1, 0, 0, 1, 0}, {0, 0, 1, 0});  // 1 2 - 1 with certainty
    CHECK(size(one_path, 0) == 1);
    CHECK(size(one_path, -3) == 1);
    CHECK(size(one_path, 1) == 2);
    const TokenTree chain = search.tree(0, one_path, 16);
    CHECK(std::vector<TokenId>(chain.tokens().begin(), chain.tokens().end()) == std::vector<TokenId>{0, 1, 2, 1});
    CHECK(chain.height() == 3);
    for (const float log_q : chain.log_q()) CHECK(log_q == 0.0F);

    const auto repeated = from({1}, {1, 1, 1}, {0, 0, 0});  // 1 1 1 collapses to one token
    CHECK(size(repeated, 16) == 2);

    // Every prefix of two frames over two tokens: 1, 2, 12, 21 (11 needs three frames).
    CHECK(size(from({1, 2}, {0.3F, 0.3F, 0.3F, 0.3F}, {0.4F, 0.4F}), 1000) == 5);

    // A drafter that has gone mad: all frames spoiled.
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> scores(24, nan), gates(3, 0.0F);
    const CtcFrames spoiled = FrameBuilder{}.build({scores, gates, 8});
    CHECK(spoiled.spoiled() == 3);
    CHECK(size(spoiled, 16) == 1);
    const auto mad = [&](const PrefixContext&, std::span<float> factors) {
        std::fill(factors.begin(), factors.end(), nan);
    };
    CHECK(search.tree(0, one_path, 16, mad).size() == 1);
}
