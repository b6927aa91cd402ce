// The k largest of a row of floats, in one pass over the row: maxima of blocks give a threshold that at least k entries
// reach, and only blocks that reach it are looked at again.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace outrider {

/// A float as an integer of the same order: -NaN < -inf < finite < +inf < +NaN. Integer maxima need no rule for NaN,
/// so that compilers vectorise them.
[[nodiscard]] inline std::int32_t order_key(float x) noexcept {
    const auto bits = std::bit_cast<std::int32_t>(x);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

/// The inverse of order_key.
[[nodiscard]] inline float from_order_key(std::int32_t key) noexcept {
    return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

/// Reusable scratch of a selection; no allocation once it has grown.
class TopK {
public:
    /// What a row holds beside its largest entries.
    enum class Row { usable, empty /* no entry above -inf */, spoiled /* NaN or +inf somewhere */ };

    /// Puts the indices of the k largest entries above -inf into `chosen`, in descending order of value, equal values
    /// in ascending order of index; all of them when k exceeds their number. Leaves `chosen` empty unless usable.
    Row select(std::span<const float> row, std::size_t k, std::vector<std::int32_t>& chosen) {
        chosen.clear();
        if (row.empty()) return Row::empty;
        scan(row);
        const auto [lowest, highest] = std::minmax_element(block_max_.begin(), block_max_.end());
        (void)lowest;
        if (*highest >= order_key(kInfinity) || smallest_ < order_key(-kInfinity)) return Row::spoiled;
        if (*highest == order_key(-kInfinity)) return Row::empty;
        collect(row, threshold(k));
        const std::size_t kept = std::min(k, found_.size());
        std::partial_sort(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(kept), found_.end(), before);
        for (std::size_t i = 0; i < kept; ++i) chosen.push_back(found_[i].index);
        return Row::usable;
    }

private:
    struct Found {
        std::int32_t key, index;
    };
    static constexpr float kInfinity = std::numeric_limits<float>::infinity();
    static constexpr std::size_t kBlock = 64, kLanes = 16;

    static bool before(const Found& a, const Found& b) noexcept {
        return a.key != b.key ? a.key > b.key : a.index < b.index;
    }

    /// Largest key of every block, smallest key of the row. Sixteen independent lanes, so that no reduction has to be
    /// reordered to be vectorised.
    void scan(std::span<const float> row) {
        constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min();
        constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
        block_max_.clear();
        std::int32_t low[kLanes];
        std::fill_n(low, kLanes, most);
        std::size_t i = 0;
        for (; i + kBlock <= row.size(); i += kBlock) {
            std::int32_t high[kLanes];
            std::fill_n(high, kLanes, least);
            for (std::size_t j = 0; j < kBlock; j += kLanes)
                for (std::size_t lane = 0; lane < kLanes; ++lane) {
                    const std::int32_t key = order_key(row[i + j + lane]);
                    high[lane] = std::max(high[lane], key);
                    low[lane] = std::min(low[lane], key);
                }
            block_max_.push_back(*std::max_element(high, high + kLanes));
        }
        if (i < row.size()) {
            std::int32_t high = least;
            for (; i < row.size(); ++i) {
                const std::int32_t key = order_key(row[i]);
                high = std::max(high, key);
                low[0] = std::min(low[0], key);
            }
            block_max_.push_back(high);
        }
        smallest_ = *std::min_element(low, low + kLanes);
    }

    /// The k-th largest block maximum: at least k entries reach it. With fewer blocks, everything above -inf.
    std::int32_t threshold(std::size_t k) {
        const std::int32_t lowest = order_key(-kInfinity) + 1;
        if (k == 0 || k > block_max_.size()) return lowest;
        sorted_ = block_max_;
        const auto kth = sorted_.begin() + static_cast<std::ptrdiff_t>(k - 1);
        std::nth_element(sorted_.begin(), kth, sorted_.end(), std::greater<>{});
        return std::max(*kth, lowest);
    }

    void collect(std::span<const float> row, std::int32_t at_least) {
        found_.clear();
        for (std::size_t block = 0; block < block_max_.size(); ++block) {
            if (block_max_[block] < at_least) continue;
            const std::size_t end = std::min(row.size(), (block + 1) * kBlock);
            for (std::size_t i = block * kBlock; i < end; ++i)
                if (const std::int32_t key = order_key(row[i]); key >= at_least)
                    found_.push_back({key, static_cast<std::int32_t>(i)});
        }
    }

    std::vector<std::int32_t> block_max_, sorted_;
    std::vector<Found> found_;
    std::int32_t smallest_ = 0;
};

}  // namespace outrider
