#include "formats/hf_config.hpp"

#include <cmath>
#include <limits>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/mapped_file.hpp>

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
        require(value.has_value(), ErrorKind::damaged_file,
                "{}: {} is missing; expected a configuration of a dense text model", name_, key);
        return *value;
    }

    [[nodiscard]] std::optional<double> number(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number() || !std::isfinite(value->get<double>())) wrong(key, *value, "a number");
        return value->get<double>();
    }

    [[nodiscard]] std::vector<double> numbers(const char* key) const {
        const Json* value = find(key);
        std::vector<double> result;
        if (value == nullptr) return result;
        if (!value->is_array()) wrong(key, *value, "a list of numbers");
        for (const Json& one : *value) {
            if (!one.is_number() || !std::isfinite(one.get<double>())) wrong(key, *value, "a list of numbers");
            result.push_back(one.get<double>());
        }
        return result;
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
        fail(ErrorKind::damaged_file, "{}: {} is {}; expected {}", name_, key, value.dump(-1, ' ', true).substr(0, 200),
             expected);
    }

private:
    const Json& object_;
    const std::string& name_;
};

/// What a model's configuration class in `transformers` (5.24) takes where the file says nothing.
struct ClassDefaults {
    std::string_view type;
    std::int64_t kv_heads = 0;  // 0: as many as heads
    std::int64_t positions = 2048;
    double eps = 1e-6;
    std::int64_t head_dim = 0;  // 0: hidden_size / heads
    bool tied = false;
    double theta = 10000.0;
    double partial = 1.0;
};
constexpr ClassDefaults kDefaults[] = {
    {.type = "llama"},
    {.type = "mistral", .kv_heads = 8, .positions = 131072},
    {.type = "ministral3", .kv_heads = 8, .positions = 262144, .eps = 1e-5, .head_dim = 128},
    {.type = "qwen2", .kv_heads = 32, .positions = 32768},
    {.type = "qwen3", .kv_heads = 32, .positions = 32768, .head_dim = 128},
    {.type = "gemma2", .kv_heads = 4, .positions = 8192, .head_dim = 256, .tied = true},
    {.type = "gemma3_text", .kv_heads = 4, .positions = 131072, .head_dim = 256, .tied = true, .theta = 1e6},
    {.type = "smollm3", .kv_heads = 4, .positions = 32768, .tied = true, .theta = 2e6},
    {.type = "phi3", .positions = 4096, .eps = 1e-5},
    {.type = "glm4", .kv_heads = 2, .positions = 131072, .eps = 1.5625e-7, .head_dim = 128, .partial = 0.5},
    {.type = "olmo2", .eps = 1e-5},
    {.type = "olmo3", .eps = 1e-5, .theta = 5e5},
};

const ClassDefaults& defaults_of(const HfConfig& config) {
    if (is_mistral(config)) return kDefaults[1];
    for (const ClassDefaults& one : kDefaults)
        if (one.type == config.model_type) return one;
    return kDefaults[0];
}

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

bool has_factors(const std::string& type) { return type == "longrope" || type == "su" || type == "yarn"; }

/// The fields of rope_scaling or of one of its parts over those beside it.
void read_rope_object(const Fields& inner, const std::string& name, HfRope& rope) {
    rope.type = inner.text("rope_type", inner.text("type", "default").c_str());
    if (const auto theta = inner.number("rope_theta")) rope.theta = *theta;
    const auto factor = inner.number("factor");
    require(rope.type == "default" || factor || has_factors(rope.type), ErrorKind::damaged_file,
            "{}: rope scaling \"{}\" has no factor; expected one", name, rope.type);
    require(rope.type != "default" || factor.value_or(1.0) == 1.0, ErrorKind::damaged_file,
            "{}: rope scaling has the factor {} and no type; expected rope_type, \"linear\" for example", name,
            factor.value_or(1.0));
    rope.factor = factor.value_or(1.0), rope.has_factor = factor.has_value();
    rope.low_freq_factor = inner.number("low_freq_factor");
    rope.high_freq_factor = inner.number("high_freq_factor");
    if (!rope.original_context) rope.original_context = inner.size("original_max_position_embeddings");
    rope.beta_fast = inner.number("beta_fast"), rope.beta_slow = inner.number("beta_slow");
    rope.mscale = inner.number("mscale"), rope.mscale_all = inner.number("mscale_all_dim");
    rope.truncate = inner.flag("truncate", true);
    rope.attention_factor = inner.number("attention_factor");
    rope.short_factors = inner.numbers("short_factor"), rope.long_factors = inner.numbers("long_factor");
    rope.query_growth = inner.number("llama_4_scaling_beta");
    rope.partial = inner.number("partial_rotary_factor").value_or(rope.partial);
}

