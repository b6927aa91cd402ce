#include "formats/gguf.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include "gguf_parts.hpp"
#include "gguf_values.hpp"

// The second half of a file: the table of tensors and their data. Format: ggml's docs/gguf.md.
namespace outrider {
namespace {

using detail::GgufCursor;

constexpr std::uint64_t kMaxDimensions = 4;  // GGML_MAX_DIMS

}  // namespace

struct GgufFile::Contents {
    Contents(SharedBytes file, std::string called) : bytes(std::move(file)), name(std::move(called)), values(name) {}

    SharedBytes bytes;
    std::string name;
    std::uint32_t version = 0;
    detail::GgufValues values;
    std::vector<GgufTensor> tensors;
    std::unordered_map<std::string_view, std::size_t> index;  // views of the tensors' own names
    std::vector<std::shared_ptr<const Contents>> others;      // further parts of a file that was split
    struct Place {
        std::uint64_t offset, size;
    };

    void parse();
    void take(const std::vector<std::shared_ptr<const Contents>>& parts);
    void check_head(GgufCursor& cursor);
    Place read_tensor(GgufCursor& cursor);
    void place_tensors(std::uint64_t start, std::uint64_t alignment, const std::vector<Place>& places);
};

void GgufFile::Contents::check_head(GgufCursor& cursor) {
    require(cursor.left() >= 4 && std::memcmp(cursor.take(4, "the magic number"), "GGUF", 4) == 0,
            ErrorKind::damaged_file, "{}: expected a GGUF file, but it does not begin with \"GGUF\"", name);
    version = cursor.read<std::uint32_t>("the version");
    require((version & 0xFFFFu) != 0, ErrorKind::not_supported,
            "{}: a big-endian GGUF file; expected a little-endian one", name);
    require(version == 2 || version == 3, ErrorKind::damaged_file, "{}: GGUF version {}; expected 2 or 3", name,
            version);
}

void GgufFile::Contents::parse() {
    GgufCursor cursor(bytes.span(), name);
    check_head(cursor);
    const auto tensor_count = cursor.read<std::uint64_t>("the number of tensors");
    const auto value_count = cursor.read<std::uint64_t>("the number of metadata values");
    // The least sizes of an entry bound both counts by the size of the file, before anything is reserved for them.
    require(value_count <= cursor.left() / 13, ErrorKind::damaged_file, "{}: {} metadata values cannot be in {} bytes",
            name, value_count, cursor.left());
    require(tensor_count <= cursor.left() / 24, ErrorKind::damaged_file, "{}: {} tensors cannot be in {} bytes", name,
            tensor_count, cursor.left());
    for (std::uint64_t i = 0; i < value_count; ++i) values.read(cursor);
    std::uint64_t alignment = 32;
    if (values.has("general.alignment")) alignment = static_cast<std::uint64_t>(values.integer("general.alignment"));
    require(alignment > 0 && alignment <= (1u << 20) && std::has_single_bit(alignment), ErrorKind::damaged_file,
            "{}: general.alignment is {}; expected a power of two", name, alignment);
    tensors.reserve(static_cast<std::size_t>(tensor_count));
    std::vector<Place> places;
    for (std::uint64_t i = 0; i < tensor_count; ++i) places.push_back(read_tensor(cursor));
    const std::uint64_t start = (cursor.position() + alignment - 1) / alignment * alignment;
    place_tensors(start, alignment, places);
}

GgufFile::Contents::Place GgufFile::Contents::read_tensor(GgufCursor& cursor) {
    GgufTensor tensor;
    tensor.name = cursor.read_string("a tensor's name");
    require(!tensor.name.empty() && is_valid_utf8(tensor.name), ErrorKind::damaged_file,
            "{}: a tensor's name is empty or not UTF-8: \"{}\"", name, to_valid_utf8(tensor.name));
    const auto dimensions = cursor.read<std::uint32_t>("a tensor's dimensions");
    require(dimensions <= kMaxDimensions, ErrorKind::damaged_file,
            "{}: tensor {} has {} dimensions; expected at most {}", name, tensor.name, dimensions, kMaxDimensions);
    std::uint64_t elements = 1;
    constexpr std::uint64_t kMost = std::uint64_t{1} << 48;  // no product below overflows
    for (std::uint32_t i = 0; i < dimensions; ++i) {
        const auto size = cursor.read<std::uint64_t>("a tensor's shape");
        require(size > 0 && size <= kMost / elements, ErrorKind::damaged_file,
                "{}: tensor {}: dimension {} of {} is impossible", name, tensor.name, i, size);
        elements *= size;
        tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));  // stored fastest first
    }
    tensor.type = static_cast<GgmlType>(cursor.read<std::uint32_t>("a tensor's type"));
    const GgmlBlock block = ggml_block(tensor.type);
    require(block.elements > 0, ErrorKind::damaged_file, "{}: tensor {} is of unknown {}", name, tensor.name,
            ggml_name(tensor.type));
    const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    require(row % block.elements == 0, ErrorKind::damaged_file,
            "{}: tensor {}: rows of {} are not whole blocks of {} ({})", name, tensor.name, row, block.elements,
            ggml_name(tensor.type));
    const auto offset = cursor.read<std::uint64_t>("a tensor's offset");
    tensors.push_back(std::move(tensor));
    return {offset, elements / static_cast<std::uint64_t>(block.elements) * static_cast<std::uint64_t>(block.bytes)};
}

