// Bodies of safetensors.hpp.
#pragma once

#include <outrider/formats/detail/safetensors.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <unordered_map>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/bits.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/formats/detail/shard_index.hpp>

// Format: the README of Hugging Face's library `safetensors`.
#include <outrider/core/detail/bodies.hpp>

namespace outrider {
namespace detail::safetensors {

inline constexpr std::uint64_t kMaxHeader = 100'000'000;  // the reference's own limit

struct DtypeEntry {
    const char* name;
    std::size_t bytes;
};

// By SafeDtype.
inline constexpr std::array<DtypeEntry, 10> kDtypes = {{{"F64", 8},
                                                        {"F32", 4},
                                                        {"F16", 2},
                                                        {"BF16", 2},
                                                        {"I64", 8},
                                                        {"I32", 4},
                                                        {"I16", 2},
                                                        {"I8", 1},
                                                        {"U8", 1},
                                                        {"BOOL", 1}}};

OUTRIDER_INLINE SafeDtype dtype_of(const Json& value, const std::string& file, const std::string& tensor) {
    const std::string name = value.is_string() ? value.get<std::string>() : std::string();
    for (std::size_t i = 0; i < kDtypes.size(); ++i) {
        if (name == kDtypes[i].name) return static_cast<SafeDtype>(i);
    }
    fail(ErrorKind::damaged_file,
         "{}: tensor {} is of dtype {}; expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL", file, tensor,
         value.dump(-1, ' ', true).substr(0, 100));
}

/// Bytes that a shape takes; nothing on overflow or a negative size.
OUTRIDER_INLINE std::optional<std::uint64_t> bytes_of(std::span<const std::int64_t> shape, SafeDtype dtype) {
    constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
    std::uint64_t bytes = safe_dtype_bytes(dtype);
    for (const std::int64_t size : shape) {
        if (size < 0 || (bytes > 0 && static_cast<std::uint64_t>(size) > kMost / bytes)) return std::nullopt;
        bytes *= static_cast<std::uint64_t>(size);
    }
    return bytes;
}

/// `value[key]` as a list of integers from 0 to 2^62.
OUTRIDER_INLINE std::vector<std::int64_t> integers(const Json& value, const char* key, const std::string& file,
                                                   const std::string& tensor) {
    const auto found = value.find(key);
    const bool fits = found != value.end() && found->is_array() && found->size() <= 16 &&
                      std::ranges::all_of(*found, [](const Json& n) {
                          return n.is_number_unsigned() && n.get<std::uint64_t>() <= (std::uint64_t{1} << 62);
                      });
    require(fits, ErrorKind::damaged_file, "{}: tensor {}: expected {}, a list of at most 16 sizes", file, tensor, key);
    return found->get<std::vector<std::int64_t>>();
}

/// One file: its header read, its tensors placed.
struct OneFile {
    SharedBytes bytes;
    std::vector<SafeTensor> tensors;
    std::map<std::string, std::string> metadata;
};

/// A tensor and where its data begin.
struct Placed {
    SafeTensor tensor;
    std::int64_t begin, end;
};

OUTRIDER_INLINE Placed read_tensor(const std::string& file, const std::string& name, const Json& value,
                                   std::span<const std::byte> data) {
    require(value.is_object() && value.contains("dtype"), ErrorKind::damaged_file,
            "{}: tensor {}: expected dtype, shape and data_offsets", file, name);
    Placed placed;
    SafeTensor& tensor = placed.tensor;
    tensor.name = name;
    tensor.dtype = dtype_of(value["dtype"], file, name);
    tensor.shape = integers(value, "shape", file, name);
    const auto offsets = integers(value, "data_offsets", file, name);
    require(offsets.size() == 2 && offsets[0] <= offsets[1] && static_cast<std::uint64_t>(offsets[1]) <= data.size(),
            ErrorKind::damaged_file,
            "{}: tensor {}: its data_offsets reach beyond the data ({} bytes); is the download complete?", file, name,
            data.size());
    const auto expected = bytes_of(tensor.shape, tensor.dtype);
    require(expected == static_cast<std::uint64_t>(offsets[1] - offsets[0]), ErrorKind::damaged_file,
            "{}: tensor {}: its shape takes {} bytes, "
            "its data_offsets hold {}",
            file, name, expected.value_or(0), offsets[1] - offsets[0]);
    tensor.data = data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(*expected));
    placed.begin = offsets[0], placed.end = offsets[1];
    return placed;
}

OUTRIDER_INLINE OneFile read_file(SharedBytes bytes, const std::string& name) {
    OneFile file;
    file.bytes = std::move(bytes);
    const auto all = file.bytes.span();
    require(all.size() >= 8, ErrorKind::damaged_file, "{}: expected a safetensors file, got {} bytes", name,
            all.size());
    const auto length = load<std::uint64_t>(all.data());
    require(length <= kMaxHeader && length <= all.size() - 8, ErrorKind::damaged_file,
            "{}: expected a safetensors file, but its header would "
            "have {} of {} bytes; is the download complete?",
            name, length, all.size());
    const auto data = all.subspan(8 + static_cast<std::size_t>(length));
    const Json header = detail::parse_json({reinterpret_cast<const char*>(all.data()) + 8, length}, name);
    require(header.is_object(), ErrorKind::damaged_file, "{}: the header is no JSON object", name);
    std::vector<Placed> placed;
    for (const auto& [key, value] : header.items()) {
        if (key != "__metadata__") {
            placed.push_back(read_tensor(name, key, value, data));
            continue;
        }
        require(value.is_object(), ErrorKind::damaged_file, "{}: __metadata__ is no JSON object", name);
        for (const auto& [word, text] : value.items()) {
            require(text.is_string(), ErrorKind::damaged_file, "{}: __metadata__ {} is no string", name, word);
            file.metadata.emplace(word, text.get<std::string>());
        }
    }
    std::ranges::sort(placed, {}, [](const Placed& p) { return std::pair(p.begin, p.end); });
    std::int64_t at = 0;
    for (Placed& p : placed) {
        require(p.begin == at, ErrorKind::damaged_file,
                "{}: the data of tensor {} begin at {}, expected {}: tensors overlap or leave a hole", name,
                p.tensor.name, p.begin, at);
        at = p.end;
        file.tensors.push_back(std::move(p.tensor));
    }
    require(static_cast<std::uint64_t>(at) == data.size(), ErrorKind::damaged_file,
            "{}: the tensors take {} bytes, the file holds {}", name, at, data.size());
    return file;
}

OUTRIDER_INLINE OneFile map_file(const std::filesystem::path& path) {
    return read_file(SharedBytes::map(path), path.string());
}

}  // namespace detail::safetensors

