#include "alignment_reference.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>

#include <algorithm>
#include <limits>

using namespace outrider;
using namespace outrider::reference;

namespace {

struct Visit {
    std::int32_t state;
    Prefix prefix;
    double psi;
};

/// Expands every prefix of positive probability and compares it with enumeration. Returns how many there were.
template <typename Condition>
std::size_t compare_with_enumeration(const BasicCtcFrames<double>& frames, const Law& law, Condition&& condition) {
    BasicPrefixForward<double> forward;
    forward.start(frames);
    std::vector<Visit> stack{{forward.root(condition), {}, 1.0}};
    std::vector<double> q(frames.stride());
    std::size_t seen = 0;
    while (!stack.empty()) {
        const Visit at = stack.back();
        stack.pop_back();
        ++seen;
        REQUIRE(law.psi.contains(at.prefix));
        REQUIRE(std::abs(at.psi - law.psi.at(at.prefix)) < 1e-12);
        const auto exact = law.exact.find(at.prefix);
        const double end = exact == law.exact.end() ? 0.0 : exact->second;
        REQUIRE(std::abs(forward.end(at.state) * at.psi - end) < 1e-12);
        forward.children(at.state, q.data());
        double sum = forward.end(at.state);
        for (std::size_t c = 0; c < frames.candidates(); ++c) {
            sum += q[c];
            REQUIRE(q[c] >= 0);
            REQUIRE(q[c] <= 1 + 1e-12);  // monotone: Psi(l c) <= Psi(l)
            REQUIRE(std::abs(q[c] - forward.child(at.state, static_cast<std::int32_t>(c))) < 1e-14);
            Prefix next = at.prefix;
            next.push_back(static_cast<std::int32_t>(c));
            if (q[c] == 0) {
                REQUIRE((!law.psi.contains(next) || law.psi.at(next) == 0));
                continue;
            }
            const double bound = forward.enter(at.state, static_cast<std::int32_t>(c));
            const std::int32_t child = forward.expand_entered(at.state, static_cast<std::int32_t>(c), condition);
            REQUIRE(bound >= 1 - forward.end(child) - 1e-12);
            stack.push_back({child, next, at.psi * q[c]});
        }
        REQUIRE(std::abs(sum - 1) < 1e-12);
    }
    return seen;
}

std::size_t reachable(const Law& law) {
    return static_cast<std::size_t>(
        std::count_if(law.psi.begin(), law.psi.end(), [](const auto& entry) { return entry.second > 0; }));
}

}  // namespace

TEST_CASE("Psi, P and q equal the enumeration of all alignments, for every prefix and every kind of frame") {
    Random random(5);
    std::size_t prefixes = 0;
    for (const auto& [frames, candidates] : std::vector<std::pair<std::size_t, std::size_t>>{
             {1, 2}, {2, 2}, {3, 2}, {4, 2}, {5, 2}, {6, 2}, {3, 3}, {4, 3}, {5, 3}, {4, 4}, {1, 17}, {2, 18}})
        for (int trial = 0; trial < 4; ++trial) {
            const Shape shape{frames, candidates, 1.5, trial == 1 ? 0.5 : 0.0, trial == 2 ? 0.3 : 0.0};
            const auto made = random_frames<double>(random, shape);
            const Law plain = enumerate(made);
            CHECK(compare_with_enumeration(made, plain, Unconditioned{}) == reachable(plain));
            prefixes += reachable(plain);
            for (const Factor& factor : {label_factor(frames), prefix_factor(candidates + 100)}) {
                const Law law = enumerate(made, factor);
                auto condition = condition_of<double>(factor);
                CHECK(compare_with_enumeration(made, law, condition) == reachable(law));
                prefixes += reachable(law);
                if (trial != 1) continue;  // the frames with other tokens
                const Law with_other = enumerate(made, factor, true);
                auto returning = condition_with_other<double>(factor);
                CHECK(compare_with_enumeration(made, with_other, returning) == reachable(with_other));
                CHECK(std::abs(with_other.exact.at({}) - law.exact.at({})) > 1e-6);
            }
        }
    CHECK(prefixes > 5000);
}

TEST_CASE("the example of docs/ctc.md") {
    const std::vector<TokenId> tokens{1, 2};
    const std::vector<double> pi{.5, .25, .25, .5}, blank{.25, .25};
    const auto frames = BasicCtcFrames<double>::from_probabilities(tokens, pi, blank);
    BasicPrefixForward<double> forward;
    forward.start(frames);
    const auto root = forward.root(Unconditioned{});
    CHECK(forward.child(root, 0) == .5625);
    CHECK(forward.child(root, 1) == .375);
    CHECK(forward.end(root) == .0625);
    const auto a = forward.expand(root, 0, Unconditioned{});
    CHECK(forward.child(a, 1) == Catch::Approx(.25 / .5625).epsilon(1e-14));
    CHECK(forward.child(a, 0) == 0);
    CHECK(forward.end(a) == Catch::Approx(.3125 / .5625).epsilon(1e-14));
}

