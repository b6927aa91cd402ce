// Bodies of drafter_files.hpp.
#pragma once

#include <outrider/draft/nn/detail/drafter_files.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/weight_blocks.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <system_error>

#include <outrider/formats/detail/atomic_file.hpp>
#include <outrider/formats/detail/json_text.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

OUTRIDER_INLINE bool fits_shape(at::IntArrayRef sizes, const std::vector<std::int64_t>& shape) {
    return sizes.size() == shape.size() &&
           std::equal(shape.begin(), shape.end(), sizes.begin(),
                      [](std::int64_t wanted, std::int64_t is) { return wanted < 0 || wanted == is; });
}

/// Whether a tensor can stand where the file has it.
OUTRIDER_INLINE bool is_bf16_view(const SafeTensor& tensor) {
    return tensor.dtype == SafeDtype::bf16 &&
           reinterpret_cast<std::uintptr_t>(tensor.data.data()) % alignof(c10::BFloat16) == 0;
}

/// JSON with its innermost lists in one line each: thousands of ids, one a line, would bury the rest.
OUTRIDER_INLINE std::string with_short_lists(const std::string& text) {
    std::string result;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text[at] == '[' ? text.find_first_of("[]{}\"", at + 1) : std::string::npos;
        if (end == std::string::npos || text[end] != ']') {
            // A string is taken whole: brackets in it are letters.
            std::size_t next = at + 1;
            if (text[at] == '"')
                while (text[next++] != '"') next += text[next - 1] == '\\' ? 1 : 0;
            result.append(text, at, next - at);
            at = next;
            continue;
        }
        for (; at <= end; ++at)
            if (text[at] != ' ' && text[at] != '\n') result += text[at];
    }
    return result;
}

/// The draft vocabulary of the small form, into `file`.
OUTRIDER_INLINE void add_stored_vocabulary(const std::filesystem::path& folder, nlohmann::json& file) {
    std::error_code ignored;
    if (!file.is_object() || file.contains("vocabulary")) return;
    if (!std::filesystem::is_regular_file(folder / "model.safetensors", ignored)) return;
    const SafeTensors weights = SafeTensors::open(folder / "model.safetensors");
    if (!weights.has(kVocabularyTensor)) return;
    const SafeTensor& ids = weights.tensor(kVocabularyTensor);
    require(ids.dtype == SafeDtype::i32 && ids.shape.size() == 1, ErrorKind::damaged_file, "{}: {} is no list of I32",
            weights.name(), kVocabularyTensor);
    std::vector<TokenId> vocabulary(static_cast<std::size_t>(ids.elements()));
    if (!vocabulary.empty()) std::memcpy(vocabulary.data(), ids.data.data(), ids.data.size());
    nlohmann::json list = nlohmann::json::array();
    for (const TokenId id : vocabulary)  // as a parser would give them
        list.push_back(id < 0 ? nlohmann::json(id) : nlohmann::json(static_cast<std::uint32_t>(id)));
    file["vocabulary"] = std::move(list);
}

/// [rows, columns] f32 of a matrix in blocks.
OUTRIDER_INLINE at::Tensor from_blocks(const SafeTensor& tensor, BlockFormat format) {
    const at::Tensor result = aten::empty({tensor.shape[0], tensor.shape[1] * kBlockWeights}, at::kFloat);
    auto* weights = result.mutable_data_ptr<float>();
    const auto bytes = static_cast<std::size_t>(format);
    for (std::size_t i = 0; i < tensor.data.size() / bytes; ++i)
        decode_block(format, tensor.data.data() + i * bytes, weights + i * kBlockWeights);
    return result;
}

}  // namespace detail

OUTRIDER_INLINE void read_drafter_json(const std::filesystem::path& folder,
                                       const std::function<void(const nlohmann::json&)>& take) {
    const std::filesystem::path path = folder / "config.json";
    std::error_code ignored;
    require(std::filesystem::is_regular_file(path, ignored), ErrorKind::damaged_file,
            "{}: cannot be read; a drafter is a folder with config.json and model.safetensors", path.string());
    nlohmann::json file = detail::read_json(path);
    detail::add_stored_vocabulary(folder, file);
    try {
        take(file);
    } catch (const nlohmann::json::exception& error) {
        fail(ErrorKind::damaged_file, "{}: {}", path.string(), detail::json_reason(error));
    } catch (const std::exception& error) {
        fail(ErrorKind::damaged_file, "{}: {}", path.string(), error.what());
    }
}

