#include <outrider/accept/sampled_match.hpp>

#include <cmath>
#include <vector>

#include <outrider/accept/logit_rows.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/rng.hpp>
#include <outrider/tensor/gumbel.hpp>
#include <outrider/tensor/warp.hpp>
#include <outrider/tree/accept_walk.hpp>

namespace outrider {

namespace {

/// Buffers that outlive a call, so that rounds do not allocate. One set a thread: policies are shared and const.
struct Scratch {
    std::vector<float> logits;
    std::vector<TokenId> text;
    std::vector<bool> seen;
    Truncation truncation;
};

/// The row after the hook and the penalty; the row itself when neither is asked for.
std::span<const float> edited(std::span<const float> row, const SamplingOptions& options, Scratch& scratch) {
    if (!options.logit_hook && options.repetition_penalty == 1.0) return row;
    scratch.logits.assign(row.begin(), row.end());
    if (options.logit_hook) options.logit_hook(scratch.text, scratch.logits);
    if (options.repetition_penalty != 1.0)
        penalise_repetition(scratch.logits, options.repetition_penalty, scratch.text, scratch.seen);
    return scratch.logits;
}

TokenId pick(std::span<const float> logits, const SamplingOptions& options, std::int64_t position, NodeIndex node,
             Scratch& scratch) {
    const RowMaximum top = row_maximum(logits);
    require(!top.has_nan && top.value < INFINITY,
            "The target's logits after node {} are not finite; the model or its input is broken (weights, dtype range, "
            "cache) or the logit hook is, so no token can be chosen",
            node);
    require(top.value > -INFINITY,
            "Every token is forbidden after node {}: all logits are -infinity; a logit hook must leave one at least",
            node);
    if (options.temperature == 0.0) return top.token;
    const RandomKey key(options.seed, options.stream, position, static_cast<std::uint64_t>(RandomPurpose::pick));
    if (Truncation::is_idle(options)) return gumbel_pick(logits, top.value, options.temperature, key);
    return gumbel_pick(logits, scratch.truncation.keep(logits, top.value, options), options.temperature, key);
}

}  // namespace

Acceptance SampledMatch::accept(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) const {
    require(context.sampling != nullptr, "SampledMatch: SequenceContext::sampling is missing; it says how to sample");
    const SamplingOptions& options = *context.sampling;
    LogitRows logits(rows);
    const bool edits = options.logit_hook || options.repetition_penalty != 1.0;
    if (options.temperature == 0.0 && !edits)
        return accept_walk(tree, [&](NodeIndex node) { return logits.argmax(node); });

    thread_local Scratch scratch;
    if (edits) scratch.text.assign(context.text.begin(), context.text.end());
    return accept_walk(tree, [&](NodeIndex node) {
        if (edits && node > 0) scratch.text.push_back(tree.token(node));
        const auto position = static_cast<std::int64_t>(context.text.size()) + tree.depth(node);
        return pick(edited(logits.row(node), options, scratch), options, position, node, scratch);
    });
}

}  // namespace outrider
