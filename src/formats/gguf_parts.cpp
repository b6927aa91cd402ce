#include "gguf_parts.hpp"

#include <charconv>
#include <string_view>

#include <fmt/format.h>

#include <outrider/core/error.hpp>

// Keys and names as in llama.cpp's llama_split_path and src/llama-model-loader.cpp.
namespace outrider::detail {
namespace {

constexpr std::size_t kDigits = 5;
constexpr std::string_view kBetween = "-of-", kEnding = ".gguf";

/// The number of five digits at the front; -1 when it is none.
int number_at(std::string_view text) {
    int number = -1;
    if (text.size() < kDigits) return -1;
    const auto read = std::from_chars(text.data(), text.data() + kDigits, number);
    return read.ec == std::errc{} && read.ptr == text.data() + kDigits ? number : -1;
}

}  // namespace

std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& path, const GgufValues& values) {
    const std::string name = path.string();
    const std::int64_t count = values.has("split.count") ? values.integer("split.count") : 0;
    require(count >= 0 && count < 100'000, ErrorKind::damaged_file,
            "{}: split.count is {}; expected a number of files below 100000", name, count);
    if (count <= 1) return {};
    const std::string file = path.filename().string();
    const std::size_t tail = 1 + kDigits + kBetween.size() + kDigits + kEnding.size();  // "-00001-of-00003.gguf"
    const std::string_view end =
        file.size() > tail ? std::string_view(file).substr(file.size() - tail) : std::string_view();
    const bool fits = !end.empty() && end[0] == '-' && number_at(end.substr(1)) >= 1 &&
                      end.substr(1 + kDigits, kBetween.size()) == kBetween &&
                      number_at(end.substr(1 + kDigits + kBetween.size())) == count && end.ends_with(kEnding);
    require(fits, ErrorKind::damaged_file,
            "{}: this is one part of {}; expected a name like {}, beside the other parts", name, count,
            fmt::format("model-00001-of-{:05}.gguf", count));
    std::vector<std::filesystem::path> parts;
    const std::string front = file.substr(0, file.size() - tail);
    for (std::int64_t i = 1; i <= count; ++i) {
        parts.push_back(path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", front, i, count));
        std::error_code ignored;
        require(std::filesystem::exists(parts.back(), ignored), ErrorKind::damaged_file,
                "{}: part {} of {} is missing; expected {}", name, i, count, parts.back().string());
    }
    return parts;
}

void check_gguf_part(const std::string& name, const GgufValues& values, std::size_t index, std::size_t count) {
    const auto value = [&](const char* key) { return values.has(key) ? values.integer(key) : -1; };
    require(value("split.no") == static_cast<std::int64_t>(index) &&
                value("split.count") == static_cast<std::int64_t>(count),
            ErrorKind::damaged_file, "{}: split.no is {} and split.count {}; expected part {} (from 0) of {}", name,
            value("split.no"), value("split.count"), index, count);
}

}  // namespace outrider::detail
