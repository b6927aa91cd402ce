#include <outrider/accept/greedy_match.hpp>

#include <outrider/accept/detail/logit_rows.hpp>
#include <outrider/accept/rules/accept_walk.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

Acceptance GreedyMatch::accept(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) const {
    if (const SamplingOptions* asked = context.sampling)
        require(asked->temperature == 0.0 && asked->repetition_penalty == 1.0 && !asked->logit_hook,
                "GreedyMatch: the request asks for temperature {}, repetition penalty {}{}; decode with SampledMatch",
                asked->temperature, asked->repetition_penalty, asked->logit_hook ? " and a logit hook" : "");
    LogitRows logits(rows);
    return accept_walk(tree, [&](NodeIndex node) { return logits.argmax(node); });
}

}  // namespace outrider
