// Register tiles for f32 and bf16 weights, and the walk over panels and rows. Included inside the unnamed namespace of
// one path, after its `Vec`: kLanes floats with load, set1, fma (or multiply and add), even and odd halves of packed
// bf16 pairs.

template <int R>
OUTRIDER_ALWAYS_INLINE void store_tile(const TileArgs& t, const Vec (&acc)[R][kPanel / Vec::kLanes]) {
    constexpr int kVectors = kPanel / Vec::kLanes;
    float* y = t.y;
    if (t.width == kPanel) {
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r, y += t.ldy) {
            OUTRIDER_UNROLL
            for (int j = 0; j < kVectors; ++j) {
                float* to = y + j * Vec::kLanes;
                (t.add ? Vec::load(to) + acc[r][j] : acc[r][j]).store(to);
            }
        }
        return;
    }
    alignas(64) float row[kPanel];
    OUTRIDER_UNROLL  // a running index would keep the accumulators in memory
        for (int r = 0; r < R; ++r, y += t.ldy) {
        OUTRIDER_UNROLL
        for (int j = 0; j < kVectors; ++j) acc[r][j].store(row + j * Vec::kLanes);
        for (int c = 0; c < t.width; ++c) y[c] = t.add ? y[c] + row[c] : row[c];
    }
}

// f32 panel: [k][16] floats.
template <int R>
void f32_tile(const TileArgs& t) {
    constexpr int kVectors = kPanel / Vec::kLanes;
    Vec acc[R][kVectors];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) OUTRIDER_UNROLL
    for (int j = 0; j < kVectors; ++j) acc[r][j] = Vec::zero();
    const float* w = reinterpret_cast<const float*>(t.panel);
    const float* x = t.floats;
    for (std::int64_t k = t.blocks * 32; k > 0; --k, w += kPanel, x += t.group) {
        __builtin_prefetch(w + kPrefetchBytes / 4);
        Vec column[kVectors];
        OUTRIDER_UNROLL
        for (int j = 0; j < kVectors; ++j) column[j] = Vec::load(w + j * Vec::kLanes);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec value = Vec::set1(x[r]);
            OUTRIDER_UNROLL
            for (int j = 0; j < kVectors; ++j) acc[r][j] = Vec::fma(value, column[j], acc[r][j]);
        }
    }
    store_tile<R>(t, acc);
}

// One k of bf16 weights. Broadcasts stay where they stand: loaded ahead of the sums they spill accumulators.
template <int R, typename Half>
OUTRIDER_ALWAYS_INLINE void bf16_step(const std::uint32_t* w, const float* x, Vec (&acc)[R][kPanel / Vec::kLanes],
                                      Half half) {
    constexpr int kVectors = kPanel / Vec::kLanes;
    Vec column[kVectors];
    OUTRIDER_UNROLL
    for (int j = 0; j < kVectors; ++j) column[j] = half(w + j * Vec::kLanes);
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) {
        const Vec value = Vec::broadcast_here(x + r);
        OUTRIDER_UNROLL
        for (int j = 0; j < kVectors; ++j) acc[r][j] = Vec::fma(value, column[j], acc[r][j]);
    }
}

// bf16 panel: [k / 2][16][2] halves; the even k is the low half of a 32-bit word, the odd one the high half.
template <int R>
void bf16_tile(const TileArgs& t) {
    constexpr int kVectors = kPanel / Vec::kLanes;
    Vec acc[R][kVectors];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) OUTRIDER_UNROLL
    for (int j = 0; j < kVectors; ++j) acc[r][j] = Vec::zero();
    const auto* w = reinterpret_cast<const std::uint32_t*>(t.panel);
    const float* x = t.floats;
    for (std::int64_t k = t.blocks * 16; k > 0; --k, w += kPanel, x += 2 * t.group) {
        __builtin_prefetch(w + kPrefetchBytes / 4);
        bf16_step<R>(w, x, acc, [](const std::uint32_t* p) { return Vec::even(p); });
        bf16_step<R>(w, x + t.group, acc, [](const std::uint32_t* p) { return Vec::odd(p); });
    }
    store_tile<R>(t, acc);
}

template <int... I>
constexpr std::array<Tile, sizeof...(I)> f32_tiles(std::integer_sequence<int, I...>) {
    return {&f32_tile<I + 1>...};
}
template <int... I>
constexpr std::array<Tile, sizeof...(I)> bf16_tiles(std::integer_sequence<int, I...>) {
    return {&bf16_tile<I + 1>...};
}

void multiply_f32(const MultiplyArgs& args) {
    static constexpr auto kTiles = f32_tiles(std::make_integer_sequence<int, kFloatTile>{});
    walk_tiles(args, kTiles.data(), kFloatTile, 4);
}

void multiply_bf16(const MultiplyArgs& args) {
    static constexpr auto kTiles = bf16_tiles(std::make_integer_sequence<int, kFloatTile>{});
    walk_tiles(args, kTiles.data(), kFloatTile, 4);
}
