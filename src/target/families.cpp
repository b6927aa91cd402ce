#include "families.hpp"

#include <cmath>
#include <span>

#include <outrider/core/error.hpp>
#include "formats/hf_config.hpp"

#include "gguf_keys.hpp"

namespace outrider {
namespace {

using Activation = ModelConfig::Activation;
using HeadNorm = ModelConfig::HeadNorm;

void llama_hf(const HfConfig& hf, ModelConfig& c) {
    require(
        hf.sliding_window.value_or(hf.max_positions) >= hf.max_positions, ErrorKind::not_supported,
        "{}: sliding_window is {} beside the architecture \"{}\", which has none; expected \"mistral\", or no window",
        hf.name, hf.sliding_window.value_or(0), c.family);
}

void window_hf(const HfConfig& hf, ModelConfig& c) { c.window = hf.sliding_window.value_or(0); }

void llama_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.window = keys.find_integer("attention.sliding_window").value_or(0);
}

void qwen2_parts(ModelConfig& c) { c.qkv_bias = true; }

/// The window, where use_sliding_window says so, holds from layer max_window_layers on.
void qwen_hf(const HfConfig& hf, ModelConfig& c) {
    if (!hf.use_sliding_window.value_or(false) || !hf.sliding_window) return;
    c.window = *hf.sliding_window;
    if (!c.windowed.empty()) return;
    for (std::int64_t i = 0; i < c.layers; ++i) c.windowed.push_back(i >= hf.max_window_layers.value_or(28));
}

void qwen3_parts(ModelConfig& c) { c.head_norm = HeadNorm::each; }

void smollm3_gguf(const GgufKeys&, ModelConfig& c) {
    c.unrotated = all_but_every(4, c.layers);
    c.unrotated.flip();
}

void smollm3_hf(const HfConfig& hf, ModelConfig& c) {
    c.unrotated = all_but_every(hf.no_rope_interval.value_or(4), c.layers);
    for (std::size_t i = 0; i < std::min(c.unrotated.size(), hf.rotated_layers.size()); ++i)
        c.unrotated[i] = hf.rotated_layers[i];
    c.unrotated.flip();
    if (hf.use_sliding_window.value_or(false)) c.window = hf.sliding_window.value_or(0);
    if (c.window > 0 && c.windowed.empty()) c.windowed = c.unrotated;
}

void mistral3_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.query_growth = keys.number("attention.temperature_scale", 0.0);
    c.query_period = keys.number("rope.scaling.original_context_length", 16384.0);
}

void mistral3_hf(const HfConfig& hf, ModelConfig& c) {
    window_hf(hf, c);
    c.query_growth = hf.rope.query_growth.value_or(0.0);
    c.query_period = c.rope.original_context;
}

void gemma_parts(ModelConfig& c) {
    c.post_norms = true;
    c.activation = Activation::gelu_tanh;
    c.embedding_scale = std::sqrt(static_cast<double>(c.hidden));
}

void gemma3_parts(ModelConfig& c) {
    gemma_parts(c);
    c.head_norm = HeadNorm::each;
}

/// The 27B models divide the width by the heads where the others take a head's own dimensions.
void gemma_scale(std::int64_t largest, ModelConfig& c) {
    const std::int64_t over = c.layers == largest ? c.hidden / c.heads : c.head_dim;
    c.score_scale = 1.0 / std::sqrt(static_cast<double>(over));
}

void gemma2_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.window = keys.find_integer("attention.sliding_window").value_or(4096);
    c.windowed = keys.windowed(c.layers, 2);
    c.score_cap = keys.number("attn_logit_softcapping", 50.0);
    c.logit_cap = keys.number("final_logit_softcapping", 30.0);
    gemma_scale(46, c);
}

void gemma3_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.window = keys.find_integer("attention.sliding_window").value_or(0);
    c.windowed = keys.windowed(c.layers, 6);
    c.logit_cap = keys.number("final_logit_softcapping", 0.0);
    c.local_rope = RopeConfig{.theta = keys.number("rope.freq_base_swa", 10000.0)};
    gemma_scale(62, c);
}

void gemma_hf(const HfConfig& hf, ModelConfig& c) {
    require(!hf.bidirectional, ErrorKind::not_supported,
            "{}: use_bidirectional_attention is not supported; expected a model that sees what is before", hf.name);
    c.window = hf.sliding_window.value_or(4096);
    c.score_scale = 1.0 / std::sqrt(hf.query_pre_attn_scalar.value_or(256.0));
}

