// Bodies of edited_rows.hpp.
#pragma once

#include <outrider/accept/detail/edited_rows.hpp>

#include <cmath>

#include <outrider/core/error.hpp>
#include <outrider/tree/token_tree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

OUTRIDER_INLINE const SamplingOptions& options_of(const SequenceContext& context) {
    require(context.sampling != nullptr, "Acceptance: SequenceContext::sampling is missing; it says how to sample");
    return *context.sampling;
}

OUTRIDER_INLINE RowMaximum checked_maximum(std::span<const float> logits, NodeIndex node) {
    const RowMaximum top = row_maximum(logits);
    require(!top.has_nan && top.value < INFINITY, ErrorKind::internal,
            "The target's logits after node {} are not finite; the model or its input is broken (weights, dtype range, "
            "cache) or the logit hook is, so no token can be chosen",
            node);
    require(top.value > -INFINITY,
            "Every token is forbidden after node {}: all logits are -infinity; a logit hook must leave one at least",
            node);
    return top;
}

}  // namespace detail

OUTRIDER_INLINE EditedRows::EditedRows(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context)
    : tree_(tree), context_(context), options_(detail::options_of(context)), rows_(rows) {}

OUTRIDER_INLINE EditedRow EditedRows::row(NodeIndex node, std::vector<float>& memory) {
    std::span<const float> row = rows_.row(node);
    if (edits() || !rows_.lies_ready()) {
        memory.assign(row.begin(), row.end());
        if (edits()) edit(node, memory);
        row = memory;
    }
    return {row, detail::checked_maximum(row, node)};
}

OUTRIDER_INLINE void EditedRows::edit(NodeIndex node, std::vector<float>& logits) {
    read_text(node);
    if (options_.logit_hook) options_.logit_hook(text_, logits);
    if (options_.repetition_penalty != 1.0) penalise_repetition(logits, options_.repetition_penalty, text_, seen_);
}

/// A walk downwards adds a token a node.
OUTRIDER_INLINE void EditedRows::read_text(NodeIndex node) {
    if (node > 0 && tree_.parent(node) == last_) {
        text_.push_back(tree_.token(node));
    } else {
        text_.assign(context_.text.begin(), context_.text.end());
        for (const NodeIndex step : path_to(tree_, node)) text_.push_back(tree_.token(step));
    }
    last_ = node;
}

}  // namespace outrider
