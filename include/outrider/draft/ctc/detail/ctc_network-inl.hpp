// Forward of the CTC drafter's network in tensor operations, differentiable throughout.
#pragma once

#include <outrider/draft/ctc/detail/ctc_network.hpp>

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <outrider/core/error.hpp>
#include <outrider/draft/ctc/detail/ctc_padded.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/attention.hpp>
#include <outrider/draft/nn/detail/weight_layout.hpp>
#include <outrider/draft/nn/detail/padded_context.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

OUTRIDER_INLINE void set_normal(at::Tensor& weight, at::IntArrayRef shape, double deviation, at::Generator& generator) {
    weight = aten::normal(0.0, deviation, shape, generator, at::TensorOptions().dtype(at::kFloat));
}

/// What stands before the names of a layer's weights: nothing in a drafter of one layer.
OUTRIDER_INLINE std::string above_first(std::size_t layer) {
    return layer == 0 ? "" : "layer." + std::to_string(layer) + ".";
}

}  // namespace detail

OUTRIDER_INLINE NamedWeights CtcWeights::named() {
    NamedWeights all = {{"fuse", &fuse}};
    for (std::size_t l = 0; l < layers.size(); ++l) {
        const std::string at = detail::above_first(l);
        LayerWeights& layer = layers[l];
        all.insert(all.end(), {{at + "attn_norm", &layer.attn_norm},
                               {at + "qkv", &layer.qkv},
                               {at + "attn_out", &layer.attn_out},
                               {at + "mlp_norm", &layer.mlp_norm},
                               {at + "gate_up", &layer.gate_up},
                               {at + "down", &layer.down}});
    }
    all.insert(all.end(), {{"queries", &queries},
                           {"final_norm", &final_norm},
                           {"blank", &blank},
                           {"blank_bias", &blank_bias},
                           {"prefix_in", &prefix_in},
                           {"prefix_bias", &prefix_bias},
                           {"prefix_narrow", &prefix_narrow},
                           {"prefix_out", &prefix_out}});
    std::erase_if(all, [](const auto& entry) { return !entry.second->defined(); });
    return all;
}

OUTRIDER_INLINE NamedConstWeights CtcWeights::named() const {
    NamedConstWeights all;
    for (const auto& [name, weight] : const_cast<CtcWeights*>(this)->named()) all.emplace_back(name, weight);
    return all;
}

OUTRIDER_INLINE CtcTables make_ctc_tables(const CtcConfig& config, const TargetHead& head, at::ScalarType type,
                                          at::Device device) {
    return make_target_tables(head, config.vocabulary, config.embedding_scale, type, device);
}

OUTRIDER_INLINE CtcWeights init_ctc_weights(const CtcConfig& config, const TargetHead& head, std::uint64_t seed) {
    check_ctc_config(config);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank, F = ctc_feature_width(config);
    const auto by = [](std::int64_t fan_in) { return 0.6 / std::sqrt(static_cast<double>(fan_in)); };
    CtcWeights w;
    w.fuse = aten::zeros({H, H + F});
    w.fuse.slice(1, H, 2 * H).fill_diagonal_(1.0);
    w.layers.resize(static_cast<std::size_t>(config.layers));
    for (LayerWeights& layer : w.layers) {
        detail::set_normal(layer.qkv, {N + 2 * K, H}, by(H), random);
        layer.attn_out = aten::zeros({H, N});
        detail::set_normal(layer.gate_up, {2 * I, H}, by(H), random);
        layer.down = aten::zeros({H, I});
        layer.attn_norm = aten::ones({H}), layer.mlp_norm = aten::ones({H});
    }
    detail::set_normal(w.queries, {config.frames, H}, 0.3, random);
    w.final_norm = aten::full({H}, 1.0 / config.feature_scale);  // features come from behind the target's final norm
    w.blank = aten::zeros({1, H}), w.blank_bias = aten::full({1}, -1.0);
    if (config.conditioning == CtcConditioning::prefix) {
        w.prefix_in = aten::zeros({R, 3 * H});
        w.prefix_bias = aten::zeros({R});
        const auto random_product = [&](at::Tensor& weight, std::int64_t rows, std::int64_t columns) {
            detail::set_normal(weight, {rows, columns}, 1.0 / std::sqrt(static_cast<double>(columns)), random);
        };
        if (config.prefix_bottleneck > 0) random_product(w.prefix_narrow, config.prefix_bottleneck, R);
        random_product(w.prefix_out, H, ctc_prefix_columns(config));
        if (config.prefix_output == HeadOutput::own)
            w.prefix_out = aten::matmul(head.output_rows(config.vocabulary).to(at::kCPU, at::kFloat), w.prefix_out);
    }
    return w;
}

