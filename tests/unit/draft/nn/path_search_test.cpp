// Best paths and sampled paths of any conditional law, beside enumeration.
#include <catch2/catch_test_macros.hpp>
#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include <outrider/draft/nn/detail/path_sampling.hpp>
#include <outrider/draft/nn/detail/path_search.hpp>
#include <outrider/draft/nn/detail/score_rows.hpp>
#include "paths_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// A law over children that depends on the whole path.
Conditional random_law(std::uint64_t seed, std::size_t columns) {
    return [=](const Path& path) {
        std::uint64_t key = seed;
        for (const TokenId token : path) key = mix64(key ^ static_cast<std::uint64_t>(token + 1));
        return log_softmax(numbers(noise({static_cast<std::int64_t>(columns)}, key, 3)));
    };
}

PathSearch::Score scorer(const std::vector<Conditional>& laws, std::size_t columns, std::size_t& rows_scored) {
    return [&laws, columns, &rows_scored](std::span<const PathRow> rows, float* out) {
        std::size_t head = 0;
        for (std::size_t i = 0; i < rows.size(); ++i) {
            CHECK(rows[i].path.size() - 1 >= head);  // by head, ascending
            head = rows[i].path.size() - 1;
            const Numbers q = laws[rows[i].sequence](Path(rows[i].path.begin() + 1, rows[i].path.end()));
            for (std::size_t c = 0; c < columns; ++c) out[i * padded_row(columns) + c] = static_cast<float>(q[c] + 5);
        }
        rows_scored += rows.size();
    };
}

}  // namespace

TEST_CASE("PathSearch finds the likeliest of all paths, and scores few of them") {
    const std::vector<TokenId> vocabulary{2, 3, 5, 7, 11, 13, 17};
    const std::vector<TokenId> pending{1, 4, 6};
    PathSearch search;
    std::size_t scored = 0, most = 0;
    for (const std::int64_t nodes : {1, 5, 16, 40})
        for (std::uint64_t seed = 1; seed <= 6; ++seed) {
            std::vector<Conditional> laws;
            for (std::uint64_t s = 0; s < 3; ++s) laws.push_back(random_law(10 * seed + s, vocabulary.size()));
            const auto trees =
                search.best_first(pending, vocabulary, 4, nodes, 0.0, scorer(laws, vocabulary.size(), scored));
            most += 3 * (1 + 7 + 49 + 343);
            for (std::size_t s = 0; s < 3; ++s) {
                CHECK(trees[s].token(0) == pending[s]);
                check_best(trees[s], all_paths(laws[s], vocabulary, 4), static_cast<std::size_t>(nodes), 1e-4);
                PathSearch other;  // alone: the same bits
                std::size_t unused = 0;
                const std::vector<Conditional> own{laws[s]};
                CHECK(same(trees[s], other.best_first(std::span(&pending[s], 1), vocabulary, 4, nodes, 0.0,
                                                      scorer(own, vocabulary.size(), unused))[0]));
            }
        }
    CHECK(scored * 10 < most);
    CHECK(search.best_first(pending, vocabulary, 4, 0, 0.0, [](auto, float*) { FAIL("nothing was to be scored"); })
              .size() == 3);
}

TEST_CASE("PathSearch leaves out paths below a bar, and does not look below them") {
    const std::vector<TokenId> vocabulary{2, 3, 5, 7, 11, 13, 17}, pending{1, 4};
    const std::vector<Conditional> laws{random_law(3, vocabulary.size()), random_law(4, vocabulary.size())};
    PathSearch search;
    std::size_t all = 0, some = 0;
    const auto whole = search.best_first(pending, vocabulary, 4, 40, 0.0, scorer(laws, vocabulary.size(), all));
    constexpr double kBar = 0.02;
    const auto trees = search.best_first(pending, vocabulary, 4, 40, kBar, scorer(laws, vocabulary.size(), some));
    CHECK(some < all);
    for (std::size_t s = 0; s < 2; ++s) {
        const auto found = paths_of(trees[s]);
        std::size_t likely = 0;
        for (const auto& [path, log_psi] : paths_of(whole[s])) {
            if (log_psi <= std::log(kBar)) continue;
            ++likely;
            CHECK((found.contains(path) && found.at(path) == log_psi));
        }
        CHECK(likely > 0);
        CHECK(found.size() == likely);
        CHECK(likely < whole[s].drafted());
    }
}

