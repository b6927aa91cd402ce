// What a drafter that is not asked every round has not seen yet of one sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/target/detail/features.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// How many of `tokens` each of so many sequences takes up: two at least, since a round may add one.
[[nodiscard]] inline std::int64_t share_of(std::int64_t tokens, std::ptrdiff_t sequences) {
    return std::max<std::int64_t>(tokens / std::max<std::ptrdiff_t>(sequences, 1), 2);
}

/// Gathers the feedback of the rounds between and gives it as one.
class OwedSequence {
public:
    void add(SequenceFeedback now) {
        if (now.features.defined()) features_.push_back(std::move(now.features));
        feedback_.tokens.insert(feedback_.tokens.end(), now.tokens.begin(), now.tokens.end());
        feedback_.sequence = now.sequence, feedback_.pending = now.pending, feedback_.committed = now.committed;
    }

    [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(feedback_.tokens.size()); }

    /// All of it; nothing is owed any more.
    [[nodiscard]] SequenceFeedback take() {
        SequenceFeedback whole = feedback_;
        feedback_.tokens.clear();
        whole.features = joined();
        features_.clear();
        return whole;
    }

    /// Its first `most` tokens, or all of it. The pending token is then the next of those that are left.
    [[nodiscard]] SequenceFeedback take(std::int64_t most) {
        if (most >= tokens()) return take();
        const auto end = feedback_.tokens.begin() + static_cast<std::ptrdiff_t>(most);
        SequenceFeedback piece;
        piece.sequence = feedback_.sequence, piece.pending = *end;
        piece.committed = feedback_.committed - (tokens() - most);
        piece.tokens.assign(feedback_.tokens.begin(), end);
        feedback_.tokens.erase(feedback_.tokens.begin(), end);
        piece.features = first_rows(most);
        return piece;
    }

private:
    /// What is left is not copied, however much it is.
    [[nodiscard]] at::Tensor first_rows(std::int64_t rows) {
        std::vector<at::Tensor> pieces;
        std::size_t taken = 0;
        for (; taken < features_.size() && rows > 0; ++taken) {
            at::Tensor& piece = features_[taken];
            const std::int64_t some = std::min(piece.size(0), rows);
            if (some > 0) pieces.push_back(piece.slice(0, 0, some));
            rows -= some;
            if (some == piece.size(0)) continue;
            piece = piece.slice(0, some);
            break;
        }
        features_.erase(features_.begin(), features_.begin() + static_cast<std::ptrdiff_t>(taken));
        if (pieces.empty()) return {};
        return pieces.size() == 1 ? pieces[0] : join_rows(pieces);
    }

    [[nodiscard]] at::Tensor joined() {
        if (features_.size() > 1)  // an empty prompt has no rows to join
            std::erase_if(features_, [](const at::Tensor& piece) { return piece.size(0) == 0; });
        if (features_.empty()) return {};
        return features_.size() == 1 ? features_[0] : join_rows(features_);
    }

    SequenceFeedback feedback_;         ///< `features` apart
    std::vector<at::Tensor> features_;  ///< round by round
};

}  // namespace outrider
