// outrider inspect without a prompt: what a model is, what it needs, and which drafters fit.
#pragma once

#include <string>

#include "arguments.hpp"

namespace outrider::cli {

/// The description as lines of text. A part that is not supported is named, and the others are described all the same.
/// Throws Error for what is no model at all.
[[nodiscard]] std::string describe_model(const ModelArguments& arguments);

}  // namespace outrider::cli