TEST_CASE("DraftBudget: what a node has to promise follows from what trees have to bring") {
    const std::vector<double> prices{0.0, 0.3, 0.4, 0.9}, falling{0.0, -0.1, 0.2};
    CHECK(DraftBudget{.nodes = 3}.least_chance() == 0.0);
    CHECK(DraftBudget{.nodes = 3, .second_price = 5.0, .tree_prices = prices}.least_chance() ==
          Catch::Approx(0.1));  // 0.4 / 2, halved
    CHECK(DraftBudget{.nodes = 3, .second_price = 0.0, .tree_prices = prices}.least_chance() == 0.0);
    CHECK(DraftBudget{.nodes = 3, .second_price = 5.0, .tree_prices = falling}.least_chance() == 0.0);
    CHECK(DraftBudget{.nodes = 3, .second_price = 5.0, .tree_prices = std::span(prices).first(1)}.least_chance() ==
          0.0);
}

TEST_CASE("LeastChances: the n-th node has to bring what the sizes around n cost") {
    // The best sizes are 2 (0.1 a node), 3 (0.3 more) and 5 (0.4 a node more): 1 and 4 cost more than their share.
    const std::vector<double> prices{0.0, 0.15, 0.2, 0.5, 1.0, 1.3};
    const LeastChances least(DraftBudget{.nodes = 5, .second_price = 5.0, .tree_prices = prices});
    const auto after = [&](std::vector<double> found, std::size_t limit = 9) { return least.threshold(found, limit); };
    CHECK(after({}) == Catch::Approx(0.05));
    CHECK(after({0.9}) == Catch::Approx(0.05));
    CHECK(after({0.9, 0.9}) == Catch::Approx(0.05));  // one more at each price
    CHECK(after({0.9, 0.9, 0.9}) == Catch::Approx(0.15));
    CHECK(after({0.9, 0.9, 0.1}) == Catch::Approx(0.15));
    CHECK(after({0.9, 0.9, 0.1, 0.1}) == Catch::Approx(0.15));  // the last one is not worth it
    CHECK(after({0.9, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3}) == Catch::Approx(0.2));
    CHECK(after({0.9, 0.9, 0.3}, 3) == Catch::Approx(0.3));  // N are found
    CHECK(after({0.9, 0.9, 0.01}, 3) == Catch::Approx(0.05));
    CHECK(LeastChances(0.25).threshold({0.5, 0.3}, 9) == 0.25);
    CHECK(LeastChances(DraftBudget{.nodes = 5}).threshold({0.5, 0.3}, 9) == 0.0);

    std::mt19937 engine(9);  // it never falls while paths are found
    for (int run = 0; run < 200; ++run) {
        std::vector<double> found;
        for (double before = 0; found.size() < 8;) {
            const double now = after(found, 8);
            CHECK(now >= before);
            before = now;
            const double psi = now + 0.001 + 0.8 * double(engine() % 1000) / 1000;
            found.insert(std::upper_bound(found.begin(), found.end(), psi, std::greater<>{}), psi);
        }
    }
}

TEST_CASE("PathSearch: static shapes take ranks within each parent's own list") {
    const std::vector<TokenId> vocabulary{2, 3, 5, 7, 11};
    const TreeTemplate shape({{0}, {2}, {0, 1}, {2, 0}, {2, 0, 3}}, 5, 3);
    const std::vector<Conditional> laws{random_law(5, 5)};
    const TokenId root = 9;
    PathSearch search;
    std::size_t scored = 0;
    const auto got = paths_of(search.ranked(std::span(&root, 1), vocabulary, shape, 63, scorer(laws, 5, scored))[0]);
    CHECK(scored == 4);  // one row per node with children
    std::map<Path, double> expected;
    for (const TreeTemplate::Choice& choice : shape.choices()) {
        Path path;
        double sum = 0;
        for (const int rank : choice) {
            const Numbers q = laws[0](path);
            std::vector<std::size_t> order{0, 1, 2, 3, 4};
            std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return q[a] > q[b]; });
            sum += q[order[static_cast<std::size_t>(rank)]];
            path.push_back(vocabulary[order[static_cast<std::size_t>(rank)]]);
        }
        expected[path] = sum;
    }
    REQUIRE(got.size() == expected.size());
    for (const auto& [path, sum] : expected) CHECK(got.at(path) == Catch::Approx(sum).margin(1e-4));
    CHECK(search.ranked(std::span(&root, 1), vocabulary, shape, 2, scorer(laws, 5, scored))[0].drafted() == 2);
}

