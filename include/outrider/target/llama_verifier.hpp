// The verifier of Llama-family targets: ragged rows of many sequences in one forward, one KV cache each.
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
#include <outrider/target/pass_times.hpp>
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
        /// Where pass_times() remembers what it measured; empty: nowhere; nullopt: default_pass_times_file().
        std::optional<std::filesystem::path> pass_times_file = {};
    };

    explicit LlamaVerifier(LlamaModel model, Options options);
    explicit LlamaVerifier(LlamaModel model) : LlamaVerifier(std::move(model), Options{}) {}

    [[nodiscard]] Feedback prefill(std::span<const Prefill> sequences) override;
    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override;
    [[nodiscard]] Feedback commit(std::span<const SequenceAcceptance> accepted) override;
    void release(SequenceId sequence) override;
    [[nodiscard]] std::int64_t vocabulary() const override { return model_.config().vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return model_.config().context; }
    /// Read from the file, or measured, which takes a second; see pass_times.hpp. On the CPU, passes are compared with
    /// it from then on, and a table that stays wrong is corrected, in the file too.
    [[nodiscard]] std::vector<PassTime> pass_times() override;

    [[nodiscard]] const LlamaModel& model() const noexcept { return model_; }
    /// Sequences known.
    [[nodiscard]] std::size_t active() const noexcept { return sequences_.size(); }
    /// Memory of all KV caches.
    [[nodiscard]] std::size_t cache_bytes() const;

private:
    struct Sequence {
        KvCache cache;
        FeatureRequest asked;
        bool verified = false;     // between verify and commit
        at::Tensor features = {};  // then: [nodes, F] of its tree, a view of the round's, where any are asked for
    };

    void check_prefill(std::span<const Prefill> sequences) const;
    void check_trees(std::span<const SequenceTree> trees) const;
    void check_accepted(std::span<const SequenceAcceptance> accepted) const;
    void run_prompts(std::span<const Prefill> sequences, Feedback& feedback);
    void check_room(std::span<const Prefill> sequences) const;

    LlamaModel model_;
    Options options_;
    std::unique_ptr<TargetPass> pass_;
    std::unordered_map<SequenceId, Sequence> sequences_;
    std::optional<PassTimesWatch> watch_;
};

}  // namespace outrider
