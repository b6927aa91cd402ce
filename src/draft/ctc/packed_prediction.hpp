// The prediction network on the CPU: packed matrices, look-up tables and the kernels.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/ctc/detail/ctc_prediction.hpp>
#include <outrider/target/target_head.hpp>
#include "kernels/packed_linear.hpp"

namespace outrider {

/// Look-up tables are in bfloat16. `out` is one matrix, or two where something narrower lies between: the bottleneck,
/// or without one the target's hidden state.
class PackedPrediction final : public CtcPrediction {
public:
    /// `output`: the target's rows of the draft vocabulary [V, H]. All matrices here are in its format. The team must
    /// live as long as this.
    PackedPrediction(const CtcConfig& config, CtcWeights weights, const TargetHead& head, PackedLinear output,
                     ThreadTeam& team);
    PackedPrediction(const PackedPrediction&) = delete;
    PackedPrediction& operator=(const PackedPrediction&) = delete;

    /// `output` not among them.
    [[nodiscard]] std::size_t bytes() const override;
    [[nodiscard]] std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Rows>(); }

    /// In one run of the team: the matrix products of all texts are one.
    [[nodiscard]] std::vector<float> start(std::span<const Text> texts, bool root_states) override;
    void scores(TeamMember& member, std::size_t text, std::span<const CtcPrefix> prefixes, float* out,
                std::int64_t stride, Scratch& scratch) const override;
    void fold_root(std::size_t text, std::span<float> logits, Scratch& scratch) const override;
    void choose(std::span<const TokenId> candidates, Scratch& scratch) const override;
    void factors(std::size_t text, const PrefixContext& prefix, std::span<float> out, Scratch& scratch) const override;

private:
    /// The parts of one text.
    struct Start {
        std::vector<float> base;            ///< [R] W_3 h + b
        std::vector<float> pending_last;    ///< [R] W_1 E(pending)
        std::vector<float> pending_second;  ///< [R] W_2 E(pending)
        std::vector<float> before;          ///< [R] W_2 E(the last committed token); zero where there is none
    };
    struct Rows final : Scratch {
        PackedRows rows_in;
        std::vector<float> g;              ///< [prefixes, R]
        std::vector<float> states;         ///< [prefixes, width] what lies between two matrices
        std::vector<std::int32_t> chosen;  ///< columns of the candidates
        std::vector<float> rows;           ///< [candidates, H or width] their output rows
        std::vector<float> root, root_g;   ///< [V] scores of the empty prefix, [R]
    };
    using Table = std::vector<c10::BFloat16>;  ///< [V, R]
    /// A part of a sum, one of the two.
    struct Part {
        const c10::BFloat16* rounded = nullptr;
        const float* exact = nullptr;
    };
    [[nodiscard]] Part row(const Table& table, std::int32_t column) const {
        return {table.data() + std::ptrdiff_t{column} * rank_, nullptr};
    }
    [[nodiscard]] static Part part(const std::vector<float>& numbers) { return {nullptr, numbers.data()}; }
    void add(Part part, float* g) const;
    /// Products of the draft vocabulary's embeddings with `columns` [R, H].
    [[nodiscard]] Table table_of(const CtcConfig& config, const at::Tensor& columns) const;
    /// What gives scores from the sum's state: the last matrices of the network.
    void take_output(const CtcConfig& config, const CtcWeights& weights, PackedLinear output);
    struct Products;
    void look_up(const Table& table, TokenId token, std::vector<float>& part, Products& otherwise) const;
    void begin(const Text& text, Start& start, Products& of_feature, Products& of_last, Products& of_second) const;
    /// y [rows, out] = matrix x by all members; barriers before, inside and behind.
    void multiply(TeamMember& member, const PackedLinear& matrix, std::span<const float> x, std::span<float> y);
    void root_states(TeamMember& member, std::vector<float>& states);
    void state_of(const Start& start, Part last, Part second, float* g) const;

    std::int64_t hidden_, rank_, columns_;
    bool targets_rows_;   // whether scores are those of the target's output rows
    bool narrow_;         // whether there is a bottleneck
    std::int64_t width_;  // of output rows: r, H or R
    double embedding_scale_, feature_scale_;
    std::function<at::Tensor(std::span<const TokenId>)> embed_, output_rows_;
    ThreadTeam* team_;
    PackedLinear by_last_, by_second_, by_feature_;  // [R, H] each
    PackedLinear project_;                           // [width, R], where the width is not R
    PackedLinear lift_;                              // [H, r], with a bottleneck and the target's rows
    PackedLinear own_;                               // [V, width], where that is not the target's rows as they are
    PackedLinear rows_;                              // [V, width] the one or the other
    std::vector<float> bias_;                        // [R]
    Table last_, second_;                            // [V, R] the draft vocabulary's parts
    std::vector<float> first_;                       // [width, R], where the width is not R
    std::vector<float> out_;            // [V, width]; with the target's rows [H, r], or nothing without a bottleneck
    std::vector<float> ones_;           // [R]
    std::vector<std::int32_t> column_;  // [target vocabulary] column or -1
    std::vector<Start> starts_;         // of the round
    PackedRows rows_in_;                // of `start`
    std::vector<float> root_g_, root_narrow_;  // [texts, R], [texts, width] of `start`
};

}  // namespace outrider
