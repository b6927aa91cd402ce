// Where a drafter's output matrices come from.
#pragma once

#include <string_view>

#include <outrider/core/error.hpp>

namespace outrider {

/// Where the output matrices of a drafter with several heads come from.
enum class HeadOutput : unsigned char {
    own,     ///< one trained matrix per head (as published)
    shared,  ///< one trained matrix for all heads
    target,  ///< the target's rows, frozen: nothing is stored
};

/// As in config.json: "own", "shared", "target".
[[nodiscard]] constexpr std::string_view name_of(HeadOutput output) {
    return output == HeadOutput::own ? "own" : output == HeadOutput::shared ? "shared" : "target";
}

/// Throws Error for another word.
[[nodiscard]] inline HeadOutput head_output(std::string_view word) {
    for (const HeadOutput output : {HeadOutput::own, HeadOutput::shared, HeadOutput::target})
        if (name_of(output) == word) return output;
    fail(ErrorKind::damaged_file, "output is \"{}\", expected \"own\", \"shared\" or \"target\"", word);
}

}  // namespace outrider
