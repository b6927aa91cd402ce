// What a training loss tells beside its value: sums by label, which add up over batches and threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace outrider {

/// Label k of an anchor is the k-th token after the pending one.
struct LossStats {
    std::vector<double> nll;          ///< [U] sum of -log q(y_k | what the drafter knows there), in nats
    std::vector<std::int64_t> count;  ///< [U] anchors with a usable label k
    std::int64_t skipped = 0;         ///< anchors (for heads: labels) left out because their loss was not finite

    LossStats& operator+=(const LossStats& more) {
        if (nll.size() < more.nll.size()) nll.resize(more.nll.size(), 0.0), count.resize(more.nll.size(), 0);
        for (std::size_t k = 0; k < more.nll.size(); ++k) nll[k] += more.nll[k], count[k] += more.count[k];
        skipped += more.skipped;
        return *this;
    }

    /// Mean over labels with the given weights: the number to watch.
    [[nodiscard]] double per_token(const std::vector<double>& weights) const {
        double sum = 0.0, norm = 0.0;
        for (std::size_t k = 0; k < nll.size(); ++k)
            sum += weights[k] * nll[k], norm += weights[k] * static_cast<double>(count[k]);
        return norm > 0 ? sum / norm : 0.0;
    }
};

}  // namespace outrider
