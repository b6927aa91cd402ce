// The law of short sampled texts, by the chain rule and by counting.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "plain_loop.hpp"

namespace outrider::test {

inline constexpr FakeLaw kLaw{.vocabulary = 5, .levels = 13, .step = 0.25F, .seed = 4};
inline constexpr std::int64_t kTokens = 3;
inline const std::vector<TokenId> kPrompt{2, 0, 3, 2, 0};  // repeats itself

/// P(text) of every text of kTokens tokens, by the chain rule from the exact warped probabilities.
inline std::map<std::vector<TokenId>, double> exact_law(const SamplingOptions& o) {
    std::map<std::vector<TokenId>, double> law{{{}, 1.0}};
    for (std::int64_t i = 0; i < kTokens; ++i) {
        std::map<std::vector<TokenId>, double> longer;
        for (const auto& [text, p] : law) {
            std::vector<TokenId> whole = kPrompt;
            whole.insert(whole.end(), text.begin(), text.end());
            const std::vector<double> weights = warped(kLaw, whole, o);
            double total = 0;
            for (const double w : weights) total += std::exp(w);
            for (std::size_t t = 0; t < weights.size(); ++t) {
                if (std::isinf(weights[t])) continue;
                std::vector<TokenId> next = text;
                next.push_back(static_cast<TokenId>(t));
                longer[next] = p * std::exp(weights[t]) / total;
            }
        }
        law = std::move(longer);
    }
    return law;
}

/// What many texts were like.
struct Texts {
    double excess = 0;          ///< (chi2 - df) / sqrt(2 df), near a standard normal when the law is right
    double control = 0;         ///< the same against the law of another temperature, which it must tell apart
    std::int64_t accepted = 0;  ///< drafted nodes that were accepted
};

using TextCounts = std::map<std::vector<TokenId>, double>;

/// Pearson's statistic of `n` texts against a law, as Texts has it. Rare texts share one cell.
inline double excess_of(const TextCounts& counts, const std::map<std::vector<TokenId>, double>& law, double n) {
    double chi2 = 0, rare_expected = 0, rare_count = n;
    std::int64_t cells = 0;
    for (const auto& [text, p] : law) {
        const double expected = p * n;
        if (expected < 8) {
            rare_expected += expected;
            continue;
        }
        const auto found = counts.find(text);
        const double count = found == counts.end() ? 0.0 : found->second;
        rare_count -= count;
        chi2 += std::pow(count - expected, 2) / expected, ++cells;
    }
    if (rare_expected > 1) chi2 += std::pow(rare_count - rare_expected, 2) / rare_expected, ++cells;
    if (rare_expected <= 1 && rare_count > 5) return 1e9;  // texts that cannot be
    const auto freedom = static_cast<double>(cells - 1);
    return (chi2 - freedom) / std::sqrt(2 * freedom);
}

/// Decodes with seeds 0 .. n - 1.
template <typename Draft, typename Target, typename Policy>
Texts texts_of(const GenerationOptions& options, Draft draft, Target target, Policy policy, std::uint64_t n,
               std::int64_t nodes) {
    SpeculativeDecoder decoder{
        std::move(draft), std::move(target), std::move(policy), {.nodes = nodes, .max_batch = 32}};
    TextCounts counts;
    std::vector<SequenceId> ids;
    for (std::uint64_t seed = 0; seed < n; ++seed) {
        GenerationOptions o = options;
        o.max_tokens = kTokens;
        o.seed = seed;
        ids.push_back(decoder.join({kPrompt}, o));
    }
    decoder.run();
    Texts result;
    for (const SequenceId id : ids) {
        const GenerationResult text = decoder.take(id);
        counts[text.tokens] += 1;
        result.accepted += text.stats.accepted;
    }
    SamplingOptions warmer = options.sampling();
    warmer.temperature *= 1.4;
    result.excess = excess_of(counts, exact_law(options.sampling()), static_cast<double>(n));
    result.control = excess_of(counts, exact_law(warmer), static_cast<double>(n));
    return result;
}

template <typename Policy, typename Draft>
double excess(const GenerationOptions& options, Policy policy, std::uint64_t n, Draft draft, std::int64_t nodes = 11) {
    return texts_of(options, std::move(draft), FakeTarget{kLaw}, std::move(policy), n, nodes).excess;
}

}  // namespace outrider::test
