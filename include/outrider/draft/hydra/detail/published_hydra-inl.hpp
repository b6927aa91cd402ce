// Bodies of published_hydra.hpp.
#pragma once

#include <outrider/draft/hydra/detail/published_hydra.hpp>

#include <cmath>

#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/published_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr std::string_view kPrefixLayer = "prefix_embeding_layer.";

/// rate[i] = theta^(-i / n) may be rounded to 16 bits; thetas are round numbers, so two digits are enough. The last
/// rate is the one that says them best.
OUTRIDER_INLINE double theta_of(const at::Tensor& rate) {
    const auto n = static_cast<double>(rate.numel());
    const double theta = std::pow(rate[-1].item<double>(), -n / (n - 1));
    const double unit = std::pow(10.0, std::floor(std::log10(theta)) - 1);
    const double two_digits = std::round(theta / unit) * unit;
    return std::abs(theta - two_digits) < 0.01 * theta ? two_digits : theta;
}

/// Sizes of the prefix layer that its tensors do not tell: from its rotary buffer, else from config.json.
OUTRIDER_INLINE void take_rotation(published::Taker& take, const published::Hints& hints, std::int64_t query_rows,
                                   HydraConfig& config) {
    const std::string name = std::string(kPrefixLayer) + "layers.0.self_attn.rotary_emb.inv_freq";
    config.rope_theta = hints.number("rope_theta", 10000.0);
    if (take.has(name)) {
        const at::Tensor rate = take(name).to(at::kDouble);
        config.head_dim = 2 * rate.numel();
        if (!hints.has("rope_theta") && rate.numel() > 1) config.rope_theta = theta_of(rate);
    } else {
        const auto heads = hints.integer("num_attention_heads", 0);
        require(
            heads > 0 && query_rows % heads == 0, ErrorKind::damaged_file,
            "{}: tensor {} is missing, and config.json gives no num_attention_heads that divides {}; one of them must "
            "say how wide an attention head is",
            take.file(), name, query_rows);
        config.head_dim = query_rows / heads;
    }
    require(config.head_dim > 0 && query_rows % config.head_dim == 0, ErrorKind::damaged_file,
            "{}: heads of width {} do not divide {}", take.file(), config.head_dim, query_rows);
}

OUTRIDER_INLINE void take_prefix_layer(published::Taker& take, const published::Hints& hints, HydraConfig& config,
                                       HydraWeights& weights) {
    const std::string layer = std::string(kPrefixLayer) + "layers.0.";
    const auto part = [&](const char* name) { return take(layer + name + ".weight"); };
    const at::Tensor q = part("self_attn.q_proj"), k = part("self_attn.k_proj"), v = part("self_attn.v_proj");
    const at::Tensor gate = part("mlp.gate_proj"), up = part("mlp.up_proj");
    for (const at::Tensor& w : {q, k, v, gate, up})
        require(w.dim() == 2 && w.size(1) == config.hidden, ErrorKind::damaged_file,
                "{}: a matrix of {} has another width than {}", take.file(), layer, config.hidden);
    weights.prefix = {part("input_layernorm"),          aten::cat({q, k, v}),  part("self_attn.o_proj"),
                      part("post_attention_layernorm"), aten::cat({gate, up}), part("mlp.down_proj")};
    weights.prefix_norm = take(std::string(kPrefixLayer) + "norm.weight");
    take_rotation(take, hints, q.size(0), config);
    config.prefix_layer = true;
    config.attention_heads = q.size(0) / config.head_dim;
    config.kv_heads = k.size(0) / config.head_dim;
    config.intermediate = gate.size(0);
    config.norm_eps = hints.number("rms_norm_eps", 1e-6);            // Vicuna's, where the file does not say
    take.ignore(std::string(kPrefixLayer) + "embed_tokens.weight");  // never used by the published code
}

/// With dropout in between, blocks are at 1, 3, 5, ... and the output at 1.
OUTRIDER_INLINE void take_heads(published::Taker& take, bool dropout, const HydraConfig& config,
                                HydraWeights& weights) {
    for (std::int64_t i = 0; i < config.heads; ++i) {
        weights.heads.emplace_back();
        for (std::int64_t j = 0; j < config.blocks; ++j) {
            const std::string base = written("hydra_mlp.{}.{}.", i, dropout ? 2 * j + 1 : j);
            HydraWeights::Block block{take(base + "linear.weight"), take(base + "linear.bias"), {}, {}};
            if (j == 0)
                block.residual = take(base + "res_connection.weight"),
                block.residual_bias = take(base + "res_connection.bias");
            weights.heads.back().push_back(std::move(block));
        }
        const std::string base = written("hydra_lm_head.{}.{}", i, dropout ? "1." : "");
        weights.output.push_back(take(base + "weight"));
        if (config.output_bias) weights.output_bias.push_back(take(base + "bias"));
    }
}

}  // namespace detail

OUTRIDER_INLINE std::pair<HydraConfig, HydraWeights> read_published_hydra(const std::filesystem::path& path) {
    using namespace published;
    const NamedTensors file = open_heads(path);
    const Hints hints(path);
    const auto offset = hints.integer("hidden_state_offset", 0);
    require(offset == 0, ErrorKind::not_supported,
            "{}: hidden_state_offset is {}; heads over features of another layer than the last are not "
            "supported",
            file.name(), offset);
    Taker take(file, "");
    const auto [last_head, last_place] = extent(file, "hydra_mlp.", ".linear.weight");
    require(last_head >= 0, ErrorKind::damaged_file,
            "{}: no tensor named hydra_mlp.0.*.linear.weight; this holds no Hydra heads", file.name());
    const bool dropout = !file.has("hydra_mlp.0.0.linear.weight");
    HydraConfig config;
    HydraWeights weights;
    config.heads = last_head + 1, config.blocks = dropout ? (last_place + 1) / 2 : last_place + 1;
    require(config.heads <= 64 && config.blocks > 0 && config.blocks <= 64, ErrorKind::damaged_file,
            "{}: {} heads of {} blocks, expected 1 to 64 of each", file.name(), config.heads, config.blocks);
    config.residual = HydraResidual::matrix, config.output = HeadOutput::own;
    config.output_bias = file.has(dropout ? "hydra_lm_head.0.1.bias" : "hydra_lm_head.0.bias");
    detail::take_heads(take, dropout, config, weights);
    config.hidden = weights.heads[0][0].weight.size(0);
    const std::vector<std::string> names = file.names();
    if (std::any_of(names.begin(), names.end(),
                    [](const std::string& name) { return name.starts_with(detail::kPrefixLayer); }))
        detail::take_prefix_layer(take, hints, config, weights);
    take.ignore("input_embed_fn.weight");  // a copy of the target's embeddings
    take.finish();
    config.target_name = hints.text("base_model_name_or_path", "published heads");
    check_hydra_config(config);
    check_hydra_weights(config, weights);
    return {std::move(config), std::move(weights)};
}

}  // namespace outrider