void GgufFile::Contents::place_tensors(std::uint64_t start, std::uint64_t alignment, const std::vector<Place>& places) {
    const std::uint64_t room = start <= bytes.size() ? bytes.size() - start : 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const auto [offset, size] = places[i];
        GgufTensor& tensor = tensors[i];
        require(offset % alignment == 0, ErrorKind::damaged_file,
                "{}: tensor {} lies at offset {}, not a multiple of {}", name, tensor.name, offset, alignment);
        require(offset <= room && size <= room - offset, ErrorKind::damaged_file,
                "{}: tensor {} ({} bytes at offset {}) reaches beyond the "
                "data ({} bytes); is the download complete?",
                name, tensor.name, size, offset, room);
        tensor.data = bytes.span().subspan(static_cast<std::size_t>(start + offset), static_cast<std::size_t>(size));
        require(index.emplace(tensor.name, i).second, ErrorKind::damaged_file, "{}: tensor {} occurs twice", name,
                tensor.name);
    }
    std::vector<std::size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return places[i].offset; });
    for (std::size_t i = 1; i < order.size(); ++i) {
        const Place before = places[order[i - 1]], after = places[order[i]];
        require(before.offset + before.size <= after.offset, ErrorKind::damaged_file, "{}: tensors {} and {} overlap",
                name, tensors[order[i - 1]].name, tensors[order[i]].name);
    }
}

/// Tensors of other parts become this one's.
void GgufFile::Contents::take(const std::vector<std::shared_ptr<const Contents>>& parts) {
    for (const auto& part : parts) {
        others.push_back(part);
        tensors.insert(tensors.end(), part->tensors.begin(), part->tensors.end());
    }
    index.clear();
    for (std::size_t i = 0; i < tensors.size(); ++i)
        require(index.emplace(tensors[i].name, i).second, ErrorKind::damaged_file,
                "{}: tensor {} is in two parts of the file", name, tensors[i].name);
    if (!values.has("split.tensors.count")) return;
    const std::int64_t expected = values.integer("split.tensors.count");
    require(static_cast<std::int64_t>(tensors.size()) == expected, ErrorKind::damaged_file,
            "{}: the parts of the file have {} tensors, "
            "split.tensors.count is {}; expected parts of one model",
            name, tensors.size(), expected);
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
    const auto read = [](const std::filesystem::path& part) {
        const auto contents = std::make_shared<Contents>(SharedBytes::map(part), part.string());
        contents->parse();
        return contents;
    };
    std::shared_ptr<Contents> first = read(path);
    const auto whole = detail::gguf_parts(path, first->values);
    if (whole.empty()) return GgufFile(first);
    if (whole.front() != path) first = read(whole.front());
    std::vector<std::shared_ptr<const Contents>> others;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        if (i > 0) others.push_back(read(whole[i]));
        const Contents& part = i > 0 ? *others.back() : *first;
        detail::check_gguf_part(part.name, part.values, i, whole.size());
    }
    first->take(others);
    return GgufFile(first);
}

