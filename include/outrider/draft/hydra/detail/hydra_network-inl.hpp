// Bodies of hydra_network.hpp.
#pragma once

#include <outrider/draft/hydra/detail/hydra_network.hpp>

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <outrider/core/error.hpp>
#include <outrider/draft/hydra/detail/hydra_padded.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/weight_layout.hpp>
#include <outrider/draft/nn/detail/padded_context.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

OUTRIDER_INLINE std::vector<WantedWeight> prefix_layout(const HydraConfig& config, HydraWeights& weights) {
    const std::int64_t H = config.hidden, N = config.attention_heads * config.head_dim,
                       K = config.kv_heads * config.head_dim, I = config.intermediate;
    LayerWeights& layer = weights.prefix;
    return {{"prefix.attn_norm", &layer.attn_norm, {H}},     {"prefix.qkv", &layer.qkv, {N + 2 * K, H}},
            {"prefix.attn_out", &layer.attn_out, {H, N}},    {"prefix.mlp_norm", &layer.mlp_norm, {H}},
            {"prefix.gate_up", &layer.gate_up, {2 * I, H}},  {"prefix.down", &layer.down, {H, I}},
            {"prefix.final_norm", &weights.prefix_norm, {H}}};
}

OUTRIDER_INLINE void init_prefix(const HydraConfig& config, HydraWeights& weights, at::Generator& random) {
    const std::int64_t H = config.hidden, N = config.attention_heads * config.head_dim,
                       K = config.kv_heads * config.head_dim, I = config.intermediate;
    const double deviation = 0.6 / std::sqrt(static_cast<double>(H));
    const auto normal = [&](at::IntArrayRef shape) {
        return aten::normal(0.0, deviation, shape, random, at::TensorOptions().dtype(at::kFloat));
    };
    weights.prefix = {aten::ones({H}), normal({N + 2 * K, H}), aten::zeros({H, N}),
                      aten::ones({H}), normal({2 * I, H}),     aten::zeros({H, I})};
    // Behind a residual stream of the scaled features, of unit size, this gives g the size of h.
    weights.prefix_norm = aten::full({H}, 1.0 / config.feature_scale);
}

OUTRIDER_INLINE void init_block(HydraWeights::Block& block, std::int64_t in, std::int64_t H, bool residual,
                                double feature_scale, at::Generator& random) {
    const double spread = 1.0 / std::sqrt(static_cast<double>(in));
    block.weight = aten::zeros({H, in});
    block.bias = aten::empty({H}).uniform_(-spread, spread, random);
    if (!residual) return;
    block.residual = aten::zeros({H, in});
    block.residual.slice(1, 0, H).fill_diagonal_(1.0 / feature_scale);
    block.residual_bias = aten::zeros({H});
}

}  // namespace detail

OUTRIDER_INLINE NamedWeights HydraWeights::named() {
    NamedWeights all = {{"prefix.attn_norm", &prefix.attn_norm}, {"prefix.qkv", &prefix.qkv},
                        {"prefix.attn_out", &prefix.attn_out},   {"prefix.mlp_norm", &prefix.mlp_norm},
                        {"prefix.gate_up", &prefix.gate_up},     {"prefix.down", &prefix.down},
                        {"prefix.final_norm", &prefix_norm}};
    for (std::size_t i = 0; i < heads.size(); ++i)
        for (std::size_t j = 0; j < heads[i].size(); ++j) {
            Block& block = heads[i][j];
            all.emplace_back(detail::written("heads.{}.{}.weight", i, j), &block.weight);
            all.emplace_back(detail::written("heads.{}.{}.bias", i, j), &block.bias);
            all.emplace_back(detail::written("heads.{}.{}.residual", i, j), &block.residual);
            all.emplace_back(detail::written("heads.{}.{}.residual_bias", i, j), &block.residual_bias);
        }
    for (std::size_t i = 0; i < output.size(); ++i)
        all.emplace_back(output_name("output", i, output.size()), &output[i]);
    for (std::size_t i = 0; i < output_bias.size(); ++i)
        all.emplace_back(output_name("output_bias", i, output_bias.size()), &output_bias[i]);
    std::erase_if(all, [](const auto& entry) { return !entry.second->defined(); });
    return all;
}

