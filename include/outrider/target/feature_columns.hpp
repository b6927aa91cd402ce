// Which columns of a target's features a drafter reads: its own ones of features that may hold others as well; and rows
// that came piece by piece.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider {

/// First columns of the final features (0) and of each of `layers`, in that order. The target delivers them from its
/// next forward on. Throws Error, in the name of `who`, where the target has no features of inner layers.
[[nodiscard]] inline std::vector<std::int64_t> feature_columns(const TargetHead& head,
                                                               std::span<const std::int64_t> layers,
                                                               std::string_view who) {
    std::vector<std::int64_t> columns{0};
    if (layers.empty()) return columns;
    std::string list;
    for (const std::int64_t layer : layers) list += (list.empty() ? "" : ", ") + std::to_string(layer);
    require(head.feature_columns != nullptr,
            "{}: it reads the hidden states after layers {}, this target offers those after its final norm only; give "
            "TargetHead::feature_columns, or take a drafter without feature layers",
            who, list);
    const std::vector<std::int64_t> own = head.feature_columns(layers);
    require(own.size() == layers.size(),
            "{}: TargetHead::feature_columns told {} columns for layers {}, expected one for each", who, own.size(),
            list);
    columns.insert(columns.end(), own.begin(), own.end());
    return columns;
}

/// How wide features must be at least to hold `columns`, each the first of `hidden`.
[[nodiscard]] inline std::int64_t feature_width(std::span<const std::int64_t> columns, std::int64_t hidden) {
    std::int64_t width = 0;
    for (const std::int64_t first : columns) width = width < first + hidden ? first + hidden : width;
    return width;
}

/// [rows, columns * hidden]: `hidden` columns of `features` [rows, F] from each of `columns` on, side by side. A view
/// where they stand like that already.
[[nodiscard]] inline at::Tensor take_columns(const at::Tensor& features, std::span<const std::int64_t> columns,
                                             std::int64_t hidden) {
    bool in_place = true;
    for (std::size_t i = 0; i < columns.size(); ++i)
        in_place = in_place && columns[i] == static_cast<std::int64_t>(i) * hidden;
    const auto width = static_cast<std::int64_t>(columns.size()) * hidden;
    if (in_place) return features.size(1) == width ? features : features.slice(1, 0, width);
    std::vector<at::Tensor> parts;
    for (const std::int64_t first : columns) parts.push_back(features.slice(1, first, first + hidden));
    return at::cat(parts, 1);
}

/// The pieces one below the other, [sum of rows, F]; at least one piece. On the CPU float32, contiguous, and copied by hand:
/// ATen would wake its own threads, which then spin beside the team of the pass for milliseconds. Throws Error for pieces of
/// different widths.
[[nodiscard]] inline at::Tensor join_rows(std::span<const at::Tensor> pieces) {
    std::int64_t rows = 0;
    for (const at::Tensor& piece : pieces) {
        require(piece.size(1) == pieces[0].size(1),
                "features of width {} and {} in one sequence; drafters ask for features of layers before its prefill begins",
                pieces[0].size(1), piece.size(1));
        rows += piece.size(0);
    }
    if (!pieces[0].device().is_cpu()) return at::cat(std::vector<at::Tensor>(pieces.begin(), pieces.end()), 0);
    at::Tensor result = at::empty({rows, pieces[0].size(1)}, pieces[0].options());
    float* target = result.data_ptr<float>();
    for (const at::Tensor& piece : pieces) {
        std::memcpy(target, piece.data_ptr<float>(), piece.nbytes());
        target += piece.numel();
    }
    return result;
}

}  // namespace outrider
