// The tensor operations that drafters are made of, under the names and with the defaults that at:: has them. Each is
// the call that ATen's own header would make: ATen/ops/NAME.h reaches c10/util/Logging.h, which defines LOG, CHECK,
// DCHECK, VLOG and DLOG, and these belong to the host. (They cannot be undefined afterwards, since torch/torch.h needs
// them.) ATen/ops/NAME_ops.h declares the operation alone, in a third of the lines.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/_embedding_bag_forward_only_ops.h>
#include <ATen/ops/_fused_rms_norm_ops.h>
#include <ATen/ops/add_ops.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/arange_ops.h>
#include <ATen/ops/baddbmm_ops.h>
#include <ATen/ops/bmm_ops.h>
#include <ATen/ops/concat_ops.h>
#include <ATen/ops/empty_like_ops.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/exp_ops.h>
#include <ATen/ops/floor_divide_ops.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full_ops.h>
#include <ATen/ops/gather_ops.h>
#include <ATen/ops/index_select_ops.h>
#include <ATen/ops/linalg_solve_triangular_ops.h>
#include <ATen/ops/linear_ops.h>
#include <ATen/ops/log_sigmoid_ops.h>
#include <ATen/ops/log_softmax_ops.h>
#include <ATen/ops/matmul_ops.h>
#include <ATen/ops/mm_ops.h>
#include <ATen/ops/mul_ops.h>
#include <ATen/ops/normal_ops.h>
#include <ATen/ops/ones_ops.h>
#include <ATen/ops/remainder_ops.h>
#include <ATen/ops/scaled_dot_product_attention_ops.h>
#include <ATen/ops/silu_ops.h>
#include <ATen/ops/softmax_ops.h>
#include <ATen/ops/stack_ops.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where_ops.h>
#include <ATen/ops/zeros_ops.h>
#include <c10/core/ScalarTypeToTypeMeta.h>
#include <c10/core/SymIntArrayRef.h>
#include <c10/core/TensorOptions.h>

#include <concepts>
#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>

namespace outrider::aten {

using at::Scalar;
using at::Tensor;
using at::TensorOptions;

namespace detail {

/// `call` with the four parts of `options` behind what stands before them.
template <typename Call, typename... First>
Tensor with_options(const TensorOptions& options, Call call, First&&... first) {
    return call(std::forward<First>(first)..., c10::optTypeMetaToScalarType(options.dtype_opt()), options.layout_opt(),
                options.device_opt(), options.pinned_memory_opt());
}

}  // namespace detail

// New tensors.
inline Tensor empty(at::IntArrayRef size, const TensorOptions& options = {}) {
    return at::_ops::empty_memory_format::call(
        c10::fromIntArrayRefSlow(size), c10::optTypeMetaToScalarType(options.dtype_opt()), options.layout_opt(),
        options.device_opt(), options.pinned_memory_opt(), options.memory_format_opt());
}
inline Tensor empty_like(const Tensor& x) {
    return at::_ops::empty_like::call(x, std::nullopt, std::nullopt, std::nullopt, std::nullopt, std::nullopt);
}
inline Tensor zeros(at::IntArrayRef size, const TensorOptions& options = {}) {
    return detail::with_options(options, at::_ops::zeros::call, c10::fromIntArrayRefSlow(size));
}
inline Tensor ones(at::IntArrayRef size, const TensorOptions& options = {}) {
    return detail::with_options(options, at::_ops::ones::call, c10::fromIntArrayRefSlow(size));
}
inline Tensor full(at::IntArrayRef size, const Scalar& value, const TensorOptions& options = {}) {
    return detail::with_options(options, at::_ops::full::call, c10::fromIntArrayRefSlow(size), value);
}
inline Tensor arange(const Scalar& end, const TensorOptions& options = {}) {
    return detail::with_options(options, at::_ops::arange::call, end);
}
inline Tensor arange(const Scalar& start, const Scalar& end, const Scalar& step, const TensorOptions& options = {}) {
    return detail::with_options(options, at::_ops::arange_start_step::call, start, end, step);
}
inline Tensor normal(double mean, double deviation, at::IntArrayRef size, std::optional<at::Generator> generator,
                     const TensorOptions& options) {
    return detail::with_options(options, at::_ops::normal_float_float::call, mean, deviation,
                                c10::fromIntArrayRefSlow(size), std::move(generator));
}

// Tensors side by side. `concat` is `cat` by another name, and takes its list in a form that needs no more headers.
inline Tensor cat(at::TensorList tensors, std::int64_t dim = 0) { return at::_ops::concat::call(tensors, dim); }
inline Tensor& cat_out(Tensor& out, at::TensorList tensors, std::int64_t dim = 0) {
    return at::_ops::concat_out::call(tensors, dim, out);
}
inline Tensor stack(at::TensorList tensors, std::int64_t dim = 0) { return at::_ops::stack::call(tensors, dim); }

// Products.
inline Tensor mm(const Tensor& x, const Tensor& y) { return at::_ops::mm::call(x, y); }
inline Tensor mm(const Tensor& x, const Tensor& y, at::ScalarType out) { return at::_ops::mm_dtype::call(x, y, out); }
inline Tensor& mm_out(Tensor& out, const Tensor& x, const Tensor& y) { return at::_ops::mm_out::call(x, y, out); }
inline Tensor bmm(const Tensor& x, const Tensor& y) { return at::_ops::bmm::call(x, y); }
inline Tensor bmm(const Tensor& x, const Tensor& y, at::ScalarType out) { return at::_ops::bmm_dtype::call(x, y, out); }
inline Tensor matmul(const Tensor& x, const Tensor& y) { return at::_ops::matmul::call(x, y); }
inline Tensor linear(const Tensor& x, const Tensor& weight) { return at::_ops::linear::call(x, weight, {}); }
inline Tensor addmm(const Tensor& bias, const Tensor& x, const Tensor& y) {
    return at::_ops::addmm::call(bias, x, y, 1, 1);
}
inline Tensor& addmm_out(Tensor& out, const Tensor& bias, const Tensor& x, const Tensor& y) {
    return at::_ops::addmm_out::call(bias, x, y, 1, 1, out);
}
inline Tensor baddbmm(const Tensor& bias, const Tensor& x, const Tensor& y) {
    return at::_ops::baddbmm::call(bias, x, y, 1, 1);
}
inline Tensor linalg_solve_triangular(const Tensor& x, const Tensor& y, bool upper, bool left = true,
                                      bool unitriangular = false) {
    return at::_ops::linalg_solve_triangular::call(x, y, upper, left, unitriangular);
}
inline Tensor scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                           const std::optional<Tensor>& mask) {
    return at::_ops::scaled_dot_product_attention::call(query, key, value, mask, 0.0, false, std::nullopt, false);
}

