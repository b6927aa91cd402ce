// How the longest acceptable path is chosen.
#pragma once

#include <concepts>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Decides for one tree. A pure function of its arguments: randomness comes from the sampling options' seed, the stream
/// and the position in the text, never from call order.
class OUTRIDER_API AcceptancePolicy {
public:
    virtual ~AcceptancePolicy() = default;

    /// The accepted path and the next pending token. `rows.logits` is [tree.size(), V]; it may be undefined for
    /// requests for which reads_logits says false, and `rows.argmax` is then there.
    [[nodiscard]] virtual Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                            const SequenceContext& context) const = 0;

    /// Whether it reads what a draft says of its draws (SequenceContext::samples). False saves drafters the trouble.
    [[nodiscard]] virtual bool reads_draws() const { return true; }

    /// Whether it reads logits for such a request. False, where the argmax of each row is enough, spares the target
    /// what it need not compute for that.
    [[nodiscard]] virtual bool reads_logits(const SamplingOptions&) const { return true; }

    /// Whether it takes the target's word for what Match picks of a row (TreeRows::picks). True lets a target pick
    /// where its logits lie, so that no row is copied; a target need not.
    [[nodiscard]] virtual bool takes_picks(const SamplingOptions&) const { return false; }

    /// Throws Error for a request that it could not serve. A decoder asks when a sequence joins.
    virtual void check_request(const SamplingOptions&) const {}

    /// Throws Error where it could decide for no tree of such a drafter. A decoder asks when it is made.
    virtual void check_draws(DraftDraws) const {}
};

/// One call on one tree. `check_draws(DraftDraws)`, `check_request(SamplingOptions)`, `reads_draws()`,
/// `reads_logits(SamplingOptions)` and `takes_picks(SamplingOptions)` are called too where they exist.
template <typename A>
concept Acceptor =
    requires(const A& policy, const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) {
        { policy.accept(tree, rows, context) } -> std::same_as<Acceptance>;
    };

static_assert(Acceptor<AcceptancePolicy>);

/// Whether a policy can decide for a drafter's trees, as far as types tell: a policy that says kNeedsDraws = true does
/// not fit a drafter that says kSamples = false. What types do not tell is checked when a decoder is made (DraftModel's
/// draws, AcceptancePolicy's check_draws), or at the first accept.
template <typename D, typename A>
concept Fits = !(requires { requires A::kNeedsDraws; } && requires { requires !D::kSamples; });

}  // namespace outrider
