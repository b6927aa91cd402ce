#include "formats/hf_config.hpp"

#include <cmath>
#include <limits>

#include <outrider/core/error.hpp>
#include <outrider/formats/mapped_file.hpp>

#include <outrider/formats/detail/json_text.hpp>

namespace outrider {
namespace {

using detail::Json;

/// Fields of one JSON object; null counts as left out.
class Fields {
public:
    Fields(const Json& object, const std::string& name) : object_(object), name_(name) {}

    [[nodiscard]] const Json* find(const char* key) const {
        const auto found = object_.find(key);
        return found != object_.end() && !found->is_null() ? &*found : nullptr;
    }

    /// Whether the key is there, null or not.
    [[nodiscard]] bool has(const char* key) const { return object_.contains(key); }

    [[nodiscard]] std::optional<std::int64_t> size(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number_unsigned() || value->get<std::uint64_t>() == 0 ||
            value->get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
            wrong(key, *value, "a positive integer below 2^31");
        }
        return value->get<std::int64_t>();
    }

    [[nodiscard]] std::int64_t required_size(const char* key) const {
        const auto value = size(key);
        require(value.has_value(), "{}: {} is missing; expected a configuration of the Llama family", name_, key);
        return *value;
    }

    [[nodiscard]] std::optional<double> number(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number() || !std::isfinite(value->get<double>())) wrong(key, *value, "a number");
        return value->get<double>();
    }

    [[nodiscard]] bool flag(const char* key, bool fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (!value->is_boolean()) wrong(key, *value, "true or false");
        return value->get<bool>();
    }

    [[nodiscard]] std::string text(const char* key, const char* fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (!value->is_string()) wrong(key, *value, "a string");
        return value->get<std::string>();
    }

    /// A token id, a list of them, or nothing. -1 is some files' "none".
    [[nodiscard]] std::vector<TokenId> ids(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return {};
        std::vector<TokenId> result;
        for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
            if (!id.is_number_integer()) wrong(key, *value, "a token id or a list of them");
            if (id == -1) continue;
            if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::numeric_limits<TokenId>::max()) {
                wrong(key, *value, "a token id or a list of them");
            }
            result.push_back(id.get<TokenId>());
        }
        return result;
    }

    [[noreturn]] void wrong(const char* key, const Json& value, const char* expected) const {
        fail("{}: {} is {}; expected {}", name_, key, value.dump(-1, ' ', true).substr(0, 200), expected);
    }

private:
    const Json& object_;
    const std::string& name_;
};

/// rope_scaling where it says anything, else rope_parameters; null where neither does.
const Json* rope_object(const Fields& fields) {
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
        const Json* value = fields.find(key);
        if (value == nullptr) continue;
        if (!value->is_object()) fields.wrong(key, *value, "an object");
        if (!value->empty()) return value;
    }
    return nullptr;
}

HfRope read_rope(const Fields& fields, const std::string& name, std::int64_t positions) {
    HfRope rope;
    if (const auto theta = fields.number("rope_theta")) rope.theta = *theta;
    double rotated = fields.number("partial_rotary_factor").value_or(1.0);
    if (const Json* value = rope_object(fields)) {
        const Fields inner(*value, name);
        rope.type = inner.text("rope_type", inner.text("type", "default").c_str());
        if (const auto theta = inner.number("rope_theta")) rope.theta = *theta;
        const auto factor = inner.number("factor");
        require(rope.type == "default" || factor, "{}: rope scaling \"{}\" has no factor; expected one", name,
                rope.type);
        require(rope.type != "default" || factor.value_or(1.0) == 1.0,
                "{}: rope scaling has the factor {} and no type; "
                "expected rope_type, \"linear\" for example",
                name, factor.value_or(1.0));
        rope.factor = factor.value_or(1.0);
        rope.low_freq_factor = inner.number("low_freq_factor");
        rope.high_freq_factor = inner.number("high_freq_factor");
        rope.original_context = fields.size("original_max_position_embeddings");
        if (!rope.original_context) rope.original_context = inner.size("original_max_position_embeddings");
        if (!rope.original_context && rope.type == "llama3") rope.original_context = positions;
        rotated = inner.number("partial_rotary_factor").value_or(rotated);
    }
    require(rotated == 1.0, "{}: partial_rotary_factor is {}, which is not supported; expected 1", name, rotated);
    require(rope.theta > 0, "{}: rope_theta is {}; expected a positive number", name, rope.theta);
    return rope;
}

