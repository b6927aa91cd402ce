// A target of the host's own: h_j = tanh(E[x_j] + W h_{j-1}), logits O h_j. Rows are computed one by one, so that a
// node's bits do not depend on the tree around it.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/target/verifier.hpp>

namespace consumer {

struct Recurrent {
    static constexpr std::int64_t kVocabulary = 64, kHidden = 32;
    at::Tensor embedding, step, output;  // E [V, H], W [H, H], O [V, H]

    explicit Recurrent(std::uint64_t seed)
        : embedding(noise(kVocabulary, seed, 1.0)),
          step(noise(kHidden, seed + 1, 0.25)),
          output(noise(kVocabulary, seed + 2, 1.5)) {}

    static at::Tensor noise(std::int64_t rows, std::uint64_t seed, double scale) {
        at::Tensor x = at::empty({rows, kHidden}, at::kFloat);
        const outrider::RandomKey key(seed, 0, 0);
        for (std::int64_t i = 0; i < x.numel(); ++i)
            x.mutable_data_ptr<float>()[i] =
                static_cast<float>(scale * (2 * key.uniform(static_cast<std::uint64_t>(i)) - 1));
        return x;
    }

    [[nodiscard]] at::Tensor after(const at::Tensor& state, outrider::TokenId token) const {
        return at::tanh(embedding[token] + at::mv(step, state));
    }

    [[nodiscard]] outrider::TargetHead head() const {
        const auto rows = [](at::Tensor table) {
            return [table](std::span<const outrider::TokenId> ids) {
                return table.index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong));
            };
        };
        return {.fingerprint = "recurrent",
                .hidden = kHidden,
                .vocabulary = kVocabulary,
                .embed = rows(embedding),
                .output_rows = rows(output),
                .final_norm = at::ones({kHidden})};
    }
};

class RecurrentVerifier final : public outrider::Verifier {
public:
    explicit RecurrentVerifier(std::shared_ptr<const Recurrent> model) : model_(std::move(model)) {}

    [[nodiscard]] outrider::Feedback prefill(std::span<const outrider::Prefill> sequences) override {
        outrider::Feedback feedback;
        for (const outrider::Prefill& it : sequences) {
            sequences_[it.sequence] = {at::zeros({Recurrent::kHidden}), 0};
            feedback.push_back(append(it.sequence, {it.tokens.begin(), it.tokens.end()}, it.pending));
        }
        return feedback;
    }

    [[nodiscard]] outrider::TreeOutput verify(std::span<const outrider::SequenceTree> trees) override {
        const at::NoGradGuard no_grad;
        outrider::TreeOutput output;
        output.offsets = {0};
        std::vector<at::Tensor> logits;
        for (const outrider::SequenceTree& draft : trees) {
            std::vector<at::Tensor> states;
            for (std::size_t i = 0; i < draft.tree.size(); ++i) {
                const outrider::NodeIndex parent = draft.tree.parents()[i];
                const at::Tensor& before =
                    i == 0 ? sequences_.at(draft.sequence).state : states[static_cast<std::size_t>(parent)];
                states.push_back(model_->after(before, draft.tree.tokens()[i]));
                logits.push_back(at::mv(model_->output, states.back()));
            }
            output.offsets.push_back(static_cast<std::int64_t>(logits.size()));
        }
        output.logits = at::stack(logits);
        output.argmax = at::argmax(output.logits, 1);
        return output;
    }

    [[nodiscard]] outrider::Feedback commit(std::span<const outrider::SequenceAcceptance> accepted) override {
        outrider::Feedback feedback;
        for (const outrider::SequenceAcceptance& kept : accepted)
            feedback.push_back(append(kept.sequence, kept.tokens, kept.accepted.pending));
        return feedback;
    }

    void release(outrider::SequenceId sequence) override { sequences_.erase(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return Recurrent::kVocabulary; }
    [[nodiscard]] std::int64_t context() const override { return 4096; }

private:
    struct Sequence {
        at::Tensor state;  // [H] h of the last committed token
        std::int64_t committed = 0;
    };

    outrider::SequenceFeedback append(outrider::SequenceId id, std::vector<outrider::TokenId> tokens,
                                      outrider::TokenId pending) {
        const at::NoGradGuard no_grad;
        Sequence& sequence = sequences_.at(id);
        std::vector<at::Tensor> features;
        for (const outrider::TokenId token : tokens)
            features.push_back(sequence.state = model_->after(sequence.state, token));
        sequence.committed += std::ssize(tokens);
        const at::Tensor rows = features.empty() ? at::empty({0, Recurrent::kHidden}) : at::stack(features);
        return {id, std::move(tokens), rows, pending, sequence.committed};
    }

    std::shared_ptr<const Recurrent> model_;
    std::unordered_map<outrider::SequenceId, Sequence> sequences_;
};

}  // namespace consumer