OUTRIDER_INLINE NamedConstWeights HydraWeights::named() const {
    NamedConstWeights all;
    for (const auto& [name, weight] : const_cast<HydraWeights*>(this)->named()) all.emplace_back(name, weight);
    return all;
}

/// Sizes the vectors in `weights` to the config and lists all weights: one list for reading, checking and naming.
OUTRIDER_INLINE std::vector<WantedWeight> layout(const HydraConfig& config, HydraWeights& weights) {
    const std::int64_t H = config.hidden;
    std::vector<WantedWeight> wanted;
    if (config.prefix_layer) wanted = detail::prefix_layout(config, weights);
    weights.heads.resize(static_cast<std::size_t>(config.heads));
    for (std::size_t i = 0; i < weights.heads.size(); ++i) {
        weights.heads[i].resize(static_cast<std::size_t>(config.blocks));
        for (std::size_t j = 0; j < weights.heads[i].size(); ++j) {
            HydraWeights::Block& block = weights.heads[i][j];
            const std::int64_t in = j == 0 ? (static_cast<std::int64_t>(i) + 2) * H : H;
            wanted.push_back({detail::written("heads.{}.{}.weight", i, j), &block.weight, {H, in}});
            wanted.push_back({detail::written("heads.{}.{}.bias", i, j), &block.bias, {H}});
            if (j > 0 || config.residual == HydraResidual::feature) continue;
            wanted.push_back({detail::written("heads.{}.{}.residual", i, j), &block.residual, {H, in}});
            wanted.push_back({detail::written("heads.{}.{}.residual_bias", i, j), &block.residual_bias, {H}});
        }
    }
    const std::size_t outputs = output_count(config.output, config.heads);
    weights.output.resize(outputs);
    weights.output_bias.resize(config.output_bias ? outputs : 0);
    for (std::size_t i = 0; i < outputs; ++i)
        wanted.push_back({output_name("output", i, outputs), &weights.output[i], {output_rows(config.vocabulary), H}});
    for (std::size_t i = 0; i < weights.output_bias.size(); ++i)
        wanted.push_back(
            {output_name("output_bias", i, outputs), &weights.output_bias[i], {output_rows(config.vocabulary)}});
    return wanted;
}

OUTRIDER_INLINE HydraWeights init_hydra_weights(const HydraConfig& config, const TargetHead& head, std::uint64_t seed) {
    check_hydra_config(config);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    HydraWeights weights;
    (void)layout(config, weights);
    if (config.prefix_layer) detail::init_prefix(config, weights, random);
    for (std::size_t i = 0; i < weights.heads.size(); ++i)
        for (std::size_t j = 0; j < weights.heads[i].size(); ++j)
            detail::init_block(
                weights.heads[i][j], j == 0 ? (static_cast<std::int64_t>(i) + 2) * config.hidden : config.hidden,
                config.hidden, j == 0 && config.residual == HydraResidual::matrix, config.feature_scale, random);
    for (at::Tensor& output : weights.output)
        output = head.output_rows(draft_ids(config.vocabulary, head.vocabulary)).to(at::kCPU, at::kFloat).clone();
    for (std::size_t i = 0; i < weights.output_bias.size(); ++i)
        weights.output_bias[i] = aten::zeros({weights.output[i].size(0)});
    check_hydra_weights(config, weights);
    return weights;
}

OUTRIDER_INLINE void check_hydra_weights(const HydraConfig& config, const HydraWeights& weights) {
    HydraWeights copy = weights;
    const auto wanted = layout(config, copy);
    check_weights("Hydra drafter", wanted);
    const std::size_t defined = weights.named().size();
    require(defined == wanted.size(), ErrorKind::damaged_file, "Hydra drafter: {} weights, its config asks for {}",
            defined, wanted.size());
}

OUTRIDER_INLINE LayerContext hydra_context(const HydraConfig& config, const HydraWeights& weights,
                                           const at::Tensor& features, const at::Tensor& positions,
                                           at::ScalarType compute) {
    const at::Tensor x = features.to(weights.prefix_norm.scalar_type()) * config.feature_scale;
    return layer_context(layer_sizes(config), weights.prefix, x, positions, compute);
}