void gemma2_hf(const HfConfig& hf, ModelConfig& c) {
    gemma_hf(hf, c);
    if (c.windowed.empty()) c.windowed = all_but_every(2, c.layers);
    c.score_cap = hf.score_cap.value_or(50.0);
    c.logit_cap = hf.logit_cap.value_or(30.0);
}

void gemma3_hf(const HfConfig& hf, ModelConfig& c) {
    gemma_hf(hf, c);
    if (c.windowed.empty()) c.windowed = all_but_every(hf.window_pattern.value_or(6), c.layers);
    c.score_cap = hf.score_cap.value_or(0.0);
    c.logit_cap = hf.logit_cap.value_or(0.0);
    if (!c.local_rope) c.local_rope = RopeConfig{.theta = hf.local_theta.value_or(10000.0)};
}

void glm4_parts(ModelConfig& c) { c.post_norms = true; }

void granite_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.embedding_scale = keys.number("embedding_scale", 1.0);
    c.residual_scale = keys.number("residual_scale", 1.0);
    c.score_scale = keys.number("attention.scale", 0.0);
    c.logit_scale = 1.0 / keys.number("logit_scale", 1.0);
}

void granite_hf(const HfConfig& hf, ModelConfig& c) {
    c.embedding_scale = hf.embedding_multiplier.value_or(1.0);
    c.residual_scale = hf.residual_multiplier.value_or(1.0);
    c.score_scale = hf.attention_multiplier.value_or(1.0);
    c.logit_scale = 1.0 / hf.logits_scaling.value_or(1.0);
}

void olmo2_parts(ModelConfig& c) {
    c.head_norm = HeadNorm::whole;
    c.pre_norms = false;
    c.post_norms = true;
}

/// OLMo 3 files say olmo2 and have a window, in all layers but every fourth; their scaling is that of the others alone.
void olmo2_gguf(const GgufKeys& keys, ModelConfig& c) {
    c.window = keys.find_integer("attention.sliding_window").value_or(0);
    if (c.window == 0) return;
    c.windowed = keys.windowed(c.layers, 4);
    c.local_rope = RopeConfig{.theta = c.rope.theta};
}

void olmo3_hf(const HfConfig& hf, ModelConfig& c) {
    c.window = hf.sliding_window.value_or(4096);
    if (c.windowed.empty()) c.windowed = all_but_every(4, c.layers);
    if (!c.local_rope) c.local_rope = RopeConfig{.theta = c.rope.theta};
}

/// Norms behind attention and feed-forward in Gemma's files, and in GLM's.
constexpr std::string_view kGemma[] = {"post_attention_layernorm", "pre_feedforward_layernorm",
                                       "post_feedforward_layernorm"};
constexpr std::string_view kGlm[] = {"post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"};

std::span<const Family> families() {
    static const Family kFamilies[] = {
        {.name = "llama",
         .gguf = "llama",
         .hf = {"llama", "LlamaForCausalLM"},
         .gguf_pairs = true,
         .read_gguf = llama_gguf,
         .read_hf = llama_hf},
        {.name = "mistral", .hf = {"mistral", "MistralForCausalLM"}, .read_hf = window_hf},
        {.name = "mistral3",
         .gguf = "mistral3",
         .hf = {"ministral3", "Ministral3ForCausalLM"},
         .gguf_pairs = true,
         .read_gguf = mistral3_gguf,
         .read_hf = mistral3_hf},
        {.name = "qwen2",
         .gguf = "qwen2",
         .hf = {"qwen2", "Qwen2ForCausalLM"},
         .parts = qwen2_parts,
         .read_hf = qwen_hf},
        {.name = "qwen3",
         .gguf = "qwen3",
         .hf = {"qwen3", "Qwen3ForCausalLM"},
         .parts = qwen3_parts,
         .read_hf = qwen_hf},
        {.name = "smollm3",
         .gguf = "smollm3",
         .hf = {"smollm3", "SmolLM3ForCausalLM"},
         .gguf_pairs = true,
         .read_gguf = smollm3_gguf,
         .read_hf = smollm3_hf},
        {.name = "phi3", .gguf = "phi3", .hf = {"phi3", "Phi3ForCausalLM"}, .hf_partial = true, .read_hf = window_hf},
        {.name = "gemma2",
         .gguf = "gemma2",
         .hf = {"gemma2", "Gemma2ForCausalLM"},
         .hf_norm_offset = 1,
         .hf_post_attention = kGemma[0],
         .hf_mlp_norm = kGemma[1],
         .hf_post_mlp = kGemma[2],
         .parts = gemma_parts,
         .read_gguf = gemma2_gguf,
         .read_hf = gemma2_hf},
        {.name = "gemma3",
         .gguf = "gemma3",
         .hf = {"gemma3_text", "Gemma3ForCausalLM"},
         .hf_norm_offset = 1,
         .hf_post_attention = kGemma[0],
         .hf_mlp_norm = kGemma[1],
         .hf_post_mlp = kGemma[2],
         .parts = gemma3_parts,
         .read_gguf = gemma3_gguf,
         .read_hf = gemma3_hf},
        {.name = "glm4",
         .gguf = "glm4",
         .hf = {"glm4", "Glm4ForCausalLM"},
         .gguf_pairs = true,
         .hf_pairs = true,
         .hf_partial = true,
         .hf_post_attention = kGlm[0],
         .hf_mlp_norm = kGlm[1],
         .hf_post_mlp = kGlm[2],
         .parts = glm4_parts},
        {.name = "granite",
         .gguf = "granite",
         .hf = {"granite", "GraniteForCausalLM"},
         .gguf_pairs = true,
         .read_gguf = granite_gguf,
         .read_hf = granite_hf},
        {.name = "olmo2",
         .gguf = "olmo2",
         .hf = {"olmo2", "Olmo2ForCausalLM"},
         .hf_post_attention = kGemma[0],
         .hf_mlp_norm = {},
         .hf_post_mlp = kGemma[2],
         .parts = olmo2_parts,
         .read_gguf = olmo2_gguf},
        {.name = "olmo3",
         .hf = {"olmo3", "Olmo3ForCausalLM"},
         .hf_post_attention = kGemma[0],
         .hf_mlp_norm = {},
         .hf_post_mlp = kGemma[2],
         .parts = olmo2_parts,
         .read_hf = olmo3_hf},
    };
    return kFamilies;
}

