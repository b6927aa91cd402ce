// The body of write_safetensors.
#pragma once

#include <outrider/formats/detail/safetensors.hpp>

#include <algorithm>
#include <limits>
#include <set>

#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>

#include <outrider/formats/detail/atomic_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {
namespace detail::safetensors {

OUTRIDER_INLINE void check(const SafeTensorView& tensor, std::set<std::string>& names) {
    require(!tensor.name.empty() && tensor.name != "__metadata__" && is_valid_utf8(tensor.name),
            "a tensor cannot be named \"{}\"", to_valid_utf8(tensor.name));
    require(names.insert(tensor.name).second, "two tensors are named {}", tensor.name);
    std::uint64_t bytes = safe_dtype_bytes(tensor.dtype);
    for (const std::int64_t size : tensor.shape) {
        require(size >= 0 && (bytes == 0 || static_cast<std::uint64_t>(size) <= (std::uint64_t{1} << 62) / bytes),
                "tensor {}: a dimension of {}", tensor.name, size);
        bytes *= static_cast<std::uint64_t>(size);
    }
    require(bytes == tensor.data.size(), "tensor {}: its shape takes {} bytes, got {}", tensor.name, bytes,
            tensor.data.size());
}

}  // namespace detail::safetensors

OUTRIDER_INLINE void write_safetensors(const std::filesystem::path& path, std::span<const SafeTensorView> tensors,
                                       const std::map<std::string, std::string>& metadata) {
    std::set<std::string> names;
    for (const SafeTensorView& tensor : tensors) detail::safetensors::check(tensor, names);
    std::vector<const SafeTensorView*> order;
    for (const SafeTensorView& tensor : tensors) order.push_back(&tensor);
    // Wide numbers first, so that every tensor is aligned for its own.
    std::ranges::stable_sort(order, std::greater{}, [](const auto* t) { return safe_dtype_bytes(t->dtype); });
    detail::Json header = detail::Json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t at = 0;
    for (const SafeTensorView* tensor : order) {
        header[tensor->name] = {{"dtype", safe_dtype_name(tensor->dtype)},
                                {"shape", tensor->shape},
                                {"data_offsets", {at, at + tensor->data.size()}}};
        at += tensor->data.size();
    }
    std::string text;
    try {
        text = header.dump();
    } catch (const detail::Json::exception& error) {
        fail("{}: the metadata cannot be written: {}", path.string(), error.what());
    }
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size();
    detail::AtomicFile file(path);
    file.write(&length, sizeof(length));
    file.write(text.data(), text.size());
    for (const SafeTensorView* tensor : order) file.write(tensor->data.data(), tensor->data.size());
    file.finish();
}

}  // namespace outrider