TEST_CASE("PathSearch: rows that hold NaN or infinities have no children") {
    const std::vector<TokenId> vocabulary{0, 1, 2};
    const TokenId root = 9;
    for (const float spoiled : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        PathSearch search;
        const auto score = [&](std::span<const PathRow> rows, float* out) {
            for (std::size_t i = 0; i < rows.size(); ++i) {
                std::fill_n(out + i * padded_row(3), 3, 0.0F);
                if (rows[i].path.size() == 2) out[i * padded_row(3)] = spoiled;
            }
        };
        const TokenTree tree = search.best_first(std::span(&root, 1), vocabulary, 3, 8, 0.0, score)[0];
        CHECK(tree.height() == 1);
        CHECK(tree.drafted() == 3);
    }
}

TEST_CASE("rank_row: falling, ties by column, nothing for zeros") {
    std::vector<float> q(64, 0.0F);
    q[3] = 0.2F, q[17] = 0.3F, q[18] = 0.2F, q[39] = 0.3F;
    std::vector<TokenId> vocabulary;
    for (TokenId c = 0; c < 40; ++c) vocabulary.push_back(100 + c);
    RankedTokens ranked;
    rank_row(q.data(), vocabulary, 3, ranked);
    CHECK(ranked.tokens == std::vector<TokenId>{117, 139, 103});
    rank_row(q.data(), vocabulary, 30, ranked);
    CHECK(ranked.tokens == std::vector<TokenId>{117, 139, 103, 118});
    CHECK(ranked.log_q[0] == Catch::Approx(std::log(0.3)));
    rank_row(q.data(), vocabulary, 0, ranked);
    CHECK(ranked.tokens.empty());
}

TEST_CASE("PathSampler draws as often as q says, and an unusable row ends its chains") {
    const std::vector<TokenId> vocabulary{2, 3, 5, 7};
    const Conditional law = random_law(5, vocabulary.size());
    PathSampler sampler;
    std::vector<double> hits(vocabulary.size(), 0);
    constexpr int kDraws = 4000;
    const auto score = [&](std::span<const PathRow> rows, float* out) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const Numbers q = law(Path(rows[i].path.begin() + 1, rows[i].path.end()));
            for (std::size_t c = 0; c < q.size(); ++c)
                out[i * padded_row(q.size()) + c] = rows[i].path.size() == 3 ? std::nanf("") : static_cast<float>(q[c]);
        }
    };
    for (std::int64_t i = 0; i < kDraws; ++i) {
        const PathSampler::Start start{i, 7, 1};
        const auto trees =
            sampler.draw(std::span(&start, 1), vocabulary, 4, DraftBudget{.nodes = 4}, {.top_k = 4}, score);
        REQUIRE(trees.size() == 1);
        REQUIRE(trees[0].tree.drafted() == 2);  // the third head says nothing
        const auto first = trees[0].tree.token(1);
        hits[static_cast<std::size_t>(std::find(vocabulary.begin(), vocabulary.end(), first) - vocabulary.begin())]++;
        // The end was drawn, for certain: a rule must not take it for a limit.
        const auto draws =
            trees[0].samples->draws(trees[0].samples->draws(trees[0].samples->draws(0)[0].point)[0].point);
        REQUIRE(draws.size() == 1);
        CHECK(draws[0].token == kEndOfDraft);
    }
    const Numbers q = law({});
    double chi = 0;
    for (std::size_t c = 0; c < hits.size(); ++c) {
        const double expected = kDraws * std::exp(q[c]);
        chi += (hits[c] - expected) * (hits[c] - expected) / expected;
    }
    CHECK(chi < 16.3);  // three degrees of freedom, one in a thousand; the draws are the same in every run
}
