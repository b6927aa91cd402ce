// Log-probabilities of the tokens that a policy chose, read from the rows that it chose them from.
#pragma once

#include <cstdint>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/result.hpp>
#include <outrider/target/round.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

struct LogprobRequest {
    std::int64_t most = 0;  ///< so many of the most probable tokens with each
    LogprobLaw law = LogprobLaw::target;
};

/// One entry for each node of the path and one for the pending token. A function of each token's row and text alone, so
/// the same bits whatever was drafted, as far as the rows are. Nothing is copied but what hooks and penalties edit; a
/// hook is asked once more for each. Throws Error for rows that are not finite.
[[nodiscard]] OUTRIDER_API std::vector<TokenLogprobs> logprobs_of(const TokenTree& tree, const TreeRows& rows,
                                                                  const SequenceContext& context,
                                                                  const Acceptance& chosen, LogprobRequest request);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/logprob_rows-inl.hpp>
#endif
