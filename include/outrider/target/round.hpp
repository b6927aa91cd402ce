// The values that travel round the loop: feedback -> trees -> output -> acceptances -> feedback.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// What a drafter reads of each committed token. The decoder hands its drafter's request to the verifier with each
/// prompt (Prefill::features); SequenceFeedback::features is then [tokens, width(H)]: the hidden states after the final
/// norm, then those after each of `layers`, in order. Nothing is gathered for a drafter that reads none.
struct FeatureRequest {
    bool wanted = true;  ///< false: the drafter reads tokens alone, and features stay undefined
    /// Layers of the target (1 to TargetHead::feature_layers) whose residual streams are read as well, ascending, each
    /// once; every row is divided by its root mean square (the model's epsilon under the root, no weight).
    std::vector<std::int64_t> layers = {};

    [[nodiscard]] static FeatureRequest none() { return {.wanted = false}; }

    /// Columns for a hidden size of `hidden`.
    [[nodiscard]] std::int64_t width(std::int64_t hidden) const {
        return wanted ? hidden * (1 + static_cast<std::int64_t>(layers.size())) : 0;
    }

    [[nodiscard]] bool operator==(const FeatureRequest&) const = default;
};

/// A sequence that enters: the verifier commits `tokens` (the prompt without its last token; may be empty). The
/// prompt's last token is the first pending token, so that the first round is like every other. A prompt may come in
/// pieces, where the verifier takes them (Verifier::extends): `tokens` are then the next ones, `pending` the one
/// after.
struct Prefill {
    SequenceId sequence = 0;
    std::span<const TokenId> tokens;  ///< owned by the caller, read during the call
    TokenId pending = kNoToken;
    FeatureRequest features = {};  ///< what this sequence's feedback is to hold, from the prompt on
    std::int64_t committed = 0;    ///< tokens of the sequence that are committed already; 0: it enters
};

/// What a drafter learns of one sequence, in the same call that asks for its next tree.
struct SequenceFeedback {
    SequenceId sequence = 0;
    std::vector<TokenId> tokens;  ///< committed since the drafter was last asked, in text order, the prompt included
    at::Tensor features;          ///< [tokens, F] float32 of `tokens`, on the target's device: what Prefill::features
                                  ///< asked for; undefined where it asked for none
    TokenId pending = kNoToken;   ///< root of the next tree
    std::int64_t committed = 0;   ///< tokens in the KV cache, `tokens` included: the position of the next root
    /// Why the target cannot go on with this sequence alone, such as a cache that is full: it is released next, and the
    /// fields above say nothing. Null: it goes on.
    std::exception_ptr refused = {};
};
using Feedback = std::vector<SequenceFeedback>;

/// The target's answer to the rows of all trees, one after another without padding.
struct TreeOutput {
    at::Tensor logits;  ///< [rows, V] float32, on the verifier's device; undefined: see Verifier::verify
    at::Tensor argmax;  ///< [rows] int64 on the CPU, -1 for NaN; undefined: policies compute it
    /// [rows] int64 on the CPU: the token that Match picks of a row under SequenceTree::picks, position committed +
    /// depth + 1; -1 where nobody asked or nothing can be picked, and logits tell. Undefined: policies pick.
    at::Tensor picks = {};
    std::vector<std::int64_t> offsets;  ///< [sequences + 1] rows of tree i are [offsets[i], offsets[i + 1])
    /// [sequences] as SequenceFeedback::refused: such a tree has no rows. Empty: none is refused.
    std::vector<std::exception_ptr> refused = {};

    [[nodiscard]] std::exception_ptr refusal(std::size_t tree) const {
        return refused.empty() ? nullptr : refused[tree];
    }
};

/// What a forward says of the trees, and of the pieces of prompts beside them.
struct MixedOutput {
    TreeOutput trees;
    Feedback prompts;
};

/// The same value, for loops that cannot go on without one of the sequences: throws the first refusal.
[[nodiscard]] inline Feedback none_refused(Feedback feedback) {
    for (const SequenceFeedback& one : feedback)
        if (one.refused) std::rethrow_exception(one.refused);
    return feedback;
}
[[nodiscard]] inline TreeOutput none_refused(TreeOutput output) {
    for (const std::exception_ptr& why : output.refused)
        if (why) std::rethrow_exception(why);
    return output;
}

/// The part of a TreeOutput that belongs to one tree. Views, no copies.
struct TreeRows {
    at::Tensor logits;      ///< [nodes, V], or undefined; see TreeOutput
    at::Tensor argmax;      ///< [nodes] int64 on the CPU, or undefined
    at::Tensor picks = {};  ///< the same; see TreeOutput

    [[nodiscard]] TreeRows slice(std::int64_t begin, std::int64_t end) const {
        const auto own = [&](const at::Tensor& rows) { return rows.defined() ? rows.slice(0, begin, end) : rows; };
        return {own(logits), own(argmax), own(picks)};
    }
};

[[nodiscard]] inline TreeRows rows_of(const TreeOutput& output, std::size_t tree) {
    const TreeRows all{output.logits, output.argmax, output.picks};
    return all.slice(output.offsets[tree], output.offsets[tree + 1]);
}

/// What a policy may know of the sequence it decides for.
struct SequenceContext {
    SequenceId sequence = 0;
    const SamplingOptions* sampling = nullptr;  ///< never null inside the loop
    std::span<const TokenId> text;              ///< prompt and text so far; the last one is the pending token
    const DraftSamples* samples = nullptr;      ///< of the tree; null where no node was drawn
};

/// What the verifier keeps of one tree: the root, which becomes committed, and then the accepted path.
struct SequenceAcceptance {
    SequenceId sequence = 0;
    Acceptance accepted;
    std::vector<TokenId> tokens;  ///< what becomes committed: the root's token, then those of the path
};

/// Of a tree and what was accepted in it.
[[nodiscard]] inline SequenceAcceptance kept_of(SequenceId sequence, const TokenTree& tree, Acceptance accepted) {
    SequenceAcceptance kept{sequence, std::move(accepted), {tree.token(0)}};
    for (const NodeIndex node : kept.accepted.path) kept.tokens.push_back(tree.token(node));
    return kept;
}

}  // namespace outrider
