// The likeliest tokens of rows of scores, found where the scores lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/tree/tree_shape.hpp>

namespace outrider {

/// The `ranks` likeliest columns of every row of `scores` [rows, V] f32 on any device, and their log-probabilities:
/// what take_ranked takes. A softmax and a selection.
[[nodiscard]] inline at::Tensor ranked_there(const at::Tensor& scores, std::int64_t ranks) {
    const auto [log_q, column] = aten::log_softmax(scores, -1).topk(std::min(ranks, scores.size(1)), -1);
    // Columns are below 2^24, so that floats hold them.
    return aten::cat({log_q, column.to(log_q.scalar_type())}, 1);
}

/// rank_row (score_rows.hpp) of every row, from one copy to the host of two numbers a token. A row that holds NaN or
/// +infinity has none. Which of equal tokens are the last ones is the device's choice; all others stand by falling
/// probability, between equals the lower column first.
inline void take_ranked(const at::Tensor& there, std::span<const TokenId> vocabulary,
                        std::vector<RankedTokens>& ranked) {
    const std::int64_t rows = there.size(0), k = there.size(1) / 2;
    const at::Tensor both = there.to(at::kCPU, at::kFloat).contiguous();
    const float* row = both.const_data_ptr<float>();
    const float least = std::log(std::numeric_limits<float>::min());
    ranked.assign(static_cast<std::size_t>(rows), {});
    std::vector<std::int64_t> order;
    for (RankedTokens& list : ranked) {
        order.clear();
        for (std::int64_t i = 0; i < k && row[i] >= least; ++i) order.push_back(i);
        std::sort(order.begin(), order.end(), [row, k](std::int64_t a, std::int64_t b) {
            return row[a] != row[b] ? row[a] > row[b] : row[k + a] < row[k + b];
        });
        for (const std::int64_t i : order) {
            list.tokens.push_back(vocabulary[static_cast<std::size_t>(row[k + i])]);
            list.log_q.push_back(std::min(row[i], 0.0F));
        }
        row += 2 * k;
    }
}

}  // namespace outrider
