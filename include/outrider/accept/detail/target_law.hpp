// The target's law after each node of one tree, as the request's sampling options make it.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/accept/detail/warp.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/target/round.hpp>
#include <outrider/tree/token_tree.hpp>

#include <outrider/accept/detail/edited_rows.hpp>

namespace outrider {

/// The law after one node: what is needed of it is computed when it is asked for. A LawRow (tree/node_rules.hpp).
class OUTRIDER_API TargetRow {
public:
    TargetRow() = default;

    [[nodiscard]] std::size_t size() const { return logits_.size(); }
    /// p of one token.
    [[nodiscard]] double operator[](std::size_t token) const;
    /// p of every token. p [V]
    void write(std::span<double> p) const;

    /// The most probable token.
    [[nodiscard]] TokenId best() const { return best_; }
    /// How many tokens are more probable; equal ones rank by id.
    [[nodiscard]] std::size_t rank(std::size_t token) const;
    /// -sum p ln(p + 1e-5)
    [[nodiscard]] double entropy() const;

private:
    friend class TargetLaw;

    struct Kept {
        TokenId token;
        double p;
    };

    std::span<const float> logits_;  ///< [V] after hook and penalty
    TokenId best_ = kNoToken;
    float top_ = 0;                     ///< its logit
    double temperature_ = 0, sum_ = 1;  ///< p(x) = exp((logit - top) / temperature) / sum; temperature 0: all on best_
    bool truncated_ = false;
    std::span<const Kept> kept_;  ///< where truncated: tokens by id, the only ones that have a probability
};

/// Lives for one accept; a node's row is made once, and lives as long. Order of the warpers: logit hook, repetition
/// penalty, temperature, top-k, top-p, min-p.
class OUTRIDER_API TargetLaw {
public:
    /// `greedy_temperature` stands for temperature 0; if it is 0 too, the law is the largest logit's token alone.
    TargetLaw(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context,
              double greedy_temperature = 0.0);

    [[nodiscard]] std::int64_t vocabulary() const { return vocabulary_; }

    /// The row of `node`. Throws Error for logits that are not finite, or that forbid every token.
    [[nodiscard]] TargetRow operator()(NodeIndex node);

private:
    /// The memory behind a row, where it is not the verifier's.
    struct Held {
        bool made = false;
        TargetRow row;
        std::vector<float> logits;
        std::vector<TargetRow::Kept> kept;
    };

    void truncate(Held& held);

    EditedRows rows_;
    double temperature_;
    std::int64_t vocabulary_;
    Truncation truncation_;
    std::vector<Held> held_;  ///< [nodes]
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/target_law-inl.hpp>
#endif
