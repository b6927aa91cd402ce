#include <outrider/engine/make_policy.hpp>

#include <string>

#include <outrider/accept/draw.hpp>
#include <outrider/accept/lossy.hpp>
#include <outrider/accept/match.hpp>
#include <outrider/core/error.hpp>

namespace outrider {
const PolicyInfo& policy_info(std::string_view name) {
    std::string known;
    for (const PolicyInfo& policy : kPolicies) {
        if (policy.name == name) return policy;
        known += known.empty() ? "" : ", ";
        known += policy.name;
    }
    fail("unknown acceptance policy '{}': expected one of {}", name, known);
}

std::unique_ptr<AcceptancePolicy> make_policy(std::string_view name, const PolicyOptions& options) {
    (void)policy_info(name);
    check_options(options);
    const NodeIndex unasked = options.minimum_block - 1;
    if (name == "rejection") return std::make_unique<RejectionAccept>();
    if (name == "multi_step") return std::make_unique<MultiStepAccept>();
    if (name == "kseq") return std::make_unique<KSeqAccept>();
    if (name == "unified") return std::make_unique<UnifiedAccept>();
    if (name == "block") return std::make_unique<BlockAccept>();
    if (name == "traversal") return std::make_unique<TraversalAccept>();
    if (name == "lossy_typical") return std::make_unique<LossyTypical>(options.typical, unasked);
    if (name == "lossy_top_k") return std::make_unique<LossyTopBeta>(lossy_top_k(options.top_k, unasked));
    if (name == "lossy_distance") return std::make_unique<LossyDistance>(DistanceCriterion{options.distance}, unasked);
    if (name == "lossy_top_beta") return std::make_unique<LossyTopBeta>(options.top_beta, unasked);
    return std::make_unique<Match>();  // at temperature 0 it is greedy match
}

}  // namespace outrider
