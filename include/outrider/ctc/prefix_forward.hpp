// Exact probabilities of drafted prefixes under CTC frames: the forward variables of the prefix search (Graves 2008,
// section 7.5; the "prefix score" of joint CTC decoding), extended to frames that know the prefix.
#pragma once

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/ctc/frames.hpp>

namespace outrider {

/// What a condition may know of the prefix it speaks for. Views, valid during the call.
struct PrefixContext {
    std::span<const TokenId> tokens;           ///< the drafted tokens below the root, in text order; empty at the root
    std::span<const std::int32_t> candidates;  ///< the same as indices into CtcFrames::tokens()
    std::int32_t state;   ///< number of this prefix among those expanded in this draft: 0 for the root, then 1, 2, ...
    std::int32_t parent;  ///< state of the prefix without its last token, -1 at the root: a recurrent condition keeps
                          ///< its own memory per state and finds its predecessor here
};

/// Frames that do not know the prefix: pi_t(c | l) = pi_t(c). Costs nothing.
struct Unconditioned {};

/// A condition is called once for every prefix l that is expanded, the root first, and writes one factor f_l(c) >= 0
/// for each candidate. Then
///     pi_t(c | l) = (1 - b_t) pi_t(c) f_l(c) / Z_t(l),   Z_t(l) = sum_c pi_t(c) f_l(c) + o_t f_l(other)
/// while blank stays a gate of the frame alone. Any function of the prefix leaves the recursion exact. f_l(other), the
/// factor of tokens that are no candidates, is what the call returns, or 1 if it returns nothing. Factors that are
/// negative or not finite count as 0; a frame whose Z_t(l) is 0 or not finite says nothing after l.
template <typename Condition, typename Scalar>
concept PrefixCondition = std::same_as<std::remove_cvref_t<Condition>, Unconditioned> ||
                          std::invocable<Condition&, const PrefixContext&, std::span<Scalar>>;

/// Expanded prefixes of one draft and their children's conditional probabilities.
///
/// With r_b^t(l), r_n^t(l) the probability that the first t frames collapse exactly to l and end in blank / in last(l),
///     phi^t(l, c) = r_b^t(l) + [c != last(l)] r_n^t(l)
///     Psi(l c)    = sum_t pi_t(c | l) phi^{t-1}(l, c)                       P(the collapsed draft starts with l c)
///     r_n^t(l c)  = pi_t(c | l) phi^{t-1}(l, c) + pi_t(c | l c) r_n^{t-1}(l c)
///     r_b^t(l c)  = b_t (r_b^{t-1}(l c) + r_n^{t-1}(l c))
///     q(c | l)    = Psi(l c) / Psi(l)                                       sums to 1 - q(end | l): sub-normalised
/// Everything is stored divided by Psi(l), so that all values lie in [0, 1] and float survives long drafts; the child
/// that repeats last(l) uses r_b alone, never a difference. A child is completed when it is expanded, since only then
/// pi_t(c | l c) is known.
///
/// Use: start(frames); root(condition); children(0, q); child = expand(0, c, condition); ...
/// The frames must live until the next start. No allocation once the object has grown.
template <typename Scalar>
class BasicPrefixForward {
public:
    using Frames = BasicCtcFrames<Scalar>;

    /// Forgets all prefixes and takes up new frames.
    void start(const Frames& frames) {
        frames_ = &frames;
        states_.clear();
        weights_.clear();
        factors_.clear();
        scales_.clear();
        const std::size_t T = frames.frames();
        entry_.assign(T, Scalar(0));
        tail_.assign(T, Scalar(1));
        for (std::size_t t = T; t-- > 1;) tail_[t - 1] = tail_[t] * frames.blank(t);
    }

    /// Expands the empty prefix as state 0. Call once after start.
    template <PrefixCondition<Scalar> Condition>
    std::int32_t root(Condition&& condition) {
        push(-1, -1);
        std::fill(entry_.begin(), entry_.end(), Scalar(0));
        return complete(Scalar(1), condition);
    }

