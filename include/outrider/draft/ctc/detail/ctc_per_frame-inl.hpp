// Bodies of ctc_per_frame.hpp.
#pragma once

#include <outrider/draft/ctc/detail/ctc_per_frame.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <outrider/core/detail/sigmoid.hpp>
#include <outrider/tree/tree_shape.hpp>

#include <outrider/draft/nn/detail/score_rows.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// The likeliest classes of a frame. The blank keeps its rank and is marked by a log q of -infinity.
OUTRIDER_INLINE RankedTokens ranked_frame(std::vector<float>& row, float gate, std::span<const TokenId> vocabulary,
                                          std::size_t ranks) {
    RankedTokens ranked;
    const auto padded = static_cast<std::int64_t>(row.size());
    if (std::isnan(gate) || !probabilities(row.data(), std::ssize(vocabulary), padded)) return ranked;
    rank_row(row.data(), vocabulary, ranks, ranked);
    const float blank = sigmoid(gate), log_emit = -std::log1p(std::exp(gate));
    for (float& log_q : ranked.log_q) log_q += log_emit;
    const auto place = std::ranges::find_if(ranked.log_q, [&](float log_q) { return std::exp(log_q) < blank; });
    const auto at = place - ranked.log_q.begin();
    ranked.log_q.insert(place, -std::numeric_limits<float>::infinity());
    ranked.tokens.insert(ranked.tokens.begin() + at, kNoToken);
    return ranked;
}

}  // namespace detail

OUTRIDER_INLINE TokenTree per_frame_tree(TokenId pending, std::span<const float> logits, std::span<const float> gate,
                                         std::span<const TokenId> vocabulary, std::int64_t nodes) {
    const std::size_t columns = vocabulary.size();
    std::size_t ranks = 0;
    for (const TreeTemplate::Choice& choice : medusa63().choices())
        ranks = std::max(ranks, static_cast<std::size_t>(choice.back()) + 1);
    std::vector<float> row(padded_row(columns));
    std::vector<RankedTokens> frames;
    for (std::size_t t = 0; t < gate.size(); ++t) {
        std::copy_n(logits.begin() + static_cast<std::ptrdiff_t>(t * columns), columns, row.begin());
        frames.push_back(detail::ranked_frame(row, gate[t], vocabulary, ranks));
    }
    return template_tree(pending, frames, medusa63(), nodes);
}

}  // namespace outrider
