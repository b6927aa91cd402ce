// Bodies of answer_rules.hpp.
#pragma once

#include <outrider/decode/detail/answer_rules.hpp>

#include <algorithm>
#include <limits>

#include <outrider/core/error.hpp>
#include <outrider/tree/detail/subtree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE AnswerRules::AnswerRules(const GenerationOptions& options, std::vector<TokenId> end_ids,
                                         std::int64_t vocabulary)
    : constraint_(options.constraint),
      bias_(options.logit_bias),
      presence_(options.presence_penalty),
      frequency_(options.frequency_penalty),
      least_(options.min_tokens),
      end_ids_(std::move(end_ids)),
      any_(constraint_ || !bias_.empty() || presence_ != 0.0 || frequency_ != 0.0 || least_ > 0) {
    for (const auto& [token, bias] : bias_)
        require(token >= 0 && token < vocabulary,
                "GenerationOptions: logit_bias names token {}, outside the target's vocabulary of {}", token,
                vocabulary);
    std::erase_if(end_ids_, [&](TokenId token) { return token < 0 || token >= vocabulary; });
    if (constraint_) state_ = constraint_->begin({.vocabulary = vocabulary, .end_ids = end_ids_});
}

OUTRIDER_INLINE bool AnswerRules::is_end(TokenId token) const {
    return std::ranges::find(end_ids_, token) != end_ids_.end();
}

/// Whether bias or the least length forbid `token` as the answer's token number `place`.
OUTRIDER_INLINE bool AnswerRules::forbidden(TokenId token, std::int64_t place) const {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    if (place < least_ && is_end(token)) return true;
    return std::ranges::any_of(bias_, [&](const auto& one) { return one.first == token && one.second == kNever; });
}

/// Null where the token may not follow, or ends the text.
OUTRIDER_INLINE Constraint::State AnswerRules::step(const Constraint::State& state, TokenId token) const {
    if (!state || is_end(token) || !constraint_->allows(state, token)) return nullptr;
    return constraint_->next(state, token);
}

OUTRIDER_INLINE Constraint::State AnswerRules::state_behind(std::span<const TokenId> more) {
    std::size_t known = 0;
    while (known < more.size() && known < path_.size() && path_[known].first == more[known]) ++known;
    path_.resize(known);
    for (; known < more.size(); ++known)
        path_.emplace_back(more[known], step(known == 0 ? state_ : path_[known - 1].second, more[known]));
    return path_.empty() ? state_ : path_.back().second;
}

OUTRIDER_INLINE void AnswerRules::edit(std::span<const TokenId> answer, std::span<float> logits) {
    for (const auto& [token, bias] : bias_) logits[static_cast<std::size_t>(token)] += bias;
    if (presence_ != 0.0 || frequency_ != 0.0) {
        counts_.resize(logits.size());
        for (const TokenId token : answer) ++counts_[static_cast<std::size_t>(token)];
        for (const TokenId token : answer) {
            const auto count = std::exchange(counts_[static_cast<std::size_t>(token)], 0);
            if (count > 0)
                logits[static_cast<std::size_t>(token)] -= static_cast<float>(presence_ + frequency_ * double(count));
        }
    }
    if (std::ssize(answer) < least_)
        for (const TokenId token : end_ids_)
            logits[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
    if (!constraint_) return;
    const Constraint::State state = state_behind(answer.subspan(static_cast<std::size_t>(answered_)));
    if (state && !constraint_->finished(state)) constraint_->mask(state, logits);
}

OUTRIDER_INLINE std::vector<Constraint::State> AnswerRules::states_of(const TokenTree& tree) const {
    std::vector<Constraint::State> states(tree.size());
    states[0] = state_;
    for (std::size_t i = 1; i < tree.size(); ++i)
        states[i] = step(states[static_cast<std::size_t>(tree.parents()[i])], tree.tokens()[i]);
    return states;
}

OUTRIDER_INLINE TokenTree AnswerRules::prune(TokenTree tree) {
    if (!any_ || tree.drafted() == 0) return tree;
    const std::vector<Constraint::State> states = constraint_ ? states_of(tree) : std::vector<Constraint::State>{};
    return subtree(std::move(tree), [&](const TokenTree& whole, NodeIndex node) {
        const TokenId token = whole.token(node);
        if (forbidden(token, answered_ + whole.depth(node) - 1)) return false;
        return states.empty() || states[static_cast<std::size_t>(node)] != nullptr;
    });
}

OUTRIDER_INLINE TokenTree AnswerRules::expect(TokenTree tree, std::int64_t depth) {
    constexpr std::size_t kMost = 16;  // nodes more
    if (!constraint_) return tree;
    const std::vector<Constraint::State> states = states_of(tree);
    TokenTree::Builder grown(tree.token(0), tree.drafted() + kMost);
    for (std::size_t i = 1; i < tree.size(); ++i) grown.add(tree.parents()[i], tree.tokens()[i], tree.log_q()[i]);
    const std::size_t most = tree.size() + kMost;
    for (std::size_t i = 0; i < states.size() && grown.size() < most; ++i) {
        if (!states[i]) continue;
        auto at = static_cast<NodeIndex>(i);
        for (const TokenId token : constraint_->expected(states[i])) {
            if (grown.view().depth(at) >= depth || grown.size() >= most) break;
            if (forbidden(token, answered_ + grown.view().depth(at))) break;
            at = grown.add(at, token, -0.01F);
        }
    }
    return std::move(grown).build();
}

OUTRIDER_INLINE bool AnswerRules::advance(TokenId token) {
    ++answered_;
    if (!constraint_) return true;
    const bool known = !path_.empty() && path_.front().first == token;
    state_ = known ? path_.front().second : step(state_, token);
    if (known)
        path_.erase(path_.begin());
    else
        path_.clear();
    require(state_ != nullptr,
            "GenerationOptions: token {} was accepted, which the constraint forbids here; use a policy that keeps the "
            "target's law",
            token);
    return !constraint_->finished(state_);
}

}  // namespace outrider
