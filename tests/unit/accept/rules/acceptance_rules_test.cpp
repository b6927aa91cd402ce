// Every lossless rule leaves the target's law exactly, by enumeration of all drafts and all coins through the code that
// decoders run; mistakes that look alike do not. Lossy rules are what they say, and are lossy.
#include "sampled_drafts.hpp"

#include <catch2/catch_all.hpp>

#include <cmath>
#include <utility>

#include <outrider/accept/rules/lossy_rules.hpp>
#include <outrider/accept/rules/node_rules.hpp>
#include <outrider/accept/rules/path_rules.hpp>

using namespace outrider;
using namespace outrider::enumeration;

namespace {

enum class Rule { match, unified, k_seq, block, traversal };

template <Dice D>
Acceptance accept(Rule rule, const TokenTree& tree, const DraftSamples& samples, const Table& target, D& dice) {
    TargetOfTree p(target, tree);
    switch (rule) {
        case Rule::match: return accept_unified(tree, nullptr, p, dice);
        case Rule::unified: return accept_unified(tree, &samples, p, dice);
        case Rule::k_seq: return accept_by_nodes(tree, &samples, p, dice, KSeqRule{});
        case Rule::block: return accept_block(tree, samples, p, dice);
        case Rule::traversal: return accept_traversal(tree, samples, p, dice);
    }
    return {};
}

/// One setting: a target, a drafter, and how much is drawn.
struct Case {
    std::uint64_t seed = 0;
    std::size_t vocabulary = 3, chains = 1, depth = 2;
    double target_zeros = 0, draft_zeros = 0, missing = 0.4;
    std::vector<Text> more = {};  ///< nodes beside the drawn ones
    Keep keep = {};
    std::vector<std::size_t> widths = {};  ///< not empty: siblings without replacement instead of chains

    [[nodiscard]] Table target() const { return {seed, vocabulary, target_zeros}; }
    [[nodiscard]] std::shared_ptr<const DraftLaw> law() const {
        return std::make_shared<TableLaw>(Table(seed + 1000, vocabulary, draft_zeros, missing));
    }
    [[nodiscard]] std::size_t length() const { return std::max(depth, widths.size()) + 1; }

    template <Dice D>
    [[nodiscard]] DraftSamples draw(const std::shared_ptr<const DraftLaw>& q, D& dice) const {
        if (widths.empty()) return DraftSamples::from_chains(q, draw_chains(*q, vocabulary, chains, depth, dice));
        DraftSamples samples(q, DraftSamples::Kind::without_replacement);
        draw_siblings(samples, 0, vocabulary, widths, {}, dice);
        return samples;
    }
};

template <typename F>
Outcome run(const Case& c, F&& rule) {
    const Table target = c.target();
    const auto q = c.law();
    const Outcome outcome = exact(target, c.length(), [&](AllOutcomes& dice) {
        const DraftSamples samples = c.draw(q, dice);
        TokenTree tree = tree_of(samples, c.more, c.keep);
        Acceptance chosen = rule(tree, samples, target, dice);
        return std::pair{std::move(tree), std::move(chosen)};
    });
    CHECK(outcome.mass == Catch::Approx(1.0).margin(1e-12));
    return outcome;
}

Outcome run(Rule rule, const Case& c) {
    return run(c, [&](const TokenTree& tree, const DraftSamples& samples, const Table& target, AllOutcomes& dice) {
        return accept(rule, tree, samples, target, dice);
    });
}

/// Random settings, the kinds of zeros in turn.
std::vector<Case> cases(Case base, std::size_t count) {
    std::vector<Case> all;
    for (std::size_t i = 0; i < count; ++i) {
        base.seed = 17 * i + 3;
        base.target_zeros = i % 3 == 1 ? 0.4 : 0.0;
        base.draft_zeros = i % 4 == 2 ? 0.4 : 0.0;
        base.missing = i % 5 == 3 ? 0.0 : 0.6;
        all.push_back(base);
    }
    return all;
}

const std::vector<Text> kChosen{{0, 1}, {2}, {0, 0, 1}};

}  // namespace

