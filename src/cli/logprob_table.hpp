// Log-probabilities as the program shows them.
#pragma once

#include <string>

#include <nlohmann/json.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>

namespace outrider::cli {

/// One object for each token of the result: id, text, logprob, and `top` with the same of the most probable ones. A
/// token that its law excludes has the logprob null.
[[nodiscard]] nlohmann::ordered_json logprobs_json(const GenerationResult& result, const Detokenizer& text);

/// One line for each token of the result, behind it the most probable ones.
[[nodiscard]] std::string logprob_table(const GenerationResult& result, const Detokenizer& text);

}  // namespace outrider::cli
