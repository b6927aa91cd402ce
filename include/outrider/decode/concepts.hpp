// The contract of the three template arguments of SpeculativeDecoder. The abstract bases satisfy it, so the one loop
// serves compile-time and run-time choice alike.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/accept/policy.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

/// One function from feedback to trees. `forget(SequenceId)`, `features()`, `draws()` and `kind()` are called too where
/// they exist.
template <typename D>
concept Drafter = requires(D draft, std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    { draft.propose(feedback, budget) } -> std::same_as<std::vector<SequenceTree>>;
};

/// Three calls, and two facts. `release(SequenceId)` or `retire(SequenceId)`, `resumes()` and `resume(Prefill)`,
/// `extends()`, `limits()` and `pass_times()` are called too where they exist.
template <typename V>
concept TargetVerifier = requires(V verifier, const V& known, std::span<const Prefill> prompts,
                                  std::span<const SequenceTree> trees, std::span<const SequenceAcceptance> accepted) {
    { verifier.prefill(prompts) } -> std::same_as<Feedback>;
    { verifier.verify(trees) } -> std::same_as<TreeOutput>;
    { verifier.commit(accepted) } -> std::same_as<Feedback>;
    { known.vocabulary() } -> std::convertible_to<std::int64_t>;
    { known.context() } -> std::convertible_to<std::int64_t>;
};

/// One call on one tree. `check_draws(DraftDraws)` and `check_request(SamplingOptions)` are called too where they
/// exist.
template <typename A>
concept Acceptor =
    requires(const A& policy, const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) {
        { policy.accept(tree, rows, context) } -> std::same_as<Acceptance>;
    };

/// Whether a policy can decide for a drafter's trees, as far as types tell: a policy that says kNeedsDraws = true does
/// not fit a drafter that says kSamples = false. What types do not tell is checked when a decoder is made (DraftModel's
/// draws, AcceptancePolicy's check_draws), or at the first accept.
template <typename D, typename A>
concept Fits = !(requires { requires A::kNeedsDraws; } && requires { requires !D::kSamples; });

static_assert(Drafter<DraftModel> && TargetVerifier<Verifier> && Acceptor<AcceptancePolicy>);

}  // namespace outrider
