// Bodies of match.hpp.
#pragma once

#include <outrider/accept/match.hpp>

#include <utility>
#include <vector>

#include <outrider/accept/detail/gumbel.hpp>
#include <outrider/accept/detail/warp.hpp>
#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/core/detail/rng.hpp>

#include <outrider/accept/detail/edited_rows.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// Buffers that outlive a call, so that rounds do not allocate.
struct MatchScratch {
    std::vector<float> logits;
    Truncation truncation;
};

OUTRIDER_INLINE TokenId pick_token(const EditedRow& row, const SamplingOptions& options, std::int64_t position,
                                   Truncation& truncation) {
    if (options.temperature == 0.0) return row.top.token;
    const RandomKey key(options.seed, options.stream, position, static_cast<std::uint64_t>(RandomPurpose::pick));
    if (!options.truncates()) return gumbel_pick(row.logits, row.top.value, options.temperature, key);
    return gumbel_pick(row.logits, truncation.keep(row.logits, row.top.value, options), options.temperature, key);
}

}  // namespace detail

OUTRIDER_INLINE Acceptance Match::accept(const TokenTree& tree, const TreeRows& rows,
                                         const SequenceContext& context) const {
    EditedRows edited(tree, rows, context);
    const SamplingOptions& options = edited.options();
    if (options.temperature == 0.0 && !edited.edits())
        return accept_walk(tree, [&](NodeIndex node) { return edited.argmax(node); });

    // One set a thread, since policies are shared and const; taken away while in use, since a hook may decode too.
    thread_local detail::MatchScratch idle;
    detail::MatchScratch scratch = std::exchange(idle, {});
    Acceptance accepted = accept_walk(tree, [&](NodeIndex node) {
        if (const TokenId told = takes_picks(options) ? edited.pick(node) : kNoToken; told != kNoToken) return told;
        const auto position = static_cast<std::int64_t>(context.text.size()) + tree.depth(node);
        return detail::pick_token(edited.row(node, scratch.logits), options, position, scratch.truncation);
    });
    idle = std::move(scratch);
    return accepted;
}

}  // namespace outrider