OUTRIDER_INLINE at::Tensor hydra_ground(const HydraConfig& config, const HydraWeights& weights,
                                        const at::Tensor& features, const at::Tensor& committed,
                                        const std::vector<ContextGroup>& groups, at::ScalarType compute) {
    const auto real = weights.heads.front().front().bias.scalar_type();
    if (!config.prefix_layer) return features.to(real);
    const at::Tensor last = committed - 1;
    const at::Tensor x = layer_rows(layer_sizes(config), weights.prefix, features.to(real) * config.feature_scale, last,
                                    last, groups, compute);
    return final_rms_norm(x, weights.prefix_norm, config.norm_eps, real);
}

OUTRIDER_INLINE at::Tensor hydra_ground(const HydraConfig& config, const HydraWeights& weights,
                                        const at::Tensor& features, const at::Tensor& committed,
                                        const LayerContext& context, const PaddedGroups& groups,
                                        at::ScalarType compute) {
    const auto real = weights.heads.front().front().bias.scalar_type();
    const at::Tensor last = committed - 1;
    const at::Tensor x = layer_rows(layer_sizes(config), weights.prefix, features.to(real) * config.feature_scale, last,
                                    last, context, groups, compute);
    return final_rms_norm(x, weights.prefix_norm, config.norm_eps, real);
}

OUTRIDER_INLINE at::Tensor hydra_state(const HydraConfig& config, const HydraWeights& weights, std::int64_t head,
                                       const at::Tensor& ground, const at::Tensor& embedded, at::ScalarType compute) {
    const auto& blocks = weights.heads[static_cast<std::size_t>(head)];
    const at::Tensor x = aten::cat({(ground * config.feature_scale).to(embedded.scalar_type()), embedded}, -1);
    at::Tensor y = aten::silu(mixed_linear(x, blocks[0].weight, compute).to(ground.scalar_type()) + blocks[0].bias);
    if (config.residual == HydraResidual::feature)
        y = ground + y;
    else
        y = mixed_linear(x, blocks[0].residual, compute).to(ground.scalar_type()) + blocks[0].residual_bias + y;
    for (std::size_t j = 1; j < blocks.size(); ++j) y = residual_block(y, blocks[j].weight, blocks[j].bias, compute);
    return y;
}

OUTRIDER_INLINE at::Tensor hydra_scores(const HydraConfig& config, const HydraWeights& weights,
                                        const TargetTables& tables, std::int64_t head, const at::Tensor& states,
                                        at::ScalarType compute) {
    if (config.output == HeadOutput::target) return mixed_linear(states, tables.output, compute);
    const std::size_t which = config.output == HeadOutput::own ? static_cast<std::size_t>(head) : 0;
    const at::Tensor scores = mixed_linear(states, weights.output[which], compute);
    return config.output_bias ? (scores + weights.output_bias[which]).to(compute) : scores;
}

OUTRIDER_INLINE at::Tensor hydra_logits(const HydraConfig& config, const HydraWeights& weights,
                                        const TargetTables& tables, const at::Tensor& ground, const at::Tensor& tokens,
                                        at::ScalarType compute) {
    const std::int64_t A = ground.size(0), K = config.heads;
    const at::Tensor embedded = embed_tokens(tables, tokens.slice(1, 0, K)).view({A, K * config.hidden});
    std::vector<at::Tensor> parts;
    for (std::int64_t i = 0; i < K; ++i) {
        const at::Tensor path = embedded.slice(1, 0, (i + 1) * config.hidden);
        parts.push_back(hydra_state(config, weights, i, ground, path, compute));
        if (config.output == HeadOutput::own)
            parts.back() = hydra_scores(config, weights, tables, i, parts.back(), compute);
    }
    if (config.output == HeadOutput::own) return aten::stack(parts);
    const at::Tensor logits = hydra_scores(config, weights, tables, 0, aten::cat(parts), compute);
    return logits.view({K, A, logits.size(1)});
}

OUTRIDER_INLINE HydraWeights read_hydra_weights(const std::filesystem::path& folder, const HydraConfig& config,
                                                WeightType type) {
    HydraWeights weights;
    read_weights(folder, "Hydra drafter", layout(config, weights), type);
    return weights;
}

OUTRIDER_INLINE void write_hydra_weights(const std::filesystem::path& folder, const HydraWeights& weights) {
    write_weights(folder, "hydra", weights.named());
}

}  // namespace outrider
