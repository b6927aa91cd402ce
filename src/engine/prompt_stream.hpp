// Which random numbers a prompt is decoded with.
#pragma once

#include <cstdint>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/prompt.hpp>

namespace outrider::detail {

/// The stream of random numbers of a prompt: a hash of its tokens, and of which draw of it is asked for. So a text
/// depends on the prompt and the seed, and not on its place in a file or a batch, on what stands beside it, or on
/// whether the program, the server or the C interface decodes it.
[[nodiscard]] inline std::uint64_t prompt_stream(const Prompt& prompt, std::uint64_t sample) {
    std::uint64_t hash = mix64(sample);
    for (const TokenId token : prompt.tokens) hash = mix64(hash ^ static_cast<std::uint64_t>(token));
    return hash;
}

}  // namespace outrider::detail