// Element by element and row by row.
inline Tensor silu(const Tensor& x) { return at::_ops::silu::call(x); }
inline Tensor& silu_(Tensor& x) { return at::_ops::silu_::call(x); }
inline Tensor& exp_out(Tensor& out, const Tensor& x) { return at::_ops::exp_out::call(x, out); }
inline Tensor log_sigmoid(const Tensor& x) { return at::_ops::log_sigmoid::call(x); }
inline Tensor softmax(const Tensor& x, std::int64_t dim) { return at::_ops::softmax_int::call(x, dim, std::nullopt); }
inline Tensor log_softmax(const Tensor& x, std::int64_t dim, std::optional<at::ScalarType> type = std::nullopt) {
    return at::_ops::log_softmax_int::call(x, dim, type);
}
inline Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y) {
    return at::_ops::where_self::call(condition, x, y);
}
inline Tensor floor_divide(const Tensor& x, const Scalar& y) { return at::_ops::floor_divide_Scalar::call(x, y); }
inline Tensor remainder(const Tensor& x, const Scalar& y) { return at::_ops::remainder_Scalar::call(x, y); }
inline Tensor& add_out(Tensor& out, const Tensor& x, const Tensor& y) { return at::_ops::add_out::call(x, y, 1, out); }
inline Tensor& mul_out(Tensor& out, const Tensor& x, const Tensor& y) { return at::_ops::mul_out::call(x, y, out); }
inline Tensor& gather_out(Tensor& out, const Tensor& x, std::int64_t dim, const Tensor& index) {
    return at::_ops::gather_out::call(x, dim, index, false, out);
}
inline Tensor& index_select_out(Tensor& out, const Tensor& x, std::int64_t dim, const Tensor& index) {
    return at::_ops::index_select_out::call(x, dim, index, out);
}
inline Tensor fused_rms_norm(const Tensor& x, at::IntArrayRef shape, const Tensor& weight, double eps) {
    return std::get<0>(at::_ops::_fused_rms_norm::call(x, shape, weight, eps));
}
/// Sums of rows of `table`: bag i is of `rows` from begins[i] to the next one's begin.
inline Tensor embedding_sums(const Tensor& table, const Tensor& rows, const Tensor& begins) {
    return std::get<0>(
        at::_ops::_embedding_bag_forward_only::call(table, rows, begins, false, 0, false, {}, false, -1));
}

}  // namespace outrider::aten

namespace outrider {

// + - * / of tensors, which ATen defines in a header that leads to Logging.h too. Templates, so that ATen's functions
// are taken, and not doubted, where a host has included them; they do the same.
template <std::same_as<at::Tensor> T>
T operator+(const T& x, const T& y) {
    return x.add(y);
}
template <std::same_as<at::Tensor> T>
T operator+(const T& x, const at::Scalar& y) {
    return x.add(y);
}
template <std::same_as<at::Tensor> T>
T operator-(const T& x, const T& y) {
    return x.sub(y);
}
template <std::same_as<at::Tensor> T>
T operator-(const T& x, const at::Scalar& y) {
    return x.sub(y);
}
template <std::same_as<at::Tensor> T>
T operator*(const T& x, const T& y) {
    return x.mul(y);
}
template <std::same_as<at::Tensor> T>
T operator*(const T& x, const at::Scalar& y) {
    return x.mul(y);
}
template <std::same_as<at::Tensor> T>
T operator/(const T& x, const at::Scalar& y) {
    return x.div(y);
}

}  // namespace outrider
