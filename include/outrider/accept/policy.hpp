// How the longest acceptable path is chosen.
#pragma once

#include <outrider/core/detail/export.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Decides for one tree. A pure function of its arguments: randomness comes from the sampling options' seed, the stream
/// and the position in the text, never from call order.
class OUTRIDER_API AcceptancePolicy {
public:
    virtual ~AcceptancePolicy() = default;

    /// The accepted path and the next pending token. `rows.logits` is [tree.size(), V].
    [[nodiscard]] virtual Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                            const SequenceContext& context) const = 0;

    /// Throws Error for a request that it could not serve. A decoder asks when a sequence joins.
    virtual void check_request(const SamplingOptions&) const {}

    /// Throws Error where it could decide for no tree of such a drafter. A decoder asks once, before the first round.
    virtual void check_draws(DraftDraws) const {}
};

}  // namespace outrider
