// The prediction network during decoding: what a drafted prefix adds to the scores of candidate tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/draft/ctc_config.hpp>
#include <outrider/draft/ctc_network.hpp>
#include <outrider/interface/target_head.hpp>

namespace outrider {

/// g(l) = silu(W [E(last), E(last but one), h] + b) is a sum of three parts. Those of draft-vocabulary tokens are
/// looked up, those of the committed text computed once a round. Everything on the CPU in float32.
class CtcPrediction {
public:
    CtcPrediction(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head);

    /// The parts of one sequence in one round.
    struct Start {
        std::vector<float> base;           ///< [R] W_3 h + b
        std::vector<float> pending_last;   ///< [R] W_1 E(pending)
        std::vector<float> pending_second; ///< [R] W_2 E(pending)
        std::vector<float> before;         ///< [R] W_2 E(the last committed token); zero where there is none
    };
    /// `before` may be kNoToken; `feature` [H] may be empty.
    [[nodiscard]] Start start(std::span<const float> feature, TokenId before, TokenId pending) const;

    /// Candidates of one draft; call before `factors`.
    void choose(std::span<const TokenId> candidates);

    /// f_l(c) = exp(prefix_out[c] . g(l)) of every candidate.
    void factors(const Start& start, const PrefixContext& prefix, std::span<float> out);

private:
    [[nodiscard]] const float* row(const std::vector<float>& table, std::int32_t column) const {
        return table.data() + static_cast<std::size_t>(column) * static_cast<std::size_t>(rank_);
    }
    [[nodiscard]] std::vector<float> product(std::int64_t part, std::span<const float> x) const;

    std::int64_t hidden_, rank_;
    double embedding_scale_, feature_scale_;
    std::function<at::Tensor(std::span<const TokenId>)> embed_;
    std::vector<float> in_;             // [R, 3 H]
    std::vector<float> bias_;           // [R]
    std::vector<float> last_, second_;  // [V, R] the draft vocabulary's parts
    std::vector<float> out_;            // [V, R]
    std::vector<std::int32_t> column_;  // [target vocabulary] column or -1
    std::vector<std::int32_t> chosen_;  // columns of the candidates
    std::vector<float> rows_, g_;       // [candidates, R] rows of out_, [R]
};

}  // namespace outrider