OUTRIDER_INLINE std::size_t safe_dtype_bytes(SafeDtype dtype) noexcept {
    return detail::safetensors::kDtypes[static_cast<std::size_t>(dtype)].bytes;
}
OUTRIDER_INLINE const char* safe_dtype_name(SafeDtype dtype) noexcept {
    return detail::safetensors::kDtypes[static_cast<std::size_t>(dtype)].name;
}

struct SafeTensors::Contents {
    std::string name;
    std::vector<SharedBytes> bytes;
    std::vector<SafeTensor> tensors;
    std::map<std::string, std::string> metadata;
    std::unordered_map<std::string, std::size_t> index;

    void add(detail::safetensors::OneFile file) {
        bytes.push_back(std::move(file.bytes));
        metadata.merge(file.metadata);
        for (SafeTensor& tensor : file.tensors) {
            require(index.emplace(tensor.name, tensors.size()).second, ErrorKind::damaged_file,
                    "{}: tensor {} is in two files", name, tensor.name);
            tensors.push_back(std::move(tensor));
        }
    }

    void add_shards(const std::filesystem::path& folder, const std::filesystem::path& index_path) {
        const auto places = detail::read_shard_index(index_path);
        std::set<std::string> shards;
        for (const auto& [tensor, shard] : places) shards.insert(shard);
        for (const std::string& shard : shards) add(detail::safetensors::map_file(folder / shard));
        for (const auto& [tensor, shard] : places) {
            require(index.contains(tensor), ErrorKind::damaged_file, "{}: tensor {} should be in {} and is not",
                    index_path.string(), tensor, shard);
        }
    }
};

