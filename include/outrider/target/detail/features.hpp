// Sums and parts of what drafters ask for, and the rows that serve them.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// What serves both.
[[nodiscard]] inline FeatureRequest both(const FeatureRequest& a, const FeatureRequest& b) {
    FeatureRequest all{.wanted = a.wanted || b.wanted};
    std::set_union(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(), std::back_inserter(all.layers));
    return all;
}

/// `asked` of features [rows, F] that were delivered for `all`, which holds it. A view where they stand like that
/// already; undefined where nothing is asked for.
[[nodiscard]] inline at::Tensor take_features(const at::Tensor& features, const FeatureRequest& all,
                                              const FeatureRequest& asked) {
    if (!asked.wanted || !features.defined()) return {};
    if (asked == all) return features;
    const std::int64_t hidden = features.size(1) / (1 + static_cast<std::int64_t>(all.layers.size()));
    const std::int64_t width = asked.width(hidden);
    std::vector<std::int64_t> first{0};
    for (const std::int64_t layer : asked.layers) {
        const auto place = std::lower_bound(all.layers.begin(), all.layers.end(), layer);
        OUTRIDER_ASSERT(place != all.layers.end() && *place == layer);
        first.push_back((1 + (place - all.layers.begin())) * hidden);
    }
    if (first.back() + hidden == width) return features.slice(1, 0, width);  // all in place: others come behind
    at::Tensor taken = features.new_empty({features.size(0), width});
    for (std::size_t i = 0; i < first.size(); ++i)
        taken.slice(1, static_cast<std::int64_t>(i) * hidden, static_cast<std::int64_t>(i + 1) * hidden)
            .copy_(features.slice(1, first[i], first[i] + hidden));
    return taken;
}

/// The pieces one below the other, [sum of rows, F]; at least one piece. On the CPU float32, contiguous, and copied by
/// hand: ATen would wake its own threads, which then spin beside the team of the pass for milliseconds. Throws Error
/// for pieces of different widths.
[[nodiscard]] inline at::Tensor join_rows(std::span<const at::Tensor> pieces) {
    std::int64_t rows = 0;
    for (const at::Tensor& piece : pieces) {
        require(piece.size(1) == pieces[0].size(1), "features of width {} and {} in one sequence; expected one width",
                pieces[0].size(1), piece.size(1));
        rows += piece.size(0);
    }
    at::Tensor result = pieces[0].new_empty({rows, pieces[0].size(1)});
    std::int64_t begin = 0;
    for (const at::Tensor& piece : pieces) {
        const std::int64_t end = begin + piece.size(0);
        if (piece.is_cpu() && piece.is_contiguous())
            std::memcpy(result.data_ptr<float>() + begin * result.size(1), piece.const_data_ptr<float>(),
                        piece.nbytes());
        else
            result.slice(0, begin, end).copy_(piece);
        begin = end;
    }
    return result;
}

}  // namespace outrider
