// A bound on what a model thinks before it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/constraint.hpp>
#include <outrider/core/detail/export.hpp>

namespace outrider {

/// Tokens between `open` and `close` (as "<think>" and "</think>" are cut by the tokenizer) are counted; when there are
/// `budget` of them, `close` is all that may follow. Behind it stands whatever `answer` allows; without it, anything.
class OUTRIDER_API ThinkingBudget final : public Constraint {
public:
    struct Options {
        std::vector<TokenId> close;      ///< at least one token
        std::int64_t budget = 1024;      ///< tokens before `close`
        std::vector<TokenId> open = {};  ///< empty: the prompt has opened it, and the answer begins with thoughts
        std::shared_ptr<const Constraint> answer = nullptr;  ///< what stands behind `close`; null: anything
    };

    /// Throws Error for an empty `close`.
    explicit ThinkingBudget(Options options);

    [[nodiscard]] State begin(const ConstraintScope& scope) const override;
    [[nodiscard]] State next(const State& state, TokenId token) const override;
    void mask(const State& state, std::span<float> logits) const override;
    [[nodiscard]] bool allows(const State& state, TokenId token) const override;
    [[nodiscard]] std::vector<TokenId> expected(const State& state) const override;
    [[nodiscard]] bool finished(const State& state) const override;

private:
    Options options_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/thinking_budget-inl.hpp>
#endif
