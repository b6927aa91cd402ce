// Bodies of warp.hpp.
#pragma once

#include <outrider/accept/detail/warp.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/exponential.hpp>
#include <outrider/core/detail/vector_loops.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// e^max(x, -87) for x <= 0, relative error below 3e-7, written so that the compiler makes vectors of it: the bits of
/// negative floats are ordered as integers, and a minimum of integers needs no branch.
OUTRIDER_ALWAYS_INLINE float exp_negative(float x) {
    constexpr auto kLeast = std::bit_cast<std::int32_t>(-87.0F);
    constexpr auto kSign = std::numeric_limits<std::int32_t>::min();
    x = std::bit_cast<float>(std::min(std::bit_cast<std::int32_t>(x) | kSign, kLeast));
    const auto n = static_cast<std::int32_t>(x * 1.44269504F - 0.5F);
    const auto whole = static_cast<float>(n);
    const float r = exp_remainder<FloatArithmetic>(x, whole);
    const float p = exp_polynomial<FloatArithmetic>(r) * r * r + r + 1.0F;
    return p * std::bit_cast<float>((n + 127) << 23);
}

/// Sum of e^((logit - maximum) * per_temperature).
OUTRIDER_ALWAYS_INLINE double sum_of_weights(std::span<const float> logits, float maximum, float per_temperature) {
    constexpr std::size_t kBlock = 256, kLanes = 8;
    double sum = 0;
    std::array<float, kBlock> weight{};
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t count = std::min(kBlock, logits.size() - begin);
        const float* row = logits.data() + begin;
        for (std::size_t j = 0; j < count; ++j) weight[j] = exp_negative((row[j] - maximum) * per_temperature);
        std::fill(weight.begin() + static_cast<std::ptrdiff_t>(count), weight.end(), 0.0F);
        std::array<float, kLanes> lane{};
        for (std::size_t j = 0; j < kBlock; j += kLanes)
            for (std::size_t l = 0; l < kLanes; ++l) lane[l] += weight[j + l];
        for (const float part : lane) sum += double(part);
    }
    return sum;
}

/// The same bits on every machine, since top-p decides by it.
OUTRIDER_INLINE double total_weight(std::span<const float> logits, float maximum, float per_temperature) {
    return sum_of_weights(logits, maximum, per_temperature);
}

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(double, fast_total,
                                     (std::span<const float> logits, float maximum, float per_temperature),
                                     (logits, maximum, per_temperature)) {
    return sum_of_weights(logits, maximum, per_temperature);
}

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(void, weights_of,
                                     (const float* logits, std::size_t count, float maximum, float per_temperature,
                                      double scale, double* weights),
                                     (logits, count, maximum, per_temperature, scale, weights)) {
    for (std::size_t i = 0; i < count; ++i) {
        const float x = (logits[i] - maximum) * per_temperature;
        const float weight = exp_negative(x);
        weights[i] = x > -87.0F ? scale * double(weight) : 0.0;
    }
}

/// ln x of a positive normal number, absolute error below 2e-7, as exp_negative written for vectors.
OUTRIDER_ALWAYS_INLINE float log_positive(float x) {
    constexpr std::int32_t kRootHalf = 0x3f3504f3;  // the mantissa is taken from [sqrt(1/2), sqrt(2))
    const auto bits = std::bit_cast<std::int32_t>(x);
    const std::int32_t n = (bits - kRootHalf) >> 23;
    const float r = std::bit_cast<float>(bits - (n << 23)) - 1.0F, whole = static_cast<float>(n);
    float p = 7.0376836292e-2F;  // Cephes logf
    p = p * r - 1.1514610310e-1F;
    p = p * r + 1.1676998740e-1F;
    p = p * r - 1.2420140846e-1F;
    p = p * r + 1.4249322787e-1F;
    p = p * r - 1.6668057665e-1F;
    p = p * r + 2.0000714765e-1F;
    p = p * r - 2.4999993993e-1F;
    p = p * r + 3.3333331174e-1F;
    return (r * r * r * p - 2.12194440e-4F * whole - 0.5F * r * r) + r + 0.693359375F * whole;
}

