// What a request asks of its answer's tokens beyond sampling: bias, penalties, a least length, a constraint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/constraint.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Follows one answer. Along a draft it is asked about texts that go beyond the answer so far; states of the path that
/// was asked about last are remembered.
class OUTRIDER_API AnswerRules {
public:
    /// `end_ids`: tokens that end the text. Throws Error for tokens outside the vocabulary.
    AnswerRules(const GenerationOptions& options, std::vector<TokenId> end_ids, std::int64_t vocabulary);

    /// Whether there is anything to ask.
    [[nodiscard]] bool any() const noexcept { return any_; }

    /// Whether the answer is whole before its first token.
    [[nodiscard]] bool finished() const { return constraint_ && constraint_->finished(state_); }

    /// Edits the row of the token that follows `answer`, which begins with what `advance` was told. Rows behind a token
    /// that may not stand there, or behind a whole answer, stay as they are: nothing of them is ever emitted.
    void edit(std::span<const TokenId> answer, std::span<float> logits);

    /// The tree without nodes that may not stand there.
    [[nodiscard]] TokenTree prune(TokenTree tree);
    /// The tree, and behind its nodes what the constraint expects, not deeper than `depth`.
    [[nodiscard]] TokenTree expect(TokenTree tree, std::int64_t depth);

    /// The answer's next token, no end token. Returns whether the constraint lets another follow.
    bool advance(TokenId token);

private:
    [[nodiscard]] Constraint::State step(const Constraint::State& state, TokenId token) const;
    [[nodiscard]] bool forbidden(TokenId token, std::int64_t place) const;
    [[nodiscard]] bool is_end(TokenId token) const;
    [[nodiscard]] Constraint::State state_behind(std::span<const TokenId> more);
    [[nodiscard]] std::vector<Constraint::State> states_of(const TokenTree& tree) const;

    std::shared_ptr<const Constraint> constraint_;
    std::vector<std::pair<TokenId, float>> bias_;
    double presence_, frequency_;
    std::int64_t least_;
    std::vector<TokenId> end_ids_;
    bool any_;
    std::int64_t answered_ = 0;                                ///< tokens of the answer so far
    Constraint::State state_;                                  ///< behind them; null: no constraint
    std::vector<std::pair<TokenId, Constraint::State>> path_;  ///< asked about last, from there on
    std::vector<std::int64_t> counts_;                         ///< [V] while a row is edited, else 0
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/answer_rules-inl.hpp>
#endif
