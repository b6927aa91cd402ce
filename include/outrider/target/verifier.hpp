// The target's side of the loop.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/result.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// What a target can take; 0: no limit. The decoder keeps to it: it cuts drafts and lets sequences wait.
struct VerifierLimits {
    std::int64_t rows = 0;       ///< of one verify, all trees together
    std::int64_t leaves = 0;     ///< of all trees of one verify: an engine that needs a sequence id for each path
    std::int64_t sequences = 0;  ///< known at a time
    std::int64_t tokens = 0;     ///< that all sequences hold together; AsyncDecoder admits by it
    bool chains_only = false;    ///< no branches
};

/// Runs the target and owns its KV caches. Protocol for one sequence: prefill, then rounds of verify and commit, then
/// release. Sequences join and leave between rounds; a round may hold any subset of them, each at most once.
/// Between calls the KV cache of a sequence holds exactly its committed tokens: `verify` may add rows, `commit` keeps
/// the root and the accepted path and drops the rest. A sequence that was verified must be committed (or released)
/// before its next verify. One thread calls. docs/verifiers.md has the contract in full, with its reasons.
///
/// Errors. An exception ends every sequence of the call. A target that cannot go on with one of them, for want of
/// memory above all, refuses it alone instead: SequenceFeedback::refused, TreeOutput::refused. A sequence that ended
/// either way is released next; nothing of it may be left then.
class OUTRIDER_API Verifier {
public:
    virtual ~Verifier() = default;

    /// Makes the sequences known and commits their prompts. Returns their first feedback, in the order given, with the
    /// features that each asks for (Prefill::features), as every later feedback of a sequence. Features stay undefined
    /// where none are asked for; drafters that read tokens alone never ask. A target that offers none of inner layers
    /// says so in TargetHead::feature_layers, and is not asked for them; one that offers none at all serves drafters
    /// that ask for none, and the others throw.
    [[nodiscard]] virtual Feedback prefill(std::span<const Prefill> sequences) = 0;

    /// Whether `prefill` also goes on with a sequence that is known (Prefill::committed above 0), between its rounds or
    /// before the first. A prompt then enters in pieces, beside the rounds of others.
    [[nodiscard]] virtual bool extends() const { return false; }

    /// One forward over the rows of all trees. Row order is node order. Trees are sound: the decoder has checked them.
    /// Visibility. A row sees the committed tokens of its sequence, its ancestors and itself: no siblings, no other
    /// sequence.
    /// Positions. Committed tokens + depth (the root's is 0), whatever the row's place in the batch.
    /// Row independence. Where a row has the same bits whatever is computed beside it, every text is the same with and
    /// without drafts, at any temperature. Where it has not, as in most libraries of matrix products, texts may differ
    /// where rounding decides between two tokens, and only there; check_lossless tells how often.
    /// Logits that nobody reads. Where every tree says so (SequenceTree::logits), TreeOutput::argmax alone will do.
    /// Life of the logits. They are read until the next call of this verifier, so the same memory may serve every
    /// round, and an engine's own buffer need not be copied.
    [[nodiscard]] virtual TreeOutput verify(std::span<const SequenceTree> trees) = 0;

    /// Whether prompts enter in the forward that verifies the trees of others: pieces then cost no pass of their own.
    [[nodiscard]] virtual bool mixes() const { return false; }

    /// `prefill` of these pieces and `verify` of these trees, in one forward where `mixes`; no sequence is in both.
    /// What it throws ends the sequences of both.
    [[nodiscard]] virtual MixedOutput verify_beside(std::span<const SequenceTree> trees,
                                                    std::span<const Prefill> prompts) {
        Feedback told = prefill(prompts);
        return {verify(trees), std::move(told)};
    }

    /// Commits root and accepted path of each tree of the last `verify`, and returns what was committed with its
    /// features and the new pending token, in the order given.
    [[nodiscard]] virtual Feedback commit(std::span<const SequenceAcceptance> accepted) = 0;

    /// Forgets a sequence and frees its cache. Unknown ids are ignored.
    virtual void release(SequenceId sequence) = 0;

    /// Whether texts that end are kept, and `resume` may find them.
    [[nodiscard]] virtual bool resumes() const { return false; }

    /// Makes the sequence known with the longest beginning of `prompt.tokens` that is kept or that another sequence
    /// holds, as if that had been prefilled, and returns its feedback. Where there is none, the sequence stays unknown,
    /// and the feedback says 0 committed.
    [[nodiscard]] virtual SequenceFeedback resume(const Prefill& prompt) {
        return {.sequence = prompt.sequence, .tokens = {}, .features = {}, .pending = prompt.pending, .committed = 0};
    }

    /// As `release`, of a sequence that ended well: its text may be kept.
    virtual void retire(SequenceId sequence) { release(sequence); }

    /// Width of the logits.
    [[nodiscard]] virtual std::int64_t vocabulary() const = 0;

    /// Most tokens, prompt and text together, that a sequence can hold; drafts never reach beyond it.
    [[nodiscard]] virtual std::int64_t context() const = 0;

    /// What it can take. Asked for once, when a decoder is made.
    [[nodiscard]] virtual VerifierLimits limits() const { return {}; }

    /// What passes of several sizes cost here, rows ascending; empty: unknown. Asked for once, before the first round
    /// that could draft, by a decoder that chooses the trees' sizes. May take a second.
    [[nodiscard]] virtual std::vector<PassTime> pass_times() { return {}; }
};

/// Three calls, and two facts. `release(SequenceId)` or `retire(SequenceId)`, `resumes()` and `resume(Prefill)`,
/// `extends()`, `mixes()` and `verify_beside(trees, prompts)`, `limits()` and `pass_times()` are called too where they
/// exist (decode/detail/optional_members.hpp).
template <typename V>
concept TargetVerifier = requires(V verifier, const V& known, std::span<const Prefill> prompts,
                                  std::span<const SequenceTree> trees, std::span<const SequenceAcceptance> accepted) {
    { verifier.prefill(prompts) } -> std::same_as<Feedback>;
    { verifier.verify(trees) } -> std::same_as<TreeOutput>;
    { verifier.commit(accepted) } -> std::same_as<Feedback>;
    { known.vocabulary() } -> std::convertible_to<std::int64_t>;
    { known.context() } -> std::convertible_to<std::int64_t>;
};

static_assert(TargetVerifier<Verifier>);

}  // namespace outrider
