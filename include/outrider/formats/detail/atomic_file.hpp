// A file that appears under its name when it is whole, and not at all otherwise.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

#include <outrider/core/error.hpp>

namespace outrider::detail {

/// The folder and those above it, where they are not there yet. Throws Error where the system refuses.
inline void make_folders(const std::filesystem::path& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (!error) return;
    fail("cannot make the folder '{}': {}; expected a place that can be written to, with no file in its way",
         folder.string(), error.message());
}

/// Written beside the old one, which stays until finish() moves the new one into its place. Throws Error where the
/// system refuses.
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

}  // namespace outrider::detail
