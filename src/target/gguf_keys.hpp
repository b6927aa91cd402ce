// A GGUF file's values under its architecture's prefix.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "formats/gguf.hpp"

namespace outrider {

class GgufKeys {
public:
    GgufKeys(const GgufFile& file, std::string architecture) : file_(file), architecture_(std::move(architecture)) {}

    [[nodiscard]] const GgufFile& file() const { return file_; }
    [[nodiscard]] std::string key(std::string_view name) const { return architecture_ + "." + std::string(name); }
    [[nodiscard]] bool has(std::string_view name) const { return file_.has(key(name)); }
    [[nodiscard]] std::int64_t integer(std::string_view name) const { return file_.integer(key(name)); }
    [[nodiscard]] std::optional<std::int64_t> find_integer(std::string_view name) const {
        return file_.find_integer(key(name));
    }
    [[nodiscard]] double number(std::string_view name) const { return file_.number(key(name)); }
    [[nodiscard]] double number(std::string_view name, double otherwise) const {
        return file_.find_number(key(name)).value_or(otherwise);
    }
    /// Where the file has one value a layer, all must be the same.
    [[nodiscard]] std::int64_t one_integer(std::string_view name) const;

    /// The layers where the window holds: one truth value a layer, or an integer n: all but every n-th.
    [[nodiscard]] std::vector<bool> windowed(std::int64_t layers, std::int64_t pattern) const;

private:
    const GgufFile& file_;
    std::string architecture_;
};

/// All layers but every n-th.
[[nodiscard]] inline std::vector<bool> all_but_every(std::int64_t n, std::int64_t layers) {
    std::vector<bool> result(static_cast<std::size_t>(layers));
    for (std::int64_t i = 0; i < layers; ++i) result[static_cast<std::size_t>(i)] = (i + 1) % n != 0;
    return result;
}

}  // namespace outrider
