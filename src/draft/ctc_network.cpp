// Forward of the CTC drafter's network in tensor operations, differentiable throughout.
#include <outrider/draft/ctc_network.hpp>

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/ranges.h>

#include <cmath>

#include <outrider/core/error.hpp>

#include "ctc_attention.hpp"

namespace outrider {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct MixedLinear : torch::autograd::Function<MixedLinear> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                              at::ScalarType compute) {
        const at::Tensor x_low = x.to(compute), w_low = weight.to(compute);
        context->save_for_backward({x_low, w_low});
        context->saved_data["x"] = static_cast<std::int64_t>(x.scalar_type());
        context->saved_data["w"] = static_cast<std::int64_t>(weight.scalar_type());
        return at::linear(x_low, w_low);
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor dy = outputs[0].to(saved[0].scalar_type());
        variable_list gradients(3);
        if (context->needs_input_grad(0))
            gradients[0] = dy.mm(saved[1]).to(static_cast<at::ScalarType>(context->saved_data["x"].toInt()));
        if (context->needs_input_grad(1))
            gradients[1] = dy.t().mm(saved[0]).to(static_cast<at::ScalarType>(context->saved_data["w"].toInt()));
        return gradients;
    }
};

/// cos and sin [rows, 1, head_dim / 2] of the given positions.
struct Rotation {
    at::Tensor cos, sin;

    Rotation(const CtcConfig& config, const at::Tensor& positions, const at::Tensor& like) {
        const auto real = like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        const std::int64_t half = config.head_dim / 2;
        const at::Tensor exponent = at::arange(half, like.options().dtype(at::kDouble)) / static_cast<double>(half);
        const at::Tensor rate = at::exp(exponent * -std::log(config.rope_theta));
        const at::Tensor angle = positions.to(like.device(), at::kDouble).unsqueeze(1) * rate.unsqueeze(0);
        cos = at::cos(angle).to(real).unsqueeze(1);
        sin = at::sin(angle).to(real).unsqueeze(1);
    }