TEST_CASE("one sampled chain: rejection and block verification are exact, block accepts more", "[rules]") {
    double v2_sum = 0, block_sum = 0;
    for (const std::size_t depth : {1U, 2U, 3U})
        for (const Case& c : cases({.depth = depth}, 10)) {
            const Outcome v2 = run(Rule::unified, c), block = run(Rule::block, c), path = run(Rule::traversal, c);
            const Outcome k_seq = run(Rule::k_seq, c);
            CHECK(v2.distance < 1e-12);
            CHECK(block.distance < 1e-12);
            CHECK(path.distance < 1e-12);
            CHECK(k_seq.distance < 1e-12);
            CHECK(block.accepted >= v2.accepted - 1e-12);
            CHECK(path.accepted == Catch::Approx(block.accepted).margin(1e-12));  // the same rule on one chain
            CHECK(k_seq.accepted == Catch::Approx(v2.accepted).margin(1e-12));
            v2_sum += v2.accepted, block_sum += block.accepted;
        }
    CHECK(block_sum > 1.005 * v2_sum);
}

TEST_CASE("several independent chains: multi-step rejection, k-SEQ and traversal are exact", "[rules]") {
    double one = 0, two = 0, path = 0;
    for (const auto& [vocabulary, chains, depth] :
         std::vector<std::tuple<std::size_t, std::size_t, std::size_t>>{{3, 2, 1}, {2, 3, 1}, {2, 2, 2}, {3, 2, 2}})
        for (const Case& c : cases({.vocabulary = vocabulary, .chains = chains, .depth = depth}, 6)) {
            for (const Rule rule : {Rule::unified, Rule::k_seq, Rule::traversal}) CHECK(run(rule, c).distance < 1e-12);
            Case single = c;
            single.chains = 1;
            CHECK(run(Rule::unified, c).accepted >= run(Rule::unified, single).accepted - 1e-12);
            one += run(Rule::unified, single).accepted, two += run(Rule::unified, c).accepted;
            path += run(Rule::traversal, c).accepted;
        }
    CHECK(two > 1.05 * one);
    CHECK(path > two);
}

TEST_CASE("draws without replacement: recursive rejection and traversal are exact", "[rules]") {
    for (const std::vector<std::size_t>& widths : {std::vector<std::size_t>{2}, {3}, {4}, {2, 2}, {3, 1}, {2, 1, 1}})
        for (const Case& c : cases({.depth = 0, .widths = widths}, 6)) {
            CHECK(run(Rule::unified, c).distance < 1e-12);
            CHECK(run(Rule::traversal, c).distance < 1e-12);
        }
}

TEST_CASE("unified: chosen nodes beside sampled ones are exact and accept more than either part", "[rules]") {
    double gain = 0;
    for (const std::size_t chains : {1U, 2U})
        for (const Case& c : cases({.chains = chains, .more = kChosen}, 8)) {
            const Outcome both = run(Rule::unified, c);
            CHECK(both.distance < 1e-12);
            Case sampled = c;
            sampled.more.clear();
            const Outcome drawn = run(Rule::unified, sampled);
            const Outcome chosen =
                run(c, [](const TokenTree&, const DraftSamples& samples, const Table& target, AllOutcomes& dice) {
                    const DraftSamples none(std::make_shared<TableLaw>(target), DraftSamples::Kind::independent);
                    const TokenTree bare = tree_of(none, kChosen);
                    Acceptance a = accept(Rule::match, bare, samples, target, dice);
                    const TokenTree whole = tree_of(samples, kChosen);
                    NodeIndex at = 0;  // the same nodes in the tree of both
                    for (NodeIndex& node : a.path) node = at = whole.child(at, bare.token(node));
                    return a;
                });
            CHECK(chosen.distance < 1e-12);
            CHECK(both.accepted >= drawn.accepted - 1e-12);
            CHECK(both.accepted >= chosen.accepted - 1e-12);
            gain += both.accepted - std::max(drawn.accepted, chosen.accepted);
            for (const Rule rule : {Rule::k_seq, Rule::traversal}) CHECK(run(rule, c).distance < 1e-12);
            if (chains == 1) CHECK(run(Rule::block, c).distance < 1e-12);
        }
    CHECK(gain > 0.5);
}

TEST_CASE("nodes that were drawn but not verified change nothing about the law", "[rules]") {
    const auto by_depth = [](const Text& path) { return path.size() < 2; };
    const auto by_token = [](const Text& path) { return path.size() < 2 || path.back() != 1; };
    for (const Keep& keep : {Keep(by_depth), Keep(by_token)})
        for (const std::size_t chains : {1U, 2U})
            for (const Case& c : cases({.chains = chains, .keep = keep}, 4))
                for (const Rule rule : {Rule::unified, Rule::k_seq, Rule::traversal, Rule::block}) {
                    if (rule == Rule::block && chains > 1) continue;
                    CHECK(run(rule, c).distance < 1e-12);
                }
}

