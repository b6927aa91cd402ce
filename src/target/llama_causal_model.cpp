#include <outrider/target/llama_model.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

namespace outrider {

LlamaCausalModel::LlamaCausalModel(LlamaModel model)
    : model_(std::move(model)), tokenizer_(model_.head().tokenizer), pass_(model_.make_pass()) {}

KvCache& LlamaCausalModel::cache_of(SequenceId sequence) {
    const auto found = caches_.find(sequence);
    return found != caches_.end() ? found->second : caches_.emplace(sequence, pass_->make_cache()).first->second;
}

/// Logits where the pass computes.
at::Tensor LlamaCausalModel::run(std::span<const Rows> rows, bool with_logits) {
    std::vector<RowSegment> segments;
    for (const Rows& one : rows) {
        require(!one.tokens.empty(), "LlamaCausalModel: no rows for sequence {}; expected at least one", one.sequence);
        for (const TokenId token : one.tokens)
            require(token >= 0 && token < vocabulary(),
                    "LlamaCausalModel: token {} is outside the vocabulary of {}; is the text of another tokenizer?",
                    token, vocabulary());
        KvCache& cache = cache_of(one.sequence);
        cache.reserve(static_cast<std::int64_t>(one.tokens.size()));
        segments.push_back({.cache = &cache, .tokens = one.tokens, .parents = one.parents});
        const std::vector<std::int64_t> positions = row_positions(segments.back());
        const std::int64_t deepest = *std::max_element(positions.begin(), positions.end());
        require(deepest < context(), "LlamaCausalModel: a row reaches position {}, the model's context holds {} tokens",
                deepest, context());
    }
    return pass_->forward(segments, with_logits ? PassFor::logits : PassFor::features).logits;
}

at::Tensor LlamaCausalModel::forward(std::span<const Rows> rows, bool with_logits) {
    const at::NoGradGuard no_grad;
    const at::Tensor logits = run(rows, with_logits);
    return with_logits ? logits.to(at::kCPU, at::kFloat).contiguous() : at::Tensor{};
}

at::Tensor LlamaCausalModel::forward_for(std::span<const Rows> rows, std::span<const std::int64_t> asked) {
    const at::NoGradGuard no_grad;
    return rows_at(run(rows, true), asked).to(at::kCPU, at::kFloat).contiguous();
}

void LlamaCausalModel::keep(SequenceId sequence, std::int64_t rows) { cache_of(sequence).append(rows); }

void LlamaCausalModel::truncate(SequenceId sequence, std::int64_t length) { cache_of(sequence).truncate(length); }

}  // namespace outrider
