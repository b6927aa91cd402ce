// The walk of a multiply over panels and rows, the same on every path. Internal.
#pragma once

#include <algorithm>

#include "kernel_table.hpp"

namespace outrider::kernels {

/// Bytes of rows that stay in a core's second-level cache while all panels pass by.
inline constexpr std::int64_t kRowCache = 384 * 1024;

/// Calls tiles[R - 1] for tiles of R <= max_tile rows. A group's rows are split evenly: 8 rows are 4 + 4, not 6 + 2.
inline void walk_tiles(const MultiplyArgs& a, const Tile* tiles, std::int64_t max_tile, std::int64_t value_bytes) {
    const std::int64_t most = PackedRows::group_rows(a.pairs != nullptr ? RowForm::bf16 : RowForm::int8);
    const std::int64_t in = a.blocks * 32, groups = (a.rows + most - 1) / most;
    const std::int64_t resident = std::max<std::int64_t>(1, kRowCache / (most * in * value_bytes));
    TileArgs t;
    t.blocks = a.blocks, t.ldy = a.ldy, t.add = a.add;
    for (std::int64_t first = 0; first < groups; first += resident) {
        const std::int64_t last = std::min(groups, first + resident);
        for (std::int64_t panel = a.begin; panel < a.end; ++panel) {
            t.panel = a.panels + panel * a.panel_bytes;
            t.low = a.low + low_at(panel, a.blocks), t.low_ahead = a.low + low_at(panel + 2, a.blocks);
            t.width = static_cast<int>(std::min(kPanel, a.out - panel * kPanel));
            for (std::int64_t g = first; g < last; ++g) {
                const std::int64_t begin = g * most;
                t.group = std::min(most, a.rows - begin);
                const std::int64_t count = (t.group + max_tile - 1) / max_tile;
                for (std::int64_t i = 0, row = 0; i < count; ++i) {
                    const std::int64_t size = (t.group - row) / (count - i);
                    if (a.floats != nullptr)
                        t.floats = a.floats + begin * in + row;
                    else if (a.pairs != nullptr)
                        t.pairs = a.pairs + begin * in / 2 + row * 16;
                    else {
                        t.bytes = a.bytes + begin * in + row * 32;
                        t.scales = a.scales + begin * a.blocks + row;
                    }
                    t.y = a.y + (begin + row) * a.ldy + panel * kPanel;
                    tiles[size - 1](t);
                    row += size;
                }
            }
        }
    }
}

}  // namespace outrider::kernels
