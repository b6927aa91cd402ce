// The warpers: how sampling options turn the target's logits into the tokens that may still be chosen. Plain spans on
// the CPU, no allocation once warm.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

struct RowMaximum {
    float value = 0;           ///< largest entry
    TokenId token = kNoToken;  ///< its index, the lowest among equals
    bool has_nan = false;      ///< then the other two mean nothing
};

/// One pass over a row. `logits` must not be empty.
[[nodiscard]] OUTRIDER_API RowMaximum row_maximum(std::span<const float> logits);

/// sum of e^((logit - maximum) / temperature), to a relative error of 3e-7. `maximum` is the row's largest logit.
[[nodiscard]] OUTRIDER_API double softmax_total(std::span<const float> logits, float maximum, double temperature);

/// weights[i] = scale * e^((logits[i] - maximum) / temperature), to the same error; 0 below e^-87.
OUTRIDER_API void softmax_weights(std::span<const float> logits, float maximum, double temperature, double scale,
                                  std::span<double> weights);

/// -sum p ln(p + epsilon) of p = e^((logit - maximum) / temperature) / total, to 1e-6.
[[nodiscard]] OUTRIDER_API double softmax_entropy(std::span<const float> logits, float maximum, double temperature,
                                                  double total, double epsilon);

/// CTRL's repetition penalty (Keskar et al. 2019): each distinct token of `text` once, positive logits divided,
/// negative multiplied. `scratch`: all false, any length, and so again afterwards. Throws Error for a token outside the
/// row.
OUTRIDER_API void penalise_repetition(std::span<float> logits, double penalty, std::span<const TokenId> text,
                                      std::vector<bool>& scratch);

/// The tokens that top-k, top-p and min-p keep.
class OUTRIDER_API Truncation {
public:
    /// Sorted by logit, largest first, equal logits by id. `maximum` is the row's largest logit. With k, p and m in
    /// this order: the k largest; of these the fewest whose renormalised probability at `temperature` reaches p; of
    /// these the ones with at least m times the largest probability. Never empty. Valid until the next call.
    [[nodiscard]] std::span<const TokenId> keep(std::span<const float> logits, float maximum,
                                                const SamplingOptions& options);

private:
    void take_top_k(std::span<const float> logits, std::int64_t k);
    void cut_top_p(std::span<const float> logits, float maximum, double temperature, double p);
    void take_top_p(std::span<const float> logits, float maximum, double temperature, double p);

    std::vector<TokenId> kept_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/warp-inl.hpp>
#endif
