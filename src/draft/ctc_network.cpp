// Forward of the CTC drafter's network in tensor operations, differentiable throughout.
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <outrider/core/error.hpp>
#include <outrider/draft/ctc_network.hpp>

#include "ctc_attention.hpp"
#include "weight_layout.hpp"

namespace outrider {

namespace {

void set(at::Tensor& weight, at::IntArrayRef shape, double deviation, at::Generator& generator) {
    weight = at::normal(0.0, deviation, shape, generator, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

NamedWeights CtcWeights::named() {
    NamedWeights all = {{"fuse", &fuse},
                        {"attn_norm", &attn_norm},
                        {"qkv", &qkv},
                        {"attn_out", &attn_out},
                        {"mlp_norm", &mlp_norm},
                        {"gate_up", &gate_up},
                        {"down", &down},
                        {"queries", &queries},
                        {"final_norm", &final_norm},
                        {"blank", &blank},
                        {"blank_bias", &blank_bias},
                        {"prefix_in", &prefix_in},
                        {"prefix_bias", &prefix_bias},
                        {"prefix_out", &prefix_out}};
    std::erase_if(all, [](const auto& entry) { return !entry.second->defined(); });
    return all;
}

NamedConstWeights CtcWeights::named() const {
    NamedConstWeights all;
    for (const auto& [name, weight] : const_cast<CtcWeights*>(this)->named()) all.emplace_back(name, weight);
    return all;
}

CtcTables make_ctc_tables(const CtcConfig& config, const TargetHead& head, at::ScalarType type, at::Device device) {
    return make_target_tables(head, config.vocabulary, config.embedding_scale, type, device);
}

CtcWeights init_ctc_weights(const CtcConfig& config, const TargetHead& head, std::uint64_t seed) {
    check_ctc_config(config);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank, F = ctc_feature_width(config);
    const auto by = [](std::int64_t fan_in) { return 0.6 / std::sqrt(static_cast<double>(fan_in)); };
    CtcWeights w;
    set(w.fuse, {H, H + F}, by(H + F), random);
    set(w.qkv, {N + 2 * K, H}, by(H), random);
    set(w.attn_out, {H, N}, by(N), random);
    set(w.gate_up, {2 * I, H}, by(H), random);
    set(w.down, {H, I}, by(I), random);
    set(w.queries, {config.frames, H}, 0.3, random);
    w.attn_norm = at::ones({H}), w.mlp_norm = at::ones({H});
    w.final_norm = head.final_norm.to(at::kCPU, at::kFloat).clone();
    w.blank = at::zeros({1, H}), w.blank_bias = at::full({1}, -1.0);
    if (config.conditioning == CtcConditioning::prefix) {
        set(w.prefix_in, {R, 3 * H}, by(3 * H), random);
        w.prefix_bias = at::zeros({R});
        w.prefix_out = at::zeros({static_cast<std::int64_t>(config.vocabulary.size()), R});
    }
    return w;
}

std::vector<WantedWeight> layout(const CtcConfig& config, CtcWeights& w) {
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank, V = output_rows(config.vocabulary);
    const std::int64_t F = ctc_feature_width(config);
    std::vector<WantedWeight> wanted = {{"fuse", &w.fuse, {H, H + F}},      {"attn_norm", &w.attn_norm, {H}},
                                        {"qkv", &w.qkv, {N + 2 * K, H}},    {"attn_out", &w.attn_out, {H, N}},
                                        {"mlp_norm", &w.mlp_norm, {H}},     {"gate_up", &w.gate_up, {2 * I, H}},
                                        {"down", &w.down, {H, I}},          {"queries", &w.queries, {config.frames, H}},
                                        {"final_norm", &w.final_norm, {H}}, {"blank", &w.blank, {1, H}},
                                        {"blank_bias", &w.blank_bias, {1}}};
    if (config.conditioning == CtcConditioning::none) return wanted;
    wanted.push_back({"prefix_in", &w.prefix_in, {R, 3 * H}});
    wanted.push_back({"prefix_bias", &w.prefix_bias, {R}});
    wanted.push_back({"prefix_out", &w.prefix_out, {V, R}});
    return wanted;
}

void check_ctc_weights(const CtcConfig& config, const CtcWeights& weights) {
    CtcWeights copy = weights;
    check_weights("CTC drafter", layout(config, copy));
}

namespace {

LayerSizes sizes_of(const CtcConfig& config) {
    return {config.heads, config.kv_heads, config.head_dim, config.rope_theta, config.norm_eps};
}

LayerWeights layer_of(const CtcWeights& weights) {
    return {weights.attn_norm, weights.qkv, weights.attn_out, weights.mlp_norm, weights.gate_up, weights.down};
}

}  // namespace

CtcContext ctc_context(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                       const at::Tensor& next, const at::Tensor& features, const at::Tensor& positions,
                       at::ScalarType compute) {
    const auto real = weights.attn_norm.scalar_type();
    const std::int64_t H = config.hidden;
    const auto type = tables.embedding.scalar_type();
    std::vector<at::Tensor> inputs{embed_tokens(tables, next),
                                   (features.slice(1, 0, H).to(real) * config.feature_scale).to(type)};
    if (!config.feature_layers.empty()) inputs.push_back(features.slice(1, H).to(type));
    const at::Tensor input = at::cat(inputs, -1);
    const at::Tensor fused = mixed_linear(input, weights.fuse, compute).to(real);
    LayerContext context = layer_context(sizes_of(config), layer_of(weights), fused, positions, compute);
    return {fused, std::move(context.keys), std::move(context.values)};
}

CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                          const at::Tensor& fused, const at::Tensor& committed, const std::vector<CtcAnchors>& groups,
                          at::ScalarType compute) {
    const std::int64_t A = fused.size(0), T = config.frames, H = config.hidden;
    const at::Tensor positions = (committed.unsqueeze(1) + at::arange(T, committed.options()).unsqueeze(0)).flatten();
    const at::Tensor x = layer_rows(sizes_of(config), layer_of(weights),
                                    (fused.unsqueeze(1) + weights.queries.unsqueeze(0)).reshape({A * T, H}), positions,
                                    committed, groups, compute);
    const at::Tensor y = ctc_rms_norm(x, weights.final_norm, config.norm_eps, compute);
    return {mixed_linear(y, tables.output, compute),
            (at::linear(y.to(weights.blank.scalar_type()), weights.blank) + weights.blank_bias).flatten()};
}

at::Tensor ctc_prefix_scores(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                             const at::Tensor& last, const at::Tensor& last_but_one, const at::Tensor& features,
                             at::ScalarType compute) {
    const std::int64_t A = last.size(0), P = last.size(1), H = config.hidden;
    const auto real = weights.prefix_in.scalar_type();
    const at::Tensor tokens = at::cat({embed_tokens(tables, last), embed_tokens(tables, last_but_one)}, -1);
    const at::Tensor state =
        mixed_linear(features.slice(1, 0, H).to(real) * config.feature_scale, weights.prefix_in.slice(1, 2 * H), compute);
    const at::Tensor sum = mixed_linear(tokens, weights.prefix_in.slice(1, 0, 2 * H), compute).view({A, P, -1}) +
                           (state + weights.prefix_bias.to(compute)).unsqueeze(1);
    return mixed_linear(at::silu(sum).view({A * P, -1}), weights.prefix_out, compute);
}

}  // namespace outrider