/// What stands in a name of a family that is not dense attention throughout.
struct Missing {
    std::string_view part, what;
};
constexpr Missing kMissing[] = {
    {"moe", "is a mixture of experts"},
    {"Moe", "is a mixture of experts"},
    {"MoE", "is a mixture of experts"},
    {"mixtral", "is a mixture of experts"},
    {"Mixtral", "is a mixture of experts"},
    {"gpt-oss", "is a mixture of experts with attention sinks"},
    {"gpt_oss", "is a mixture of experts with attention sinks"},
    {"GptOss", "is a mixture of experts with attention sinks"},
    {"llama4", "is a mixture of experts"},
    {"Llama4", "is a mixture of experts"},
    {"deepseek", "has latent attention"},
    {"Deepseek", "has latent attention"},
    {"hybrid", "has recurrent layers"},
    {"Hybrid", "has recurrent layers"},
    {"mamba", "has recurrent layers"},
    {"Mamba", "has recurrent layers"},
    {"qwen3next", "has recurrent layers"},
    {"qwen3_next", "has recurrent layers"},
    {"qwen35", "has recurrent layers"},
    {"qwen3_5", "has recurrent layers"},
    {"lfm2", "has convolution layers"},
    {"rwkv", "has recurrent layers"},
    {"jamba", "has recurrent layers"},
    {"nemotron_h", "has recurrent layers"},
    {"gemma4", "has embeddings a layer, shared keys and two sizes of heads"},
    {"gemma3n", "has embeddings a layer and shared keys"},
};

std::string known_names() {
    std::string list;
    for (const Family& family : families()) (list += list.empty() ? "" : ", ") += family.name;
    return list;
}

[[noreturn]] void refuse(std::string_view name, const std::string& file) {
    for (const Missing& missing : kMissing)
        if (name.find(missing.part) != std::string_view::npos)
            fail(ErrorKind::not_supported, "{}: architecture \"{}\" {}, which is not supported; expected one of {}",
                 file, name, missing.what, known_names());
    fail(ErrorKind::not_supported, "{}: architecture \"{}\" is not supported; expected one of {}", file, name,
         known_names());
}

}  // namespace

const Family& gguf_family(std::string_view architecture, const std::string& file) {
    for (const Family& family : families())
        if (!family.gguf.empty() && family.gguf == architecture) return family;
    refuse(architecture, file);
}

const Family& hf_family(std::string_view type, const std::string& file) {
    for (const Family& family : families())
        for (const std::string_view name : family.hf)
            if (name == type) return family;
    refuse(type, file);
}

const Family& family_named(std::string_view name) {
    for (const Family& family : families())
        if (family.name == name) return family;
    refuse(name, "ModelConfig::family");
}

}  // namespace outrider