    /// Expands the child `candidate` of an expanded prefix and returns its state. Throws Error if its probability is
    /// zero (or too small for Scalar).
    template <PrefixCondition<Scalar> Condition>
    std::int32_t expand(std::int32_t parent, std::int32_t candidate, Condition&& condition) {
        require(enter(parent, candidate) >= 0, "PrefixForward: candidate {} has probability zero there", candidate);
        return expand_entered(parent, candidate, condition);
    }

    /// First half of expand: an upper bound of 1 - q(end | l c), reached without calling the condition; negative if the
    /// child's probability is zero. A search that needs no more than the bound stops here.
    Scalar enter(std::int32_t parent, std::int32_t candidate) {
        const Scalar* weight = weights(parent, states_[index(parent)].last == candidate);
        const Scalar* column = frames_->row(0) + candidate;
        const std::size_t T = frames_->frames(), stride = frames_->stride();
        Scalar total = 0;
        for (std::size_t t = 0; t < T; ++t) total += entry_[t] = weight[t] * column[t * stride];
        if (!(total >= std::numeric_limits<Scalar>::min())) return Scalar(-1);
        Scalar open = 0;
        for (std::size_t t = 0; t < T; ++t) {
            entry_[t] /= total;
            open += entry_[t] * (Scalar(1) - tail_[t]);
        }
        return open;
    }

    /// Second half; the last call must have been enter(parent, candidate) with a non-negative answer.
    template <PrefixCondition<Scalar> Condition>
    std::int32_t expand_entered(std::int32_t parent, std::int32_t candidate, Condition&& condition) {
        push(parent, candidate);
        return complete(Scalar(0), condition);
    }

    /// q(c | l) for every candidate: q [stride], zero from C on.
    void children(std::int32_t state, Scalar* q) const {
        using Lanes = Eigen::Array<Scalar, int(Frames::kLanes), 1>;
        const Scalar* weight = weights(state, false);
        const Scalar* factor = factors(state);
        const std::size_t T = frames_->frames(), stride = frames_->stride();
        for (std::size_t c = 0; c < stride; c += Frames::kLanes) {
            Lanes sum = Lanes::Zero();
            const Scalar* block = frames_->row(0) + c;
            for (std::size_t t = 0; t < T; ++t) sum += weight[t] * Eigen::Map<const Lanes>(block + t * stride);
            if (factor != nullptr) sum *= Eigen::Map<const Lanes>(factor + c);
            Eigen::Map<Lanes>(q + c) = sum;
        }
        if (const std::int32_t last = states_[index(state)].last; last >= 0) q[last] = child(state, last);
    }

    /// q(candidate | l), O(T).
    [[nodiscard]] Scalar child(std::int32_t state, std::int32_t candidate) const {
        const Scalar* weight = weights(state, states_[index(state)].last == candidate);
        const Scalar* column = frames_->row(0) + candidate;
        Scalar sum = 0;
        for (std::size_t t = 0; t < frames_->frames(); ++t) sum += weight[t] * column[t * frames_->stride()];
        const Scalar* factor = factors(state);
        return factor != nullptr ? sum * factor[candidate] : sum;
    }

    /// q(end | l) = 1 - sum_c q(c | l): P(l) / Psi(l), plus the mass of tokens that are no candidates.
    [[nodiscard]] Scalar end(std::int32_t state) const { return states_[index(state)].end; }

    /// sum_t of the weights that children(state) gives to frame t times `bound[t]`: with bound[t] = max_c pi_t(c), an
    /// upper bound of every q(c | l) where frames are unconditioned.
    [[nodiscard]] Scalar weighted(std::int32_t state, std::span<const Scalar> bound) const {
        const Scalar* weight = weights(state, false);
        Scalar sum = 0;
        for (std::size_t t = 0; t < bound.size(); ++t) sum += weight[t] * bound[t];
        return sum;
    }

