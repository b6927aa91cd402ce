// The body of write_safetensors.
#pragma once

#include <outrider/formats/safetensors.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>

#include <outrider/core/error.hpp>
#include <outrider/core/utf8_stream.hpp>
#include <outrider/formats/detail/json_text.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {
namespace detail::safetensors {


/// A file that appears under its name when it is whole, and not at all otherwise.
class AtomicFile {
public:
    explicit AtomicFile(const std::filesystem::path& path)
        : path_(path), temporary_(path.string() + ".partial-" + std::to_string(::getpid())) {
        file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (file_ < 0) refuse("create");
    }
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile() {
        if (file_ >= 0) ::close(file_);
        if (!done_) ::unlink(temporary_.c_str());
    }

    void write(const void* from, std::size_t size) {
        const char* p = static_cast<const char*>(from);
        while (size > 0) {
            const ::ssize_t written = ::write(file_, p, std::min(size, std::size_t{1} << 30));
            if (written < 0 && errno == EINTR) continue;
            if (written <= 0) refuse("write");
            p += written, size -= static_cast<std::size_t>(written);
        }
    }

    void finish() {
        if (::fsync(file_) != 0) refuse("flush");
        const int closed = ::close(file_);
        file_ = -1;
        if (closed != 0) refuse("close");
        if (::rename(temporary_.c_str(), path_.c_str()) != 0) refuse("rename");
        done_ = true;
    }

private:
    [[noreturn]] void refuse(const char* what) const {
        fail("cannot {} {}: {}", what, temporary_, std::strerror(errno));
    }

    std::filesystem::path path_;
    std::string temporary_;
    int file_ = -1;
    bool done_ = false;
};

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
    detail::safetensors::AtomicFile file(path);
    file.write(&length, sizeof(length));
    file.write(text.data(), text.size());
    for (const SafeTensorView* tensor : order) file.write(tensor->data.data(), tensor->data.size());
    file.finish();
}

}  // namespace outrider
