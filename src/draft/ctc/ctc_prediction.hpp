// The prediction network during decoding: what a drafted prefix adds to the scores of candidate tokens.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/draft/ctc/ctc_config.hpp>
#include <outrider/draft/ctc/ctc_network.hpp>
#include <outrider/target/target_head.hpp>
#include "kernels/packed_linear.hpp"

#include "ctc_search.hpp"

namespace outrider {

/// s_l = out g(l), where g(l) = silu(W [E(last), E(last but one), h] + b) is of a sum of three parts. Those of
/// draft-vocabulary tokens are looked up, in bfloat16 beside packed matrices and else exactly, those of the committed
/// text computed once a round. `out` is one matrix, or two where something narrower lies between: the bottleneck, or
/// without one the target's hidden state.
class CtcPrediction {
public:
    /// `output`: the target's rows of the draft vocabulary [V, H]. All matrices here are in its format.
    /// It and the team must live as long as this.
    CtcPrediction(const CtcConfig& config, CtcWeights weights, const TargetHead& head, const PackedLinear& output,
                  ThreadTeam& team);
    CtcPrediction(const CtcPrediction&) = delete;
    CtcPrediction& operator=(const CtcPrediction&) = delete;

    /// The parts of one sequence in one round.
    struct Start {
        std::vector<float> base;            ///< [R] W_3 h + b
        std::vector<float> pending_last;    ///< [R] W_1 E(pending)
        std::vector<float> pending_second;  ///< [R] W_2 E(pending)
        std::vector<float> before;          ///< [R] W_2 E(the last committed token); zero where there is none
    };
    /// What a sequence's prediction begins from. `before` may be kNoToken; `feature` [H] may be empty.
    struct Text {
        std::span<const float> feature;
        TokenId before = kNoToken, pending = kNoToken;
    };
    struct Starts {
        std::vector<Start> of;
        /// What the target's output rows are to be multiplied by for every start's empty prefix [starts, H]; nothing
        /// where the network has rows of its own, or where nobody asked.
        std::vector<float> root_states;
    };
    /// Of matrices and look-up tables.
    [[nodiscard]] std::size_t bytes() const;

    /// Of all sequences of a round, in one run of the team: their matrix products are one.
    [[nodiscard]] Starts starts(std::span<const Text> texts, bool root_states);

    /// What one draft needs besides; several drafts at once need one each.
    struct Scratch {
        PackedRows rows_in;
        std::vector<float> g;              ///< [prefixes, R]
        std::vector<float> states;         ///< [prefixes, width] what lies between two matrices
        std::vector<std::int32_t> chosen;  ///< columns of the candidates
        std::vector<float> rows;           ///< [candidates, H or width] their output rows
        std::vector<float> root, root_g;   ///< [V] scores of the empty prefix, [R]
    };

    /// s_l(c) over the whole draft vocabulary: [prefixes, stride]. Every member of a team calls it inside one run, with
    /// one scratch; a barrier must follow before `out` is read.
    void scores(TeamMember& member, const Start& start, std::span<const CtcPrefix> prefixes, float* out,
                std::int64_t stride, Scratch& scratch) const;

    /// Adds the empty prefix's scores to T frames of logits [T, V]. Only sums of both have a meaning: training sees no
    /// frame without a prefix, so that alone neither says which tokens are likely. The calling thread does it alone.
    void fold_root(const Start& start, std::span<float> logits, Scratch& scratch) const;

    /// Candidates of one draft; call before `factors`.
    void choose(std::span<const TokenId> candidates, Scratch& scratch) const;

    /// f_l(c) of every candidate, relative to the empty prefix: exp(prefix_out[c] . (g(l) - g(empty))).
    void factors(const Start& start, const PrefixContext& prefix, std::span<float> out, Scratch& scratch) const;

private:
    /// [V, R], one of the two.
    struct Table {
        std::vector<c10::BFloat16> rounded;
        std::vector<float> exact;
    };
    /// A part of a sum, one of the two.
    struct Part {
        const c10::BFloat16* rounded = nullptr;
        const float* exact = nullptr;
    };
    [[nodiscard]] Part row(const Table& table, std::int32_t column) const {
        const std::ptrdiff_t at = std::ptrdiff_t{column} * rank_;
        return table.exact.empty() ? Part{table.rounded.data() + at, nullptr} : Part{nullptr, table.exact.data() + at};
    }
    [[nodiscard]] static Part part(const std::vector<float>& numbers) { return {nullptr, numbers.data()}; }
    void add(Part part, float* g) const;
    /// y [rows, out] = matrix x by all members; barriers before, inside and behind.
    void multiply(TeamMember& member, const PackedLinear& matrix, std::span<const float> x, std::span<float> y);
    void root_states(TeamMember& member, Starts& starts);
    void state_of(const Start& start, Part last, Part second, float* g) const;

    std::int64_t hidden_, rank_, columns_;
    bool exact_;          // whether matrices and tables are f32
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
    const PackedLinear* rows_;                       // [V, width] the one or the other
    std::vector<float> bias_;                        // [R]
    Table last_, second_;                            // [V, R] the draft vocabulary's parts
    std::vector<float> first_;                       // [width, R], where the width is not R
    std::vector<float> out_;            // [V, width]; with the target's rows [H, r], or nothing without a bottleneck
    std::vector<float> ones_;           // [R]
    std::vector<std::int32_t> column_;  // [target vocabulary] column or -1
    PackedRows rows_in_;                // of `starts`
    std::vector<float> root_g_, root_narrow_;  // [starts, R], [starts, width] of `starts`
};

}  // namespace outrider
