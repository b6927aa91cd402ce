#include "zip_archive.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string_view>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include <outrider/formats/detail/bits.hpp>

// Format: PKWARE, APPNOTE.TXT 6.3, sections 4.3 and 4.5.3.
namespace outrider::detail {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034B50, kCentralHeader = 0x02014B50, kEnd = 0x06054B50, kEnd64 = 0x06064B50,
                        kEnd64Locator = 0x07064B50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;  // the number stands in a 64-bit field elsewhere
constexpr std::uint16_t kEncrypted = 1;

/// Where the central directory is.
struct Directory {
    std::uint64_t entries = 0, bytes = 0, offset = 0;
};

/// The numbers of one central header.
struct Central {
    std::uint64_t packed = 0, size = 0, offset = 0;
};

class ZipReader {
public:
    ZipReader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    std::vector<ZipEntry> read() {
        const Directory directory = find_directory();
        std::vector<ZipEntry> entries;
        std::set<std::string> names;
        std::uint64_t at = directory.offset;
        for (std::uint64_t i = 0; i < directory.entries; ++i) {
            entries.push_back(read_entry(at));
            require(names.insert(entries.back().name).second, ErrorKind::damaged_file, "{}: the entry {} occurs twice",
                    name_, to_valid_utf8(entries.back().name));
        }
        require(at == directory.offset + directory.bytes, ErrorKind::damaged_file, "{}: its directory is damaged",
                name_);
        return entries;
    }

private:
    /// `size` bytes from `at`. Throws Error beyond the end.
    std::span<const std::byte> part(std::uint64_t at, std::uint64_t size) const {
        require(at <= bytes_.size() && size <= bytes_.size() - at, ErrorKind::damaged_file,
                "{}: the archive refers to {} bytes at {}, beyond "
                "its own {}; is the download complete?",
                name_, size, at, bytes_.size());
        return bytes_.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(size));
    }

    template <typename T>
    T number(std::uint64_t at) const {
        return load<T>(part(at, sizeof(T)).data());
    }

    /// Begin of the end record, which a comment of up to 65535 bytes may follow.
    std::uint64_t find_end() const {
        if (bytes_.size() >= kEndBytes) {
            const std::size_t last = bytes_.size() - kEndBytes;
            for (std::size_t comment = 0; comment <= std::min<std::size_t>(last, 0xFFFF); ++comment) {
                const std::byte* at = bytes_.data() + (last - comment);
                if (load<std::uint32_t>(at) == kEnd && load<std::uint16_t>(at + 20) == comment) return last - comment;
            }
        }
        fail(ErrorKind::damaged_file, "{}: expected a zip archive, found no end record; is the download complete?",
             name_);
    }

    Directory find_directory() const {
        const std::uint64_t end = find_end();
        if (end >= kLocatorBytes && number<std::uint32_t>(end - kLocatorBytes) == kEnd64Locator) {
            const auto at = number<std::uint64_t>(end - kLocatorBytes + 8);
            const std::byte* p = part(at, kEnd64Bytes).data();
            require(load<std::uint32_t>(p) == kEnd64, ErrorKind::damaged_file, "{}: its 64-bit end record is damaged",
                    name_);
            require(load<std::uint32_t>(p + 16) == 0 && load<std::uint32_t>(p + 20) == 0 &&
                        load<std::uint64_t>(p + 24) == load<std::uint64_t>(p + 32),
                    ErrorKind::not_supported, "{}: an archive over several disks is not supported", name_);
            return checked({load<std::uint64_t>(p + 32), load<std::uint64_t>(p + 40), load<std::uint64_t>(p + 48)});
        }
        const std::byte* p = part(end, kEndBytes).data();
        require(load<std::uint32_t>(p + 4) == 0 && load<std::uint16_t>(p + 8) == load<std::uint16_t>(p + 10),
                ErrorKind::not_supported, "{}: an archive over several disks is not supported", name_);
        return checked({load<std::uint16_t>(p + 10), load<std::uint32_t>(p + 12), load<std::uint32_t>(p + 16)});
    }

