// Bodies of mapped_file.hpp.
#pragma once

#include <outrider/formats/detail/mapped_file.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {
namespace detail {

/// Closes a file descriptor; the mapping stays.
struct Descriptor {
    int value;
    ~Descriptor() {
        if (value >= 0) ::close(value);
    }
};

/// What Git leaves in the place of a large file that it has not fetched (git-lfs, docs/spec.md).
OUTRIDER_INLINE bool is_lfs_pointer(std::string_view text) {
    return text.size() < 1024 && (text.starts_with("version https://git-lfs.github.com/spec/") ||
                                  text.starts_with("version https://hawser.github.com/spec/"));
}

}  // namespace detail

OUTRIDER_INLINE SharedBytes SharedBytes::map(const std::filesystem::path& path) {
    // A pipe without a writer would be waited for, before anybody can say that it is one.
    const detail::Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    require(file.value >= 0, ErrorKind::damaged_file, "cannot open {}: {}", path.string(), std::strerror(errno));
    struct stat status{};
    require(::fstat(file.value, &status) == 0, ErrorKind::damaged_file, "cannot examine {}: {}", path.string(),
            std::strerror(errno));
    require(S_ISREG(status.st_mode), ErrorKind::damaged_file,
            "expected a file, got {}: it is a folder, a pipe or a device", path.string());
    SharedBytes result;
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return result;
    void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
    require(start != MAP_FAILED, ErrorKind::damaged_file, "cannot map {} ({} bytes): {}", path.string(), size,
            std::strerror(errno));
    result.owner_ = std::shared_ptr<const void>(start, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
    result.bytes_ = {static_cast<const std::byte*>(start), size};
    result.mapped_ = true;
    require(!detail::is_lfs_pointer({static_cast<const char*>(start), size}), ErrorKind::damaged_file,
            "{}: this is a Git LFS pointer of {} bytes, not the "
            "file itself; fetch it with \"git lfs pull\", or download it",
            path.string(), size);
    return result;
}

OUTRIDER_INLINE SharedBytes SharedBytes::copy(std::span<const std::byte> bytes) {
    SharedBytes result;
    const auto buffer = std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
    result.bytes_ = *buffer;
    result.owner_ = buffer;
    return result;
}

OUTRIDER_INLINE void SharedBytes::drop_pages(std::span<const std::byte> part) const noexcept {
    if (!mapped_ || part.data() < bytes_.data() || part.data() + part.size() > bytes_.data() + bytes_.size()) return;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace outrider
