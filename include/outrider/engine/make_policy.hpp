// Acceptance policies chosen by name at run time: for programs whose user says which one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>

#include <outrider/accept/rules/lossy_rules.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/detail/range.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

class AcceptancePolicy;  // accept/policy.hpp; the command line, which has no tensors, reads this header

/// What a policy promises of the text.
enum class TextPromise : unsigned char {
    same_text,  ///< one seed, one text: the same with any drafter as without one
    same_law,   ///< the target's law, by other draws: the text of a seed depends on what was drafted
    lossy,      ///< neither
};

struct PolicyInfo {
    std::string_view name;
    TextPromise promise = TextPromise::same_text;
    bool needs_draws = false;  ///< takes only drafts that say what was drawn
    bool one_chain = false;    ///< and of these, only single chains
};

inline constexpr std::array kPolicies{PolicyInfo{"match", TextPromise::same_text, false, false},
                                      PolicyInfo{"rejection", TextPromise::same_law, true, true},
                                      PolicyInfo{"multi_step", TextPromise::same_law, true, false},
                                      PolicyInfo{"kseq", TextPromise::same_law, true, false},
                                      PolicyInfo{"unified", TextPromise::same_law, false, false},
                                      PolicyInfo{"block", TextPromise::same_law, true, true},
                                      PolicyInfo{"traversal", TextPromise::same_law, true, false},
                                      PolicyInfo{"lossy_typical", TextPromise::lossy, false, false},
                                      PolicyInfo{"lossy_top_k", TextPromise::lossy, false, false},
                                      PolicyInfo{"lossy_distance", TextPromise::lossy, false, false},
                                      PolicyInfo{"lossy_top_beta", TextPromise::lossy, false, false}};

/// Every policy that has a name.
[[nodiscard]] constexpr std::span<const PolicyInfo> policies() { return kPolicies; }

/// Throws Error for an unknown name, with the names that are known.
[[nodiscard]] OUTRIDER_API const PolicyInfo& policy_info(std::string_view name);

/// At temperature 0 every lossless policy gives the target's greedy text.
[[nodiscard]] constexpr TextPromise promise_at(const PolicyInfo& policy, double temperature) {
    return policy.promise == TextPromise::same_law && temperature == 0.0 ? TextPromise::same_text : policy.promise;
}

/// What the numbers of PolicyOptions may be.
namespace ranges {
inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();
inline constexpr Range<double> kTypicalEps{.low = 0, .high = 1};
inline constexpr Range<double> kTypicalDelta{.low = 0, .high = kNoLimit};
inline constexpr Range<std::size_t> kAcceptTop{.low = 1};
inline constexpr Range<double> kAcceptGap{.low = 0, .high = kNoLimit};
inline constexpr Range<TokenId> kAcceptDistance{.low = 0};
inline constexpr Range<NodeIndex> kMinimumBlock{.low = 1, .high = 4096};
}  // namespace ranges

/// What the lossy policies are made with; the others have no options.
struct PolicyOptions {
    TypicalCriterion typical = {};
    TopBetaCriterion top_beta = {.beta = 3, .tau = 2.0};
    std::size_t top_k = 3;        ///< of lossy_top_k: accept what is among so many
    TokenId distance = 2;         ///< of lossy_distance
    NodeIndex minimum_block = 1;  ///< tokens that a round emits at least, whatever they are, where the draft has them
};

/// Throws Error for an option out of its range.
inline void check_options(const PolicyOptions& o) {
    constexpr std::string_view where = "PolicyOptions";
    require_in(ranges::kTypicalEps, o.typical.eps, where, "typical.eps");
    require_in(ranges::kTypicalDelta, o.typical.delta, where, "typical.delta");
    require_in(ranges::kAcceptTop, o.top_k, where, "top_k");
    require_in(ranges::kAcceptTop, o.top_beta.beta, where, "top_beta.beta");
    require_in(ranges::kAcceptGap, o.top_beta.tau, where, "top_beta.tau");
    require_in(ranges::kAcceptDistance, o.distance, where, "distance");
    require_in(ranges::kMinimumBlock, o.minimum_block, where, "minimum_block");
}

/// `name`: "match" (greedy match, or sampled match where the request samples), "rejection", "multi_step", "kseq",
/// "unified", "block", "traversal", and the lossy "lossy_typical", "lossy_top_k", "lossy_distance", "lossy_top_beta".
/// See docs/acceptance.md. Throws Error for an unknown name, and for options out of range.
[[nodiscard]] OUTRIDER_API std::unique_ptr<AcceptancePolicy> make_policy(std::string_view name,
                                                                         const PolicyOptions& options = {});

}  // namespace outrider