OUTRIDER_INLINE void check_drafter_kind(const nlohmann::json& file, std::string_view kind, int version) {
    require(member(file, "kind") == kind, ErrorKind::damaged_file, "kind is {}, expected \"{}\"",
            detail::shown(member(file, "kind")), kind);
    require(member(file, "version") == version, ErrorKind::not_supported, "version is {}, this library reads {}",
            detail::shown(member(file, "version")), version);
}

OUTRIDER_INLINE const nlohmann::json& member(const nlohmann::json& object, const char* key) {
    require(object.is_object(), ErrorKind::damaged_file, "{} was looked for in {}, expected a JSON object", key,
            detail::shown(object));
    const auto found = object.find(key);
    require(found != object.end(), ErrorKind::damaged_file, "{} is missing", key);
    return *found;
}

OUTRIDER_INLINE std::string text_value(const nlohmann::json& object, const char* key) {
    const nlohmann::json& value = member(object, key);
    require(value.is_string(), ErrorKind::damaged_file, "{} is {}, expected a string", key, detail::shown(value));
    return value.get<std::string>();
}

OUTRIDER_INLINE bool flag_value(const nlohmann::json& object, const char* key) {
    const nlohmann::json& value = member(object, key);
    require(value.is_boolean(), ErrorKind::damaged_file, "{} is {}, expected true or false", key, detail::shown(value));
    return value.get<bool>();
}

OUTRIDER_INLINE std::vector<std::vector<double>> number_lists(const nlohmann::json& object, const char* key) {
    const nlohmann::json& value = detail::field(object, key);
    if (value.is_null()) return {};
    try {
        return value.get<std::vector<std::vector<double>>>();
    } catch (const nlohmann::json::exception&) {
        fail(ErrorKind::damaged_file, "{} is {}, expected lists of numbers", key, detail::shown(value));
    }
}

OUTRIDER_INLINE std::int64_t whole_number(const nlohmann::json& object, const char* key) {
    const nlohmann::json& value = member(object, key);
    require(value.is_number_integer() && value <= std::numeric_limits<std::int64_t>::max(), ErrorKind::damaged_file,
            "{} is {}, expected an integer", key, detail::shown(value));
    return value.get<std::int64_t>();
}

OUTRIDER_INLINE std::vector<TokenId> token_ids(const nlohmann::json& object, const char* key) {
    const nlohmann::json& list = member(object, key);
    require(list.is_array(), ErrorKind::damaged_file, "{} is no list; expected token ids", key);
    std::vector<TokenId> ids;
    ids.reserve(list.size());
    for (const nlohmann::json& id : list) {
        require(id.is_number_unsigned() && id <= std::numeric_limits<TokenId>::max(), ErrorKind::damaged_file,
                "{} holds {}, expected token ids", key, detail::shown(id));
        ids.push_back(id.get<TokenId>());
    }
    return ids;
}

OUTRIDER_INLINE double positive_number(const nlohmann::json& object, const char* key) {
    const nlohmann::json& value = member(object, key);
    require(value.is_number(), ErrorKind::damaged_file, "{} is {}, expected a number", key, detail::shown(value));
    const auto number = value.get<double>();
    require(number > 0 && std::isfinite(number), ErrorKind::damaged_file, "{} is {}, expected above 0", key, number);
    return number;
}

OUTRIDER_INLINE void write_drafter_json(const std::filesystem::path& folder, const nlohmann::ordered_json& file) {
    detail::make_folders(folder);
    const std::filesystem::path path = folder / "config.json";
    std::string text;
    try {
        text = file.dump(2);
    } catch (const nlohmann::json::exception& error) {
        fail("{}: what is to be written is no text ({})", path.string(), error.what());
    }
    text = detail::with_short_lists(text) + '\n';
    detail::AtomicFile out(path);
    out.write(text.data(), text.size());
    out.finish();
}

OUTRIDER_INLINE void check_drafter_size(std::string_view drafter, std::string_view name, std::int64_t value) {
    const std::int64_t most = 1 << 20;
    require(value > 0 && value <= most, ErrorKind::damaged_file, "{}: {} is {}, expected 1 to {}", drafter, name, value,
            most);
}

OUTRIDER_INLINE void check_draft_vocabulary(std::string_view drafter, const std::vector<TokenId>& vocabulary) {
    for (std::size_t i = 0; i < vocabulary.size(); ++i)
        require(vocabulary[i] >= 0 && (i == 0 || vocabulary[i] > vocabulary[i - 1]), ErrorKind::damaged_file,
                "{}: the draft vocabulary must be ascending token ids; entry {} is {}", drafter, i, vocabulary[i]);
}

