// Entries of a zip archive whose entries are stored, not compressed: views of the file's own bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace outrider::detail {

struct ZipEntry {
    std::string name;
    std::span<const std::byte> data;  ///< points into the archive
};

/// True when `bytes` begin as a zip archive with at least one entry does.
[[nodiscard]] bool looks_like_zip(std::span<const std::byte> bytes) noexcept;

/// Reads the central directory, with its 64-bit forms. Checksums are not compared: that would read every page. `name`
/// stands in messages. Throws Error for damage, compressed or encrypted entries, several disks and doubled names.
[[nodiscard]] std::vector<ZipEntry> read_zip(std::span<const std::byte> bytes, const std::string& name);

}  // namespace outrider::detail