/// Sizes the vectors in `weights` to the config and lists all weights: one list for reading, checking and naming.
OUTRIDER_INLINE std::vector<WantedWeight> layout(const CtcConfig& config, CtcWeights& w) {
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank, V = output_rows(config.vocabulary);
    const std::int64_t F = ctc_feature_width(config);
    w.layers.resize(static_cast<std::size_t>(config.layers));
    std::vector<WantedWeight> wanted = {{"fuse", &w.fuse, {H, H + F}}};
    for (std::size_t l = 0; l < w.layers.size(); ++l) {
        const std::string at = detail::above_first(l);
        LayerWeights& layer = w.layers[l];
        wanted.insert(wanted.end(), {{at + "attn_norm", &layer.attn_norm, {H}},
                                     {at + "qkv", &layer.qkv, {N + 2 * K, H}},
                                     {at + "attn_out", &layer.attn_out, {H, N}},
                                     {at + "mlp_norm", &layer.mlp_norm, {H}},
                                     {at + "gate_up", &layer.gate_up, {2 * I, H}},
                                     {at + "down", &layer.down, {H, I}}});
    }
    wanted.insert(wanted.end(), {{"queries", &w.queries, {config.frames, H}},
                                 {"final_norm", &w.final_norm, {H}},
                                 {"blank", &w.blank, {1, H}},
                                 {"blank_bias", &w.blank_bias, {1}}});
    if (config.conditioning == CtcConditioning::none) return wanted;
    wanted.push_back({"prefix_in", &w.prefix_in, {R, 3 * H}});
    wanted.push_back({"prefix_bias", &w.prefix_bias, {R}});
    if (config.prefix_bottleneck > 0)
        wanted.push_back({"prefix_narrow", &w.prefix_narrow, {config.prefix_bottleneck, R}});
    wanted.push_back({"prefix_out",
                      &w.prefix_out,
                      {config.prefix_output == HeadOutput::target ? H : V, ctc_prefix_columns(config)}});
    return wanted;
}

OUTRIDER_INLINE void check_ctc_weights(const CtcConfig& config, const CtcWeights& weights) {
    CtcWeights copy = weights;
    check_weights("CTC drafter", layout(config, copy));
}

OUTRIDER_INLINE CtcContext ctc_context(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                       const at::Tensor& next, const at::Tensor& features, const at::Tensor& positions,
                                       at::ScalarType compute) {
    const auto real = weights.final_norm.scalar_type();
    const std::int64_t H = config.hidden;
    const auto type = tables.embedding.scalar_type();
    std::vector<at::Tensor> inputs{embed_tokens(tables, next),
                                   (features.slice(1, 0, H).to(real) * config.feature_scale).to(type)};
    if (!config.feature_layers.empty()) inputs.push_back(features.slice(1, H).to(type));
    const at::Tensor input = aten::cat(inputs, -1);
    const at::Tensor fused = mixed_linear(input, weights.fuse, compute).to(real);
    CtcContext context{fused, {}};
    for (const LayerWeights& layer : weights.layers)
        context.layers.push_back(layer_context(layer_sizes(config), layer, fused, positions, compute));
    return context;
}

