// Drafts sampled from CTC frames under every rule: alignments, coins and picks are all enumerated, and the law of the
// text is the target's.
#include "../accept/rules/sampled_drafts.hpp"
#include "alignment_reference.hpp"

#include <catch2/catch_all.hpp>

#include <cmath>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/accept/rules/node_rules.hpp>
#include <outrider/accept/rules/path_rules.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_tree.hpp>

using namespace outrider;
using enumeration::AllOutcomes;
using enumeration::Outcome;
using enumeration::Table;
using enumeration::TargetOfTree;
using reference::random_frames;

namespace {

using Frames = BasicCtcFrames<double>;

/// One alignment, frame by frame, collapsed. A token that is no candidate ends the draft.
DraftSamples::Chain draw_alignment(const Frames& frames, AllOutcomes& dice) {
    std::vector<TokenId> alignment;
    for (std::size_t t = 0; t < frames.frames(); ++t) {
        std::vector<double> chances{frames.blank(t), frames.other(t)};
        for (std::size_t c = 0; c < frames.candidates(); ++c) chances.push_back(frames.pi(t, c));
        const std::size_t symbol = dice.pick(chances);
        if (symbol == 1) break;
        alignment.push_back(symbol == 0 ? kBlank : frames.tokens()[symbol - 2]);
    }
    return {collapse(alignment), false};
}

/// Random posteriors over token ids 0, 1, ...
Frames small_frames(reference::Random& random, const reference::Shape& shape) {
    const auto drawn = random_frames<double>(random, shape);
    std::vector<TokenId> tokens;
    std::vector<double> pi, blank;
    for (std::size_t c = 0; c < drawn.candidates(); ++c) tokens.push_back(static_cast<TokenId>(c));
    for (std::size_t t = 0; t < drawn.frames(); ++t) {
        blank.push_back(drawn.blank(t));
        for (std::size_t c = 0; c < drawn.candidates(); ++c) pi.push_back(drawn.pi(t, c));
    }
    return Frames::from_probabilities(tokens, std::span<const double>(pi), std::span<const double>(blank));
}

enum class Rule { unified, k_seq, block, traversal };

struct Setting {
    std::size_t frames, tokens, chains;
    double other = 0, zeros = 0;
    std::int64_t chosen = 0;  ///< nodes of the best-first tree beside the chains
    bool lies = false;        ///< the law stated is another one than that drawn from
};

Outcome verify(Rule rule, const Setting& s, std::uint64_t seed) {
    reference::Random random(seed);
    const auto frames = small_frames(random, {s.frames, s.tokens, 1.0, s.other, 0.0});
    const auto law =
        std::make_shared<BasicCtcLaw<double>>(s.lies ? small_frames(random, {s.frames, s.tokens, 1.0}) : frames);
    const Table target(seed, s.tokens, s.zeros);
    BasicPrefixTreeSearch<double> search;
    const TokenTree best = search.tree(0, frames, s.chosen);
    std::vector<enumeration::Text> chosen;
    for (NodeIndex node = 1; node < static_cast<NodeIndex>(best.size()); ++node)
        chosen.push_back(enumeration::text_of(best, node));
    return enumeration::exact(target, s.frames + 1, [&](AllOutcomes& dice) {
        std::vector<DraftSamples::Chain> chains;
        for (std::size_t i = 0; i < s.chains; ++i) chains.push_back(draw_alignment(frames, dice));
        const DraftSamples samples = DraftSamples::from_chains(law, chains);
        TokenTree tree = enumeration::tree_of(samples, chosen);
        TargetOfTree p(target, tree);
        Acceptance a = rule == Rule::unified ? accept_unified(tree, &samples, p, dice)
                       : rule == Rule::k_seq ? accept_by_nodes(tree, &samples, p, dice, KSeqRule{})
                       : rule == Rule::block ? accept_block(tree, samples, p, dice)
                                             : accept_traversal(tree, samples, p, dice);
        return std::pair{std::move(tree), std::move(a)};
    });
}

}  // namespace

