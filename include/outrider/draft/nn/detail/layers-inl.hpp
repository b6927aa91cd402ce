// Bodies of layers.hpp.
#pragma once

#include <outrider/draft/nn/detail/layers.hpp>

#include <cmath>
#include <numeric>

#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/attention.hpp>
#include <outrider/draft/nn/detail/layer_loops.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// cos and sin [rows, 1, head_dim / 2] of the given positions.
struct Rotation {
    at::Tensor cos, sin;

    Rotation(const LayerSizes& sizes, const at::Tensor& positions, const at::Tensor& like) {
        const auto real = like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        const std::int64_t half = sizes.head_dim / 2;
        const at::Tensor exponent = aten::arange(half, like.options().dtype(at::kDouble)) / static_cast<double>(half);
        const at::Tensor rate = (exponent * -std::log(sizes.rope_theta)).exp();
        const at::Tensor angle = positions.to(like.device(), at::kDouble).unsqueeze(1) * rate.unsqueeze(0);
        cos = angle.cos().to(real).unsqueeze(1);
        sin = angle.sin().to(real).unsqueeze(1);
    }

    [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const { return ctc_rotate(x, cos, sin); }
};

}  // namespace detail

OUTRIDER_INLINE std::vector<TokenId> draft_ids(const std::vector<TokenId>& vocabulary, std::int64_t target_vocabulary) {
    if (!vocabulary.empty()) return vocabulary;
    std::vector<TokenId> all(static_cast<std::size_t>(target_vocabulary));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

OUTRIDER_INLINE std::size_t bytes_of(const NamedConstWeights& weights) {
    std::size_t sum = 0;
    for (const auto& [name, weight] : weights) sum += weight->nbytes();
    return sum;
}

OUTRIDER_INLINE std::size_t TargetTables::bytes() const {
    return (embedding.defined() ? embedding.nbytes() : 0) + (output.defined() ? output.nbytes() : 0);
}

OUTRIDER_INLINE TargetTables make_target_tables(const TargetHead& head, const std::vector<TokenId>& vocabulary,
                                                double embedding_scale, at::ScalarType type, at::Device device) {
    return {(head.embed(draft_ids({}, head.vocabulary)) * embedding_scale).to(device, type),
            head.output_rows(draft_ids(vocabulary, head.vocabulary)).to(device, type)};
}

OUTRIDER_INLINE at::Tensor embed_tokens(const TargetTables& tables, const at::Tensor& tokens) {
    const at::Tensor rows = tables.embedding.index_select(0, tokens.flatten().clamp_min(0));
    return rows.masked_fill(tokens.flatten().lt(0).unsqueeze(1), 0.0);
}

OUTRIDER_INLINE at::Tensor mixed_linear(const at::Tensor& x, const at::Tensor& weight, at::ScalarType compute) {
    if (!x.requires_grad() && !weight.requires_grad()) return aten::linear(x.to(compute), weight.to(compute));
    return detail::mixed_linear_training(x, weight, compute);
}

OUTRIDER_INLINE at::Tensor residual_block(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                          at::ScalarType compute) {
    return x + aten::silu(mixed_linear(x, weight, compute).to(x.scalar_type()) + bias);
}

OUTRIDER_INLINE at::Tensor final_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                                          at::ScalarType compute) {
    return ctc_rms_norm(x, weight, eps, compute);
}

OUTRIDER_INLINE LayerContext layer_context(const LayerSizes& sizes, const LayerWeights& weights, const at::Tensor& x,
                                           const at::Tensor& positions, at::ScalarType compute) {
    const std::int64_t N = sizes.heads * sizes.head_dim, K = sizes.kv_heads * sizes.head_dim, L = x.size(0);
    const at::Tensor normed = ctc_rms_norm(x, weights.attn_norm, sizes.norm_eps, compute);
    const at::Tensor kv = mixed_linear(normed, weights.qkv.slice(0, N, N + 2 * K), compute);
    const at::Tensor keys = kv.slice(1, 0, K).reshape({L, sizes.kv_heads, sizes.head_dim});
    return {detail::Rotation(sizes, positions, x)(keys),
            kv.slice(1, K, 2 * K).reshape({L, sizes.kv_heads, sizes.head_dim})};
}

namespace detail {

/// The layer around its attention: attend(q [A, T, heads, D], k, v [A, T, kv_heads, D]) -> [A * T, heads * D].
template <typename Attend>
at::Tensor layer_rows_by(const LayerSizes& sizes, const LayerWeights& weights, const at::Tensor& input,
                         const at::Tensor& positions, std::int64_t A, at::ScalarType compute, const Attend& attend) {
    const std::int64_t T = input.size(0) / A, D = sizes.head_dim;
    const std::int64_t N = sizes.heads * D, K = sizes.kv_heads * D;
    const at::Tensor qkv =
        mixed_linear(ctc_rms_norm(input, weights.attn_norm, sizes.norm_eps, compute), weights.qkv, compute);
    const Rotation rotate(sizes, positions, input);
    const at::Tensor q = rotate(qkv.slice(1, 0, N).reshape({A * T, sizes.heads, D})).view({A, T, sizes.heads, D});
    const at::Tensor k =
        rotate(qkv.slice(1, N, N + K).reshape({A * T, sizes.kv_heads, D})).view({A, T, sizes.kv_heads, D});
    const at::Tensor v = qkv.slice(1, N + K, N + 2 * K).reshape({A, T, sizes.kv_heads, D});
    const at::Tensor x = input + mixed_linear(attend(q, k, v), weights.attn_out, compute);
    const at::Tensor inner =
        mixed_linear(ctc_rms_norm(x, weights.mlp_norm, sizes.norm_eps, compute), weights.gate_up, compute);
    return x + mixed_linear(ctc_silu_gate(inner), weights.down, compute);
}

}  // namespace detail

OUTRIDER_INLINE at::Tensor layer_rows(const LayerSizes& sizes, const LayerWeights& weights, const at::Tensor& input,
                                      const at::Tensor& positions, const at::Tensor& seen,
                                      const std::vector<ContextGroup>& groups, at::ScalarType compute) {
    const std::int64_t A = seen.size(0);
    const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        std::vector<at::Tensor> mixed;
        std::int64_t first = 0;
        for (const ContextGroup& group : groups) {
            const std::int64_t end = first + group.count;
            mixed.push_back(ctc_attention(q.slice(0, first, end), k.slice(0, first, end), v.slice(0, first, end),
                                          group.keys.to(compute), group.values.to(compute), seen.slice(0, first, end)));
            first = end;
        }
        require(first == A, "layer_rows: groups hold {} anchors, the batch {}", first, A);
        return aten::cat(mixed);
    };
    return detail::layer_rows_by(sizes, weights, input, positions, A, compute, attend);
}

}  // namespace outrider