OUTRIDER_INLINE SafeTensors SafeTensors::open(const std::filesystem::path& path) {
    const auto contents = std::make_shared<Contents>();
    contents->name = path.string();
    std::error_code ignored;
    const auto index_path = path / "model.safetensors.index.json";
    if (!std::filesystem::is_directory(path, ignored)) {
        contents->add(detail::safetensors::map_file(path));
    } else if (std::filesystem::exists(index_path, ignored)) {
        contents->add_shards(path, index_path);
    } else {
        require(std::filesystem::exists(path / "model.safetensors", ignored), ErrorKind::damaged_file,
                "{}: expected model.safetensors or "
                "model.safetensors.index.json in the folder",
                path.string());
        contents->add(detail::safetensors::map_file(path / "model.safetensors"));
    }
    return SafeTensors(contents);
}

OUTRIDER_INLINE SafeTensors SafeTensors::parse(SharedBytes bytes, std::string name) {
    const auto contents = std::make_shared<Contents>();
    contents->add(detail::safetensors::read_file(std::move(bytes), name));
    contents->name = std::move(name);
    return SafeTensors(contents);
}

OUTRIDER_INLINE bool SafeTensors::has(std::string_view name) const {
    return contents_->index.contains(std::string(name));
}

OUTRIDER_INLINE const SafeTensor& SafeTensors::tensor(std::string_view name) const {
    const auto found = contents_->index.find(std::string(name));
    require(found != contents_->index.end(), ErrorKind::damaged_file, "{}: tensor {} is missing", contents_->name,
            name);
    return contents_->tensors[found->second];
}

OUTRIDER_INLINE const std::vector<SafeTensor>& SafeTensors::tensors() const noexcept { return contents_->tensors; }

OUTRIDER_INLINE std::vector<std::string> SafeTensors::names() const {
    std::vector<std::string> result;
    for (const SafeTensor& tensor : contents_->tensors) result.push_back(tensor.name);
    return result;
}

OUTRIDER_INLINE const std::map<std::string, std::string>& SafeTensors::metadata() const noexcept {
    return contents_->metadata;
}
OUTRIDER_INLINE const std::string& SafeTensors::name() const noexcept { return contents_->name; }
OUTRIDER_INLINE void SafeTensors::drop_pages(std::span<const std::byte> part) const noexcept {
    for (const SharedBytes& file : contents_->bytes) file.drop_pages(part);
}

namespace detail::safetensors {

template <typename T, typename Convert>
OUTRIDER_INLINE void convert_all(std::span<const std::byte> data, std::span<float> out, Convert convert) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = convert(load<T>(data.data() + i * sizeof(T)));
}

}  // namespace detail::safetensors

OUTRIDER_INLINE void to_floats(const SafeTensor& tensor, std::span<float> out) {
    require(out.size() == static_cast<std::size_t>(tensor.elements()), ErrorKind::damaged_file,
            "tensor {} has {} numbers; expected room for "
            "them, got {}",
            tensor.name, tensor.elements(), out.size());
    const auto cast = [](auto value) { return static_cast<float>(value); };
    switch (tensor.dtype) {
        case SafeDtype::f64: return detail::safetensors::convert_all<double>(tensor.data, out, cast);
        case SafeDtype::f32: return detail::safetensors::convert_all<float>(tensor.data, out, cast);
        case SafeDtype::f16:
            return detail::safetensors::convert_all<std::uint16_t>(tensor.data, out, detail::half_to_float);
        case SafeDtype::bf16:
            return detail::safetensors::convert_all<std::uint16_t>(tensor.data, out, detail::bfloat_to_float);
        case SafeDtype::i64: return detail::safetensors::convert_all<std::int64_t>(tensor.data, out, cast);
        case SafeDtype::i32: return detail::safetensors::convert_all<std::int32_t>(tensor.data, out, cast);
        case SafeDtype::i16: return detail::safetensors::convert_all<std::int16_t>(tensor.data, out, cast);
        case SafeDtype::i8: return detail::safetensors::convert_all<std::int8_t>(tensor.data, out, cast);
        case SafeDtype::u8: return detail::safetensors::convert_all<std::uint8_t>(tensor.data, out, cast);
        case SafeDtype::boolean:
            return detail::safetensors::convert_all<std::uint8_t>(
                tensor.data, out, [](std::uint8_t value) { return value != 0 ? 1.f : 0.f; });
    }
}

OUTRIDER_INLINE std::vector<float> to_floats(const SafeTensor& tensor) {
    std::vector<float> out(static_cast<std::size_t>(tensor.elements()));
    to_floats(tensor, out);
    return out;
}

}  // namespace outrider