/// -sum p ln(p + epsilon) of `count` entries, a multiple of 16.
OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(double, entropy_terms, (const float* p, std::size_t count, float epsilon),
                                     (p, count, epsilon)) {
    constexpr std::size_t kLanes = 16;
    std::array<float, kLanes> lane{};
    for (std::size_t i = 0; i < count; i += kLanes)
        for (std::size_t l = 0; l < kLanes; ++l) lane[l] -= p[i + l] * log_positive(p[i + l] + epsilon);
    double sum = 0;
    for (const float part : lane) sum += double(part);
    return sum;
}

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(void, block_of_shares,
                                     (const float* logits, std::size_t count, float maximum, float per_temperature,
                                      float scale, float* p),
                                     (logits, count, maximum, per_temperature, scale, p)) {
    for (std::size_t i = 0; i < count; ++i) p[i] = scale * exp_negative((logits[i] - maximum) * per_temperature);
}

/// The tokens whose logit is at least `floor` (and above -infinity), in id order. Blocks without one are passed over.
OUTRIDER_INLINE void collect(std::span<const float> logits, float floor, std::vector<TokenId>& tokens) {
    constexpr std::size_t kBlock = 32;
    tokens.clear();
    const float least = std::max(floor, std::numeric_limits<float>::lowest());
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t end = std::min(begin + kBlock, logits.size());
        std::int32_t any = 0;
        for (std::size_t i = begin; i < end; ++i) any |= logits[i] >= least ? 1 : 0;
        if (any == 0) continue;
        for (std::size_t i = begin; i < end; ++i)
            if (logits[i] >= least) tokens.push_back(static_cast<TokenId>(i));
    }
}

struct LargerLogit {
    std::span<const float> logits;
    bool operator()(TokenId a, TokenId b) const {
        const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
        return x > y || (x == y && a < b);
    }
};

}  // namespace detail

OUTRIDER_INLINE double softmax_total(std::span<const float> logits, float maximum, double temperature) {
    return detail::fast_total(logits, maximum, static_cast<float>(1.0 / temperature));
}

OUTRIDER_INLINE void softmax_weights(std::span<const float> logits, float maximum, double temperature, double scale,
                                     std::span<double> weights) {
    detail::weights_of(logits.data(), logits.size(), maximum, static_cast<float>(1.0 / temperature), scale,
                       weights.data());
}

OUTRIDER_INLINE double softmax_entropy(std::span<const float> logits, float maximum, double temperature, double total,
                                       double epsilon) {
    constexpr std::size_t kBlock = 256;
    std::array<float, kBlock> p;
    double entropy = 0;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t count = std::min(kBlock, logits.size() - begin);
        detail::block_of_shares(logits.data() + begin, count, maximum, static_cast<float>(1.0 / temperature),
                                static_cast<float>(1.0 / total), p.data());
        std::fill(p.begin() + static_cast<std::ptrdiff_t>(count), p.end(), 0.0F);
        entropy += detail::entropy_terms(p.data(), kBlock, static_cast<float>(epsilon));
    }
    return entropy;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors inside one function

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(RowMaximum, row_maximum, (std::span<const float> logits), (logits)) {
    using Lanes = simd::Vector<float>;
    constexpr std::size_t kLanes = simd::kLanes<float>, kBlock = 1024;
    RowMaximum best{detail::kMinusInfinity, 0, false};
    std::size_t best_begin = 0;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t end = std::min(begin + kBlock, logits.size());
        Lanes lanes = Lanes{} + detail::kMinusInfinity;
        simd::Ints bad{};
        std::size_t i = begin;
        for (; i + kLanes <= end; i += kLanes) {
            const Lanes x = simd::get(logits.data() + i);
            lanes = x > lanes ? x : lanes;
            bad |= x != x;
        }
        float top = detail::kMinusInfinity;
        for (std::size_t j = 0; j < kLanes; ++j) top = std::max(top, lanes[j]), best.has_nan |= bad[j] != 0;
        for (; i < end; ++i) top = std::max(top, logits[i]), best.has_nan |= std::isnan(logits[i]);
        if (top > best.value) best.value = top, best_begin = begin;
    }
    best.token = static_cast<TokenId>(
        std::find(logits.begin() + static_cast<std::ptrdiff_t>(best_begin), logits.end(), best.value) - logits.begin());
    return best;
}

#pragma GCC diagnostic pop

OUTRIDER_INLINE void penalise_repetition(std::span<float> logits, double penalty, std::span<const TokenId> text,
                                         std::vector<bool>& scratch) {
    for (const TokenId token : text)
        require(token >= 0 && static_cast<std::size_t>(token) < logits.size(),
                "penalise_repetition: token {} of the text is outside the vocabulary of {}", token, logits.size());
    scratch.resize(logits.size(), false);
    const auto factor = static_cast<float>(penalty);
    for (const TokenId token : text) {
        const auto t = static_cast<std::size_t>(token);
        if (scratch[t]) continue;
        scratch[t] = true;
        logits[t] = logits[t] > 0 ? logits[t] / factor : logits[t] * factor;
    }
    for (const TokenId token : text) scratch[static_cast<std::size_t>(token)] = false;
}

