#include "model_facts.hpp"

#include <algorithm>
#include <cctype>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <outrider/core/error.hpp>

#include "formats/gguf.hpp"
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/formats/detail/named_tensors.hpp>

namespace outrider::cli {
namespace {

/// A size under its keys: GGUF's after the architecture's name, and that of config.json.
struct SizeKey {
    const char *label, *gguf, *hf;
};
constexpr SizeKey kLayers{"layers", "block_count", "num_hidden_layers"};
constexpr SizeKey kHidden{"hidden size", "embedding_length", "hidden_size"};
constexpr SizeKey kFeedForward{"feed-forward size", "feed_forward_length", "intermediate_size"};
constexpr SizeKey kHeads{"attention heads", "attention.head_count", "num_attention_heads"};
constexpr SizeKey kKvHeads{"key-value heads", "attention.head_count_kv", "num_key_value_heads"};
constexpr SizeKey kHeadDim{"head size", "attention.key_length", "head_dim"};
constexpr SizeKey kContext{"context", "context_length", "max_position_embeddings"};
constexpr SizeKey kWindow{"attention window", "attention.sliding_window", "sliding_window"};
constexpr SizeKey kExperts{"experts", "expert_count", "num_local_experts"};
constexpr SizeKey kTheta{"rope theta", "rope.freq_base", "rope_theta"};
constexpr SizeKey kScaling{"rope scaling", "rope.scaling.type", "rope_scaling"};

/// Numbers of one key: one, or one a layer.
using Numbers = std::vector<std::int64_t>;

/// One value, or each with how often it stands in the list.
std::string shown_numbers(const Numbers& numbers) {
    std::map<std::int64_t, std::size_t> counts;
    for (const std::int64_t number : numbers) ++counts[number];
    if (counts.size() == 1) return std::to_string(numbers.front());
    std::vector<std::string> parts;
    for (const auto& [number, count] : counts) parts.push_back(fmt::format("{} ({} layers)", number, count));
    return fmt::format("{}", fmt::join(parts, ", "));
}

/// Where sizes come from.
struct Source {
    virtual ~Source() = default;
    [[nodiscard]] virtual Numbers numbers(const SizeKey& key) const = 0;   ///< empty: not said
    [[nodiscard]] virtual std::string text(const SizeKey& key) const = 0;  ///< empty: not said
};

struct GgufSource final : Source {
    const GgufFile& file;
    std::string prefix;

    explicit GgufSource(const GgufFile& from)
        : file(from), prefix(from.find_string("general.architecture").value_or("") + ".") {}
    Numbers numbers(const SizeKey& key) const override {
        const std::string name = prefix + key.gguf;
        if (!file.has(name)) return {};
        return file.is_array(name) ? file.integers(name) : Numbers{file.integer(name)};
    }
    std::string text(const SizeKey& key) const override {
        const std::string name = prefix + key.gguf;
        if (!file.has(name)) return {};
        if (&key == &kTheta) return fmt::format("{}", file.number(name));
        return file.string(name);
    }
};

struct HfSource final : Source {
    detail::Json root;

    /// The text part of a model that has others.
    explicit HfSource(const detail::Json& config)
        : root(detail::field(config, "text_config").is_object() ? detail::field(config, "text_config") : config) {}
    Numbers numbers(const SizeKey& key) const override {
        const detail::Json& value = detail::field(root, key.hf);
        return value.is_number_integer() ? Numbers{value.get<std::int64_t>()} : Numbers{};
    }
    std::string text(const SizeKey& key) const override {
        const detail::Json& value = detail::field(root, key.hf);
        if (value.is_null()) return {};
        return value.is_object() ? detail::shown(value) : value.dump();
    }
};

std::optional<std::int64_t> first(const Numbers& numbers) {
    return numbers.empty() ? std::nullopt : std::optional(numbers.front());
}

/// Keys and values of all layers.
std::optional<std::int64_t> cache_values(const Source& source) {
    const auto layers = first(source.numbers(kLayers)), hidden = first(source.numbers(kHidden));
    const Numbers heads = source.numbers(kHeads);
    Numbers kv = source.numbers(kKvHeads);
    if (kv.empty()) kv = heads;
    auto dim = first(source.numbers(kHeadDim));
    if (!dim && hidden && first(heads).value_or(0) > 0) dim = *hidden / heads.front();
    if (!layers || kv.empty() || !dim) return std::nullopt;
    std::int64_t sum = 0;
    for (const std::int64_t one : kv) sum += one;
    if (kv.size() == 1) sum *= *layers;
    return 2 * sum * *dim;
}

void read_sizes(const Source& source, ModelFacts& facts) {
    for (const SizeKey* key :
         {&kLayers, &kHidden, &kFeedForward, &kHeads, &kKvHeads, &kHeadDim, &kContext, &kWindow, &kExperts})
        if (const Numbers numbers = source.numbers(*key); !numbers.empty())
            facts.sizes.emplace_back(key->label, shown_numbers(numbers));
    for (const SizeKey* key : {&kTheta, &kScaling})
        if (const std::string text = source.text(*key); !text.empty()) facts.sizes.emplace_back(key->label, text);
    facts.hidden = first(source.numbers(kHidden));
    facts.context = first(source.numbers(kContext));
    facts.cache_values = cache_values(source);
}

/// A tensor's name without its layer: what follows the first number between points, without ".weight".
std::string kind_of(std::string_view name) {
    std::string_view kind = name;
    for (std::size_t at = name.find('.'); at != std::string_view::npos; at = name.find('.', at + 1)) {
        std::size_t end = at + 1;
        while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) != 0) ++end;
        if (end == at + 1 || end >= name.size() || name[end] != '.') continue;
        kind = name.substr(end + 1);
        break;
    }
    if (kind.ends_with(".weight")) kind.remove_suffix(7);
    return std::string(kind);
}