    /// [C] f_l(c) of an expanded prefix; null where frames are unconditioned.
    [[nodiscard]] const Scalar* factors(std::int32_t state) const {
        return factors_.empty() ? nullptr : factors_.data() + index(state) * frames_->stride();
    }
    /// [T] (1 - b_t) / Z_t(l) of an expanded prefix, so that pi_t(c | l) = pi_t(c) f_l(c) times this; 0 where the frame
    /// says nothing after l. Null where frames are unconditioned.
    [[nodiscard]] const Scalar* scales(std::int32_t state) const {
        return scales_.empty() ? nullptr : scales_.data() + index(state) * frames_->frames();
    }
    [[nodiscard]] std::size_t states() const noexcept { return states_.size(); }

private:
    struct State {
        std::int32_t parent, last;  ///< last: candidate index, -1 at the root
        Scalar end;
        Scalar other;  ///< f_l(other)
    };

    static std::size_t index(std::int32_t state) { return static_cast<std::size_t>(state); }

    /// [T] weight of pi_t(c) f_l(c) in Psi(l c) / Psi(l); `repeats` says whether c == last(l).
    [[nodiscard]] const Scalar* weights(std::int32_t state, bool repeats) const {
        return weights_.data() + (2 * index(state) + (repeats ? 1U : 0U)) * frames_->frames();
    }

    void push(std::int32_t parent, std::int32_t last) {
        states_.push_back({parent, last, Scalar(0), Scalar(1)});
        weights_.resize(weights_.size() + 2 * frames_->frames());
    }

    /// Runs the recursion of the newest state from entry_ [T], the scaled pi_t(c | l) phi^{t-1}(l, c). `blank0` is
    /// r_b^0: 1 at the root, 0 elsewhere.
    template <typename Condition>
    std::int32_t complete(Scalar blank0, Condition& condition) {
        constexpr bool conditioned = !std::same_as<std::remove_cvref_t<Condition>, Unconditioned>;
        const auto state = static_cast<std::int32_t>(states_.size()) - 1;
        if constexpr (conditioned) apply(condition, state);
        const std::int32_t last = states_.back().last;
        const Scalar* factor = factors(state);
        const Scalar* scales = this->scales(state);
        const std::size_t T = frames_->frames(), stride = frames_->stride();
        Scalar* fresh = weights_.data() + 2 * index(state) * T;
        Scalar* repeat = fresh + T;
        const Scalar* column = frames_->row(0) + std::max(last, 0);
        const Scalar stay = last < 0 ? Scalar(0) : factor != nullptr ? factor[last] : Scalar(1);
        const Scalar other = states_.back().other;
        Scalar blank = blank0, label = 0, unlisted = 0;
        for (std::size_t t = 0; t < T; ++t) {
            const Scalar exact = blank + label;
            const Scalar scale = conditioned ? scales[t] : Scalar(1);
            fresh[t] = scale * exact;
            repeat[t] = scale * blank;
            unlisted += (conditioned && !(scale > 0) ? frames_->emit(t) : scale * other * frames_->other(t)) * exact;
            label = entry_[t] + (last < 0 ? Scalar(0) : scale * stay * column[t * stride] * label);
            blank = frames_->blank(t) * exact;
        }
        states_.back().end = blank + label + unlisted;
        return state;
    }

