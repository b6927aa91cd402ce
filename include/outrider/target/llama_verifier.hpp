// The verifier of dense decoders (docs/models.md): ragged rows of many sequences in one forward, one KV cache each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/llama_model.hpp>
#include <outrider/target/detail/pass_times.hpp>
#include <outrider/target/detail/prefix_cache.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

/// See Verifier for the protocol: calls out of order throw Error before anything has changed. Tokens, trees and paths
/// are checked once, by the decoder; a loop of a host's own checks them itself (assertions in debug builds). Not for
/// use by several threads at once. `TreeOutput::logits` of a round may share memory with the next round's: on the CPU
/// once the caller lets go, on a device in any case.
class OUTRIDER_API LlamaVerifier final : public Verifier {
public:
    struct Options {
        /// Prompts run in forwards of at most this many rows; 0: 192 on the CPU, 1024 elsewhere. Never changes results.
        std::int64_t prefill_rows = 0;
        std::filesystem::path pass_times_file = {};  ///< where pass_times() remembers what it measured; empty: nowhere
        /// Bytes of texts that ended, kept so that prompts which begin as they do need not be read again. 0: none, and
        /// prompts do not share their beginnings either. Not where caches are a device's pool.
        std::size_t kept_bytes = 0;
    };

    explicit LlamaVerifier(LlamaModel model, Options options);
    explicit LlamaVerifier(LlamaModel model) : LlamaVerifier(std::move(model), Options{}) {}

    [[nodiscard]] Feedback prefill(std::span<const Prefill> sequences) override;
    [[nodiscard]] bool extends() const override { return true; }
    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override;
    [[nodiscard]] bool mixes() const override { return pass_->mixes(); }
    [[nodiscard]] MixedOutput verify_beside(std::span<const SequenceTree> trees,
                                            std::span<const Prefill> prompts) override;
    [[nodiscard]] Feedback commit(std::span<const SequenceAcceptance> accepted) override;
    void release(SequenceId sequence) override;
    [[nodiscard]] bool resumes() const override { return options_.kept_bytes > 0; }
    [[nodiscard]] SequenceFeedback resume(const Prefill& prompt) override;
    void retire(SequenceId sequence) override;
    [[nodiscard]] std::int64_t vocabulary() const override { return model_.config().vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return model_.config().context; }
    /// Read from the file and checked by a short sweep, or measured, which takes a second; see pass_times.hpp. Written
    /// to the file where the machine was quiet.
    [[nodiscard]] std::vector<PassTime> pass_times() override;

    [[nodiscard]] const LlamaModel& model() const noexcept { return model_; }
    /// Sequences known.
    [[nodiscard]] std::size_t active() const noexcept { return sequences_.size(); }
    /// Memory of all KV caches of sequences that are known.
    [[nodiscard]] std::size_t cache_bytes() const;

    /// Texts that are kept (Options::kept_bytes).
    [[nodiscard]] const PrefixCache& kept() const noexcept { return kept_; }

    /// Writes what is known of the longest beginning of `tokens`, kept or of a sequence: a program that is started
    /// again need not read it again. Returns how many tokens that are. Throws Error where there are none.
    std::int64_t save(std::span<const TokenId> tokens, const std::filesystem::path& path);
    /// Keeps what `save` wrote, and returns its tokens. Throws Error for a file that is damaged, of another checkpoint,
    /// or of weights that were held otherwise.
    std::vector<TokenId> load(const std::filesystem::path& path);

private:
    struct Sequence {
        ReadText read;             ///< what is committed; tokens and features are noted where texts are kept
        bool verified = false;     // between verify and commit
        at::Tensor features = {};  // then: [nodes, F] of its tree, a view of the round's, where any are asked for
    };

    void check_prefill(std::span<const Prefill> sequences) const;
    static void check_goes_on(const Prefill& piece, const Sequence* known);
    void check_trees(std::span<const SequenceTree> trees) const;
    void check_accepted(std::span<const SequenceAcceptance> accepted) const;
    void run_prompts(std::span<const Prefill> sequences, Feedback& feedback);
    /// Features of each sequence that asked for them, as one tensor.
    void join_pieces(std::span<const Prefill> sequences, std::span<const std::vector<at::Tensor>> pieces,
                     Feedback& feedback) const;
    [[nodiscard]] TreeOutput run_trees(std::span<const SequenceTree> trees, std::span<const Prefill> prompts,
                                       Feedback& feedback);
    void take_rows(std::span<const SequenceTree> trees, std::span<const Prefill> prompts, const at::Tensor& features,
                   const FeatureRequest& all, const TreeOutput& result, Feedback& feedback);
    void note(Sequence& sequence, const SequenceFeedback& told) const;
    [[nodiscard]] const ReadText* longest(std::span<const TokenId> tokens, const FeatureRequest& wanted);
    void take_in(const Prefill& one, SequenceFeedback& told);
    template <typename Run>
    [[nodiscard]] Feedback with_prompts(std::span<const Prefill> sequences, Run&& run);
    void check_room(const KvCache& cache, std::int64_t tokens) const;

    LlamaModel model_;
    Options options_;
    std::unique_ptr<TargetPass> pass_;
    std::unordered_map<SequenceId, Sequence> sequences_;
    std::vector<PassTime> pass_times_;  ///< once they were asked for
    PrefixCache kept_;
};

}  // namespace outrider
