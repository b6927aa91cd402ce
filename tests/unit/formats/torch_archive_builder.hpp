// Writes small archives as torch.save does, right ones and wrong ones: a zip of stored entries, and a pickle.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/formats/detail/safetensors.hpp>

namespace outrider::test {

template <typename T>
void put(std::string& to, T value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// Opcodes of protocol 2, one after another.
class PickleBuilder {
public:
    PickleBuilder() : text_("\x80\x02") {}

    PickleBuilder& raw(std::string_view opcodes) { return text_.append(opcodes), *this; }
    PickleBuilder& global(const std::string& module, const std::string& name) {
        return raw("c").raw(module).raw("\n").raw(name).raw("\n");
    }
    PickleBuilder& text(std::string_view value) {
        text_ += 'X';
        put(text_, static_cast<std::uint32_t>(value.size()));
        return raw(value);
    }
    /// As LONG1, the widest of the forms.
    PickleBuilder& integer(std::int64_t value) {
        raw("\x8A\x08");
        put(text_, value);
        return *this;
    }
    PickleBuilder& integers(std::span<const std::int64_t> values) {
        raw("(");
        for (const std::int64_t value : values) integer(value);
        return raw("t");
    }
    PickleBuilder& storage(const std::string& type, const std::string& key, std::int64_t elements) {
        return raw("(").text("storage").global("torch", type).text(key).text("cuda:0").integer(elements).raw("tQ");
    }
    PickleBuilder& tensor(const std::string& type, const std::string& key, std::int64_t elements, std::int64_t offset,
                          const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& stride) {
        global("torch._utils", "_rebuild_tensor_v2").raw("(").storage(type, key, elements).integer(offset);
        return integers(shape).integers(stride).raw("\x89").global("collections", "OrderedDict").raw(")RtR");
    }

    [[nodiscard]] const std::string& build() const { return text_; }

private:
    std::string text_;
};

struct ZipOptions {
    bool wide = false;  ///< 64-bit fields wherever they may stand
    std::uint16_t method = 0;
    std::uint16_t flags = 0;
    std::string comment{};
};

/// Name and data of each entry.
using ZipParts = std::vector<std::pair<std::string, std::string>>;

inline std::string build_zip(const ZipParts& parts, const ZipOptions& options = {}) {
    std::string file, directory;
    const auto narrow = [&](std::size_t value) {
        return options.wide ? 0xFFFFFFFFu : static_cast<std::uint32_t>(value);
    };
    const auto sizes = [&](std::string& to, std::size_t size, std::size_t name, std::size_t extra) {
        for (const std::uint16_t word : {std::uint16_t{45}, options.flags, options.method}) put(to, word);
        for (const std::uint32_t word : {0u, 0u, narrow(size), narrow(size)}) put(to, word);  // time, checksum, sizes
        put(to, static_cast<std::uint16_t>(name));
        put(to, static_cast<std::uint16_t>(extra));
    };
    for (const auto& [name, data] : parts) {
        const std::size_t at = file.size();
        put(file, std::uint32_t{0x04034B50});
        sizes(file, data.size(), name.size(), 6);
        file += name + std::string("FB\2\0ZZ", 6) + data;  // two bytes of padding, as torch.save aligns its data
        put(directory, std::uint32_t{0x02014B50});
        put(directory, std::uint16_t{45});
        sizes(directory, data.size(), name.size(), options.wide ? 28 : 0);
        directory += std::string(10, '\0');
        put(directory, narrow(at));
        directory += name;
        if (!options.wide) continue;
        put(directory, std::uint16_t{1});
        put(directory, std::uint16_t{24});
        for (const std::size_t value : {data.size(), data.size(), at}) put<std::uint64_t>(directory, value);
    }
    const std::size_t begin = file.size();
    file += directory;
    if (options.wide) {
        const std::size_t end = file.size();
        put(file, std::uint32_t{0x06064B50});
        put(file, std::uint64_t{44});
        put(file, std::uint32_t{45 << 16 | 45});
        put(file, std::uint64_t{0});
        for (const std::size_t value : {parts.size(), parts.size(), directory.size(), begin})
            put<std::uint64_t>(file, value);
        put(file, std::uint32_t{0x07064B50});
        put(file, std::uint32_t{0});
        put<std::uint64_t>(file, end);
        put(file, std::uint32_t{1});
    }
    put(file, std::uint32_t{0x06054B50});
    put(file, std::uint32_t{0});
    const auto count = static_cast<std::uint16_t>(options.wide ? 0xFFFF : parts.size());
    put(file, count);
    put(file, count);
    put(file, narrow(directory.size()));
    put(file, narrow(begin));
    put(file, static_cast<std::uint16_t>(options.comment.size()));
    return file + options.comment;
}

/// An archive of this pickle and these storages, "0", "1", ...
inline std::string build_archive(const std::string& pickle, const std::vector<std::string>& storages,
                                 const ZipOptions& options = {}) {
    ZipParts parts = {{"made/data.pkl", pickle}, {"made/byteorder", "little"}};
    for (std::size_t i = 0; i < storages.size(); ++i) parts.emplace_back("made/data/" + std::to_string(i), storages[i]);
    parts.emplace_back("made/version", "3\n");
    return build_zip(parts, options);
}

/// An archive of contiguous tensors of dtype F32, F16 or BF16.
inline std::string build_archive(std::span<const SafeTensorView> tensors) {
    PickleBuilder pickle;
    std::vector<std::string> storages;
    pickle.raw("}(");
    for (const SafeTensorView& tensor : tensors) {
        const std::string type = tensor.dtype == SafeDtype::f32   ? "FloatStorage"
                                 : tensor.dtype == SafeDtype::f16 ? "HalfStorage"
                                                                  : "BFloat16Storage";
        std::vector<std::int64_t> stride(tensor.shape.size());
        std::int64_t elements = 1;
        for (std::size_t d = stride.size(); d-- > 0;) stride[d] = elements, elements *= tensor.shape[d];
        pickle.text(tensor.name).tensor(type, std::to_string(storages.size()), elements, 0, tensor.shape, stride);
        storages.emplace_back(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    }
    return build_archive(pickle.raw("u.").build(), storages);
}

}  // namespace outrider::test