    /// Asks the condition for the newest state's factors and finds (1 - b_t) / Z_t(l).
    template <typename Condition>
    void apply(Condition& condition, std::int32_t state) {
        const std::size_t T = frames_->frames(), C = frames_->candidates(), stride = frames_->stride();
        factors_.resize(factors_.size() + stride, Scalar(0));
        scales_.resize(scales_.size() + T, Scalar(0));
        Scalar* factor = factors_.data() + index(state) * stride;
        Scalar* scales = scales_.data() + index(state) * T;
        path_tokens_.clear();
        path_candidates_.clear();
        for (std::int32_t s = state; states_[index(s)].parent >= 0; s = states_[index(s)].parent)
            path_candidates_.push_back(states_[index(s)].last);
        std::reverse(path_candidates_.begin(), path_candidates_.end());
        for (const std::int32_t c : path_candidates_) path_tokens_.push_back(frames_->tokens()[index(c)]);
        const PrefixContext context{path_tokens_, path_candidates_, state, states_[index(state)].parent};
        Scalar other = 1;
        if constexpr (std::is_void_v<std::invoke_result_t<Condition&, const PrefixContext&, std::span<Scalar>>>)
            condition(context, std::span<Scalar>(factor, C));
        else
            other = static_cast<Scalar>(condition(context, std::span<Scalar>(factor, C)));
        constexpr Scalar largest = std::numeric_limits<Scalar>::max();
        const auto sound = [](Scalar f) { return f > 0 && f <= largest ? f : Scalar(0); };
        for (std::size_t c = 0; c < C; ++c) factor[c] = sound(factor[c]);
        states_.back().other = other = sound(other);
        for (std::size_t t = 0; t < T; ++t) {
            const Scalar mass = dot(frames_->row(t), factor, stride) + frames_->other(t) * other;
            scales[t] = mass > 0 && mass <= largest ? frames_->emit(t) / mass : Scalar(0);
        }
    }

    static Scalar dot(const Scalar* a, const Scalar* b, std::size_t n) {
        using Lanes = Eigen::Array<Scalar, int(Frames::kLanes), 1>;
        Lanes sum = Lanes::Zero();
        for (std::size_t i = 0; i < n; i += Frames::kLanes)
            sum += Eigen::Map<const Lanes>(a + i) * Eigen::Map<const Lanes>(b + i);
        return sum.sum();
    }

    const Frames* frames_ = nullptr;
    std::vector<State> states_;
    std::vector<Scalar> weights_;       ///< [states, 2, T]
    std::vector<Scalar> factors_;       ///< [states, stride], empty where unconditioned
    std::vector<Scalar> scales_;        ///< [states, T], empty where unconditioned
    std::vector<Scalar> entry_, tail_;  ///< [T]
    std::vector<TokenId> path_tokens_;
    std::vector<std::int32_t> path_candidates_;
};

using PrefixForward = BasicPrefixForward<float>;

/// What the frames think of one given continuation.
struct PrefixProbability {
    std::vector<double> log_q;  ///< [k] log q(y_k | y_<k); the list ends before the first token of probability zero
    double log_psi = 0.0;       ///< their sum, log Psi(y); -infinity if a token has probability zero
    double end = 0.0;           ///< q(end | y); meaningless if log_psi is -infinity
};

/// The same recursion along one path: for calibration, for tests, and for training data. `tokens` are target ids; one
/// that is no candidate has probability zero.
template <typename Scalar, PrefixCondition<Scalar> Condition = Unconditioned>
[[nodiscard]] PrefixProbability prefix_probability(const BasicCtcFrames<Scalar>& frames,
                                                   std::span<const TokenId> tokens, Condition&& condition = {}) {
    BasicPrefixForward<Scalar> forward;
    forward.start(frames);
    std::int32_t state = forward.root(condition);
    PrefixProbability result;
    const auto impossible = [&] { result.log_psi = -std::numeric_limits<double>::infinity(); };
    for (const TokenId token : tokens) {
        const auto at = std::find(frames.tokens().begin(), frames.tokens().end(), token);
        if (at == frames.tokens().end()) return impossible(), result;
        const auto candidate = static_cast<std::int32_t>(at - frames.tokens().begin());
        const Scalar q = std::min(forward.child(state, candidate), Scalar(1));
        if (!(q >= std::numeric_limits<Scalar>::min()) || forward.enter(state, candidate) < 0)
            return impossible(), result;
        result.log_q.push_back(std::log(static_cast<double>(q)));
        result.log_psi += result.log_q.back();
        state = forward.expand_entered(state, candidate, condition);
    }
    result.end = static_cast<double>(forward.end(state));
    return result;
}

}  // namespace outrider
