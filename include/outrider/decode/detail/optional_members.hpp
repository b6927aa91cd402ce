// Members that a part of a decoder may have or leave out (the concepts name them), resolved in one place.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>
#include <outrider/decode/detail/target_bounds.hpp>
#include <outrider/target/round.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider::detail {

/// What a drafter reads of the target; all that there is where it does not say.
template <typename D>
[[nodiscard]] FeatureRequest features_of(const D& drafter) {
    if constexpr (requires { drafter.features(); }) return drafter.features();
    return {};
}

/// Whether a drafter says that it never drafts.
template <typename D>
[[nodiscard]] bool never_drafts(const D& drafter) {
    if constexpr (requires { drafter.kind(); }) return drafter.kind() == "none";
    return false;
}

/// Whether a drafter says that what it does costs next to nothing.
template <typename D>
[[nodiscard]] bool is_cheap(const D& drafter) {
    if constexpr (requires { drafter.cheap(); }) return drafter.cheap();
    return false;
}

template <typename D>
void forget(D& drafter, SequenceId id) {
    if constexpr (requires { drafter.forget(id); }) drafter.forget(id);
}

/// What a target can take; no limits where it does not say.
template <typename V>
[[nodiscard]] VerifierLimits limits_of(const V& verifier) {
    if constexpr (requires { verifier.limits(); }) return verifier.limits();
    return {};
}

/// A target that may take up what it kept of texts: `resume` is called where it says that it does.
template <typename V>
concept Resumes = requires(V& verifier) { verifier.resumes(); };

/// Whether a target takes prompts in pieces.
template <typename V>
[[nodiscard]] bool takes_pieces(V& verifier) {
    if constexpr (requires { verifier.extends(); }) return verifier.extends();
    return false;
}

/// A target that may take prompts and trees in one forward: `verify_beside` is called where it says that it does.
template <typename V>
concept Mixes = requires(V& verifier, std::span<const SequenceTree> trees, std::span<const Prefill> beside) {
    verifier.mixes();
    verifier.verify_beside(trees, beside);
};

/// What passes of a target cost; nothing where it does not say.
template <typename V>
[[nodiscard]] std::vector<PassTime> pass_times_of(V& verifier) {
    if constexpr (requires { verifier.pass_times(); }) return verifier.pass_times();
    return {};
}

template <typename V>
void release(V& verifier, SequenceId id) {
    if constexpr (requires { verifier.release(id); }) verifier.release(id);
}

/// Ends a sequence in the target: one that ended well may be kept, where the target does that. Where keeping it fails,
/// it is released all the same.
template <typename V>
void release(V& verifier, SequenceId id, bool well) {
    if constexpr (requires { verifier.retire(id); }) {
        if (!well) return release(verifier, id);
        try {
            verifier.retire(id);
        } catch (...) {
            try {
                release(verifier, id);
            } catch (...) {  // the first one is told
            }
            throw;
        }
    } else {
        release(verifier, id);
    }
}

/// What a policy says of a drafter and of a request. Throw Error where they do not fit.
template <typename A, typename D>
void check_draws(const A& policy, const D& drafter) {
    if constexpr (requires { policy.check_draws(drafter.draws()); }) policy.check_draws(drafter.draws());
}
/// Whether a policy reads draws; it does where it does not say.
template <typename A>
[[nodiscard]] bool reads_draws(const A& policy) {
    if constexpr (requires { policy.reads_draws(); }) return policy.reads_draws();
    return true;
}

/// Whether a policy reads logits for such a request; it does where it does not say.
template <typename A, typename Sampling>
[[nodiscard]] bool reads_logits(const A& policy, const Sampling& sampling) {
    if constexpr (requires { policy.reads_logits(sampling); }) return policy.reads_logits(sampling);
    return true;
}

/// Whether a policy takes the target's picks; it does not where it does not say.
template <typename A, typename Sampling>
[[nodiscard]] bool takes_picks(const A& policy, const Sampling& sampling) {
    if constexpr (requires { policy.takes_picks(sampling); }) return policy.takes_picks(sampling);
    return false;
}

template <typename A, typename Sampling>
void check_policy(const A& policy, const Sampling& sampling) {
    if constexpr (requires { policy.check_request(sampling); }) policy.check_request(sampling);
}

}  // namespace outrider::detail
