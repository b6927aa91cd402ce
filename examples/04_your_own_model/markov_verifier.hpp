// A target of a host's own: a Markov chain over bytes in plain C++, with no tensor library inside. Three calls make it
// a Verifier; its floats are handed over without a copy.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <outrider/core/error.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/target/verifier.hpp>
#include <outrider/tree/token_tree.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace example {

/// The model: counts of which byte follows the last three, two, one and no bytes of a text it has read.
class MarkovModel {
public:
    static constexpr std::int64_t kVocabulary = 256;
    static constexpr std::size_t kOrder = 3;

    explicit MarkovModel(std::string_view text) {
        for (std::size_t end = 0; end < text.size(); ++end)
            for (std::size_t order = 0; order <= std::min(end, kOrder); ++order)
                ++counts_[std::string(text.substr(end - order, order))][static_cast<unsigned char>(text[end])];
    }

    /// log P(next byte | text), longer contexts blended over shorter ones: [256] floats at `out`.
    void log_probabilities(std::string_view text, float* out) const {
        std::array<double, kVocabulary> p;
        p.fill(1.0 / kVocabulary);
        for (std::size_t order = 0; order <= std::min(text.size(), kOrder); ++order) {
            const auto there = counts_.find(std::string(text.substr(text.size() - order)));
            if (there == counts_.end()) break;
            double total = 0;
            for (const std::uint32_t count : there->second) total += count;
            for (std::size_t b = 0; b < p.size(); ++b) p[b] = (there->second[b] + 0.1 * p[b]) / (total + 0.1);
        }
        for (std::size_t b = 0; b < p.size(); ++b) out[b] = static_cast<float>(std::log(p[b]));
    }

private:
    std::unordered_map<std::string, std::array<std::uint32_t, kVocabulary>> counts_;
};

/// A byte is a token.
class Bytes final : public outrider::Detokenizer {
public:
    [[nodiscard]] std::string bytes(outrider::TokenId token) const override {
        return std::string(1, static_cast<char>(token));
    }
};

[[nodiscard]] inline outrider::Prompt prompt_of(std::string_view text) {
    outrider::Prompt prompt{{}, {}, std::make_shared<Bytes>()};
    for (const char c : text) prompt.tokens.push_back(static_cast<unsigned char>(c));
    return prompt;
}

/// The three calls. A sequence's "cache" is its committed text.
class MarkovVerifier final : public outrider::Verifier {
public:
    explicit MarkovVerifier(std::shared_ptr<const MarkovModel> model) : model_(std::move(model)) {}

    [[nodiscard]] outrider::Feedback prefill(std::span<const outrider::Prefill> sequences) override {
        outrider::Feedback feedback;
        for (const outrider::Prefill& s : sequences) {
            committed_[s.sequence].clear();
            feedback.push_back(append(s.sequence, {s.tokens.begin(), s.tokens.end()}, s.pending));
        }
        return feedback;
    }

    /// One row a node: what follows the committed text and the path down to that node.
    [[nodiscard]] outrider::TreeOutput verify(std::span<const outrider::SequenceTree> trees) override {
        outrider::TreeOutput output;
        output.offsets = {0};
        for (const outrider::SequenceTree& draft : trees)
            output.offsets.push_back(output.offsets.back() + static_cast<std::int64_t>(draft.tree.size()));
        const std::int64_t rows = output.offsets.back();
        auto logits = std::make_shared<std::vector<float>>(static_cast<std::size_t>(rows * MarkovModel::kVocabulary));
        float* row = logits->data();
        for (const outrider::SequenceTree& draft : trees) {
            const outrider::TokenTree& tree = draft.tree;
            for (outrider::NodeIndex node = 0; node < static_cast<outrider::NodeIndex>(tree.size()); ++node) {
                model_->log_probabilities(committed_.at(draft.sequence) + path_text(tree, node), row);
                row += MarkovModel::kVocabulary;
            }
        }
        // The tensor is a view of the vector and keeps it alive.
        output.logits = at::from_blob(logits->data(), {rows, MarkovModel::kVocabulary}, [logits](void*) {}, at::kFloat);
        return output;
    }

    [[nodiscard]] outrider::Feedback commit(std::span<const outrider::SequenceAcceptance> accepted) override {
        outrider::Feedback feedback;
        for (const outrider::SequenceAcceptance& kept : accepted)
            feedback.push_back(append(kept.sequence, kept.tokens, kept.accepted.pending));
        return feedback;
    }

    void release(outrider::SequenceId sequence) override { committed_.erase(sequence); }

    [[nodiscard]] std::int64_t vocabulary() const override { return MarkovModel::kVocabulary; }
    [[nodiscard]] std::int64_t context() const override { return 1 << 20; }

private:
    static std::string path_text(const outrider::TokenTree& tree, outrider::NodeIndex node) {
        std::string text(1, static_cast<char>(tree.token(0)));
        for (const outrider::NodeIndex step : outrider::path_to(tree, node))
            text += static_cast<char>(tree.token(step));
        return text;
    }

    outrider::SequenceFeedback append(outrider::SequenceId sequence, std::vector<outrider::TokenId> tokens,
                                      outrider::TokenId pending) {
        std::string& text = committed_.at(sequence);
        for (const outrider::TokenId token : tokens) text += static_cast<char>(token);
        return {sequence, std::move(tokens), {}, pending, std::ssize(text)};  // no features: look-ups read none
    }

    std::shared_ptr<const MarkovModel> model_;
    std::unordered_map<outrider::SequenceId, std::string> committed_;
};

/// What the chain has read: written for this example.
inline constexpr std::string_view kReading =
    "the rider went ahead of the wagon. the rider saw the river and the rider saw the road. the wagon came slowly, and "
    "the rider waited at the river. when the wagon came to the river, the rider went ahead again. the road went along "
    "the river, and the river went along the road. in the evening the rider came back to the wagon and told of the "
    "road, of the river, and of the town behind the river. in the morning the rider went ahead of the wagon again. ";

}  // namespace example
