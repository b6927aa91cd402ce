// The posteriors of one CTC draft: T frames over C candidate tokens and blank, and how they are cut out of a drafter's
// dense output; and the map from alignments (one symbol a frame) to tokens (Graves et al. 2006, the map B).
#pragma once

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/detail/sigmoid.hpp>
#include <outrider/core/detail/top_k.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// CTC's empty symbol inside an alignment. It is a class with its own parameters, never a token id.
inline constexpr TokenId kBlank = -1;

/// Merges neighbours that are equal, then drops blanks: (a, a, -, a, b) -> (a, a, b). Works on token ids and on
/// candidate indices alike; every negative symbol is kBlank.
inline void collapse(std::span<const TokenId> alignment, std::vector<TokenId>& tokens) {
    tokens.clear();
    TokenId previous = kBlank;
    for (const TokenId symbol : alignment) {
        if (symbol != kBlank && symbol != previous) tokens.push_back(symbol);
        previous = symbol;
    }
}

[[nodiscard]] inline std::vector<TokenId> collapse(std::span<const TokenId> alignment) {
    std::vector<TokenId> tokens;
    collapse(alignment, tokens);
    return tokens;
}

/// Frames that the shortest alignment of `tokens` needs: one a token, and a blank between equal neighbours. A label
/// longer than that in T frames has probability zero.
[[nodiscard]] inline std::size_t frames_needed(std::span<const TokenId> tokens) {
    std::size_t frames = tokens.size();
    for (std::size_t i = 1; i < tokens.size(); ++i) frames += tokens[i] == tokens[i - 1];
    return frames;
}

/// pi_t(c) for every frame t and candidate c, blank b_t, and `other` o_t, the mass of tokens that are not candidates:
/// sum_c pi_t(c) + b_t + o_t = 1. Rows are padded with zeros to a multiple of kLanes. float in production, double where
/// tests compare with enumeration. A value; filled by FrameBuilder or from_probabilities, else never changed.
template <typename Scalar>
class BasicCtcFrames {
public:
    static constexpr std::size_t kLanes = 16;

    /// From probabilities as they are: `tokens` [C] all different, `probabilities` [T * C] row by row, `blank` [T].
    /// What is missing from 1 becomes `other`. Throws Error for sizes that do not fit, values that are negative or not
    /// finite, and rows above 1 (beyond rounding).
    [[nodiscard]] static BasicCtcFrames from_probabilities(std::span<const TokenId> tokens,
                                                           std::span<const Scalar> probabilities,
                                                           std::span<const Scalar> blank);

    /// T, C, and the distance between rows (C rounded up to a multiple of kLanes).
    [[nodiscard]] std::size_t frames() const noexcept { return blank_.size(); }
    [[nodiscard]] std::size_t candidates() const noexcept { return tokens_.size(); }
    [[nodiscard]] std::size_t stride() const noexcept { return stride_; }

    /// [C] the target's id of each candidate, all different.
    [[nodiscard]] std::span<const TokenId> tokens() const noexcept { return tokens_; }
    /// [stride] pi_t(c), zero from C on.
    [[nodiscard]] const Scalar* row(std::size_t t) const noexcept { return pi_.data() + t * stride_; }
    [[nodiscard]] Scalar pi(std::size_t t, std::size_t c) const noexcept { return pi_[t * stride_ + c]; }
    [[nodiscard]] Scalar blank(std::size_t t) const noexcept { return blank_[t]; }
    [[nodiscard]] Scalar other(std::size_t t) const noexcept { return other_[t]; }
    /// sum_c pi_t(c) + o_t, that is 1 - b_t without its cancellation.
    [[nodiscard]] Scalar emit(std::size_t t) const noexcept { return emit_[t]; }

    /// Frames whose input was unusable (see FrameBuilder) and which are all blank therefore.
    [[nodiscard]] std::size_t spoiled() const noexcept { return spoiled_; }

private:
    friend class FrameBuilder;

    void reshape(std::size_t frames, std::span<const TokenId> tokens) {
        tokens_.assign(tokens.begin(), tokens.end());
        stride_ = (tokens.size() + kLanes - 1) / kLanes * kLanes;
        pi_.assign(frames * stride_, Scalar(0));
        blank_.assign(frames, Scalar(1));
        other_.assign(frames, Scalar(0));
        emit_.assign(frames, Scalar(0));
        spoiled_ = 0;
    }

