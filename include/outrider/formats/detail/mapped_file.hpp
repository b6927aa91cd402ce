// A whole file as read-only memory, shared by everything that points into it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include <outrider/core/detail/export.hpp>

namespace outrider {

/// Immutable bytes with shared ownership: a mapped file or a buffer. Copies are cheap. Pages of a mapping are read when
/// touched, and the mapping lives until the last copy is gone. Changing the file under a mapping is undefined, as for
/// every program that maps files.
class OUTRIDER_API SharedBytes {
public:
    SharedBytes() = default;

    /// Maps `path`. Throws Error when it is missing, not a regular file, unreadable, or a Git
    /// LFS pointer in the place of a file.
    [[nodiscard]] static SharedBytes map(const std::filesystem::path& path);

    /// Copies `bytes` into a buffer of its own.
    [[nodiscard]] static SharedBytes copy(std::span<const std::byte> bytes);

    [[nodiscard]] std::span<const std::byte> span() const noexcept { return bytes_; }
    /// Lets the system take back the memory of `part`, which lies in span(): for parts that were copied elsewhere and
    /// are seldom read again. The bytes stay readable and come from the file when touched. Does nothing to a buffer.
    void drop_pages(std::span<const std::byte> part) const noexcept;

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }

private:
    std::shared_ptr<const void> owner_;
    std::span<const std::byte> bytes_;
    bool mapped_ = false;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/formats/detail/mapped_file-inl.hpp>
#endif
