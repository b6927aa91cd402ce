// What an answer must be: asked along every path that a draft takes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// Of the request that a constraint is begun for.
struct ConstraintScope {
    std::int64_t vocabulary = 0;        ///< of the target
    std::vector<TokenId> end_ids = {};  ///< tokens that end the text; empty: `finished` alone ends it
};

/// Says which tokens may follow an answer so far. States are immutable: paths of a draft share those of their common
/// part, and going back costs nothing. Functions of their arguments alone, so that the text does not depend on the
/// drafter. One constraint may serve many requests, one after another or beside each other on one thread; on several
/// threads where it says so.
class OUTRIDER_API Constraint {
public:
    using State = std::shared_ptr<const void>;

    virtual ~Constraint() = default;

    /// The state before the answer's first token.
    [[nodiscard]] virtual State begin(const ConstraintScope& scope) const = 0;

    /// The state after `token`, which `state` allows. End tokens are never given.
    [[nodiscard]] virtual State next(const State& state, TokenId token) const = 0;

    /// Sets the logits [V] of tokens that may not follow to -infinity, those of end tokens too. May edit others.
    virtual void mask(const State& state, std::span<float> logits) const = 0;

    /// Whether `token` may follow: what `mask` would leave above -infinity. Nodes that may not follow leave the drafts.
    [[nodiscard]] virtual bool allows(const State& state, TokenId token) const = 0;

    /// Tokens that the answer is bound or likely to go on with, in order; they are drafted, whatever the drafter says.
    [[nodiscard]] virtual std::vector<TokenId> expected(const State&) const { return {}; }

    /// Whether nothing may follow: the text ends here.
    [[nodiscard]] virtual bool finished(const State&) const { return false; }

protected:
    Constraint() = default;
    Constraint(const Constraint&) = default;
    Constraint& operator=(const Constraint&) = default;
};

/// A bound on what a model thinks before it answers. Tokens between `open` and `close` (as "<think>" and "</think>" are
/// cut by the tokenizer) are counted; when there are `budget` of them, `close` is all that may follow. After it stands
/// whatever `answer` allows; without it, anything. With `open`, a text that does not open thoughts is free, `answer` or
/// not, unless `answer_at_once` says that it must be the answer then.
class OUTRIDER_API ThinkingBudget final : public Constraint {
public:
    struct Options {
        std::vector<TokenId> close;      ///< at least one token
        std::int64_t budget = 1024;      ///< tokens before `close`
        std::vector<TokenId> open = {};  ///< empty: the prompt has opened it, and the answer begins with thoughts
        std::shared_ptr<const Constraint> answer = nullptr;  ///< what stands after `close`; null: anything
        bool answer_at_once = false;  ///< with `open`: the text begins with it, or is `answer` from its first token on
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
#include <outrider/core/detail/thinking_budget-inl.hpp>
#endif