TEST_CASE("conditions matter: the law of conditioned frames differs from that of plain ones") {
    Random random(6);
    const auto frames = random_frames<double>(random, {4, 3, 1.0, 0.0, 0.0});
    const Law plain = enumerate(frames), conditioned = enumerate(frames, prefix_factor(1));
    double distance = 0;
    for (const auto& [prefix, psi] : plain.psi)
        distance = std::max(distance, std::abs(psi - conditioned.psi.at(prefix)));
    CHECK(distance > 0.01);
    // Constant factors change nothing, whatever the constant.
    const Law constant = enumerate(frames, [](const Prefix&, std::size_t) { return 7.5; });
    for (const auto& [prefix, psi] : plain.psi) CHECK(std::abs(psi - constant.psi.at(prefix)) < 1e-12);
    CHECK(compare_with_enumeration(frames, plain, [](const PrefixContext&, std::span<double> f) {
              std::fill(f.begin(), f.end(), 7.5);
          }) == plain.psi.size());
}

TEST_CASE("a condition sees each prefix once, with its tokens, its number and its parent's number") {
    Random random(7);
    const auto frames = random_frames<float>(random, {3, 3, 1.0, 0.0, 0.0});
    std::vector<std::vector<TokenId>> seen;
    std::vector<std::int32_t> parents;
    auto condition = [&](const PrefixContext& prefix, std::span<float> factors) {
        REQUIRE(factors.size() == 3);
        REQUIRE(prefix.state == static_cast<std::int32_t>(seen.size()));
        REQUIRE(prefix.tokens.size() == prefix.candidates.size());
        for (std::size_t i = 0; i < prefix.tokens.size(); ++i)
            REQUIRE(prefix.tokens[i] == frames.tokens()[static_cast<std::size_t>(prefix.candidates[i])]);
        seen.emplace_back(prefix.tokens.begin(), prefix.tokens.end());
        parents.push_back(prefix.parent);
        std::fill(factors.begin(), factors.end(), 1.0F);
    };
    PrefixForward forward;
    forward.start(frames);
    const auto root = forward.root(condition);
    const auto a = forward.expand(root, 1, condition);
    (void)forward.expand(root, 2, condition);
    (void)forward.expand(a, 0, condition);
    CHECK(seen == std::vector<std::vector<TokenId>>{{}, {13}, {16}, {13, 10}});
    CHECK(parents == std::vector<std::int32_t>{-1, 0, 0, 1});
}

TEST_CASE("prefix_probability walks one path and equals enumeration") {
    Random random(8);
    for (const bool conditioned : {false, true}) {
        const auto frames = random_frames<double>(random, {4, 3, 1.5, 0.3, 0.2});
        const Factor factor = conditioned ? prefix_factor(3) : Factor{};
        const Law law = enumerate(frames, factor);
        for (const auto& [prefix, psi] : law.psi) {
            std::vector<TokenId> tokens;
            for (const std::int32_t c : prefix) tokens.push_back(frames.tokens()[static_cast<std::size_t>(c)]);
            const auto found =
                conditioned ? prefix_probability(frames, std::span<const TokenId>(tokens), condition_of<double>(factor))
                            : prefix_probability(frames, std::span<const TokenId>(tokens));
            CHECK(std::abs(std::exp(found.log_psi) - psi) < 1e-12);
            if (psi == 0) continue;
            CHECK(found.log_q.size() == prefix.size());
            const auto exact = law.exact.find(prefix);
            CHECK(std::abs(found.end * psi - (exact == law.exact.end() ? 0 : exact->second)) < 1e-12);
        }
        const std::vector<TokenId> stranger{10, 999};
        const auto none = prefix_probability(frames, std::span<const TokenId>(stranger));
        CHECK(none.log_psi == -std::numeric_limits<double>::infinity());
        const std::vector<TokenId> too_long{10, 10, 10};  // needs five frames
        CHECK(prefix_probability(frames, std::span<const TokenId>(too_long)).log_psi ==
              -std::numeric_limits<double>::infinity());
    }
}