OUTRIDER_INLINE std::span<const TokenId> Truncation::keep(std::span<const float> logits, float maximum,
                                                          const SamplingOptions& options) {
    const double temperature = options.temperature;
    kept_.clear();
    if (options.top_k > 0) take_top_k(logits, options.top_k);
    if (options.top_p < 1.0) {
        if (options.top_k > 0)
            cut_top_p(logits, maximum, temperature, options.top_p);
        else
            take_top_p(logits, maximum, temperature, options.top_p);
    }
    if (options.min_p > 0.0) {
        const double floor = double(maximum) + temperature * std::log(options.min_p);
        if (options.top_k == 0 && options.top_p >= 1.0) {
            detail::collect(logits, static_cast<float>(floor), kept_);
            std::sort(kept_.begin(), kept_.end(), detail::LargerLogit{logits});
        }
        const auto end = std::partition_point(kept_.begin(), kept_.end(), [&](TokenId t) {
            return double(logits[static_cast<std::size_t>(t)]) >= floor;
        });
        kept_.erase(std::max(end, kept_.begin() + 1), kept_.end());
    }
    return kept_;
}

/// One pass: candidates above the running k-th largest gather, and are cut back to k whenever there are twice as many.
OUTRIDER_INLINE void Truncation::take_top_k(std::span<const float> logits, std::int64_t k) {
    const auto wanted = std::min(static_cast<std::size_t>(k), logits.size());
    const detail::LargerLogit larger{logits};
    float floor = detail::kMinusInfinity;  // later tokens must be above it
    const auto cut = [&] {
        std::nth_element(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(wanted - 1), kept_.end(), larger);
        kept_.resize(wanted);
        floor = logits[static_cast<std::size_t>(kept_.back())];
    };
    constexpr std::size_t kBlock = 32;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t end = std::min(begin + kBlock, logits.size());
        std::int32_t any = 0;
        for (std::size_t i = begin; i < end; ++i) any |= logits[i] > floor ? 1 : 0;
        if (any == 0) continue;
        for (std::size_t i = begin; i < end; ++i)
            if (logits[i] > floor) kept_.push_back(static_cast<TokenId>(i));
        if (kept_.size() >= 2 * wanted + kBlock) cut();
    }
    if (kept_.size() > wanted) cut();
    std::sort(kept_.begin(), kept_.end(), larger);
}

/// Shortens the sorted kept_ to the fewest that reach p of their own weight.
OUTRIDER_INLINE void Truncation::cut_top_p(std::span<const float> logits, float maximum, double temperature, double p) {
    const auto weight = [&](TokenId t) {
        return double(
            detail::exp_negative((logits[static_cast<std::size_t>(t)] - maximum) / static_cast<float>(temperature)));
    };
    double total = 0, sum = 0;
    for (const TokenId t : kept_) total += weight(t);
    std::size_t n = 0;
    while (n < kept_.size() && (n == 0 || sum < p * total)) sum += weight(kept_[n++]);
    kept_.resize(n);
}

/// The same over the whole row: only tokens near the largest are sorted, more of them when they do not suffice.
OUTRIDER_INLINE void Truncation::take_top_p(std::span<const float> logits, float maximum, double temperature,
                                            double p) {
    const auto per_temperature = static_cast<float>(1.0 / temperature);
    const double total = detail::total_weight(logits, maximum, per_temperature);
    const auto weight = [&](TokenId t) {
        return double(detail::exp_negative((logits[static_cast<std::size_t>(t)] - maximum) * per_temperature));
    };
    for (float reach = 5.0F;; reach *= 2.0F) {
        const bool all = reach > 100.0F;
        detail::collect(logits, all ? detail::kMinusInfinity : maximum - reach * static_cast<float>(temperature),
                        kept_);
        double mass = 0;
        for (const TokenId t : kept_) mass += weight(t);
        if (mass >= p * total || all) break;
    }
    std::sort(kept_.begin(), kept_.end(), detail::LargerLogit{logits});
    double sum = 0;
    std::size_t n = 0;
    while (n < kept_.size() && (n == 0 || sum < p * total)) sum += weight(kept_[n++]);
    kept_.resize(n);
}

}  // namespace outrider
