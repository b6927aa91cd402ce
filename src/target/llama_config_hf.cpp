#include <outrider/core/error.hpp>
#include "formats/hf_config.hpp"
#include <outrider/target/llama_config.hpp>

namespace outrider {
namespace {

RopeScaling hf_scaling(const HfConfig& hf) {
    const HfRope& rope = hf.rope;
    if (rope.type == "default") return {};
    if (rope.type == "linear") return {.kind = RopeScaling::Kind::linear, .factor = rope.factor};
    require(rope.type == "llama3", "{}: rope scaling \"{}\" is not supported; expected default, linear or llama3",
            hf.name, rope.type);
    require(rope.low_freq_factor && rope.high_freq_factor && rope.original_context,
            "{}: rope scaling \"llama3\" needs low_freq_factor, high_freq_factor and original_max_position_embeddings",
            hf.name);
    return {.kind = RopeScaling::Kind::llama3,
            .factor = rope.factor,
            .low_freq_factor = *rope.low_freq_factor,
            .high_freq_factor = *rope.high_freq_factor,
            .original_context = static_cast<double>(*rope.original_context)};
}

void reject_unsupported(const HfConfig& hf) {
    const std::string model = hf.model_type.empty() && !hf.architectures.empty() ? hf.architectures[0] : hf.model_type;
    require(model == "llama" || model == "mistral" || model == "LlamaForCausalLM" || model == "MistralForCausalLM",
            "{}: architecture \"{}\" is not supported; expected \"llama\" or \"mistral\"", hf.name, model);
    require(!hf.attention_bias, "{}: attention_bias is not supported; expected a model without biases", hf.name);
    require(!hf.mlp_bias, "{}: mlp_bias is not supported; expected a model without biases", hf.name);
    require(
        is_mistral(hf) || hf.sliding_window.value_or(hf.max_positions) >= hf.max_positions,
        "{}: sliding_window is {} beside the architecture \"{}\", which has none; expected \"mistral\", or no window",
        hf.name, hf.sliding_window.value_or(0), model);
    require(hf.hidden_act == "silu", "{}: hidden_act \"{}\" is not supported; expected \"silu\"", hf.name,
            hf.hidden_act);
}

}  // namespace

LlamaConfig LlamaConfig::from_hf(const std::filesystem::path& folder) {
    const HfConfig hf = read_hf_config(folder);
    reject_unsupported(hf);
    LlamaConfig config{.name = folder.filename().string(),
                       .layers = hf.layers,
                       .hidden = hf.hidden_size,
                       .heads = hf.heads,
                       .kv_heads = hf.kv_heads,
                       .head_dim = hf.head_dim,
                       .feed_forward = hf.intermediate_size,
                       .vocabulary = hf.vocab_size,
                       .context = hf.max_positions,
                       .rope_theta = hf.rope.theta,
                       .norm_eps = hf.rms_norm_eps,
                       .tied_output = hf.tie_word_embeddings,
                       .rope = hf_scaling(hf)};
    if (hf.sliding_window.value_or(config.context) < config.context) config.window = *hf.sliding_window;
    config.check();
    return config;
}

}  // namespace outrider
