// What commands write: standard output, and files that are whole or not there. Nothing is lost without an Error.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

namespace outrider::cli {

/// Standard output. Throws Error when the system does not take all of it: a full disk, a reader that left.
void print(std::string_view text);
/// The same for what is still buffered.
void flush_output();

/// Standard error, for people: what it does not take is not worth failing for.
void tell(std::string_view text) noexcept;

/// For the start of the program: a write to a pipe without reader fails like any other, in place of ending the program
/// without a word, and files do not get the numbers of standard streams that were closed by whoever started it.
void prepare_streams();

/// Throws Error, naming the option, when `path` is the same file as one of the inputs, which it would overwrite.
void refuse_inputs(std::string_view option, const std::string& path, std::initializer_list<std::string> inputs);

/// A file that takes the place of the old one when it is whole. Until then it stands beside it, under another name; the
/// old one stays where the command fails. What is no ordinary file (a pipe, a device) is written as text comes.
class ReportFile {
public:
    enum class Partial : unsigned char {
        removed,  ///< a part is worth nothing
        kept      ///< lines stand for themselves: the part stays under its own name, and standard error says so
    };

    /// `option`: for messages. Path "": nowhere; "-": standard output. Throws Error for a place that cannot be written,
    /// so that it is told before the long work.
    ReportFile(std::string option, const std::string& path, Partial partial);
    ReportFile(const ReportFile&) = delete;
    ReportFile& operator=(const ReportFile&) = delete;
    ~ReportFile();

    /// Appends a text and a line break.
    void write_line(std::string_view text);
    /// Once all is written: into place.
    void finish();

private:
    [[noreturn]] void refuse(const char* what) const;

    std::string option_;
    std::filesystem::path path_, part_;  ///< part_ empty: written directly
    Partial partial_;
    std::FILE* file_ = nullptr;
    bool standard_output_ = false;
    std::int64_t lines_ = 0;
};

}  // namespace outrider::cli