namespace detail {

/// rows(l, x, positions): what layer l makes of the frames x.
template <typename Rows>
CtcFrameScores ctc_frames_by(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                             const at::Tensor& fused, const at::Tensor& committed, at::ScalarType compute,
                             const Rows& rows) {
    const std::int64_t A = fused.size(0), T = config.frames, H = config.hidden;
    const at::Tensor positions = (committed.unsqueeze(1) + aten::arange(T, committed.options()).unsqueeze(0)).flatten();
    at::Tensor x = (fused.unsqueeze(1) + weights.queries.unsqueeze(0)).reshape({A * T, H});
    for (std::size_t l = 0; l < weights.layers.size(); ++l) x = rows(l, x, positions);
    const at::Tensor y = ctc_rms_norm(x, weights.final_norm, config.norm_eps, compute);
    return {mixed_linear(y, tables.output, compute),
            (aten::linear(y.to(weights.blank.scalar_type()), weights.blank) + weights.blank_bias).flatten()};
}

}  // namespace detail

OUTRIDER_INLINE CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                          const at::Tensor& fused, const at::Tensor& committed,
                                          const std::vector<std::vector<CtcAnchors>>& groups, at::ScalarType compute) {
    OUTRIDER_ASSERT(groups.size() == weights.layers.size());
    const auto rows = [&](std::size_t l, const at::Tensor& x, const at::Tensor& positions) {
        return layer_rows(layer_sizes(config), weights.layers[l], x, positions, committed, groups[l], compute);
    };
    return detail::ctc_frames_by(config, weights, tables, fused, committed, compute, rows);
}

OUTRIDER_INLINE CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                          const at::Tensor& fused, const at::Tensor& committed,
                                          const std::vector<LayerContext>& layers, const PaddedGroups& groups,
                                          at::ScalarType compute) {
    const auto rows = [&](std::size_t l, const at::Tensor& x, const at::Tensor& positions) {
        return layer_rows(layer_sizes(config), weights.layers[l], x, positions, committed, layers[l], groups, compute);
    };
    return detail::ctc_frames_by(config, weights, tables, fused, committed, compute, rows);
}

OUTRIDER_INLINE at::Tensor ctc_prefix_scores(const CtcConfig& config, const CtcWeights& weights,
                                             const CtcTables& tables, const at::Tensor& last,
                                             const at::Tensor& last_but_one, const at::Tensor& features,
                                             at::ScalarType compute) {
    const std::int64_t A = last.size(0), P = last.size(1), H = config.hidden;
    const auto real = weights.prefix_in.scalar_type();
    const at::Tensor tokens = aten::cat({embed_tokens(tables, last), embed_tokens(tables, last_but_one)}, -1);
    const at::Tensor state = mixed_linear(features.slice(1, 0, H).to(real) * config.feature_scale,
                                          weights.prefix_in.slice(1, 2 * H), compute);
    const at::Tensor sum = mixed_linear(tokens, weights.prefix_in.slice(1, 0, 2 * H), compute).view({A, P, -1}) +
                           (state + weights.prefix_bias.to(compute)).unsqueeze(1);
    at::Tensor scores = aten::silu(sum).view({A * P, -1});
    if (config.prefix_bottleneck > 0) scores = mixed_linear(scores, weights.prefix_narrow, compute);
    scores = mixed_linear(scores, weights.prefix_out, compute);
    return config.prefix_output == HeadOutput::target ? mixed_linear(scores, tables.output, compute) : scores;
}

OUTRIDER_INLINE CtcWeights read_ctc_weights(const std::filesystem::path& folder, const CtcConfig& config,
                                            WeightType type) {
    CtcWeights weights;
    read_weights(folder, "CTC drafter", layout(config, weights), type);
    return weights;
}

OUTRIDER_INLINE void write_ctc_weights(const std::filesystem::path& folder, const CtcWeights& weights) {
    write_weights(folder, "ctc", weights.named());
}

}  // namespace outrider
