// A Hugging Face config.json as a ModelConfig.
#include <algorithm>
#include <cmath>

#include <outrider/core/error.hpp>
#include "formats/hf_config.hpp"

#include "families.hpp"

namespace outrider {
namespace {

using Kind = RopeConfig::Kind;

/// transformers, modeling_rope_utils.py, _compute_yarn_parameters.
void read_yarn(const HfRope& from, RopeConfig& rope) {
    rope.kind = Kind::yarn;
    rope.beta_fast = from.beta_fast.value_or(32.0);
    rope.beta_slow = from.beta_slow.value_or(1.0);
    rope.truncate = from.truncate;
    const auto growth = [&](double scale) {
        return rope.factor <= 1 ? 1.0 : 0.1 * scale * std::log(rope.factor) + 1.0;
    };
    rope.magnitude = growth(1.0);
    if (from.mscale.value_or(0) != 0 && from.mscale_all.value_or(0) != 0)
        rope.magnitude = growth(*from.mscale) / growth(*from.mscale_all);
}

/// One set of factors, chosen once: a row's bits may not change while a text grows.
void read_longrope(const HfRope& from, RopeConfig& rope, std::int64_t trained, std::int64_t context) {
    rope.kind = Kind::longrope;
    const std::vector<double>& divisors =
        static_cast<double>(context) > rope.original_context ? from.long_factors : from.short_factors;
    rope.divisors.assign(divisors.begin(), divisors.end());
    const double factor = from.has_factor ? from.factor : static_cast<double>(trained) / rope.original_context;
    rope.magnitude = factor <= 1 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(rope.original_context));
    rope.factor = 1.0;
}

RopeConfig read_rope(const HfRope& from, const HfConfig& hf, std::int64_t context) {
    RopeConfig rope{.theta = from.theta,
                    .factor = from.factor,
                    .original_context = static_cast<double>(from.original_context.value_or(hf.max_positions))};
    if (from.type == "default") {
        rope.factor = 1.0;
    } else if (from.type == "linear") {
        rope.kind = Kind::linear;
    } else if (from.type == "yarn" && hf.model_type != "phi3") {
        read_yarn(from, rope);
    } else if (from.type == "longrope" || from.type == "su" || from.type == "yarn") {  // Phi-3's older names of it
        read_longrope(from, rope, hf.max_positions, context);
    } else {
        require(from.type == "llama3", ErrorKind::not_supported,
                "{}: rope scaling \"{}\" is not supported; expected default, linear, llama3, yarn or longrope", hf.name,
                from.type);
        require(from.low_freq_factor && from.high_freq_factor && from.original_context, ErrorKind::damaged_file,
                "{}: rope scaling \"llama3\" needs low_freq_factor, high_freq_factor and "
                "original_max_position_embeddings",
                hf.name);
        rope.kind = Kind::llama3;
        rope.low_freq_factor = *from.low_freq_factor, rope.high_freq_factor = *from.high_freq_factor;
    }
    if (from.attention_factor && (rope.kind == Kind::yarn || rope.kind == Kind::longrope))
        rope.magnitude = *from.attention_factor;
    return rope;
}

void read_parts(const HfConfig& hf, ModelConfig& config) {
    config.windowed = hf.windowed_layers;
    // Llama's attention_bias is one of all four matrices; the other families' output matrix has none but where it says.
    config.qkv_bias = config.qkv_bias || hf.attention_bias;
    config.o_bias = hf.attention_bias && config.family != "glm4";
    config.mlp_bias = hf.mlp_bias;
    require(hf.hidden_act == "silu" || hf.hidden_act == "gelu_pytorch_tanh", ErrorKind::not_supported,
            "{}: hidden_act \"{}\" is not supported; expected \"silu\" or \"gelu_pytorch_tanh\"", hf.name,
            hf.hidden_act);
    using Activation = ModelConfig::Activation;
    config.activation = hf.hidden_act == "silu" ? Activation::silu : Activation::gelu_tanh;
}

}  // namespace

ModelConfig ModelConfig::from_hf(const std::filesystem::path& folder, std::int64_t context) {
    const HfConfig hf = read_hf_config(folder);
    const Family& family =
        hf_family(hf.model_type.empty() && !hf.architectures.empty() ? hf.architectures[0] : hf.model_type, hf.name);
    require(family.hf_partial || hf.rope.partial == 1.0, ErrorKind::not_supported,
            "{}: partial_rotary_factor is {}, which is not supported for \"{}\"; expected 1", hf.name, hf.rope.partial,
            family.name);
    const std::int64_t trained = hf.max_positions;
    ModelConfig config{.name = folder.filename().string(),
                       .family = std::string(family.name),
                       .layers = hf.layers,
                       .hidden = hf.hidden_size,
                       .heads = hf.heads,
                       .kv_heads = hf.kv_heads,
                       .head_dim = hf.head_dim,
                       .feed_forward = hf.intermediate_size,
                       .vocabulary = hf.vocab_size,
                       .context = context > 0 ? std::min(context, trained) : trained,
                       .rotated = static_cast<std::int64_t>(static_cast<double>(hf.head_dim) * hf.rope.partial),
                       .norm_eps = hf.rms_norm_eps,
                       .tied_output = hf.tie_word_embeddings};
    config.rope = read_rope(hf.rope, hf, config.context);
    if (hf.local_rope) config.local_rope = read_rope(*hf.local_rope, hf, config.context);
    if (family.parts != nullptr) family.parts(config);
    read_parts(hf, config);
    if (family.read_hf != nullptr) family.read_hf(hf, config);
    if (config.window >= trained) config.window = 0;  // no token is further away
    config.check();
    return config;
}

}  // namespace outrider
