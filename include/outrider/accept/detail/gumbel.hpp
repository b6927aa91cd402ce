// The Gumbel-max trick with counter-based noise: argmax of logit / temperature + noise is a draw from softmax, and a
// pure function of the key.
#pragma once

#include <span>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// argmax over all tokens of logits[t] / temperature + key.gumbel(t), the lowest id among equals. Exactly that, though
/// the logarithms are taken only for tokens whose random bits can still win. `maximum` is the row's largest logit; no
/// entry is NaN or +infinity, and one at least is finite. temperature > 0.
[[nodiscard]] OUTRIDER_API TokenId gumbel_pick(std::span<const float> logits, float maximum, double temperature,
                                               const RandomKey& key);

/// The same over `tokens` only.
[[nodiscard]] OUTRIDER_API TokenId gumbel_pick(std::span<const float> logits, std::span<const TokenId> tokens,
                                               double temperature, const RandomKey& key);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/gumbel-inl.hpp>
#endif