std::vector<std::string> read_architectures(const Fields& fields) {
    const Json* list = fields.find("architectures");
    std::vector<std::string> result;
    if (list == nullptr) return result;
    if (!list->is_array()) fields.wrong("architectures", *list, "a list of names");
    for (const Json& entry : *list) {
        if (!entry.is_string()) fields.wrong("architectures", *list, "a list of names");
        result.push_back(entry.get<std::string>());
    }
    return result;
}

}  // namespace

bool is_mistral(const HfConfig& config) {
    if (!config.model_type.empty()) return config.model_type == "mistral";
    return !config.architectures.empty() && config.architectures[0] == "MistralForCausalLM";
}

HfConfig parse_hf_config(std::string_view json, const std::string& name) {
    const Json root = detail::parse_json(json, name);
    require(root.is_object(), "{}: expected a JSON object", name);
    const Fields fields(root, name);
    HfConfig config;
    config.name = name;
    config.model_type = fields.text("model_type", "");
    config.architectures = read_architectures(fields);
    config.hidden_size = fields.required_size("hidden_size");
    config.intermediate_size = fields.required_size("intermediate_size");
    config.layers = fields.required_size("num_hidden_layers");
    config.heads = fields.required_size("num_attention_heads");
    config.vocab_size = fields.required_size("vocab_size");
    const bool mistral = is_mistral(config);
    // What the file leaves out has the value of the model's configuration class, and null means none.
    config.kv_heads =
        fields.size("num_key_value_heads").value_or(mistral && !fields.has("num_key_value_heads") ? 8 : config.heads);
    config.head_dim = fields.size("head_dim").value_or(config.hidden_size / config.heads);
    require(config.head_dim > 0, "{}: a hidden_size of {} for {} heads", name, config.hidden_size, config.heads);
    config.max_positions = fields.size("max_position_embeddings").value_or(mistral ? 131072 : config.max_positions);
    config.rms_norm_eps = fields.number("rms_norm_eps").value_or(config.rms_norm_eps);
    config.rope = read_rope(fields, name, config.max_positions);
    config.tie_word_embeddings = fields.flag("tie_word_embeddings", false);
    config.attention_bias = fields.flag("attention_bias", false);
    config.mlp_bias = fields.flag("mlp_bias", false);
    if (mistral || fields.flag("use_sliding_window", true)) config.sliding_window = fields.size("sliding_window");
    if (mistral && !fields.has("sliding_window")) config.sliding_window = 4096;
    config.hidden_act = fields.text("hidden_act", "silu");
    if (config.hidden_act == "swish") config.hidden_act = "silu";  // two names of one function
    if (const Json* quantized = fields.find("quantization_config"))
        fields.wrong("quantization_config", *quantized,
                     "a model in F32, F16 or BF16: weights in other formats are read from GGUF files");
    config.bos_ids = fields.ids("bos_token_id");
    config.eos_ids = fields.ids("eos_token_id");
    config.torch_dtype = fields.text("torch_dtype", fields.text("dtype", "").c_str());
    return config;
}

HfConfig read_hf_config(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "config.json";
    const SharedBytes file = SharedBytes::map(path);
    return parse_hf_config({reinterpret_cast<const char*>(file.span().data()), file.size()}, path.string());
}

}  // namespace outrider