TEST_CASE("k-SEQ takes the least exact rho", "[rules]") {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        NodeLaws<> laws;
        laws.load(Table(seed, 5, 0.2)(Text{}));
        laws.load(TableLaw(Table(seed + 500, 5, 0.2, 0.5)), {});
        for (const std::size_t k : {1U, 2U, 4U, 7U}) {
            const double rho = KSeqRule::best_rho(laws, k), beta = KSeqRule::beta(laws, rho);
            CHECK(rho * beta >= KSeqRule::chance_of_any(beta, k) - 1e-15);
            if (rho > 1) CHECK(rho * beta == Catch::Approx(KSeqRule::chance_of_any(beta, k)).epsilon(1e-12));
            CHECK((k > 1 || rho == 1.0));
        }
    }
}

namespace {

/// x ~ p where the draft has ended, although q is sub-normalised in the ratio.
struct MixedEnds {
    template <typename Laws, Dice D>
    Emission operator()(std::span<const DraftSamples::Draw> draws, Laws& laws, D& dice) const {
        if (draws[0].token == kEndOfDraft) return {laws.pick(dice), kNoPoint};
        return RejectionRule{}(draws, laws, dice);
    }
};

/// Rule V1: x ~ p where the draft has ended, and q renormalised over tokens elsewhere. Exact, and accepts less than V2.
struct Renormalised {
    template <typename Laws, Dice D>
    Emission operator()(std::span<const DraftSamples::Draw> draws, Laws& laws, D& dice) const {
        if (draws[0].token == kEndOfDraft) return {laws.pick(dice), kNoPoint};
        laws.remove(kEndOfDraft);
        return RejectionRule{}(draws, laws, dice);
    }
};

/// k-SEQ with a rho that is too small.
struct EagerKSeq {
    template <typename Laws, Dice D>
    Emission operator()(std::span<const DraftSamples::Draw> draws, Laws& laws, D& dice) const {
        for (const auto& draw : draws)
            if (dice.accept(laws.chance(draw.token))) return {draw.token, draw.point};
        const double beta = KSeqRule::beta(laws, 1.0), share = KSeqRule::chance_of_any(beta, draws.size()) / beta;
        laws.replace([&](double p, double q) { return std::max(0.0, p - std::min(q, p) * share); });
        return {laws.pick(dice), kNoPoint};
    }
};

template <typename NodeRule>
auto by_nodes(NodeRule rule) {
    return [rule](const TokenTree& tree, const DraftSamples& samples, const Table& target, AllOutcomes& dice) {
        TargetOfTree p(target, tree);
        return accept_by_nodes(tree, &samples, p, dice, rule);
    };
}

}  // namespace

TEST_CASE("negative controls: rules that look right and are biased", "[rules]") {
    int mixed = 0, replaced = 0, eager = 0, all = 0;
    for (Case c : cases({.depth = 2}, 12)) {
        c.missing = 0.6;
        const Outcome v2 = run(Rule::unified, c), v1 = run(c, by_nodes(Renormalised{}));
        CHECK(v1.distance < 1e-12);
        CHECK(v2.accepted >= v1.accepted - 1e-12);
        mixed += run(c, by_nodes(MixedEnds{})).distance > 1e-3;
        Case siblings = c;
        siblings.depth = 0;
        siblings.widths = {2, 1};
        replaced += run(siblings, by_nodes(RejectionRule{.replaced = true})).distance > 1e-3;
        Case several = c;
        several.chains = 2;
        several.depth = 1;
        eager += run(several, by_nodes(EagerKSeq{})).distance > 1e-3;
        ++all;
    }
    CHECK(mixed >= all - 2);
    CHECK(replaced >= all / 2);
    CHECK(eager >= all / 2);
}