    [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const { return ctc_rotate(x, cos, sin); }
};

at::Tensor embed(const CtcTables& tables, const at::Tensor& tokens) {
    const at::Tensor rows = tables.embedding.index_select(0, tokens.flatten().clamp_min(0));
    return rows.masked_fill(tokens.flatten().lt(0).unsqueeze(1), 0.0);
}

void set(at::Tensor& weight, at::IntArrayRef shape, double deviation, at::Generator& generator) {
    weight = at::normal(0.0, deviation, shape, generator, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

std::vector<std::pair<std::string, at::Tensor*>> CtcWeights::named() {
    std::vector<std::pair<std::string, at::Tensor*>> all = {{"fuse", &fuse},
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

std::vector<std::pair<std::string, const at::Tensor*>> CtcWeights::named() const {
    std::vector<std::pair<std::string, const at::Tensor*>> all;
    for (const auto& [name, weight] : const_cast<CtcWeights*>(this)->named()) all.emplace_back(name, weight);
    return all;
}

CtcTables make_ctc_tables(const CtcConfig& config, const TargetHead& head, at::ScalarType type, at::Device device) {
    std::vector<TokenId> all(static_cast<std::size_t>(head.vocabulary));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<TokenId>(i);
    return {(head.embed(all) * config.embedding_scale).to(device, type),
            head.output_rows(config.vocabulary).to(device, type)};
}

CtcWeights init_ctc_weights(const CtcConfig& config, const TargetHead& head, std::uint64_t seed) {
    check_ctc_config(config);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank;
    const auto by = [](std::int64_t fan_in) { return 0.6 / std::sqrt(static_cast<double>(fan_in)); };
    CtcWeights w;
    set(w.fuse, {H, 2 * H}, by(2 * H), random);
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

void check_ctc_weights(const CtcConfig& config, const CtcWeights& weights) {
    const std::int64_t H = config.hidden, N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim;
    const std::int64_t I = config.intermediate, R = config.prefix_rank,
                       V = static_cast<std::int64_t>(config.vocabulary.size());
    const auto check = [](const char* name, const at::Tensor& tensor, std::vector<std::int64_t> shape) {
        require(tensor.defined(), "CTC drafter: weight {} is missing", name);
        require(tensor.sizes() == at::IntArrayRef(shape), "CTC drafter: weight {} is [{}], its config asks for [{}]",
                name, fmt::join(tensor.sizes().vec(), ", "), fmt::join(shape, ", "));
    };
    check("fuse", weights.fuse, {H, 2 * H});
    check("attn_norm", weights.attn_norm, {H});
    check("qkv", weights.qkv, {N + 2 * K, H});
    check("attn_out", weights.attn_out, {H, N});
    check("mlp_norm", weights.mlp_norm, {H});
    check("gate_up", weights.gate_up, {2 * I, H});
    check("down", weights.down, {H, I});
    check("queries", weights.queries, {config.frames, H});
    check("final_norm", weights.final_norm, {H});
    check("blank", weights.blank, {1, H});
    check("blank_bias", weights.blank_bias, {1});
    if (config.conditioning == CtcConditioning::none) return;
    check("prefix_in", weights.prefix_in, {R, 3 * H});
    check("prefix_bias", weights.prefix_bias, {R});
    check("prefix_out", weights.prefix_out, {V, R});
}

at::Tensor mixed_linear(const at::Tensor& x, const at::Tensor& weight, at::ScalarType compute) {
    if (!x.requires_grad() && !weight.requires_grad()) return at::linear(x.to(compute), weight.to(compute));
    return MixedLinear::apply(x, weight, compute);
}

CtcContext ctc_context(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                       const at::Tensor& next, const at::Tensor& features, const at::Tensor& positions,
                       at::ScalarType compute) {
    const std::int64_t N = config.heads * config.head_dim, K = config.kv_heads * config.head_dim, L = next.numel();
    const auto real = weights.attn_norm.scalar_type();
    const at::Tensor input = at::cat(
        {embed(tables, next), (features.to(real) * config.feature_scale).to(tables.embedding.scalar_type())}, -1);
    const at::Tensor fused = mixed_linear(input, weights.fuse, compute).to(real);
    const at::Tensor normed = ctc_rms_norm(fused, weights.attn_norm, config.norm_eps, compute);
    const at::Tensor kv = mixed_linear(normed, weights.qkv.slice(0, N, N + 2 * K), compute);
    const at::Tensor keys = kv.slice(1, 0, K).reshape({L, config.kv_heads, config.head_dim});
    return {fused, Rotation(config, positions, fused)(keys),
            kv.slice(1, K, 2 * K).reshape({L, config.kv_heads, config.head_dim})};
}

CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                          const at::Tensor& fused, const at::Tensor& committed, const std::vector<CtcAnchors>& groups,
                          at::ScalarType compute) {
    const std::int64_t A = fused.size(0), T = config.frames, H = config.hidden, D = config.head_dim;
    const std::int64_t N = config.heads * D, K = config.kv_heads * D;
    at::Tensor x = (fused.unsqueeze(1) + weights.queries.unsqueeze(0)).reshape({A * T, H});
    const at::Tensor qkv =
        mixed_linear(ctc_rms_norm(x, weights.attn_norm, config.norm_eps, compute), weights.qkv, compute);
    const at::Tensor positions = (committed.unsqueeze(1) + at::arange(T, committed.options()).unsqueeze(0)).flatten();
    const Rotation rotate(config, positions, x);
    const at::Tensor q = rotate(qkv.slice(1, 0, N).reshape({A * T, config.heads, D})).view({A, T, config.heads, D});
    const at::Tensor k =
        rotate(qkv.slice(1, N, N + K).reshape({A * T, config.kv_heads, D})).view({A, T, config.kv_heads, D});
    const at::Tensor v = qkv.slice(1, N + K, N + 2 * K).reshape({A, T, config.kv_heads, D});
    std::vector<at::Tensor> mixed;
    std::int64_t first = 0;
    for (const CtcAnchors& group : groups) {
        const std::int64_t end = first + group.count;
        mixed.push_back(ctc_attention(q.slice(0, first, end), k.slice(0, first, end), v.slice(0, first, end),
                                      group.keys.to(compute), group.values.to(compute),
                                      committed.slice(0, first, end)));
        first = end;
    }
    require(first == A, "ctc_frames: groups hold {} anchors, the batch {}", first, A);
    x = x + mixed_linear(at::cat(mixed), weights.attn_out, compute);
    const at::Tensor inner =
        mixed_linear(ctc_rms_norm(x, weights.mlp_norm, config.norm_eps, compute), weights.gate_up, compute);
    x = x + mixed_linear(ctc_silu_gate(inner), weights.down, compute);
    const at::Tensor y = ctc_rms_norm(x, weights.final_norm, config.norm_eps, compute);
    return {mixed_linear(y, tables.output, compute),
            (at::linear(y.to(weights.blank.scalar_type()), weights.blank) + weights.blank_bias).flatten()};
}

at::Tensor ctc_prefix_scores(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                             const at::Tensor& last, const at::Tensor& last_but_one, const at::Tensor& features,
                             at::ScalarType compute) {
    const std::int64_t A = last.size(0), P = last.size(1), H = config.hidden;
    const auto real = weights.prefix_in.scalar_type();
    const at::Tensor tokens = at::cat({embed(tables, last), embed(tables, last_but_one)}, -1);
    const at::Tensor state =
        mixed_linear(features.to(real) * config.feature_scale, weights.prefix_in.slice(1, 2 * H), compute);
    const at::Tensor sum = mixed_linear(tokens, weights.prefix_in.slice(1, 0, 2 * H), compute).view({A, P, -1}) +
                           (state + weights.prefix_bias.to(compute)).unsqueeze(1);
    return mixed_linear(at::silu(sum).view({A * P, -1}), weights.prefix_out, compute);
}

}  // namespace outrider