    std::vector<TokenId> tokens_;
    std::size_t stride_ = 0;
    std::vector<Scalar> pi_, blank_, other_, emit_;
    std::size_t spoiled_ = 0;
};

using CtcFrames = BasicCtcFrames<float>;

template <typename Scalar>
BasicCtcFrames<Scalar> BasicCtcFrames<Scalar>::from_probabilities(std::span<const TokenId> tokens,
                                                                  std::span<const Scalar> probabilities,
                                                                  std::span<const Scalar> blank) {
    const std::size_t count = tokens.size();
    require(probabilities.size() == blank.size() * count,
            "CtcFrames: {} probabilities for {} frames of {} candidates, expected {}", probabilities.size(),
            blank.size(), count, blank.size() * count);
    std::vector<TokenId> sorted(tokens.begin(), tokens.end());
    std::sort(sorted.begin(), sorted.end());
    require(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() && (sorted.empty() || sorted[0] >= 0),
            "CtcFrames: candidates must be different, non-negative token ids");
    BasicCtcFrames result;
    result.reshape(blank.size(), tokens);
    constexpr Scalar rounding = sizeof(Scalar) == 4 ? Scalar(1e-5) : Scalar(1e-12);
    for (std::size_t t = 0; t < blank.size(); ++t) {
        Scalar sum = 0;
        for (std::size_t c = 0; c < count; ++c) {
            const Scalar p = probabilities[t * count + c];
            require(p >= 0 && p <= 1 + rounding, "CtcFrames: probability {} of frame {} is outside [0, 1]", p, t);
            result.pi_[t * result.stride_ + c] = p;
            sum += p;
        }
        require(blank[t] >= 0 && blank[t] + sum <= 1 + rounding,
                "CtcFrames: frame {} has blank {} and tokens of mass {}, expected at most 1 together", t, blank[t],
                sum);
        const Scalar rest = Scalar(1) - blank[t] - sum;
        result.blank_[t] = blank[t];
        result.other_[t] = rest > rounding ? rest : Scalar(0);
        result.emit_[t] = sum + result.other_[t];
    }
    return result;
}

/// A drafter's output before selection. A view; the arrays belong to the caller and are read during the call.
struct DenseFrames {
    /// What `scores` and `blank` hold.
    enum class Kind {
        gated_logits,       ///< logits of a softmax over the tokens alone, and the logit g of the blank gate:
                            ///< p(blank) = sigmoid(g), p(c) = sigmoid(-g) softmax(logits)(c)
        log_probabilities,  ///< natural logs of p(c) and p(blank), normalised together
    };

    std::span<const float> scores;            ///< [T, V] row-major
    std::span<const float> blank;             ///< [T]
    std::size_t vocabulary = 0;               ///< V
    std::span<const TokenId> token_ids = {};  ///< [V] the target's id of each column; empty: the column number
    Kind kind = Kind::gated_logits;
};

/// What is kept of dense frames. For trees that are not sampled, true probabilities are the better choice: the search
/// then finds the best tree under all that the frames say (exactly, since a prefix of candidates needs no other token),
/// where sharing out the rest favours frames that know least. It costs a sum of exponentials over all of V.
struct FrameOptions {
    std::size_t top_k = 16;   ///< tokens chosen per frame; the candidates are the union over frames
    bool renormalise = true;  ///< true: candidates share all of 1 - p(blank), so that the frame sums to 1 without other
                              ///< tokens, and a sampled draft never ends for want of a candidate.
                              ///< false: candidates keep their probabilities, the rest is `other`.
};

/// Cuts candidates out of dense frames: the top k tokens of each frame, their union over the frames, and the
/// probabilities of all of these in every frame. The blank gate is kept as it is. Candidates stand in ascending order
/// of column. Probabilities under kTiny become zero.
///
/// Bad input never stops a decoding: a frame that holds NaN or +inf, or no score above -inf, or a NaN gate, says
/// nothing (it becomes all blank, and CtcFrames::spoiled counts it); a token with score -inf is no candidate. Sizes
/// that do not fit throw Error. Zero frames and top_k beyond V are fine.
class FrameBuilder {
public:
    static constexpr float kTiny = 1e-30F;