GgufFile GgufFile::parse(SharedBytes bytes, std::string name) {
    const auto contents = std::make_shared<Contents>(std::move(bytes), std::move(name));
    contents->parse();
    return GgufFile(contents);
}

bool GgufFile::has(std::string_view key) const { return contents_->values.has(key); }
std::vector<std::string> GgufFile::keys() const { return contents_->values.keys(); }
bool GgufFile::is_array(std::string_view key) const { return contents_->values.is_array(key); }

std::string GgufFile::string(std::string_view key) const { return contents_->values.string(key); }
std::int64_t GgufFile::integer(std::string_view key) const { return contents_->values.integer(key); }
double GgufFile::number(std::string_view key) const { return contents_->values.number(key); }
bool GgufFile::boolean(std::string_view key) const { return contents_->values.boolean(key); }
std::vector<std::string> GgufFile::strings(std::string_view key) const { return contents_->values.strings(key); }
std::vector<std::int64_t> GgufFile::integers(std::string_view key) const { return contents_->values.integers(key); }
std::vector<double> GgufFile::numbers(std::string_view key) const { return contents_->values.numbers(key); }
std::vector<bool> GgufFile::booleans(std::string_view key) const { return contents_->values.booleans(key); }

std::optional<std::string> GgufFile::find_string(std::string_view key) const {
    return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<std::int64_t> GgufFile::find_integer(std::string_view key) const {
    return has(key) ? std::optional(integer(key)) : std::nullopt;
}
std::optional<double> GgufFile::find_number(std::string_view key) const {
    return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<bool> GgufFile::find_boolean(std::string_view key) const {
    return has(key) ? std::optional(boolean(key)) : std::nullopt;
}

const std::vector<GgufTensor>& GgufFile::tensors() const noexcept { return contents_->tensors; }

bool GgufFile::has_tensor(std::string_view name) const { return contents_->index.contains(name); }

const GgufTensor& GgufFile::tensor(std::string_view name) const {
    const auto found = contents_->index.find(name);
    if (found == contents_->index.end()) {
        const bool part =
            contents_->others.empty() && has("split.count") && !is_array("split.count") && number("split.count") > 1;
        fail(ErrorKind::damaged_file, "{}: tensor {} is missing{}", contents_->name, name,
             part ? "; the file is one part of several" : "");
    }
    return contents_->tensors[found->second];
}

std::uint32_t GgufFile::version() const noexcept { return contents_->version; }
void GgufFile::drop_pages(std::span<const std::byte> part) const noexcept {
    contents_->bytes.drop_pages(part);
    for (const auto& other : contents_->others) other->bytes.drop_pages(part);
}
const std::string& GgufFile::name() const noexcept { return contents_->name; }

void dequantise(const GgufTensor& tensor, std::span<float> out) {
    require(can_dequantise(tensor.type), ErrorKind::damaged_file,
            "tensor {} is of GGUF type {}, which cannot be read: convert the file to F16, "
            "Q8_0, Q4_K or another supported type",
            tensor.name, ggml_name(tensor.type));
    require(out.size() == static_cast<std::size_t>(tensor.elements()), ErrorKind::damaged_file,
            "tensor {} has {} numbers; expected room for "
            "them, got {}",
            tensor.name, tensor.elements(), out.size());
    dequantise(tensor.type, tensor.data, out);
}

std::vector<float> to_floats(const GgufTensor& tensor) {
    std::vector<float> out(static_cast<std::size_t>(tensor.elements()));
    dequantise(tensor, out);
    return out;
}

}  // namespace outrider
