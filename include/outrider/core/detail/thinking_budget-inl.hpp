// Bodies of ThinkingBudget (constraint.hpp).
#pragma once

#include <outrider/core/constraint.hpp>

#include <algorithm>
#include <limits>
#include <utility>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::thinking {

enum class Phase : unsigned char { before, thinking, closing, behind };

struct Place {
    Phase phase = detail::thinking::Phase::before;
    std::int64_t thoughts = 0;       // tokens
    std::vector<TokenId> last = {};  // as many as the longer of open and close has
    std::size_t closed = 0;          // closing: tokens of close that stand there
    std::size_t opened = 0;          // before, with answer_at_once: tokens of open that are all the text so far
    Constraint::State answer = {};   // behind, where there is a constraint; before, while the text may be the answer
    std::shared_ptr<const ConstraintScope> scope = {};
};

OUTRIDER_INLINE const Place& place(const Constraint::State& state) { return *static_cast<const Place*>(state.get()); }

OUTRIDER_INLINE bool ends_with(const std::vector<TokenId>& text, const std::vector<TokenId>& word) {
    return text.size() >= word.size() && std::equal(word.rbegin(), word.rend(), text.rbegin());
}

/// Tokens of `word` that the end of `text` has begun.
OUTRIDER_INLINE std::size_t begun(const std::vector<TokenId>& text, const std::vector<TokenId>& word) {
    for (std::size_t n = std::min(text.size(), word.size() - 1); n > 0; --n)
        if (std::equal(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(n),
                       text.end() - static_cast<std::ptrdiff_t>(n)))
            return n;
    return 0;
}

}  // namespace detail::thinking

OUTRIDER_INLINE ThinkingBudget::ThinkingBudget(Options options) : options_(std::move(options)) {
    require(!options_.close.empty(), "ThinkingBudget: close is empty; give the tokens that end the thoughts");
    require(options_.budget >= 0, "ThinkingBudget: budget is {}, expected 0 or more", options_.budget);
}

OUTRIDER_INLINE Constraint::State ThinkingBudget::begin(const ConstraintScope& scope) const {
    for (const auto* word : {&options_.close, &options_.open})
        for (const TokenId token : *word)
            require(token >= 0 && token < scope.vocabulary, "ThinkingBudget: token {} is outside the vocabulary of {}",
                    token, scope.vocabulary);
    detail::thinking::Place start{.scope = std::make_shared<const ConstraintScope>(scope)};
    if (options_.open.empty())
        start.phase = options_.budget == 0 ? detail::thinking::Phase::closing : detail::thinking::Phase::thinking;
    else if (options_.answer && options_.answer_at_once)
        start.answer = options_.answer->begin(scope);
    return std::make_shared<const detail::thinking::Place>(std::move(start));
}

OUTRIDER_INLINE Constraint::State ThinkingBudget::next(const State& state, TokenId token) const {
    detail::thinking::Place now = detail::thinking::place(state);
    if (now.phase == detail::thinking::Phase::behind) {
        if (options_.answer) now.answer = options_.answer->next(now.answer, token);
        return std::make_shared<const detail::thinking::Place>(std::move(now));
    }
    const bool at_once = options_.answer && options_.answer_at_once;
    if (now.phase == detail::thinking::Phase::before && at_once) {
        const bool answers = now.answer && options_.answer->allows(now.answer, token);
        now.answer = answers ? options_.answer->next(now.answer, token) : nullptr;
        if (token != options_.open[now.opened]) {
            require(answers, "ThinkingBudget: token {} neither opens thoughts nor begins the answer", token);
            now.phase = detail::thinking::Phase::behind;
            return std::make_shared<const detail::thinking::Place>(std::move(now));
        }
        ++now.opened;
    }
    now.last.push_back(token);
    if (now.last.size() > std::max(options_.open.size(), options_.close.size())) now.last.erase(now.last.begin());
    if (now.phase == detail::thinking::Phase::before) {
        if (!detail::thinking::ends_with(now.last, options_.open))
            return std::make_shared<const detail::thinking::Place>(std::move(now));
        now.phase = detail::thinking::Phase::thinking, now.last.clear(), now.answer = nullptr;
    } else {
        ++now.thoughts;
    }
    if (now.phase == detail::thinking::Phase::closing) ++now.closed;
    if (now.closed == options_.close.size() || detail::thinking::ends_with(now.last, options_.close)) {
        now.phase = detail::thinking::Phase::behind, now.last.clear();
        if (options_.answer) now.answer = options_.answer->begin(*now.scope);
    } else if (now.phase == detail::thinking::Phase::thinking && now.thoughts >= options_.budget) {
        now.phase = detail::thinking::Phase::closing, now.closed = detail::thinking::begun(now.last, options_.close);
    }
    return std::make_shared<const detail::thinking::Place>(std::move(now));
}

OUTRIDER_INLINE void ThinkingBudget::mask(const State& state, std::span<float> logits) const {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    const detail::thinking::Place& now = detail::thinking::place(state);
    if (now.phase == detail::thinking::Phase::closing) {
        const auto only = static_cast<std::size_t>(options_.close[now.closed]);
        const float logit = logits[only];
        std::ranges::fill(logits, kNever);
        logits[only] = logit;
    } else if (now.phase == detail::thinking::Phase::thinking) {  // an answer is still to come
        for (const TokenId end : now.scope->end_ids)
            if (std::ranges::find(options_.close, end) == options_.close.end())
                logits[static_cast<std::size_t>(end)] = kNever;
    } else if (now.phase == detail::thinking::Phase::before && options_.answer && options_.answer_at_once) {
        const auto opens = static_cast<std::size_t>(options_.open[now.opened]);
        const float logit = logits[opens];
        if (now.answer)
            options_.answer->mask(now.answer, logits);
        else
            std::ranges::fill(logits, kNever);
        logits[opens] = logit;
    } else if (now.answer) {
        options_.answer->mask(now.answer, logits);
    }
}

OUTRIDER_INLINE bool ThinkingBudget::allows(const State& state, TokenId token) const {
    const detail::thinking::Place& now = detail::thinking::place(state);
    if (now.phase == detail::thinking::Phase::closing) return token == options_.close[now.closed];
    if (now.phase == detail::thinking::Phase::before && options_.answer && options_.answer_at_once)
        return token == options_.open[now.opened] || (now.answer && options_.answer->allows(now.answer, token));
    if (now.answer) return options_.answer->allows(now.answer, token);
    const auto& ends = now.scope->end_ids;
    return now.phase != detail::thinking::Phase::thinking || std::ranges::find(ends, token) == ends.end() ||
           std::ranges::find(options_.close, token) != options_.close.end();
}

OUTRIDER_INLINE std::vector<TokenId> ThinkingBudget::expected(const State& state) const {
    const detail::thinking::Place& now = detail::thinking::place(state);
    if (now.phase == detail::thinking::Phase::closing)
        return {options_.close.begin() + static_cast<std::ptrdiff_t>(now.closed), options_.close.end()};
    return now.answer ? options_.answer->expected(now.answer) : std::vector<TokenId>{};
}

OUTRIDER_INLINE bool ThinkingBudget::finished(const State& state) const {
    const detail::thinking::Place& now = detail::thinking::place(state);
    return now.answer && options_.answer->finished(now.answer);
}

}  // namespace outrider