OUTRIDER_INLINE void check_accuracies(std::string_view drafter, const std::vector<std::vector<double>>& accuracies,
                                      std::int64_t heads) {
    require(static_cast<std::int64_t>(accuracies.size()) <= heads, ErrorKind::damaged_file,
            "{}: accuracies of {} heads, there are {}", drafter, accuracies.size(), heads);
    for (const std::vector<double>& ranks : accuracies)
        for (const double share : ranks)
            require(share >= 0 && share <= 1, ErrorKind::damaged_file, "{}: an accuracy is {}, expected 0 to 1",
                    drafter, share);
}

OUTRIDER_INLINE void check_layer_sizes(std::string_view drafter, const LayerSizes& sizes, std::int64_t intermediate) {
    check_drafter_size(drafter, "heads", sizes.heads);
    check_drafter_size(drafter, "kv_heads", sizes.kv_heads);
    check_drafter_size(drafter, "head_dim", sizes.head_dim);
    check_drafter_size(drafter, "intermediate", intermediate);
    require(sizes.heads % sizes.kv_heads == 0, ErrorKind::damaged_file, "{}: {} heads cannot share {} key heads",
            drafter, sizes.heads, sizes.kv_heads);
    require(sizes.head_dim % 2 == 0, ErrorKind::damaged_file,
            "{}: head_dim is {}, rotary positions need an even number", drafter, sizes.head_dim);
}

OUTRIDER_INLINE void check_weights(std::string_view drafter, const std::vector<WantedWeight>& wanted) {
    for (const auto& [name, weight, shape] : wanted) {
        require(weight->defined(), ErrorKind::damaged_file, "{}: weight {} is missing", drafter, name);
        require(detail::fits_shape(weight->sizes(), shape), ErrorKind::damaged_file,
                "{}: weight {} is [{}], its config asks for [{}]", drafter, name, detail::listed(weight->sizes()),
                detail::listed(shape));
        const at::Tensor& first = *wanted.front().weight;
        require(weight->device() == first.device(),
                "{}: weight {} lies on {}, weight {} on {}; move all to one device (move_weights)", drafter, name,
                weight->device().str(), wanted.front().name, first.device().str());
    }
}

OUTRIDER_INLINE void read_weights(const std::filesystem::path& folder, std::string_view drafter,
                                  const std::vector<WantedWeight>& wanted, WeightType type) {
    const SafeTensors file = SafeTensors::open(folder / "model.safetensors");
    for (const auto& [name, weight, shape] : wanted) {
        require(file.has(name), ErrorKind::damaged_file, "{}: weight {} is missing", file.name(), name);
        const SafeTensor& tensor = file.tensor(name);
        if (type == WeightType::stored && detail::is_bf16_view(tensor)) {
            const auto let_go = [file, data = tensor.data](void*) { file.drop_pages(data); };
            *weight = at::from_blob(const_cast<std::byte*>(tensor.data.data()), tensor.shape, let_go, at::kBFloat16);
            continue;
        }
        if (const auto blocks = detail::block_format(tensor)) {
            *weight = detail::from_blocks(tensor, *blocks);
            continue;
        }
        *weight = aten::empty(tensor.shape, at::TensorOptions().dtype(at::kFloat));
        to_floats(tensor, {weight->mutable_data_ptr<float>(), static_cast<std::size_t>(weight->numel())});
    }
    for (const std::string& name : file.names())
        require(name == kVocabularyTensor ||
                    std::any_of(wanted.begin(), wanted.end(), [&](const WantedWeight& it) { return it.name == name; }),
                ErrorKind::damaged_file,
                "{}: holds {} weights, among them {}; a {} of this config has {} and not that one", file.name(),
                file.tensors().size(), name, drafter, wanted.size());
    check_weights(drafter, wanted);
}

OUTRIDER_INLINE void write_weights(const std::filesystem::path& folder, std::string_view kind,
                                   const NamedConstWeights& weights) {
    detail::make_folders(folder);
    std::vector<at::Tensor> kept;
    std::vector<SafeTensorView> views;
    for (const auto& [name, weight] : weights) {
        kept.push_back(weight->detach().to(at::kCPU, at::kBFloat16).contiguous());
        views.push_back({name,
                         SafeDtype::bf16,
                         kept.back().sizes().vec(),
                         {static_cast<const std::byte*>(kept.back().const_data_ptr()),
                          static_cast<std::size_t>(kept.back().nbytes())}});
    }
    write_safetensors(folder / "model.safetensors", views, {{"format", "pt"}, {"kind", std::string(kind)}});
}

}  // namespace outrider
