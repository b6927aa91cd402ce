// The target's law after each node of one tree, as the request's sampling options make it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/accept/logit_rows.hpp>
#include <outrider/core/options.hpp>
#include <outrider/interface/round.hpp>
#include <outrider/tensor/warp.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Lives for one accept. Order of the warpers: logit hook, repetition penalty, temperature, top-k, top-p, min-p.
class TargetLaw {
public:
    /// `greedy_temperature` stands for temperature 0; if it is 0 too, the law is the largest logit's token alone.
    TargetLaw(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context,
              double greedy_temperature = 0.0);

    [[nodiscard]] std::int64_t vocabulary() const { return vocabulary_; }

    /// [V] probabilities that sum to 1; valid until the next call. Throws Error for logits that are not finite, or that
    /// forbid every token.
    [[nodiscard]] std::span<const double> operator()(NodeIndex node);

private:
    [[nodiscard]] std::span<const float> edited(NodeIndex node);

    const TokenTree& tree_;
    const SequenceContext& context_;
    const SamplingOptions& options_;
    double temperature_;
    std::int64_t vocabulary_;
    LogitRows rows_;
    Truncation truncation_;
    std::vector<float> logits_;
    std::vector<TokenId> text_;
    std::vector<bool> seen_;
    std::vector<double> p_;
};

}  // namespace outrider