    void build(const DenseFrames& dense, const FrameOptions& options, CtcFrames& out) {
        check(dense, options);
        choose(dense, options.top_k);
        ids_.clear();
        for (const std::int32_t column : columns_)
            ids_.push_back(dense.token_ids.empty() ? column : dense.token_ids[static_cast<std::size_t>(column)]);
        out.reshape(dense.blank.size(), ids_);
        for (std::size_t t = 0; t < dense.blank.size(); ++t) {
            if (usable_[t]) {
                fill(dense, options, t, out);
            } else {
                ++out.spoiled_;
            }
        }
    }

    [[nodiscard]] CtcFrames build(const DenseFrames& dense, const FrameOptions& options = {}) {
        CtcFrames out;
        build(dense, options, out);
        return out;
    }

private:
    using Row = Eigen::Map<Eigen::ArrayXf>;
    using ConstRow = Eigen::Map<const Eigen::ArrayXf>;

    static void check(const DenseFrames& dense, const FrameOptions& options) {
        require(dense.scores.size() == dense.blank.size() * dense.vocabulary,
                "FrameBuilder: {} scores for {} frames over {} tokens, expected {}", dense.scores.size(),
                dense.blank.size(), dense.vocabulary, dense.blank.size() * dense.vocabulary);
        require(dense.token_ids.empty() || dense.token_ids.size() == dense.vocabulary,
                "FrameBuilder: {} token ids for a vocabulary of {}", dense.token_ids.size(), dense.vocabulary);
        require(options.top_k > 0, "FrameBuilder: top_k is 0, expected at least 1");
    }

    /// Fills columns_ (the union of the frames' top k, ascending) and usable_.
    void choose(const DenseFrames& dense, std::size_t k) {
        columns_.clear();
        usable_.assign(dense.blank.size(), 0);
        for (std::size_t t = 0; t < dense.blank.size(); ++t) {
            const auto row = dense.scores.subspan(t * dense.vocabulary, dense.vocabulary);
            const bool sound = top_k_.select(row, k, chosen_) == TopK::Row::usable;
            if (!sound || std::isnan(dense.blank[t]) || spoils(dense, t)) continue;
            usable_[t] = 1;
            columns_.insert(columns_.end(), chosen_.begin(), chosen_.end());
        }
        std::sort(columns_.begin(), columns_.end());
        columns_.erase(std::unique(columns_.begin(), columns_.end()), columns_.end());
    }

    /// A log-probability of blank above 0 is no probability.
    static bool spoils(const DenseFrames& dense, std::size_t t) {
        return dense.kind == DenseFrames::Kind::log_probabilities && dense.blank[t] > 1e-3F;
    }

    void fill(const DenseFrames& dense, const FrameOptions& options, std::size_t t, CtcFrames& out) {
        const float* scores = dense.scores.data() + t * dense.vocabulary;
        const auto count = static_cast<Eigen::Index>(columns_.size());
        Row pi(out.pi_.data() + t * out.stride_, count);
        for (Eigen::Index c = 0; c < count; ++c) pi[c] = scores[columns_[static_cast<std::size_t>(c)]];
        const bool gated = dense.kind == DenseFrames::Kind::gated_logits;
        const float g = dense.blank[t];
        const float blank = gated ? detail::sigmoid(g) : std::min(1.0F, std::exp(g));
        const float emit = gated ? detail::sigmoid(-g) : -std::expm1(std::min(0.0F, g));
        const float top = pi.maxCoeff();
        pi = (pi - top).exp();
        float whole = 0;  // mass that `emit` is shared over
        if (options.renormalise) {
            whole = pi.sum();
        } else if (gated) {
            whole = (ConstRow(scores, static_cast<Eigen::Index>(dense.vocabulary)) - top).exp().sum();
        } else {
            whole = std::max(pi.sum(), emit * std::exp(-top));
        }
        pi *= emit / whole;
        pi = (pi < kTiny).select(0.0F, pi);
        const float kept = pi.sum();
        out.blank_[t] = blank;
        out.other_[t] = options.renormalise ? 0.0F : std::max(0.0F, emit - kept);
        out.emit_[t] = kept + out.other_[t];
    }

    TopK top_k_;
    std::vector<std::int32_t> chosen_, columns_;
    std::vector<TokenId> ids_;
    std::vector<char> usable_;
};

}  // namespace outrider
