// PackedLinear::bound and choose: outputs are bounded from a part of the weights, and computed where they could be the
// largest.
//
// A weight of q8_planes is d (16 h + l - 128). Where l is not read it is taken for 7.5, and by Cauchy and Schwarz a
// block of 32 is off by no more than |d| |l - 7.5| |x|, with norms of 32 values each.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "kernels/packed_linear.hpp"
#include "kernels/row_ops.hpp"

namespace outrider {
namespace {

/// Of the columns, so many are read in both planes: where rows are largest, which a few dimensions of a model are.
constexpr std::int64_t kBothOf = 5;

/// Both sums, the estimate's and the exact one's, are rounded once a block, each time by 2^-24 of at most
/// 724 |d| |x| (724: 32 weights of 128), and so is the bound, by less; 8.7e-5 (blocks + 4) in all. kLeastRho times this
/// is more.
constexpr double kRounding = 5e-6;

/// Outside of these a product may leave the range of normal floats, where rounding is no share of it: nothing is known.
constexpr float kSmallScale = 1e-25F, kLargeScale = 1e20F;

void look_at_rows(const PackedRows& x, ChoiceMemory& memory) {
    const std::int64_t rows = x.rows(), blocks = x.padded_in() / 32;
    const auto count = static_cast<std::size_t>(blocks);
    memory.norms.resize(static_cast<std::size_t>(blocks * rows));
    std::vector<float>& weight = memory.largest;
    weight.assign(count, 0);
    for (std::int64_t b = 0; b < blocks; ++b)
        for (std::int64_t r = 0; r < rows; ++r) {
            const std::int8_t* q = x.bytes() + (b * rows + r) * 32;
            const float scale = x.scales()[b * rows + r].scale;
            const std::int32_t squares = std::inner_product(q, q + 32, q, 0);
            const float norm = scale * std::sqrt(static_cast<float>(squares));
            memory.norms[static_cast<std::size_t>(b * rows + r)] = norm;
            weight[static_cast<std::size_t>(b)] = std::max(weight[static_cast<std::size_t>(b)], norm);  // not NaN
        }
    memory.both.assign(count, 0);
    memory.order.resize(count);
    std::iota(memory.order.begin(), memory.order.end(), std::size_t{0});
    const auto last = memory.order.begin() + (blocks + kBothOf - 1) / kBothOf;
    std::nth_element(memory.order.begin(), last - 1, memory.order.end(),
                     [&](std::size_t a, std::size_t b) { return weight[a] > weight[b]; });
    for (auto it = memory.order.begin(); it != last; ++it) memory.both[*it] = 1;
    const double rounding = kRounding * static_cast<double>(blocks + 4);
    for (std::int64_t b = 0; b < blocks; ++b)
        for (std::int64_t r = 0; r < rows; ++r) {
            float& norm = memory.norms[static_cast<std::size_t>(b * rows + r)];
            const float scale = x.scales()[b * rows + r].scale;
            const double unread = memory.both[static_cast<std::size_t>(b)] != 0 ? 0.0 : 1.0;
            // The norm itself is rounded, and so is what becomes of it here.
            norm = scale > kLargeScale || (scale > 0 && scale < kSmallScale)
                       ? std::numeric_limits<float>::infinity()
                       : static_cast<float>(norm * (unread + rounding) * (1 + 1e-6));
        }
}

}  // namespace

bool PackedLinear::path_chooses() { return kernels::active_table().bound != nullptr; }

bool PackedLinear::chooses(std::int64_t rows) const {
    return format_ == WeightFormat::q8_planes && parts_.size() == 1 && rows <= kernels::kChoiceRows && path_chooses();
}

void PackedLinear::bound(TeamMember::Range panels, const PackedRows& x, ChoiceMemory& memory, float* uppers,
                         float* least) const {
    check_rows(x);
    const std::int64_t rows = x.rows(), blocks = x.padded_in() / 32;
    std::fill_n(least, rows, -std::numeric_limits<float>::infinity());
    if (panels.size() <= 0 || rows == 0) return;
    look_at_rows(x, memory);
    const std::int64_t panel_bytes = kernels::panel_bytes(format_, blocks);
    std::array<float, kernels::kChoiceRows> best{};
    std::array<std::int64_t, kernels::kChoiceRows> best_panel{-1, -1, -1, -1};
    kernels::active_table().bound({.panels = parts_[0].data.get(),
                                   .panel_bytes = panel_bytes,
                                   .low = parts_[0].data.get() + panels_ * panel_bytes,
                                   .begin = panels.begin,
                                   .end = panels.end,
                                   .out = out_,
                                   .blocks = blocks,
                                   .rows = rows,
                                   .bytes = x.bytes(),
                                   .scales = x.scales(),
                                   .both = memory.both.data(),
                                   .norms = memory.norms.data(),
                                   .uppers = uppers + panels.begin * rows,
                                   .best = best.data(),
                                   .best_panel = best_panel.data()});
    alignas(64) float y[kernels::kChoiceRows * kPanel];
    for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t panel = best_panel[static_cast<std::size_t>(r)];
        if (panel < 0) continue;
        multiply_alone({panel, panel + 1}, x, y, kPanel);
        for (std::int64_t c = 0; c < std::min(kPanel, out_ - panel * kPanel); ++c)
            least[r] = std::max(least[r], y[r * kPanel + c]);  // passes over NaN
    }
}

void PackedLinear::choose(TeamMember::Range panels, const PackedRows& x, ChoiceMemory& memory, const float* uppers,
                          const float* least, RowPick* picks) const {
    const std::int64_t rows = x.rows();
    memory.left.clear();
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
        bool left = false;
        for (std::int64_t r = 0; r < rows; ++r) left |= !(uppers[panel * rows + r] < least[r]);
        if (left) memory.left.push_back(panel);
    }
    alignas(64) float y[kernels::kChoiceRows * kPanel];
    constexpr std::size_t kAhead = 3;  // panels; they are far from each other, and nobody else asks for them in time
    for (std::size_t i = 0; i < memory.left.size() + kAhead; ++i) {
        if (i < memory.left.size()) ask_for_panel(memory.left[i]);
        if (i < kAhead) continue;
        const std::int64_t panel = memory.left[i - kAhead], first = panel * kPanel;
        multiply_alone({panel, panel + 1}, x, y, kPanel);
        for (std::int64_t r = 0; r < rows; ++r) picks[r].take(y + r * kPanel, std::min(kPanel, out_ - first), first);
    }
}

void PackedLinear::ask_for_panel(std::int64_t panel) const {
    const std::int64_t blocks = (in_ + 31) / 32, bytes = kernels::panel_bytes(format_, blocks);
    const std::byte *high = parts_[0].data.get() + panel * bytes,
                    *low = parts_[0].data.get() + panels_ * bytes + kernels::low_at(panel, blocks);
    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(high + i);
    for (std::int64_t b = 0; b < blocks; ++b, low += kernels::kLowStep)
        for (std::int64_t i = 0; i < kernels::kLowBytes; i += 64) __builtin_prefetch(low + i);
}

}  // namespace outrider
