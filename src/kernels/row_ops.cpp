#include "kernels/row_ops.hpp"

#include "kernel_table.hpp"

namespace outrider {

void rms_norm_row(const float* x, std::int64_t n, const float* weight, float eps, float* y) {
    kernels::active_table().rms_norm_row(x, n, weight, eps, y);
}

void silu_gate_row(const float* gate, const float* up, std::int64_t n, float* y) {
    kernels::active_table().silu_gate_row(gate, up, n, y);
}

void gelu_gate_row(const float* gate, const float* up, std::int64_t n, float* y) {
    kernels::active_table().gelu_gate_row(gate, up, n, y);
}

void soft_cap_row(float* x, std::int64_t n, float cap) { kernels::active_table().soft_cap_row(x, n, cap); }

void scale_row(float* x, std::int64_t n, float scale) { kernels::active_table().scale_row(x, n, scale); }

void add_row(float* x, const float* y, std::int64_t n) { kernels::active_table().add_row(x, y, n); }

void softmax_row(float* x, std::int64_t n) { kernels::active_table().softmax_row(x, n); }

std::int64_t argmax_row(const float* x, std::int64_t n) { return kernels::active_table().argmax_row(x, n); }

void rotate_heads(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosines, const float* sines) {
    kernels::active_table().rotate_heads(x, heads, head_dim, cosines, sines);
}

void exp_row(const float* x, std::int64_t n, float* y) { kernels::active_table().exp_row(x, n, y); }

}  // namespace outrider
