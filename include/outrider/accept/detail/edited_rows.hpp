// A tree's rows of logits as every choice starts from them: after the request's hook and repetition penalty, and sound.
#pragma once

#include <span>
#include <vector>

#include <outrider/accept/detail/logit_rows.hpp>
#include <outrider/accept/detail/warp.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/target/round.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// One node's row. At least one logit is finite, none is NaN or +infinity.
struct EditedRow {
    std::span<const float> logits;  ///< [V]
    RowMaximum top;
};

/// Lives for one accept, and no longer than what it is made of.
class OUTRIDER_API EditedRows {
public:
    /// Throws Error where the context does not say how to sample.
    EditedRows(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context);

    [[nodiscard]] const SamplingOptions& options() const { return options_; }
    [[nodiscard]] bool edits() const { return options_.edits_logits(); }
    /// The target's largest logit after `node`, unedited: see LogitRows::argmax.
    [[nodiscard]] TokenId argmax(NodeIndex node) { return rows_.argmax(node); }
    /// See LogitRows::pick.
    [[nodiscard]] TokenId pick(NodeIndex node) const { return rows_.pick(node); }

    /// The row after `node`: where it lies ready and nothing changes it the verifier's, else in `memory`. Throws Error
    /// for logits that are not finite, or that forbid every token.
    [[nodiscard]] EditedRow row(NodeIndex node, std::vector<float>& memory);

private:
    void edit(NodeIndex node, std::vector<float>& logits);
    void read_text(NodeIndex node);

    const TokenTree& tree_;
    const SequenceContext& context_;
    const SamplingOptions& options_;
    LogitRows rows_;
    std::vector<TokenId> text_;  ///< prompt, text and drafted path, down to last_
    NodeIndex last_ = kNoNode;
    std::vector<bool> seen_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/edited_rows-inl.hpp>
#endif
