// The policies over logits: texts of many seeds have the target's law under every warper, greedy is greedy, and drafts
// that a rule is not made for are refused.
#include "../ctc/chi_square.hpp"
#include "rules/sampled_drafts.hpp"

#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <typeinfo>
#include <utility>
#include <vector>

#include <outrider/accept/draw.hpp>
#include <outrider/accept/lossy.hpp>
#include <outrider/accept/match.hpp>
#include <outrider/accept/policy.hpp>
#include <outrider/draft/ngram.hpp>

using namespace outrider;
using namespace outrider::enumeration;
using Catch::Matchers::ContainsSubstring;

static_assert(Acceptor<UnifiedAccept> && Acceptor<LossyTypical>);
struct ChoosingDraft {
    static constexpr bool kSamples = false;
};
static_assert(!Fits<ChoosingDraft, BlockAccept> && !Fits<ChoosingDraft, KSeqAccept>);
static_assert(Fits<ChoosingDraft, UnifiedAccept> && Fits<ChoosingDraft, Match> && Fits<NgramDraft, BlockAccept>);
static_assert(Fits<DraftModel, BlockAccept>);  // known at run time only

namespace {

constexpr std::size_t kVocabulary = 4;
const Table kTarget(5, kVocabulary, 0.0);

/// [nodes, V] log p of a table after prompt and drafted path.
at::Tensor table_rows(const TokenTree& tree, const Text& text) {
    at::Tensor logits = at::empty({static_cast<std::int64_t>(tree.size()), static_cast<std::int64_t>(kVocabulary)});
    for (NodeIndex node = 0; node < static_cast<NodeIndex>(tree.size()); ++node) {
        Text whole = text;
        for (const TokenId t : text_of(tree, node)) whole.push_back(t);
        const auto p = kTarget(whole);
        for (std::size_t c = 0; c < kVocabulary; ++c)
            logits[node][static_cast<std::int64_t>(c)] = static_cast<float>(std::log(p[c]));
    }
    return logits;
}

struct Draft {
    TokenTree tree;
    std::shared_ptr<const DraftSamples> samples;
};

enum class Drawn { chain, chains, siblings };

/// What a drafter that knows nothing of the target would send.
Draft draft(Drawn kind, const Text& text, std::uint64_t seed, const std::vector<Text>& more) {
    const auto law = std::make_shared<TableLaw>(Table(900 + text.size(), kVocabulary, 0.0, 0.5));
    KeyedDice dice(seed, 77, static_cast<std::int64_t>(text.size()));
    if (kind == Drawn::siblings) {
        auto samples = std::make_shared<DraftSamples>(law, DraftSamples::Kind::without_replacement);
        const std::vector<std::size_t> widths{2, 2};
        draw_siblings(*samples, 0, kVocabulary, widths, {}, dice);
        return {tree_of(*samples, more), samples};
    }
    const auto chains = draw_chains(*law, kVocabulary, kind == Drawn::chain ? 1 : 2, 2, dice);
    auto samples = std::make_shared<DraftSamples>(DraftSamples::from_chains(law, chains));
    return {tree_of(*samples, more), samples};
}

constexpr std::size_t kTokens = 3;
const Text kPrompt{1, 2};

Text decode(const AcceptancePolicy& policy, Drawn kind, const SamplingOptions& sampling,
            const std::vector<Text>& more = {}) {
    Text text = kPrompt;
    while (text.size() < kPrompt.size() + kTokens) {
        const Draft d = draft(kind, text, sampling.seed, more);
        const Acceptance a =
            policy.accept(d.tree, {table_rows(d.tree, text), {}}, {1, &sampling, text, d.samples.get()});
        for (const NodeIndex node : a.path) text.push_back(d.tree.token(node));
        text.push_back(a.pending);
    }
    return {text.begin() + 2, text.begin() + 2 + static_cast<std::ptrdiff_t>(kTokens)};
}

/// The target's law of kTokens tokens at a temperature, with only the `top_k` best allowed (0: all).
Law exact_law(double temperature, std::size_t top_k) {
    Law law{{{}, 1.0}};
    for (std::size_t i = 0; i < kTokens; ++i) {
        Law longer;
        for (const auto& [text, chance] : law) {
            Text whole = kPrompt;
            whole.insert(whole.end(), text.begin(), text.end());
            auto p = kTarget(whole);
            std::vector<double> sorted = p;
            std::sort(sorted.rbegin(), sorted.rend());
            double sum = 0;
            for (double& x : p) sum += x = top_k > 0 && x < sorted[top_k - 1] ? 0.0 : std::pow(x, 1 / temperature);
            for (std::size_t c = 0; c < p.size(); ++c) {
                Text next = text;
                next.push_back(static_cast<TokenId>(c));
                if (p[c] > 0) longer[next] += chance * p[c] / sum;
            }
        }
        law = std::move(longer);
    }
    return law;
}

reference::ChiSquare statistic(const AcceptancePolicy& policy, Drawn kind, double temperature, std::int64_t top_k,
                               const std::vector<Text>& more = {}) {
    Law counts;
    for (std::uint64_t seed = 0; seed < 3000; ++seed) {
        const SamplingOptions sampling{.temperature = temperature, .top_k = top_k, .seed = seed};
        counts[decode(policy, kind, sampling, more)] += 1;
    }
    return reference::chi_square(counts, exact_law(temperature, static_cast<std::size_t>(top_k)));
}

const std::vector<Text> kMore{{0, 3}, {2}};

template <typename F>
void for_each_policy(F&& f) {
    f(RejectionAccept{}, Drawn::chain);
    f(BlockAccept{}, Drawn::chain);
    f(MultiStepAccept{}, Drawn::chains);
    f(MultiStepAccept{}, Drawn::siblings);
    f(KSeqAccept{}, Drawn::chains);
    f(UnifiedAccept{}, Drawn::chains);
    f(TraversalAccept{}, Drawn::chains);
    f(TraversalAccept{}, Drawn::siblings);
}

}  // namespace