TEST_CASE("a cut is not an end", "[rules]") {
    int biased = 0;
    for (const Case& c : cases({.depth = 1}, 8)) {
        const Table target = c.target();
        const auto q = c.law();
        const Outcome outcome = exact(target, 3, [&](AllOutcomes& dice) {
            auto chains = draw_chains(*q, c.vocabulary, 1, 1, dice);
            chains[0].cut = false;
            const DraftSamples samples = DraftSamples::from_chains(q, chains);
            TokenTree tree = tree_of(samples);
            Acceptance chosen = accept(Rule::unified, tree, samples, target, dice);
            return std::pair{std::move(tree), std::move(chosen)};
        });
        biased += outcome.distance > 1e-3;
    }
    CHECK(biased >= 6);
}

TEST_CASE("a target that is sure makes every rule greedy", "[rules]") {
    for (const std::size_t chains : {1U, 2U})
        for (const Case& c : cases({.chains = chains}, 4)) {
            const auto q = c.law();
            for (const Rule rule : {Rule::unified, Rule::k_seq, Rule::traversal, Rule::block}) {
                if (rule == Rule::block && chains > 1) continue;
                AllOutcomes::for_each([&](AllOutcomes& dice) {
                    const DraftSamples samples = c.draw(q, dice);
                    const TokenTree tree = tree_of(samples);
                    const auto sure = [&](NodeIndex node) { return static_cast<TokenId>((node * 7 + 2) % 3); };
                    const double before = dice.weight();
                    std::vector<double> row;
                    const auto p = [&](NodeIndex node) -> std::span<const double> {
                        row.assign(3, 0.0);
                        row[static_cast<std::size_t>(sure(node))] = 1;
                        return row;
                    };
                    const Acceptance chosen = rule == Rule::unified ? accept_unified(tree, &samples, p, dice)
                                              : rule == Rule::k_seq
                                                  ? accept_by_nodes(tree, &samples, p, dice, KSeqRule{})
                                              : rule == Rule::block ? accept_block(tree, samples, p, dice)
                                                                    : accept_traversal(tree, samples, p, dice);
                    const Acceptance greedy = accept_walk(tree, sure);
                    if (dice.weight() < 1e-14 * before) return;  // k-SEQ: the residual's rounding
                    REQUIRE(chosen.path == greedy.path);
                    REQUIRE(chosen.pending == greedy.pending);
                });
            }
        }
}

TEST_CASE("draws are a trie, and refuse what cannot be", "[rules]") {
    const auto law = std::make_shared<TableLaw>(Table(1, 3, 0.0));
    const std::vector<DraftSamples::Chain> chains{{{1, 2}, true}, {{0}, false}, {{1}, false}, {{}, false}};
    const DraftSamples samples = DraftSamples::from_chains(law, chains);
    REQUIRE(samples.draws(0).size() == 4);
    CHECK(samples.draws(0)[0].token == 1);
    CHECK(samples.draws(0)[3].token == kEndOfDraft);
    CHECK(samples.draws(0)[2].point == samples.draws(0)[0].point);
    const auto below = samples.draws(samples.draws(0)[0].point);
    REQUIRE(below.size() == 2);
    CHECK(below[0].token == 2);
    CHECK(below[1].token == kEndOfDraft);
    CHECK(samples.draws(below[0].point).empty());  // cut
    CHECK_FALSE(samples.is_chain());
    CHECK(DraftSamples::from_chains(law, std::span(chains).first(1)).is_chain());
    CHECK_THROWS_AS(DraftSamples(nullptr, DraftSamples::Kind::independent), Error);
    DraftSamples siblings(law, DraftSamples::Kind::without_replacement);
    CHECK(siblings.add(0, 2) == 1);
    CHECK_THROWS_AS(siblings.add(0, 2), Error);
    CHECK_THROWS_AS(siblings.add(7, 1), Error);
    CHECK_THROWS_AS(siblings.add(0, -2), Error);
    CHECK(siblings.largest_token() == 2);
}

TEST_CASE("keyed dice answer with the frequencies that they are asked for, the same ones each time", "[rules]") {
    const std::vector<double> weights{0.5, 0.0, 1.5};
    int yes = 0, last = 0;
    constexpr int kRounds = 20000;
    for (int i = 0; i < kRounds; ++i) {
        KeyedDice dice(4, 1, i), again(4, 1, i);
        const bool accepted = dice.accept(0.3);
        const std::size_t pick = dice.pick(weights);
        REQUIRE(again.accept(0.3) == accepted);
        REQUIRE(again.pick(weights) == pick);
        REQUIRE(pick != 1);
        REQUIRE(dice.accept(1.0));
        REQUIRE_FALSE(dice.accept(0.0));
        yes += accepted, last += pick == 2;
    }
    CHECK(std::abs(yes - 0.3 * kRounds) < 4 * std::sqrt(0.21 * kRounds));
    CHECK(std::abs(last - 0.75 * kRounds) < 4 * std::sqrt(0.1875 * kRounds));
}

