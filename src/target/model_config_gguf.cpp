// A GGUF file's values as a ModelConfig. Keys as llama.cpp reads them (src/llama-model.cpp, gguf-py/gguf/constants.py).
#include <algorithm>
#include <cmath>

#include <outrider/core/error.hpp>

#include "families.hpp"
#include "gguf_keys.hpp"

namespace outrider {
namespace {

using Kind = RopeConfig::Kind;

/// Linear where the type is left out, its factor by the key of today or by the one before, 0 for none.
void read_linear(const GgufKeys& keys, RopeConfig& rope) {
    const char* name = keys.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
    const double factor = keys.number(name, 0.0);
    if (factor == 0.0 || factor == 1.0) return;
    require(std::isfinite(factor) && factor > 0, ErrorKind::damaged_file, "{}: {} is {}; expected a positive number",
            keys.file().name(), keys.key(name), factor);
    rope.kind = Kind::linear, rope.factor = factor;
}

/// cos and sin grow by 1 + 0.1 ln(factor), unless the file says how the scores make up for it.
void read_yarn(const GgufKeys& keys, RopeConfig& rope, std::int64_t context) {
    rope.kind = Kind::yarn;
    rope.factor = keys.number("rope.scaling.factor");
    rope.original_context = keys.number("rope.scaling.original_context_length", static_cast<double>(context));
    rope.beta_fast = keys.number("rope.scaling.yarn_beta_fast", 32.0);
    rope.beta_slow = keys.number("rope.scaling.yarn_beta_slow", 1.0);
    const double growth = 0.1 * std::log(std::max(rope.factor, 1.0)),
                 multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0);
    rope.magnitude *= (1.0 + growth) / (1.0 + multiplier * growth);
}

/// One set of factors, chosen once: a row's bits may not change while a text grows.
void read_longrope(const GgufKeys& keys, RopeConfig& rope, std::int64_t context) {
    rope.kind = Kind::longrope;
    rope.original_context = keys.number("rope.scaling.original_context_length", static_cast<double>(context));
    rope.divisors = to_floats(keys.file().tensor(static_cast<double>(context) > rope.original_context
                                                     ? "rope_factors_long.weight"
                                                     : "rope_factors_short.weight"));
}

RopeConfig read_rope(const GgufKeys& keys, std::int64_t context) {
    RopeConfig rope{.theta = keys.number("rope.freq_base", 10000.0),
                    .magnitude = keys.number("rope.scaling.attn_factor", 1.0)};
    const GgufFile& file = keys.file();
    const bool long_factors = file.has_tensor("rope_factors_long.weight");
    const std::string kind =
        file.find_string(keys.key("rope.scaling.type")).value_or(long_factors ? "longrope" : "linear");
    if (kind == "linear")
        read_linear(keys, rope);
    else if (kind == "yarn")
        read_yarn(keys, rope, context);
    else if (kind == "longrope")
        read_longrope(keys, rope, context);
    else
        require(kind == "none", ErrorKind::not_supported,
                "{}: rope scaling \"{}\" is not supported; expected none, linear, llama3, yarn or longrope",
                file.name(), kind);
    if (file.has_tensor("rope_freqs.weight")) rope.divisors = to_floats(file.tensor("rope_freqs.weight"));
    if (keys.has("rope.dimension_sections")) {
        const std::vector<std::int64_t> sections = file.integers(keys.key("rope.dimension_sections"));
        require(std::ranges::all_of(sections, [](auto size) { return size == 0; }), ErrorKind::not_supported,
                "{}: rotary embedding in sections (of images) is not supported; expected a text model", file.name());
    }
    return rope;
}

void read_sizes(const GgufKeys& keys, ModelConfig& config) {
    const GgufFile& file = keys.file();
    config.layers = keys.integer("block_count");
    config.hidden = keys.integer("embedding_length");
    config.heads = keys.one_integer("attention.head_count");
    config.kv_heads = keys.has("attention.head_count_kv") ? keys.one_integer("attention.head_count_kv") : config.heads;
    require(config.heads > 0, ErrorKind::damaged_file, "{}: \"{}\" is {}", file.name(),
            keys.key("attention.head_count"), config.heads);
    config.head_dim = keys.find_integer("attention.key_length").value_or(config.hidden / config.heads);
    const std::int64_t value_dim = keys.find_integer("attention.value_length").value_or(config.head_dim);
    require(value_dim == config.head_dim, ErrorKind::not_supported,
            "{}: value heads of {} beside key heads of {} are not supported", file.name(), value_dim, config.head_dim);
    config.rotated = keys.find_integer("rope.dimension_count").value_or(config.head_dim);
    config.feed_forward = keys.one_integer("feed_forward_length");
    config.vocabulary = file.tensor("token_embd.weight").shape.front();
    config.context = keys.integer("context_length");
    config.norm_eps = keys.number("attention.layer_norm_rms_epsilon");
    config.tied_output = !file.has_tensor("output.weight");
}

/// Biases that the files of any family may hold.
void find_biases(const GgufFile& file, ModelConfig& config) {
    config.qkv_bias = file.has_tensor("blk.0.attn_q.bias") || file.has_tensor("blk.0.attn_qkv.bias");
    config.o_bias = file.has_tensor("blk.0.attn_output.bias");
    config.mlp_bias = file.has_tensor("blk.0.ffn_down.bias");
}

}  // namespace

std::int64_t GgufKeys::one_integer(std::string_view name) const {
    if (!file_.is_array(key(name))) return integer(name);
    const std::vector<std::int64_t> all = file_.integers(key(name));
    require(!all.empty() && std::ranges::all_of(all, [&](auto v) { return v == all[0]; }), ErrorKind::not_supported,
            "{}: \"{}\" differs from layer to layer, which is not supported", file_.name(), key(name));
    return all[0];
}

std::vector<bool> GgufKeys::windowed(std::int64_t layers, std::int64_t pattern) const {
    constexpr const char* kName = "attention.sliding_window_pattern";
    if (has(kName) && file_.is_array(key(kName))) return file_.booleans(key(kName));
    const std::int64_t every = find_integer(kName).value_or(pattern);
    require(every > 0, ErrorKind::damaged_file, "{}: \"{}\" is {}; expected a positive number", file_.name(),
            key(kName), every);
    return all_but_every(every, layers);
}

ModelConfig ModelConfig::from_gguf(const GgufFile& file, std::int64_t context) {
    const std::string architecture = file.string("general.architecture");
    const Family& family = gguf_family(architecture, file.name());
    const GgufKeys keys(file, architecture);
    require(keys.find_integer("expert_count").value_or(0) == 0, ErrorKind::not_supported,
            "{}: mixtures of experts are not supported; expected a dense model", file.name());
    require(file.find_boolean(keys.key("attention.causal")).value_or(true), ErrorKind::not_supported,
            "{}: {} is false: this is a model of embeddings; expected one that writes text", file.name(),
            keys.key("attention.causal"));
    ModelConfig config;
    config.name = file.find_string("general.name").value_or("");
    config.family = family.name;
    read_sizes(keys, config);
    const std::int64_t trained = config.context;
    if (context > 0) config.context = std::min(trained, context);
    config.rope = read_rope(keys, config.context);
    if (family.parts != nullptr) family.parts(config);
    find_biases(file, config);
    if (family.read_gguf != nullptr) family.read_gguf(keys, config);
    if (config.window >= trained) config.window = 0;  // no token is further away
    config.check();
    return config;
}

}  // namespace outrider
