#include <outrider/tensor/warp.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace outrider {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// e^x for x <= 0, relative error below 3e-7, written so that the compiler makes vectors of it.
inline float exp_negative(float x) {
    x = x < -87.0F ? -87.0F : x;
    const auto n = static_cast<std::int32_t>(x * 1.44269504F - 0.5F);
    const auto whole = static_cast<float>(n);
    const float r = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;  // Cody and Waite's two-part ln 2
    float p = 1.9875691500e-4F;                                          // Cephes expf
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    return p * std::bit_cast<float>((n + 127) << 23);
}

/// Sum of e^((logit - maximum) / temperature).
double total_weight(std::span<const float> logits, float maximum, float per_temperature) {
    constexpr std::size_t kLanes = 16;
    double sum = 0;
    for (std::size_t begin = 0; begin < logits.size(); begin += 64 * kLanes) {
        const std::size_t end = std::min(begin + 64 * kLanes, logits.size());
        std::array<float, kLanes> lane{};
        std::size_t i = begin;
        for (; i + kLanes <= end; i += kLanes)
            for (std::size_t j = 0; j < kLanes; ++j) lane[j] += exp_negative((logits[i + j] - maximum) * per_temperature);
        for (; i < end; ++i) lane[0] += exp_negative((logits[i] - maximum) * per_temperature);
        for (const float part : lane) sum += double(part);
    }
    return sum;
}

/// Appends the tokens whose logit is at least `floor` (and above -infinity), in id order.
void collect(std::span<const float> logits, float floor, std::vector<TokenId>& tokens) {
    tokens.resize(logits.size());
    const float least = std::max(floor, std::numeric_limits<float>::lowest());
    std::size_t n = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        tokens[n] = static_cast<TokenId>(i);
        n += logits[i] >= least ? 1 : 0;
    }
    tokens.resize(n);
}

struct LargerLogit {
    std::span<const float> logits;
    bool operator()(TokenId a, TokenId b) const {
        const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
        return x > y || (x == y && a < b);
    }
};

}  // namespace

RowMaximum row_maximum(std::span<const float> logits) {
    constexpr std::size_t kLanes = 16, kBlock = 1024;
    RowMaximum best{kMinusInfinity, 0, false};
    std::size_t best_begin = 0;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t end = std::min(begin + kBlock, logits.size());
        std::array<float, kLanes> lane;
        std::array<std::int32_t, kLanes> bad{};
        lane.fill(kMinusInfinity);
        std::size_t i = begin;
        for (; i + kLanes <= end; i += kLanes)
            for (std::size_t j = 0; j < kLanes; ++j) {
                const float x = logits[i + j];
                lane[j] = x > lane[j] ? x : lane[j];
                bad[j] |= x != x ? 1 : 0;
            }
        for (; i < end; ++i) {
            lane[0] = std::max(lane[0], logits[i]);
            bad[0] |= std::isnan(logits[i]) ? 1 : 0;
        }
        const float top = *std::max_element(lane.begin(), lane.end());
        for (const std::int32_t flag : bad) best.has_nan |= flag != 0;
        if (top > best.value) best.value = top, best_begin = begin;
    }
    best.token = static_cast<TokenId>(
        std::find(logits.begin() + static_cast<std::ptrdiff_t>(best_begin), logits.end(), best.value) - logits.begin());
    return best;
}

void penalise_repetition(std::span<float> logits, double penalty, std::span<const TokenId> text,
                         std::vector<bool>& scratch) {
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

std::span<const TokenId> Truncation::keep(std::span<const float> logits, float maximum, const SamplingOptions& options) {
    const double temperature = options.temperature;
    kept_.clear();
    if (options.top_k > 0)
        take_top_k(logits, maximum, options.top_k);
    if (options.top_p < 1.0) {
        if (options.top_k > 0)
            cut_top_p(logits, maximum, temperature, options.top_p);
        else
            take_top_p(logits, maximum, temperature, options.top_p);
    }
    if (options.min_p > 0.0) {
        const double floor = double(maximum) + temperature * std::log(options.min_p);
        if (options.top_k == 0 && options.top_p >= 1.0) {
            collect(logits, static_cast<float>(floor), kept_);
            std::sort(kept_.begin(), kept_.end(), LargerLogit{logits});
        }
        const auto end = std::partition_point(kept_.begin(), kept_.end(), [&](TokenId t) {
            return double(logits[static_cast<std::size_t>(t)]) >= floor;
        });
        kept_.erase(std::max(end, kept_.begin() + 1), kept_.end());
    }
    return kept_;
}

void Truncation::take_top_k(std::span<const float> logits, float maximum, std::int64_t k) {
    const auto wanted = std::min(static_cast<std::size_t>(k), logits.size());
    for (float reach = 8.0F;; reach *= 4.0F) {
        collect(logits, reach > 1000.0F ? kMinusInfinity : maximum - reach, kept_);
        if (kept_.size() >= wanted || reach > 1000.0F) break;
    }
    const std::size_t kept = std::min(wanted, kept_.size());
    std::partial_sort(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(kept), kept_.end(), LargerLogit{logits});
    kept_.resize(kept);
}

/// Shortens the sorted kept_ to the fewest that reach p of their own weight.
void Truncation::cut_top_p(std::span<const float> logits, float maximum, double temperature, double p) {
    const auto weight = [&](TokenId t) {
        return double(exp_negative((logits[static_cast<std::size_t>(t)] - maximum) / static_cast<float>(temperature)));
    };
    double total = 0, sum = 0;
    for (const TokenId t : kept_) total += weight(t);
    std::size_t n = 0;
    while (n < kept_.size() && (n == 0 || sum < p * total)) sum += weight(kept_[n++]);
    kept_.resize(n);
}

/// The same over the whole row: only tokens near the largest are sorted, more of them when they do not suffice.
void Truncation::take_top_p(std::span<const float> logits, float maximum, double temperature, double p) {
    const auto per_temperature = static_cast<float>(1.0 / temperature);
    const double total = total_weight(logits, maximum, per_temperature);
    const auto weight = [&](TokenId t) {
        return double(exp_negative((logits[static_cast<std::size_t>(t)] - maximum) * per_temperature));
    };
    for (float reach = 5.0F;; reach *= 2.0F) {
        const bool all = reach > 100.0F;
        collect(logits, all ? kMinusInfinity : maximum - reach * static_cast<float>(temperature), kept_);
        double mass = 0;
        for (const TokenId t : kept_) mass += weight(t);
        if (mass >= p * total || all) break;
    }
    std::sort(kept_.begin(), kept_.end(), LargerLogit{logits});
    double sum = 0;
    std::size_t n = 0;
    while (n < kept_.size() && (n == 0 || sum < p * total)) sum += weight(kept_[n++]);
    kept_.resize(n);
}

}  // namespace outrider