void add_tensor(std::string_view name, std::int64_t parameters, std::size_t bytes, const std::string& format,
                ModelFacts& facts) {
    const std::string kind = kind_of(name);
    auto place = std::ranges::find(facts.tensors, kind, &TensorKind::name);
    if (place == facts.tensors.end()) place = facts.tensors.insert(place, TensorKind{.name = kind});
    ++place->tensors;
    place->parameters += parameters;
    place->bytes += static_cast<std::int64_t>(bytes);
    ++place->formats[format];
}

ModelFacts gguf_facts(const std::filesystem::path& path) {
    const GgufFile file = GgufFile::open(path);
    ModelFacts facts{.format = fmt::format("GGUF, version {}", file.version()),
                     .family = file.find_string("general.architecture").value_or(""),
                     .name = file.find_string("general.name").value_or("")};
    read_sizes(GgufSource(file), facts);
    for (const GgufTensor& tensor : file.tensors()) {
        add_tensor(tensor.name, tensor.elements(), tensor.data.size(), ggml_name(tensor.type), facts);
        if (!can_dequantise(tensor.type)) facts.unreadable.insert(ggml_name(tensor.type));
    }
    if (file.has_tensor("token_embd.weight")) facts.rows = file.tensor("token_embd.weight").shape.front();
    facts.tokenizer = file.find_string("tokenizer.ggml.model").value_or("");
    if (const auto rule = file.find_string("tokenizer.ggml.pre")) facts.tokenizer += fmt::format(" ({})", *rule);
    return facts;
}

ModelFacts folder_facts(const std::filesystem::path& folder) {
    const detail::Json config = detail::read_json(folder / "config.json");
    ModelFacts facts{.format = "Hugging Face folder",
                     .family = detail::text(config, "model_type"),
                     .name = detail::text(config, "_name_or_path")};
    read_sizes(HfSource(config), facts);
    const NamedTensors file = NamedTensors::open(folder);
    for (const SafeTensor& tensor : file.tensors()) {
        add_tensor(tensor.name, tensor.elements(), tensor.data.size(), safe_dtype_name(tensor.dtype), facts);
        if (tensor.name.ends_with("embed_tokens.weight") && !tensor.shape.empty()) facts.rows = tensor.shape.front();
    }
    std::error_code ignored;
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
        if (facts.tokenizer.empty() && std::filesystem::exists(folder / name, ignored)) facts.tokenizer = name;
    return facts;
}

template <typename Part>
std::int64_t sum(const std::vector<TensorKind>& kinds, Part part) {
    std::int64_t total = 0;
    for (const TensorKind& kind : kinds) total += kind.*part;
    return total;
}

}  // namespace

std::int64_t ModelFacts::parameters() const { return sum(tensors, &TensorKind::parameters); }
std::int64_t ModelFacts::bytes() const { return sum(tensors, &TensorKind::bytes); }
std::int64_t ModelFacts::count() const { return sum(tensors, &TensorKind::tensors); }

ModelFacts read_facts(const std::filesystem::path& path) {
    std::error_code ignored;
    require(std::filesystem::exists(path, ignored),
            "model {}: no such file or folder; expected a GGUF file or a Hugging Face folder with config.json",
            path.string());
    return std::filesystem::is_directory(path, ignored) ? folder_facts(path) : gguf_facts(path);
}

std::string readable_bytes(std::int64_t bytes) {
    const auto count = static_cast<double>(bytes);
    if (bytes < 1'000) return fmt::format("{} bytes", bytes);
    if (bytes < 1'000'000) return fmt::format("{:.1f} KB", count / 1e3);
    if (bytes < 1'000'000'000) return fmt::format("{:.1f} MB", count / 1e6);
    return fmt::format("{:.2f} GB", count / 1e9);
}

}  // namespace outrider::cli