    Directory checked(const Directory& directory) const {
        (void)part(directory.offset, directory.bytes);
        require(directory.entries <= directory.bytes / kCentralBytes, ErrorKind::damaged_file,
                "{}: its directory of {} bytes cannot hold {} "
                "entries",
                name_, directory.bytes, directory.entries);
        return directory;
    }

    /// The entry whose central header is at `at`, which moves behind it.
    ZipEntry read_entry(std::uint64_t& at) const {
        const std::byte* p = part(at, kCentralBytes).data();
        require(load<std::uint32_t>(p) == kCentralHeader, ErrorKind::damaged_file, "{}: its directory is damaged",
                name_);
        const auto flags = load<std::uint16_t>(p + 8), method = load<std::uint16_t>(p + 10),
                   name_size = load<std::uint16_t>(p + 28), extra_size = load<std::uint16_t>(p + 30),
                   comment_size = load<std::uint16_t>(p + 32);
        ZipEntry entry;
        entry.name = text(at + kCentralBytes, name_size);
        Central central{load<std::uint32_t>(p + 20), load<std::uint32_t>(p + 24), load<std::uint32_t>(p + 42)};
        read_extra(part(at + kCentralBytes + name_size, extra_size), central);
        const std::string shown = to_valid_utf8(entry.name);
        require((flags & kEncrypted) == 0, ErrorKind::damaged_file, "{}: the entry {} is encrypted", name_, shown);
        require(method == 0 && central.packed == central.size, ErrorKind::damaged_file,
                "{}: the entry {} is compressed (method {}); expected "
                "stored entries, as torch.save writes them",
                name_, shown, method);
        entry.data = data_of(entry.name, shown, central);
        at += kCentralBytes + std::uint64_t{name_size} + extra_size + comment_size;
        return entry;
    }

    std::span<const std::byte> data_of(const std::string& name, const std::string& shown,
                                       const Central& central) const {
        const std::byte* p = part(central.offset, kLocalBytes).data();
        const auto name_size = load<std::uint16_t>(p + 26), extra_size = load<std::uint16_t>(p + 28);
        require(load<std::uint32_t>(p) == kLocalHeader && text(central.offset + kLocalBytes, name_size) == name,
                ErrorKind::damaged_file, "{}: the header of the entry {} is damaged", name_, shown);
        return part(central.offset + kLocalBytes + name_size + extra_size, central.size);
    }

    std::string text(std::uint64_t at, std::size_t size) const {
        return {reinterpret_cast<const char*>(part(at, size).data()), size};
    }

    /// Takes the 64-bit numbers, which are there for those fields alone that say so, in this order.
    void read_extra(std::span<const std::byte> extra, Central& central) const {
        while (extra.size() >= 4) {
            const auto id = load<std::uint16_t>(extra.data()), size = load<std::uint16_t>(extra.data() + 2);
            require(size <= extra.size() - 4, ErrorKind::damaged_file, "{}: its directory is damaged", name_);
            std::span<const std::byte> field = extra.subspan(4, size);
            extra = extra.subspan(4 + std::size_t{size});
            if (id != 1) continue;
            for (std::uint64_t* value : {&central.size, &central.packed, &central.offset}) {
                if (*value != kIn64) continue;
                require(field.size() >= 8, ErrorKind::damaged_file, "{}: its directory lacks a 64-bit size", name_);
                *value = load<std::uint64_t>(field.data());
                field = field.subspan(8);
            }
            return;
        }
    }

    std::span<const std::byte> bytes_;
    const std::string& name_;
};

}  // namespace

bool looks_like_zip(std::span<const std::byte> bytes) noexcept {
    return bytes.size() >= 4 && load<std::uint32_t>(bytes.data()) == kLocalHeader;
}

std::vector<ZipEntry> read_zip(std::span<const std::byte> bytes, const std::string& name) {
    return ZipReader(bytes, name).read();
}

}  // namespace outrider::detail
