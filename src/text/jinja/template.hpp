// A Jinja template, as the files of models bring them: the subset that chat templates use, with jinja2's meaning and
// transformers' settings.
#pragma once

#include <memory>
#include <string_view>

#include "evaluator.hpp"

namespace outrider::jinja {

/// Immutable, and safe to share between threads.
class Template {
public:
    /// Throws Error naming the line and what is not supported.
    [[nodiscard]] static Template parse(std::string_view source);

    /// Throws Error for what the template itself refuses, for what its source asks in vain, and at a limit.
    [[nodiscard]] Text render(const Variables& variables, const DateFormatter& date, const Limits& limits = {}) const;

    /// Whether the source mentions a name anywhere.
    [[nodiscard]] bool mentions(std::string_view name) const;

private:
    explicit Template(std::shared_ptr<const Program> program) : program_(std::move(program)) {}

    std::shared_ptr<const Program> program_;
};

}  // namespace outrider::jinja
