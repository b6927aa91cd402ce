// Operations on single rows of floats, vectorised for the active path. Each depends on its row alone, and its sums run
// in an order that depends on the length alone, so a row has the same bits alone or among others.
#pragma once

#include <cmath>
#include <cstdint>

namespace outrider {

/// y = x / sqrt(mean(x^2) + eps) * weight; all [n]. y may be x.
void rms_norm_row(const float* x, std::int64_t n, const float* weight, float eps, float* y);

/// y = silu(gate) * up; all [n]. y may be either of them.
void silu_gate_row(const float* gate, const float* up, std::int64_t n, float* y);

/// y = gelu(gate) * up, gelu by tanh; all [n]. y may be either of them.
void gelu_gate_row(const float* gate, const float* up, std::int64_t n, float* y);

/// x = cap tanh(x / cap) [n]; cap > 0. Off by less than 2e-7 cap.
void soft_cap_row(float* x, std::int64_t n, float cap);

/// x *= scale [n].
void scale_row(float* x, std::int64_t n, float scale);

/// x += y; both [n].
void add_row(float* x, const float* y, std::int64_t n);

/// x = softmax(x) [n]. The exponential's relative error is below 2e-7. -infinity gives 0; a row of them gives NaN.
void softmax_row(float* x, std::int64_t n);

/// Index of the largest of x [n], the lowest one among equals; NaN is smaller than everything. n >= 1.
[[nodiscard]] std::int64_t argmax_row(const float* x, std::int64_t n);

/// argmax_row of a row that comes in parts, in ascending order.
struct RowPick {
    float value = 0;
    std::int64_t index = -1;  ///< -1: nothing yet

    /// x [n], of which the first one is the row's element `first`. n may be 0.
    void take(const float* x, std::int64_t n, std::int64_t first) {
        if (n <= 0) return;
        const std::int64_t best = argmax_row(x, n);
        take({x[best], first + best});
    }

    /// The pick of a part behind all parts so far.
    void take(const RowPick& behind) {
        if (behind.index < 0) return;
        const bool first_number = std::isnan(value) && !std::isnan(behind.value);
        if (index < 0 || behind.value > value || first_number) *this = behind;
    }
};

/// Rotary embedding of `heads` heads side by side, in place: pairs (i, i + head_dim / 2) are turned by the angles whose
/// cosines and sines [head_dim / 2] are given (of one position). The convention of Hugging Face's Llama.
void rotate_heads(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosines, const float* sines);

/// What the other operations take their exponentials from, for tests of its bounds. y = e^x; both [n]. Relative error
/// below 2e-7; 0 below -87.3, e^88.37 above 88.37. y may be x.
void exp_row(const float* x, std::int64_t n, float* y);

}  // namespace outrider