TEST_CASE("float keeps its precision over sixteen frames, down to probabilities that float cannot hold") {
    Random random(9);
    double smallest = 0;
    for (int trial = 0; trial < 200; ++trial) {
        const auto exact = random_frames<double>(random, {16, 20, 6.0, 0.0, 0.0});
        std::vector<float> pi, blank;
        for (std::size_t t = 0; t < 16; ++t) {
            blank.push_back(static_cast<float>(exact.blank(t)));
            for (std::size_t c = 0; c < 20; ++c) pi.push_back(static_cast<float>(exact.pi(t, c)));
        }
        const auto rounded =
            CtcFrames::from_probabilities(exact.tokens(), std::span<const float>(pi), std::span<const float>(blank));
        std::vector<TokenId> path;
        for (int i = 0; i < 14; ++i) path.push_back(exact.tokens()[random.below(20)]);
        const auto a =
            prefix_probability(exact, std::span<const TokenId>(path), condition_of<double>(prefix_factor(4)));
        const auto b =
            prefix_probability(rounded, std::span<const TokenId>(path), condition_of<float>(prefix_factor(4)));
        if (frames_needed(path) <= 16) {
            CHECK(b.log_psi == Catch::Approx(a.log_psi).epsilon(1e-5));
            smallest = std::min(smallest, a.log_psi);
        }
    }
    CHECK(smallest < -90);  // e^-88 is where float ends
}

TEST_CASE("the child that repeats the last label keeps its relative precision when blanks are rare") {
    for (const double blank : {1e-3, 1e-7, 1e-12, 1e-20}) {
        const std::vector<TokenId> tokens{1, 2};
        std::vector<double> pi, blanks(6, blank);
        for (int t = 0; t < 6; ++t) pi.insert(pi.end(), {0.9 * (1 - blank), 0.1 * (1 - blank)});
        const std::vector<float> pi32(pi.begin(), pi.end()), blanks32(blanks.begin(), blanks.end());
        const auto exact = BasicCtcFrames<double>::from_probabilities(tokens, pi, blanks);
        const auto rounded = CtcFrames::from_probabilities(tokens, pi32, blanks32);
        const std::vector<TokenId> path{1, 1};
        const auto a = prefix_probability(exact, std::span<const TokenId>(path));
        const auto b = prefix_probability(rounded, std::span<const TokenId>(path));
        CHECK(a.log_q[1] < std::log(10 * blank));
        CHECK(b.log_q[1] == Catch::Approx(a.log_q[1]).margin(1e-5));
    }
}

TEST_CASE("factors that are no factors: negative and NaN count as zero, and a frame without mass says nothing") {
    Random random(10);
    const auto frames = random_frames<double>(random, {4, 3, 1.0, 0.0, 0.0});
    const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
    const auto with = [&](std::vector<double> at_root) {
        BasicPrefixForward<double> forward;
        forward.start(frames);
        auto condition = [&](const PrefixContext& l, std::span<double> f) {
            for (std::size_t c = 0; c < 3; ++c) f[c] = l.tokens.empty() ? at_root[c] : 1.0;
        };
        const auto root = forward.root(condition);
        std::vector<double> q(frames.stride());
        forward.children(root, q.data());
        q.resize(3);
        q.push_back(forward.end(root));
        return q;
    };
    CHECK(with({1, nan, 2}) == with({1, 0, 2}));
    CHECK(with({1, -3, 2}) == with({1, 0, 2}));
    CHECK(with({1, nan, 2})[1] == 0);
    CHECK(with({1, nan, 2})[0] > 0);
    for (const double all : {0.0, nan, inf, -1.0}) {
        const auto q = with({all, all, all});
        CHECK(q[0] == 0);
        CHECK(q[2] == 0);
        CHECK(std::abs(q[3] - 1) < 1e-12);
    }
}

TEST_CASE("impossible prefixes are refused, and no frames leave only the end") {
    const std::vector<TokenId> tokens{1, 2};
    const std::vector<double> pi{0.5, 0.0}, blank{0.5};
    const auto frames = BasicCtcFrames<double>::from_probabilities(tokens, pi, blank);
    BasicPrefixForward<double> forward;
    forward.start(frames);
    const auto root = forward.root(Unconditioned{});
    CHECK_THROWS_AS(forward.expand(root, 1, Unconditioned{}), Error);
    const auto one = forward.expand(root, 0, Unconditioned{});
    CHECK(forward.end(one) == 1.0);
    CHECK_THROWS_AS(forward.expand(one, 0, Unconditioned{}), Error);

    const auto none = BasicCtcFrames<double>::from_probabilities({}, {}, {});
    forward.start(none);
    CHECK(forward.end(forward.root(Unconditioned{})) == 1.0);
}
