// Products of AMX: tdpbf16ps multiplies a tile of 16 rows x 32 k with one of 32 k x 16 outputs, so that 16 rows cost
// about what one costs. For each block of 32 k it sums the products of even and of odd k by themselves, in the order of
// k, and adds both to the output's sum: other bits than those of the path `bf16`, the same for every number of rows. So
// few rows take tiles as well.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16")
namespace outrider::kernels {
namespace {

constexpr std::int64_t kGroup = PackedRows::group_rows(RowForm::bf16);
constexpr std::int64_t kBlockBytes = 32 * kPanel * 2;  // of a panel
constexpr std::int64_t kPrefetchBytes = 8192;

constexpr int kTileRows = 16;  // at most
static_assert(kGroup == 2 * kTileRows);

/// What ldtilecfg reads.
struct TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles 0 to 3 are sums and 4 and 5 rows, of `rows` rows; 6 and 7 are weights of 16 outputs, two k a row.
constexpr TileConfig config_of(int rows) {
    TileConfig c;
    for (int t = 0; t < 8; ++t) c.row_bytes[t] = 64, c.rows[t] = static_cast<std::uint8_t>(t < 6 ? rows : kTileRows);
    return c;
}

// Constants: compilers do not know that ldtilecfg reads more than a pointer's size.
constexpr auto kConfigs = [] {
    std::array<TileConfig, kTileRows> configs{};
    for (int rows = 1; rows <= kTileRows; ++rows) configs[static_cast<std::size_t>(rows - 1)] = config_of(rows);
    return configs;
}();

/// The thread's tile registers, with tiles of `rows` rows. Given back at the end: what is in use is saved at every
/// switch of threads.
class Tiles {
public:
    explicit Tiles(std::int64_t rows) { _tile_loadconfig(&kConfigs[static_cast<std::size_t>(rows - 1)]); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

/// One or two panels, one or two tiles of rows of a group.
struct Block {
    const std::byte* weights = nullptr;  ///< of the first panel; the second lies panel_bytes behind it
    std::int64_t panel_bytes = 0, blocks = 0;
    const std::uint32_t* rows = nullptr;  ///< of the first tile, at block 0
    std::int64_t group = 0;               ///< rows of the group
    std::int64_t tile_rows = 0;
    bool first_use = false;  ///< the weights come from memory
};

OUTRIDER_ALWAYS_INLINE void prefetch_ahead(const std::byte* w) {
    OUTRIDER_UNROLL
    for (int i = 0; i < kBlockBytes; i += 64) __builtin_prefetch(w + kPrefetchBytes + i);
}

// Sums into tiles 0 (first rows, first panel), 1 (second panel), 2 and 3 (second rows).
template <bool kTwoPanels, bool kTwoTiles>
void sum_products(const Block& b) {
    _tile_zero(0);
    if constexpr (kTwoPanels) _tile_zero(1);
    if constexpr (kTwoTiles) _tile_zero(2);
    if constexpr (kTwoPanels && kTwoTiles) _tile_zero(3);
    const std::byte *w = b.weights, *next = w + b.panel_bytes;
    const std::uint32_t *x = b.rows, *second = x + 16 * b.tile_rows;
    for (std::int64_t i = b.blocks; i > 0; --i) {
        if (b.first_use) {
            prefetch_ahead(w);
            if constexpr (kTwoPanels) prefetch_ahead(next);
        }
        _tile_loadd(6, w, 64);
        _tile_loadd(4, x, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (kTwoPanels) {
            _tile_loadd(7, next, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (kTwoTiles) {
            _tile_loadd(5, second, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (kTwoPanels && kTwoTiles) _tile_dpbf16ps(3, 5, 7);
        w += kBlockBytes, next += kBlockBytes, x += 16 * b.group, second += 16 * b.group;
    }
}

/// Where a tile of sums goes.
struct Place {
    float* y = nullptr;
    std::int64_t ldy = 0, rows = 0;
    std::int64_t width = 0;  ///< outputs, 1 to 16
    bool add = false;
    bool whole = false;  ///< all of the tile's rows and outputs are stored, and not added
};

OUTRIDER_ALWAYS_INLINE void put_rows(const float* sums, const Place& to) {
    const auto mask = static_cast<__mmask16>((1U << to.width) - 1);
    float* y = to.y;
    for (std::int64_t r = 0; r < to.rows; ++r, y += to.ldy) {
        const __m512 sum = _mm512_load_ps(sums + 16 * r);
        _mm512_mask_storeu_ps(y, mask, to.add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum) : sum);
    }
}

template <int kTile>
void put(const Place& to) {
    alignas(64) float sums[16 * kTileRows];
    float* at = to.whole ? to.y : sums;
    const std::int64_t stride = to.whole ? to.ldy * 4 : 64;
    if constexpr (kTile == 0) _tile_stored(0, at, stride);
    if constexpr (kTile == 1) _tile_stored(1, at, stride);
    if constexpr (kTile == 2) _tile_stored(2, at, stride);
    if constexpr (kTile == 3) _tile_stored(3, at, stride);
    if (!to.whole) put_rows(sums, to);
}

/// Panels [panel, last) of the group of rows that begins at `begin`.
void multiply_group(const MultiplyArgs& a, std::int64_t panel, std::int64_t last, std::int64_t begin,
                    std::int64_t tile_rows, bool first_use) {
    const std::int64_t group = std::min(kGroup, a.rows - begin);
    const Block block{.weights = a.panels + panel * a.panel_bytes,
                      .panel_bytes = a.panel_bytes,
                      .blocks = a.blocks,
                      .rows = a.pairs + begin * a.blocks * 16,
                      .group = group,
                      .tile_rows = tile_rows,
                      .first_use = first_use};
    const bool two_panels = panel + 1 < last, two_tiles = group > tile_rows;
    if (two_panels)
        two_tiles ? sum_products<true, true>(block) : sum_products<true, false>(block);
    else
        two_tiles ? sum_products<false, true>(block) : sum_products<false, false>(block);
    const auto place = [&](std::int64_t tile, std::int64_t p) {
        const std::int64_t row = tile * tile_rows, rows = std::min(tile_rows, group - row);
        const std::int64_t width = std::min(kPanel, a.out - p * kPanel);
        return Place{.y = a.y + (begin + row) * a.ldy + p * kPanel,
                     .ldy = a.ldy,
                     .rows = rows,
                     .width = width,
                     .add = a.add,
                     .whole = !a.add && rows == tile_rows && width == kPanel};
    };
    put<0>(place(0, panel));
    if (two_panels) put<1>(place(0, panel + 1));
    if (two_tiles) put<2>(place(1, panel));
    if (two_panels && two_tiles) put<3>(place(1, panel + 1));
}

// Rows of a tile: up to 32 rows are one tile or two equal ones, so that none are multiplied for nothing (but one, where
// their number is odd). What is behind the rows of a smaller last group is multiplied and not stored.
std::int64_t tile_rows_of(std::int64_t rows) {
    return rows <= kTileRows ? rows : rows <= kGroup ? (rows + 1) / 2 : kTileRows;
}

void multiply(const MultiplyArgs& a) {
    if (a.rows == 0) return;
    const std::int64_t tile_rows = tile_rows_of(a.rows);
    const Tiles tiles(tile_rows);
    const std::int64_t resident = std::max(kGroup, kRowCache / (a.blocks * 64) / kGroup * kGroup);
    // One group waits for memory, which is read fastest as one stream. More have each weight multiplied twice as
    // loaded.
    const std::int64_t panels = a.rows <= kGroup ? 1 : 2;
    for (std::int64_t first = 0; first < a.rows; first += resident) {
        const std::int64_t last = std::min(a.rows, first + resident);
        for (std::int64_t panel = a.begin; panel < a.end; panel += panels)
            for (std::int64_t begin = first; begin < last; begin += kGroup)
                multiply_group(a, panel, std::min(panel + panels, a.end), begin, tile_rows, begin == first);
    }
}

}  // namespace

const Table& amx_table() {
    static const Table kTable = [] {
        Table t = bf16_table();
        t.isa = Isa::amx;
        t.multiply[static_cast<std::size_t>(WeightFormat::bf16)] = multiply;
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