TEST_CASE("texts of draw policies have the target's law", "[accept]") {
    for_each_policy([](const AcceptancePolicy& policy, Drawn kind) {
        CAPTURE(static_cast<int>(kind), typeid(policy).name());
        CHECK(statistic(policy, kind, 0.8, 0, kMore).plausible());
    });
    CHECK(statistic(UnifiedAccept{}, Drawn::chain, 1.3, 2, kMore).plausible());
    CHECK_FALSE(statistic(LossyTypical{}, Drawn::chain, 0.8, 0).plausible());
}

TEST_CASE("at temperature 0 draw policies give the greedy text", "[accept]") {
    for_each_policy([](const AcceptancePolicy& policy, Drawn kind) {
        for (std::uint64_t seed = 0; seed < 20; ++seed)
            CHECK(decode(policy, kind, {.seed = seed}, kMore) == decode(Match{}, kind, {.seed = seed}, kMore));
    });
}

TEST_CASE("hooks and penalties reach the law of draw policies", "[accept]") {
    SamplingOptions sampling{.temperature = 1.0, .seed = 3};
    std::size_t longest = 0;
    sampling.logit_hook = [&](std::span<const TokenId> text, std::span<float> logits) {
        longest = std::max(longest, text.size());
        for (std::size_t i = 0; i < logits.size(); ++i)
            if (i != (static_cast<std::size_t>(text.back()) + 1) % kVocabulary) logits[i] = -INFINITY;
    };
    CHECK(decode(UnifiedAccept{}, Drawn::chain, sampling, {{3, 0}}) == Text{3, 0, 1});
    CHECK(longest > kPrompt.size());
    const Text greedy = decode(Match{}, Drawn::chain, {.repetition_penalty = 0.1}, kMore);
    CHECK(decode(BlockAccept{}, Drawn::chain, {.repetition_penalty = 0.1}, kMore) == greedy);
    CHECK(decode(Match{}, Drawn::chain, {}, kMore) != greedy);
    sampling.logit_hook = [](std::span<const TokenId>, std::span<float> row) {
        std::fill(row.begin(), row.end(), -INFINITY);
    };
    CHECK_THROWS_WITH(decode(TraversalAccept{}, Drawn::chain, sampling), ContainsSubstring("forbidden"));
    sampling.logit_hook = [](std::span<const TokenId>, std::span<float> row) { row[1] = NAN; };
    CHECK_THROWS_WITH(decode(KSeqAccept{}, Drawn::chain, sampling), ContainsSubstring("not finite"));
}