TEST_CASE("sampled CTC chains are verified exactly by every rule, beside best-first nodes or not", "[rules]") {
    double v2 = 0, block = 0, unified = 0;
    std::uint64_t seed = 60;
    const std::vector<Setting> settings{{3, 2, 1}, {3, 3, 1, 0.3, 0.3}, {4, 2, 1, 0, 0.3}, {2, 2, 2, 0.3}, {3, 2, 2}};
    for (const Setting& s : settings)
        for (const std::int64_t nodes : {0, 3}) {
            if (nodes == 0) ++seed;
            Setting with = s;
            with.chosen = nodes;
            CAPTURE(s.frames, s.tokens, s.chains, nodes);
            const Outcome u = verify(Rule::unified, with, seed);
            CHECK(u.distance < 1e-12);
            CHECK(verify(Rule::k_seq, with, seed).distance < 1e-12);
            CHECK(verify(Rule::traversal, with, seed).distance < 1e-12);
            if (s.chains > 1) continue;
            const Outcome b = verify(Rule::block, with, seed);
            CHECK(b.distance < 1e-12);
            if (nodes > 0) {
                unified += u.accepted;
                continue;
            }
            CHECK(b.accepted >= u.accepted - 1e-12);
            v2 += u.accepted, block += b.accepted;
        }
    CHECK(block > 1.01 * v2);
    CHECK(unified > 1.05 * v2);
}

TEST_CASE("chains of another law than is stated are noticed with every rule", "[rules]") {
    for (const Rule rule : {Rule::unified, Rule::k_seq, Rule::block, Rule::traversal}) {
        const Setting honest{3, 2, 1};
        Setting lying = honest;
        lying.lies = true;
        CAPTURE(static_cast<int>(rule));
        CHECK(verify(rule, honest, 60).distance < 1e-12);
        CHECK(verify(rule, lying, 60).distance > 1e-3);
    }
}

TEST_CASE("the law along a path is the exact recursion's, conditioned or not", "[rules]") {
    reference::Random random(61);
    const auto frames = small_frames(random, {4, 3, 1.0, 0.2, 0.0});
    const auto factor = reference::prefix_factor(11);
    const auto condition = reference::condition_of<double>(factor);
    const BasicCtcLaw<double> plain(frames);
    const BasicCtcLaw<double, std::remove_cv_t<decltype(condition)>> conditioned(frames, condition);
    const std::vector<TokenId> path{frames.tokens()[1], frames.tokens()[0]};
    std::vector<double> q(8), r(8);
    plain.conditional(path, q);
    conditioned.conditional(path, r);
    for (const TokenId token : frames.tokens()) {
        std::vector<TokenId> longer = path;
        longer.push_back(token);
        const auto at = static_cast<std::size_t>(token);
        CHECK(q.at(at) == Catch::Approx(std::exp(prefix_probability(frames, longer).log_q.at(2))).epsilon(1e-12));
        CHECK(r.at(at) ==
              Catch::Approx(std::exp(prefix_probability(frames, longer, condition).log_q.at(2))).epsilon(1e-12));
        CHECK(q.at(at) != Catch::Approx(r.at(at)).epsilon(1e-3));
    }
    std::vector<double> none(8);
    plain.conditional(std::vector<TokenId>{frames.tokens()[0], 7}, none);  // 7 is no candidate
    CHECK(none == std::vector<double>(8, 0.0));
    CHECK_THROWS_AS(plain.conditional({}, std::span(none).first(2)), Error);
}

TEST_CASE("a sampled tree says what was drawn, and where it was cut", "[rules]") {
    reference::Random random(62);
    const auto frames = random_frames<float>(random, {6, 3, 1.0, 0.0, 0.0});
    AlignmentSampler sampler;
    int cut = 0, ended = 0;
    for (int i = 0; i < 50; ++i) {
        const RandomKey key(5, 0, i, static_cast<std::uint64_t>(RandomPurpose::draft));
        // [samples]
        const SampledDraft draft = sampler.draw(0, frames, 1, 4, key);
        const DraftSamples samples = samples_of(draft, std::make_shared<CtcLaw>(frames));
        // [samples]
        std::int32_t point = 0;
        for (const NodeIndex node : draft.chains[0].nodes) {
            REQUIRE(samples.draws(point).size() == 1);
            REQUIRE(samples.draws(point)[0].token == draft.tree.token(node));
            point = samples.draws(point)[0].point;
        }
        REQUIRE(samples.draws(point).size() == (draft.chains[0].cut ? 0U : 1U));
        if (!draft.chains[0].cut) REQUIRE(samples.draws(point)[0].token == kEndOfDraft);
        (draft.chains[0].cut ? cut : ended)++;
    }
    CHECK(cut > 5);
    CHECK(ended > 2);
}