HfRope read_rope(const Fields& fields, const Json* object, const HfConfig& config, const ClassDefaults& usual) {
    HfRope rope{.theta = fields.number("rope_theta").value_or(usual.theta),
                .partial = fields.number("partial_rotary_factor").value_or(usual.partial),
                .original_context = fields.size("original_max_position_embeddings")};
    if (object != nullptr) read_rope_object(Fields(*object, config.name), config.name, rope);
    if (!rope.original_context && (rope.type == "llama3" || has_factors(rope.type)))
        rope.original_context = config.max_positions;
    if (rope.type == "yarn" && !rope.has_factor && rope.long_factors.empty())
        rope.factor = static_cast<double>(config.max_positions) / static_cast<double>(*rope.original_context);
    require(rope.theta > 0, ErrorKind::damaged_file, "{}: rope_theta is {}; expected a positive number", config.name,
            rope.theta);
    require(rope.partial > 0 && rope.partial <= 1, ErrorKind::damaged_file,
            "{}: partial_rotary_factor is {}; expected a part of 1", config.name, rope.partial);
    return rope;
}

/// One rotary embedding, or one for each kind of layer.
void read_ropes(const Fields& fields, const ClassDefaults& usual, HfConfig& config) {
    static const Json kNothing = Json::object();
    const Json* object = rope_object(fields);
    const Fields kinds(object != nullptr ? *object : kNothing, config.name);
    const Json *full = kinds.find("full_attention"), *sliding = kinds.find("sliding_attention");
    if (full == nullptr && sliding == nullptr) {
        config.rope = read_rope(fields, object, config, usual);
        return;
    }
    for (const Json* part : {full, sliding})
        if (part != nullptr && !part->is_object()) kinds.wrong("rope_parameters", *part, "an object a kind of layer");
    config.rope = read_rope(fields, full != nullptr ? full : sliding, config, usual);
    if (sliding != nullptr) config.local_rope = read_rope(fields, sliding, config, usual);
}

/// Which layers have a window.
std::vector<bool> read_layer_types(const Fields& fields) {
    const Json* list = fields.find("layer_types");
    std::vector<bool> result;
    if (list == nullptr) return result;
    if (!list->is_array()) fields.wrong("layer_types", *list, "a list of kinds");
    for (const Json& kind : *list) {
        if (kind != "sliding_attention" && kind != "full_attention")
            fields.wrong("layer_types", kind, "sliding_attention or full_attention: no other kind is supported");
        result.push_back(kind == "sliding_attention");
    }
    return result;
}

std::vector<bool> read_rotated(const Fields& fields) {
    std::vector<bool> result;
    for (const double one : fields.numbers("no_rope_layers")) result.push_back(one != 0);
    return result;
}

/// A cap that is left out and one that is null are two things.
std::optional<double> read_cap(const Fields& fields, const char* key) {
    if (fields.has(key) && fields.find(key) == nullptr) return 0.0;
    return fields.number(key);
}

