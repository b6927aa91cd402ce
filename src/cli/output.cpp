#include "output.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include <outrider/core/error.hpp>

namespace outrider::cli {
namespace {

namespace fs = std::filesystem;

/// Whether a path leads to what standard output is, as /dev/stdout does.
bool is_standard_output(const fs::path& path) {
    struct stat there{}, own{};
    return ::stat(path.c_str(), &there) == 0 && ::fstat(STDOUT_FILENO, &own) == 0 && there.st_dev == own.st_dev &&
           there.st_ino == own.st_ino;
}

}  // namespace

void print(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
        fail("standard output: writing failed ({}); what was not written is lost", std::strerror(errno));
}

void flush_output() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
        fail("standard output: writing failed ({}); what was not written is lost", std::strerror(errno));
}

void tell(std::string_view text) noexcept {
    (void)!std::fwrite(text.data(), 1, text.size(), stderr);
    (void)std::fflush(stderr);
}

void prepare_streams() {
    std::signal(SIGPIPE, SIG_IGN);
    // Read-only, so that writing to a closed standard output still fails.
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(stream, F_GETFD) == -1 && errno == EBADF) (void)!::open("/dev/null", O_RDONLY);
}

void refuse_inputs(std::string_view option, const std::string& path, std::initializer_list<std::string> inputs) {
    std::error_code ignored;
    for (const std::string& input : inputs)
        require(path.empty() || input.empty() || !fs::is_regular_file(path, ignored) ||
                    !fs::equivalent(path, input, ignored),
                "{}: '{}' is read by this command and would be overwritten; name another file", option, path);
}

ReportFile::ReportFile(std::string option, const std::string& path, Partial partial)
    : option_(std::move(option)), path_(path), partial_(partial) {
    std::error_code error;
    if (path.empty()) return;
    if (path == "-" || is_standard_output(path_)) {
        standard_output_ = true;
        return;
    }
    require(!fs::is_directory(path_, error), "{}: '{}' is a folder; expected a file", option_, path);
    const bool there = fs::exists(path_, error);
    if (there) path_ = fs::canonical(path_, error);  // what a link leads to is replaced, and not the link
    if (there && !fs::is_regular_file(path_, error)) {
        file_ = std::fopen(path_.c_str(), "w");
        if (file_ == nullptr) refuse("cannot be written");
        return;
    }
    part_ = path_;
    part_ += fmt::format(".part-{}", ::getpid());
    file_ = std::fopen(part_.c_str(), "we");
    if (file_ == nullptr) refuse("cannot be written");
    if (there) fs::permissions(part_, fs::status(path_, error).permissions(), error);
}

ReportFile::~ReportFile() {
    if (file_ == nullptr) return;
    const bool whole = std::fclose(file_) == 0;
    if (part_.empty()) return;
    if (partial_ == Partial::kept && lines_ > 0 && whole) {
        tell(fmt::format("{}: the {} lines so far are in {}\n", option_, lines_, part_.string()));
        return;
    }
    std::error_code ignored;
    fs::remove(part_, ignored);
}

void ReportFile::refuse(const char* what) const {
    fail("{}: '{}' {} ({})", option_, path_.string(), what, std::strerror(errno));
}

void ReportFile::write_line(std::string_view text) {
    if (standard_output_) {
        print(text);
        print("\n");
        return flush_output();
    }
    if (file_ == nullptr) return;
    if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fputc('\n', file_) == EOF ||
        std::fflush(file_) != 0)
        refuse("cannot be written to the end");
    ++lines_;
}

void ReportFile::finish() {
    if (file_ == nullptr) return;
    // A disk may tell only now that it is full. Pipes and terminals cannot be synchronised, and need not be.
    if (std::fflush(file_) != 0 ||
        (::fsync(::fileno(file_)) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS))
        refuse("cannot be written to the end");
    std::FILE* const file = std::exchange(file_, nullptr);
    const bool closed = std::fclose(file) == 0;
    std::error_code error;
    if (closed && part_.empty()) return;
    if (closed) fs::rename(part_, path_, error);
    if (closed && !error) return;
    if (error) errno = error.value();
    const int why = errno;
    fs::remove(part_, error);
    errno = why;
    refuse("cannot be written to the end");
}

}  // namespace outrider::cli
