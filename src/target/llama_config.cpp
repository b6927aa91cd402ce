#include <outrider/target/llama_config.hpp>

#include <cmath>
#include <numbers>

#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"

namespace outrider {
namespace {

/// As llama.cpp reads it (src/llama-model.cpp, load_hparams): linear where the type is left out, its factor by the key
/// of today or by the one before, 0 for none.
RopeScaling gguf_scaling(const GgufFile& file) {
    const std::string kind = file.find_string("llama.rope.scaling.type").value_or("linear");
    const double attention = file.find_number("llama.rope.scaling.attn_factor").value_or(1.0);
    require(attention == 1.0, "{}: llama.rope.scaling.attn_factor is {}, which is not supported; expected 1",
            file.name(), attention);
    if (kind == "none") return {};
    require(kind == "linear", "{}: rope scaling \"{}\" is not supported; expected none, linear or llama3", file.name(),
            kind);
    const char* key = file.has("llama.rope.scaling.factor") ? "llama.rope.scaling.factor" : "llama.rope.scale_linear";
    const double factor = file.find_number(key).value_or(0.0);
    if (factor == 0.0 || factor == 1.0) return {};
    require(std::isfinite(factor) && factor > 0, "{}: {} is {}; expected a positive number", file.name(), key, factor);
    return {.kind = RopeScaling::Kind::linear, .factor = factor};
}

/// Integer at `key`; where the file has one value a layer, all must be the same.
std::int64_t one_integer(const GgufFile& file, const std::string& key) {
    if (!file.is_array(key)) return file.integer(key);
    const std::vector<std::int64_t> all = file.integers(key);
    require(!all.empty() && std::all_of(all.begin(), all.end(), [&](auto v) { return v == all[0]; }),
            "{}: \"{}\" differs from layer to layer, which is not supported", file.name(), key);
    return all[0];
}

}  // namespace

LlamaConfig LlamaConfig::from_gguf(const GgufFile& file) {
    const std::string architecture = file.string("general.architecture");
    require(architecture == "llama", "{}: architecture \"{}\" is not supported; expected \"llama\"", file.name(),
            architecture);
    require(file.find_integer("llama.expert_count").value_or(0) == 0,
            "{}: mixtures of experts are not supported; expected a dense model", file.name());
    LlamaConfig config;
    config.name = file.find_string("general.name").value_or("");
    config.layers = file.integer("llama.block_count");
    config.hidden = file.integer("llama.embedding_length");
    config.heads = one_integer(file, "llama.attention.head_count");
    config.kv_heads =
        file.has("llama.attention.head_count_kv") ? one_integer(file, "llama.attention.head_count_kv") : config.heads;
    require(config.heads > 0, "{}: \"llama.attention.head_count\" is {}", file.name(), config.heads);
    config.head_dim = file.find_integer("llama.attention.key_length").value_or(config.hidden / config.heads);
    const std::int64_t value_dim = file.find_integer("llama.attention.value_length").value_or(config.head_dim);
    require(value_dim == config.head_dim, "{}: value heads of {} beside key heads of {} are not supported", file.name(),
            value_dim, config.head_dim);
    const std::int64_t rotated = file.find_integer("llama.rope.dimension_count").value_or(config.head_dim);
    require(rotated == config.head_dim, "{}: rotary embedding of {} of {} dimensions (partial) is not supported",
            file.name(), rotated, config.head_dim);
    config.feed_forward = one_integer(file, "llama.feed_forward_length");
    config.vocabulary = file.tensor("token_embd.weight").shape.front();
    config.context = file.integer("llama.context_length");
    config.rope_theta = file.find_number("llama.rope.freq_base").value_or(10000.0);
    config.norm_eps = file.number("llama.attention.layer_norm_rms_epsilon");
    config.tied_output = !file.has_tensor("output.weight");
    config.rope = gguf_scaling(file);
    if (file.has_tensor("rope_freqs.weight")) config.rope_divisors = to_floats(file.tensor("rope_freqs.weight"));
    const std::int64_t window = file.find_integer("llama.attention.sliding_window").value_or(0);
    if (window < config.context) config.window = window;
    config.check();
    return config;
}

void LlamaConfig::check() const {
    const auto positive = [&](std::int64_t value, const char* what) {
        require(value > 0 && value < (std::int64_t{1} << 31), "model \"{}\": {} is {}, expected a positive number",
                name, what, value);
    };
    positive(layers, "number of layers");
    positive(hidden, "hidden size");
    positive(heads, "number of attention heads");
    positive(kv_heads, "number of key-value heads");
    positive(head_dim, "size of a head");
    positive(feed_forward, "feed-forward size");
    positive(vocabulary, "vocabulary size");
    positive(context, "context length");
    require(window >= 0, "model \"{}\": a sliding attention window of {} tokens; expected a positive number", name,
            window);
    require(heads % kv_heads == 0, "model \"{}\": {} attention heads over {} key-value heads; expected a multiple",
            name, heads, kv_heads);
    require(head_dim % 2 == 0, "model \"{}\": heads of {} dimensions; expected an even number", name, head_dim);
    require(rope_divisors.empty() || static_cast<std::int64_t>(rope_divisors.size()) == head_dim / 2,
            "model \"{}\": {} rotary frequency divisors; expected half of the {} dimensions of a head", name,
            rope_divisors.size(), head_dim);
    require(std::isfinite(rope_theta) && rope_theta > 0, "model \"{}\": rope theta {}; expected a positive number",
            name, rope_theta);
    require(std::isfinite(norm_eps) && norm_eps >= 0, "model \"{}\": RMS norm epsilon {}; expected a small number",
            name, norm_eps);
    require(rope.factor > 0 && rope.high_freq_factor > rope.low_freq_factor && rope.original_context > 0,
            "model \"{}\": rope scaling factor {}, low {}, high {}, original context {} make no sense", name,
            rope.factor, rope.low_freq_factor, rope.high_freq_factor, rope.original_context);
}

std::vector<float> LlamaConfig::rope_frequencies() const {
    std::vector<float> result(static_cast<std::size_t>(head_dim / 2));
    for (std::size_t i = 0; i < result.size(); ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
        float frequency = 1.0F / std::pow(static_cast<float>(rope_theta), exponent);
        if (rope.kind == RopeScaling::Kind::linear) frequency /= static_cast<float>(rope.factor);
        if (rope.kind == RopeScaling::Kind::llama3) {
            const double wavelength = 2.0 * std::numbers::pi / frequency;
            const double smooth = (rope.original_context / wavelength - rope.low_freq_factor) /
                                  (rope.high_freq_factor - rope.low_freq_factor);
            const double kept = std::clamp(smooth, 0.0, 1.0);
            frequency = static_cast<float>(kept * frequency + (1.0 - kept) * frequency / rope.factor);
        }
        if (!rope_divisors.empty()) frequency /= rope_divisors[i];
        result[i] = frequency;
    }
    return result;
}

}  // namespace outrider
