// Frames without CTC's collapse: the paper's ablation, not a way to draft well.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Frame t drafts the token at depth t + 1, as Medusa's heads do: a repeat is read as written, and a blank, which is no
/// token, ends its path. Ranked choices in the shape of `medusa63`, the blank among the ranks; at most `nodes` of them.
/// `logits` [T, V], `gate` [T] (the blank's log odds against all tokens), `vocabulary` [V] target ids. A frame that
/// holds a NaN or an infinity has no tokens.
[[nodiscard]] TokenTree per_frame_tree(TokenId pending, std::span<const float> logits, std::span<const float> gate,
                                       std::span<const TokenId> vocabulary, std::int64_t nodes);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_per_frame-inl.hpp>
#endif
