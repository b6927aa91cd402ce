// Members of a target that bound what is decoded, and that it may leave out; with optional_members.hpp the one place
// that asks whether they are there. Apart from it, since AsyncDecoder needs no LibTorch.
#pragma once

#include <cstdint>
#include <limits>

namespace outrider::detail {

/// Most tokens of a sequence; no bound where the decoder shows no target, or that says nothing.
template <typename Decoder>
[[nodiscard]] std::int64_t context_of_target(Decoder& decoder) {
    if constexpr (requires { decoder.verifier().context(); }) return decoder.verifier().context();
    return std::numeric_limits<std::int64_t>::max();
}

/// Tokens of all sequences together; 0 (VerifierLimits) where nothing is said.
template <typename Decoder>
[[nodiscard]] std::int64_t tokens_of_target(Decoder& decoder) {
    if constexpr (requires { decoder.verifier().limits().tokens; }) return decoder.verifier().limits().tokens;
    return 0;
}

}  // namespace outrider::detail