/// What some families have.
void read_parts(const Fields& fields, HfConfig& config) {
    if (const Json* use = fields.find("use_sliding_window"); use != nullptr)
        config.use_sliding_window = fields.flag("use_sliding_window", false);
    const bool mistral = is_mistral(config);
    if (mistral || config.use_sliding_window.value_or(true)) config.sliding_window = fields.size("sliding_window");
    if (mistral && !fields.has("sliding_window")) config.sliding_window = 4096;
    if (const Json* count = fields.find("max_window_layers"); count != nullptr && *count == 0)
        config.max_window_layers = 0;
    else
        config.max_window_layers = fields.size("max_window_layers");
    config.window_pattern = fields.size("sliding_window_pattern");
    config.windowed_layers = read_layer_types(fields);
    config.no_rope_interval = fields.size("no_rope_layer_interval");
    config.rotated_layers = read_rotated(fields);
    config.local_theta = fields.number("rope_local_base_freq");
    config.query_pre_attn_scalar = fields.number("query_pre_attn_scalar");
    config.score_cap = read_cap(fields, "attn_logit_softcapping");
    config.logit_cap = read_cap(fields, "final_logit_softcapping");
    config.bidirectional = fields.flag("use_bidirectional_attention", false);
    config.embedding_multiplier = fields.number("embedding_multiplier");
    config.residual_multiplier = fields.number("residual_multiplier");
    config.attention_multiplier = fields.number("attention_multiplier");
    config.logits_scaling = fields.number("logits_scaling");
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

/// What the file leaves out has the value of the model's configuration class, and null means none.
void read_heads(const Fields& fields, const ClassDefaults& usual, HfConfig& config) {
    const std::int64_t kv_heads =
        usual.kv_heads > 0 && !fields.has("num_key_value_heads") ? usual.kv_heads : config.heads;
    config.kv_heads = fields.size("num_key_value_heads").value_or(kv_heads);
    config.head_dim = fields.size("head_dim")
                          .value_or(usual.head_dim > 0 && !fields.has("head_dim") ? usual.head_dim
                                                                                  : config.hidden_size / config.heads);
    require(config.head_dim > 0, ErrorKind::damaged_file, "{}: a hidden_size of {} for {} heads", config.name,
            config.hidden_size, config.heads);
}

}  // namespace

bool is_mistral(const HfConfig& config) {
    if (!config.model_type.empty()) return config.model_type == "mistral";
    return !config.architectures.empty() && config.architectures[0] == "MistralForCausalLM";
}

HfConfig parse_hf_config(std::string_view json, const std::string& name) {
    const Json root = detail::parse_json(json, name);
    require(root.is_object(), ErrorKind::damaged_file, "{}: expected a JSON object", name);
    const Fields fields(root, name);
    HfConfig config;
    config.name = name;
    config.model_type = fields.text("model_type", "");
    config.architectures = read_architectures(fields);
    require(
        !root.contains("text_config"), ErrorKind::not_supported,
        "{}: \"{}\" is a text model with a part for images (or sound) beside it, under text_config, and such folders "
        "are not supported; take its GGUF file, which holds the text model alone, or a folder of a text model",
        name, config.model_type);
    config.hidden_size = fields.required_size("hidden_size");
    config.intermediate_size = fields.required_size("intermediate_size");
    config.layers = fields.required_size("num_hidden_layers");
    config.heads = fields.required_size("num_attention_heads");
    config.vocab_size = fields.required_size("vocab_size");
    const ClassDefaults& usual = defaults_of(config);
    read_heads(fields, usual, config);
    config.max_positions = fields.size("max_position_embeddings").value_or(usual.positions);
    config.rms_norm_eps = fields.number("rms_norm_eps").value_or(usual.eps);
    read_ropes(fields, usual, config);
    config.tie_word_embeddings = fields.flag("tie_word_embeddings", usual.tied);
    config.attention_bias = fields.flag("attention_bias", usual.type == "glm4");
    config.mlp_bias = fields.flag("mlp_bias", false);
    read_parts(fields, config);
    const bool gemma = usual.type.starts_with("gemma");
    config.hidden_act =
        gemma ? fields.text("hidden_activation", "gelu_pytorch_tanh") : fields.text("hidden_act", "silu");
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