TEST_CASE("draw policies refuse drafts that they are not made for", "[accept]") {
    const SamplingOptions sampling{.temperature = 1.0};
    const auto accept = [&](const AcceptancePolicy& policy, const Draft& d) {
        return policy.accept(d.tree, {table_rows(d.tree, kPrompt), {}}, {1, &sampling, kPrompt, d.samples.get()});
    };
    Draft chosen = draft(Drawn::chain, kPrompt, 1, kMore);
    chosen.samples = nullptr;
    CHECK_THROWS_WITH(accept(RejectionAccept{}, chosen), ContainsSubstring("drafter that samples"));
    CHECK_THROWS_WITH(accept(MultiStepAccept{}, chosen), ContainsSubstring("MultiStepAccept"));
    CHECK_THROWS_WITH(accept(KSeqAccept{}, chosen), ContainsSubstring("KSeqAccept"));
    CHECK_THROWS_WITH(accept(BlockAccept{}, chosen), ContainsSubstring("BlockAccept"));
    CHECK_THROWS_WITH(accept(TraversalAccept{}, chosen), ContainsSubstring("TraversalAccept"));
    CHECK_NOTHROW(accept(UnifiedAccept{}, chosen));
    CHECK_NOTHROW(accept(BlockAccept{}, {TokenTree::root_only(2), nullptr}));
    const Draft several = draft(Drawn::chains, kPrompt, 1, {}), siblings = draft(Drawn::siblings, kPrompt, 1, {});
    CHECK_THROWS_WITH(accept(RejectionAccept{}, several), ContainsSubstring("one sampled chain"));
    CHECK_THROWS_WITH(accept(BlockAccept{}, siblings), ContainsSubstring("one sampled chain"));
    CHECK_THROWS_WITH(accept(KSeqAccept{}, siblings), ContainsSubstring("independent draws"));
    const auto law = std::make_shared<TableLaw>(Table(1, kVocabulary, 0.0));
    const std::vector<DraftSamples::Chain> beyond{{{4}, true}};
    CHECK_THROWS_WITH(
        accept(UnifiedAccept{}, {several.tree, std::make_shared<DraftSamples>(DraftSamples::from_chains(law, beyond))}),
        ContainsSubstring("token 4 was drawn"));
    const TreeRows rows{table_rows(several.tree, kPrompt), {}};
    CHECK_THROWS_WITH(UnifiedAccept{}.accept(several.tree, rows, {1, nullptr, kPrompt}),
                      ContainsSubstring("sampling is missing"));
}

TEST_CASE("lossy policies apply their criterion to the warped law", "[accept]") {
    TokenTree::Builder builder(2);
    builder.add(builder.add(0, 0, 0.0F), 1, 0.0F);
    builder.add(0, 3, 0.0F);
    const TokenTree tree = std::move(builder).build();
    // p: 0.5 0.05 0.15 0.3 at the root, 0.1 0.2 0.3 0.4 after 0, all on 1 elsewhere
    const at::Tensor p = at::tensor({0.5, 0.05, 0.15, 0.3, 0.1, 0.2, 0.3, 0.4, 0., 1., 0., 0., 0., 1., 0., 0.});
    const at::Tensor logits = at::log(p.reshape({4, 4})).to(at::kFloat);
    const auto accept = [&](const AcceptancePolicy& policy, double temperature) {
        const SamplingOptions sampling{.temperature = temperature};
        const Acceptance a = policy.accept(tree, {logits, {}}, {1, &sampling, kPrompt});
        return std::pair{a.path.size(), a.pending};
    };
    using Result = std::pair<std::size_t, TokenId>;
    CHECK(accept(lossy_top_k(1), 0.0) == Result{1, 3});
    CHECK(accept(lossy_top_k(2), 0.0) == Result{1, 3});
    CHECK(accept(lossy_top_k(3), 0.0) == Result{2, 1});
    CHECK(accept(LossyTopBeta({.beta = 3, .tau = std::log(2.0) - 0.01}), 0.0) == Result{1, 3});
    CHECK(accept(LossyTopBeta({.beta = 3, .tau = std::log(2.0) + 0.01}), 0.0) == Result{2, 1});
    CHECK(accept(LossyTopBeta({.beta = 3, .tau = std::log(2.0) + 0.01}), 0.5) == Result{1, 3});  // p^2: twice as far
    CHECK(accept(LossyDistance({.eps = 1}), 0.0) == Result{1, 3});
    CHECK(accept(LossyDistance({.eps = 2}), 0.0) == Result{2, 1});
    CHECK(accept(LossyTypical({.eps = 0.19, .delta = 9.0}), 1.0) == Result{2, 1});
    CHECK(accept(LossyTypical({.eps = 0.21, .delta = 9.0}), 1.0) == Result{1, 3});
    CHECK(accept(LossyTypical({.eps = 0.01, .delta = 0.3}), 0.0) == Result{1, 3});  // temperature 0: greedy
    CHECK(accept(lossy_top_k(1, 2), 0.0) == Result{2, 1});                          // a minimum block
}
