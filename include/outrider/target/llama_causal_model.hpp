// A dense decoder as a drafter's language model.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/causal_model.hpp>
#include <outrider/target/llama_model.hpp>

namespace outrider {

/// See CausalModel. Not for use by several threads at once.
class OUTRIDER_API LlamaCausalModel final : public CausalModel {
public:
    explicit LlamaCausalModel(LlamaModel model);

    [[nodiscard]] at::Tensor forward(std::span<const Rows> rows, bool with_logits) override;
    [[nodiscard]] at::Tensor forward_for(std::span<const Rows> rows, std::span<const std::int64_t> asked) override;
    void keep(SequenceId sequence, std::int64_t rows) override;
    void truncate(SequenceId sequence, std::int64_t length) override;
    void release(SequenceId sequence) override { caches_.erase(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return model_.config().vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return model_.config().context; }
    [[nodiscard]] std::size_t weight_bytes() const override { return model_.weight_bytes(); }
    [[nodiscard]] const std::string& tokenizer() const override { return tokenizer_; }

    /// Sequences known.
    [[nodiscard]] std::size_t active() const noexcept { return caches_.size(); }

private:
    KvCache& cache_of(SequenceId sequence);
    at::Tensor run(std::span<const Rows> rows, bool with_logits);

    LlamaModel model_;
    std::string tokenizer_;
    std::unique_ptr<TargetPass> pass_;
    std::unordered_map<SequenceId, KvCache> caches_;
};

}  // namespace outrider
