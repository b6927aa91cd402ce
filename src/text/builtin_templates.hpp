// Chat templates for checkpoints that bring none, by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::detail {

struct BuiltinTemplate {
    std::string_view name;
    std::string source;
    std::vector<std::string> needs;  ///< special tokens that the vocabulary must have
    bool needs_eos = false;
};

[[nodiscard]] std::span<const BuiltinTemplate> builtin_templates();

}  // namespace outrider::detail
