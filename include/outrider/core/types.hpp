// Scalar vocabulary of the library. Every layer uses these names.
#pragma once

#include <cstdint>

namespace outrider {

/// Index into the target's vocabulary. CTC's blank is a class, never a TokenId.
using TokenId = std::int32_t;

/// Names one request while it is being decoded. Chosen by the decoder, unique for its lifetime.
using SequenceId = std::int64_t;

/// Index of a node inside one TokenTree. The root (the pending token) is node 0.
using NodeIndex = std::int32_t;

inline constexpr NodeIndex kNoNode = -1;
inline constexpr TokenId kNoToken = -1;

}  // namespace outrider
