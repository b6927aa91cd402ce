// The search over the whole draft vocabulary beside the exact one over candidates.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/tree/token_tree.hpp>

#include <outrider/draft/ctc/detail/ctc_search.hpp>
#include "ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

TEST_CASE("CtcSearch finds the tree of the exact prefix search over all tokens") {
    for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
        const std::int64_t T = 5, V = 50;
        const at::Tensor logits = noise({T, V}, seed, 3).to(at::kFloat), gate = noise({T}, seed + 50, 2).to(at::kFloat);
        const at::Tensor scores = noise({V + 1, V + 1, V}, seed + 100, 2).to(at::kFloat);  // by last two tokens
        std::vector<TokenId> vocabulary;
        for (TokenId c = 0; c < V; ++c) vocabulary.push_back(3 * c + 1);
        const auto row = [&](std::int32_t last, std::int32_t second) {
            return scores.const_data_ptr<float>() + ((last + 1) * (V + 1) + second + 1) * V;
        };
        const std::span<const float> a(logits.const_data_ptr<float>(), static_cast<std::size_t>(T * V)),
            g(gate.const_data_ptr<float>(), static_cast<std::size_t>(T));

        const auto score = [&](TeamMember& member, std::span<const CtcPrefix> prefixes, float* out,
                               std::int64_t stride) {
            const TeamMember::Range mine = member.range(std::ssize(prefixes));
            for (std::int64_t i = mine.begin; i < mine.end; ++i) {
                const CtcPrefix& prefix = prefixes[static_cast<std::size_t>(i)];
                std::copy_n(row(prefix.last, prefix.last_but_one), V, out + i * stride);
            }
        };
        CtcSearch search;
        TeamMember alone;
        search.run(alone, a, g, 24, 0.0, score);
        const TokenTree tree = search.tree(7, vocabulary);
        ThreadTeam three(3);
        three.run([&](TeamMember& member) { search.run(member, a, g, 24, 0.0, score); });
        const TokenTree shared = search.tree(7, vocabulary);
        CHECK(std::ranges::equal(shared.tokens(), tree.tokens()));
        CHECK(std::ranges::equal(shared.parents(), tree.parents()));
        CHECK(std::ranges::equal(shared.log_q(), tree.log_q()));

        search.run(alone, a, g, 4000, 0.0, score);
        const TokenTree all = search.tree(7, vocabulary);
        for (const std::int64_t nodes : {1, 3, 5, 12}) {
            search.run(alone, a, g, nodes, 0.0, score, true);
            const TokenTree chain = search.tree(7, vocabulary);
            check_chain(chain, static_cast<std::size_t>(std::min(nodes, T)), all);
            three.run([&](TeamMember& member) { search.run(member, a, g, nodes, 0.0, score, true); });
            CHECK(same(search.tree(7, vocabulary), chain));
        }
        search.run(alone, a, g, 5, 2.0, score, true);
        CHECK(search.tree(7, vocabulary).drafted() == 0);  // nothing is likely enough

        for (const std::int64_t nodes : {1, 2, 3, 5, 8, 13, 23}) {  // the beginning of a larger tree
            search.run(alone, a, g, nodes, 0.0, score);
            const TokenTree small = search.tree(7, vocabulary);
            CHECK(std::ranges::equal(small.tokens(), tree.tokens().first(static_cast<std::size_t>(nodes) + 1)));
            CHECK(std::ranges::equal(small.parents(), tree.parents().first(static_cast<std::size_t>(nodes) + 1)));
        }

        FrameBuilder builder;
        const CtcFrames frames =
            builder.build({a, g, static_cast<std::size_t>(V), vocabulary, DenseFrames::Kind::gated_logits},
                          {static_cast<std::size_t>(V), true});
        PrefixTreeSearch exact;
        const TokenTree expected = exact.tree(7, frames, 24, [&](const PrefixContext& l, std::span<float> factors) {
            const auto n = l.tokens.size();
            const float* s = row(n > 0 ? (l.tokens[n - 1] - 1) / 3 : -1, n > 1 ? (l.tokens[n - 2] - 1) / 3 : -1);
            for (std::size_t c = 0; c < factors.size(); ++c) factors[c] = std::exp(s[(frames.tokens()[c] - 1) / 3]);
        });
        const auto got = paths_of(tree), wanted = paths_of(expected);
        REQUIRE(got.size() == 24);
        REQUIRE(wanted.size() == 24);
        for (const auto& [path, log_psi] : wanted) {
            REQUIRE(got.contains(path));
            CHECK(std::abs(got.at(path) - log_psi) < 1e-4);
        }
        // A bar between the ninth and the tenth: the first nine, for less work.
        std::vector<double> falling;
        for (const auto& [path, log_psi] : got) falling.push_back(std::exp(log_psi));
        std::sort(falling.begin(), falling.end(), std::greater<>());
        const double bar = 0.5 * (falling[8] + falling[9]);
        REQUIRE(falling[8] > falling[9]);
        std::int64_t every = 0, some = 0;
        const auto counted = [&](std::int64_t& count) {
            return [&](TeamMember& member, std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
                count += std::ssize(prefixes);
                score(member, prefixes, out, stride);
            };
        };
        search.run(alone, a, g, 24, 0.0, counted(every));
        search.run(alone, a, g, 24, bar, counted(some));
        CHECK(some < every);
        const auto best = paths_of(search.tree(7, vocabulary));
        CHECK(best.size() == 9);
        for (const auto& [path, log_psi] : best) CHECK((got.at(path) == log_psi && std::exp(log_psi) > bar));
    }
}

TEST_CASE("CtcSearch: frames and prefixes that hold NaN or infinities say nothing") {
    const std::vector<TokenId> vocabulary{0, 1, 2};
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const auto flat = [](TeamMember&, std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
        std::fill_n(out, static_cast<std::int64_t>(prefixes.size()) * stride, 0.0F);
    };
    const std::vector<float> gate{0, 0};
    CtcSearch search;
    const auto tree_of = [&](const std::vector<float>& logits, std::int64_t nodes, const CtcSearch::Score& score) {
        TeamMember alone;
        search.run(alone, logits, gate, nodes, 0.0, score);
        return search.tree(9, vocabulary);
    };
    CHECK(tree_of({nan, 0, 0, 0, inf, 0}, 8, flat).size() == 1);
    const std::vector<float> half{nan, 0, 0, 1, 2, 3};
    const TokenTree tree = tree_of(half, 8, flat);
    CHECK(tree.height() == 1);
    CHECK(tree.size() == 4);
    CHECK(tree_of(half, 8, [&](TeamMember&, std::span<const CtcPrefix>, float* out, std::int64_t) {
              out[0] = nan;
          }).size() == 1);
    CHECK(tree_of(half, 0, flat).size() == 1);
}