namespace {

/// The definition, path by path: all nodes acceptable, longest, largest sum of ln p.
template <typename Accepts>
Text longest_by_definition(const TokenTree& tree, const Table& target, Accepts&& accepts) {
    Text best;
    double best_score = 0;
    for (NodeIndex leaf = 0; leaf < static_cast<NodeIndex>(tree.size()); ++leaf) {
        const Text path = text_of(tree, leaf);
        double score = 0;
        bool good = true;
        for (std::size_t i = 0; i < path.size(); ++i) {
            const auto p = target(std::span(path).first(i));
            good = good && accepts(p, path[i]);
            score += std::log(p[static_cast<std::size_t>(path[i])]);
        }
        if (good && (path.size() > best.size() || (path.size() == best.size() && score > best_score && !path.empty())))
            best = path, best_score = score;
    }
    return best;
}

}  // namespace

TEST_CASE("lossy criteria equal their definitions, and are lossy", "[rules]") {
    const TokenTree tree = [] {
        TokenTree::Builder b(0);
        const std::vector<Text> paths{{0, 0, 0}, {0, 1, 2}, {1, 0, 3}, {1, 2}, {2, 1, 1}, {3, 3}, {4, 4, 0}};
        for (const Text& path : paths) {
            NodeIndex at = 0;
            for (const TokenId t : path) at = b.add(at, t, 0.0F);
        }
        return std::move(b).build();
    }();
    int deeper = 0;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        const Table target(seed, 5, seed % 2 ? 0.3 : 0.0, 0.0, 0.01);
        const auto check = [&](auto criterion, auto&& accepts) {
            TargetOfTree p(target, tree);
            const Acceptance chosen = accept_longest(tree, p, criterion);
            const Text expected = longest_by_definition(tree, target, accepts);
            REQUIRE((chosen.path.empty() ? Text{} : text_of(tree, chosen.path.back())) == expected);
            REQUIRE(chosen.path.size() == expected.size());
            REQUIRE(chosen.pending == most_probable(target(expected)));
            deeper += expected.size() > accept_walk(tree, [&](NodeIndex n) { return most_probable(p(n)); }).path.size();
        };
        const auto at = [](TokenId x) { return static_cast<std::size_t>(x); };
        check(TypicalCriterion{.eps = 0.2, .delta = 0.4}, [&](const std::vector<double>& p, TokenId x) {
            double h = 0;
            for (const double v : p) h += -v * std::log(v + 1e-5);
            return p[at(x)] > std::min(0.2, 0.4 * std::exp(-h));
        });
        check(TopBetaCriterion{.beta = 2}, [&](const std::vector<double>& p, TokenId x) {
            int larger = 0;
            for (std::size_t i = 0; i < p.size(); ++i) larger += p[i] > p[at(x)];
            return p[at(x)] > 0 && larger < 2;
        });
        check(TopBetaCriterion{.beta = 3, .tau = 0.7}, [&](const std::vector<double>& p, TokenId x) {
            int larger = 0;
            for (std::size_t i = 0; i < p.size(); ++i) larger += p[i] > p[at(x)];
            return larger < 3 && p[at(x)] >= *std::max_element(p.begin(), p.end()) * std::exp(-0.7);
        });
        check(DistanceCriterion{.eps = 1},
              [&](const std::vector<double>& p, TokenId x) { return std::abs(x - most_probable(p)) <= 1; });
        TargetOfTree p(target, tree);
        const Acceptance greedy = accept_walk(tree, [&](NodeIndex n) { return most_probable(p(n)); });
        for (const Acceptance& a : {accept_longest(tree, p, TopBetaCriterion{.beta = 1}),
                                    accept_longest(tree, p, DistanceCriterion{.eps = 0})}) {
            CHECK(a.path == greedy.path);
            CHECK(a.pending == greedy.pending);
        }
        CHECK(accept_longest(tree, p, TopBetaCriterion{.beta = 1}, 2).path.size() >= 2);
    }
    CHECK(deeper > 60);  // texts that are not the target's greedy ones
}
