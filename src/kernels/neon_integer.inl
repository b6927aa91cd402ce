// Integer products of Arm's Advanced SIMD. Included twice by neon_kernels.cpp, inside a namespace of its own: with
// OUTRIDER_NEON_DOT the sums use sdot (Armv8.2), without it smull and sadalp, which every 64-bit Arm has.

#if OUTRIDER_NEON_DOT
// Four outputs x 4 k: lane i holds output i.
struct Sums {
    int32x4_t v = vdupq_n_s32(0);
    OUTRIDER_ALWAYS_INLINE void add(int8x16_t weights, int8x16_t x) { v = vdotq_s32(v, weights, x); }
    OUTRIDER_ALWAYS_INLINE int32x4_t total() const { return v; }
};
#else
// Two partial sums for each output, two outputs a vector.
struct Sums {
    int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0);
    OUTRIDER_ALWAYS_INLINE void add(int8x16_t weights, int8x16_t x) {
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
        high = vpadalq_s16(high, vmull_high_s8(weights, x));
    }
    OUTRIDER_ALWAYS_INLINE int32x4_t total() const { return vpaddq_s32(low, high); }
};
#endif

OUTRIDER_ALWAYS_INLINE uint8x16_t load16(const std::byte* p) {
    return vld1q_u8(reinterpret_cast<const std::uint8_t*>(p));
}

// Whether `plane` has taken the offset off already: signed bytes hold it.
template <class F>
inline constexpr bool kSigned = F::kBytes || kPlanes<F>;

// The integers of 4 outputs (quarter `j` of the panel) at k = 4 s to 4 s + 3; `low`: a block's low plane.
template <class F>
OUTRIDER_ALWAYS_INLINE int8x16_t plane(const std::byte* w, const std::byte* low, int s, int j) {
    if constexpr (F::kBytes) return vreinterpretq_s8_u8(veorq_u8(load16(w + 64 * s + 16 * j), vdupq_n_u8(0x80)));
    const uint8x16_t pair = load16(w + 64 * (s % 4) + 16 * j);
    if constexpr (kPlanes<F>) {
        const uint8x16_t nibbles = load16(low + 64 * (s % 4) + 16 * j);
        const uint8x16_t both =
            s < 4 ? vsliq_n_u8(vandq_u8(nibbles, vdupq_n_u8(15)), pair, 4) : vsriq_n_u8(pair, nibbles, 4);
        return vreinterpretq_s8_u8(veorq_u8(both, vdupq_n_u8(0x80)));
    }
    uint8x16_t value = s < 4 ? vandq_u8(pair, vdupq_n_u8(15)) : vshrq_n_u8(pair, 4);
    if constexpr (F::kHighBits > 0) {
        const int field = F::kHighBits == 1 ? s : s % 4;
        const uint8x16_t bits = load16(w + 256 + (F::kHighBits == 2 ? 64 * (s / 4) : 0) + 16 * j);
        const uint8x16_t moved = vshlq_u8(bits, vdupq_n_s8(static_cast<std::int8_t>(4 - F::kHighBits * field)));
        value = vorrq_u8(value, vandq_u8(moved, vdupq_n_u8(F::kHighBits == 1 ? 16 : 48)));
    }
    return vreinterpretq_s8_u8(value);
}

OUTRIDER_ALWAYS_INLINE int8x16_t broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

template <class F, int R, int kBegin, int kEnd>
OUTRIDER_ALWAYS_INLINE void block_sums(const std::byte* w, const std::byte* low, const std::int8_t* x, int j,
                                       int32x4_t (&result)[R]) {
    Sums sums[R];
    OUTRIDER_UNROLL
    for (int s = kBegin; s < kEnd; ++s) {
        const int8x16_t weights = plane<F>(w, low, s, j);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) sums[r].add(weights, broadcast4(x + 32 * r + 4 * s));
    }
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) result[r] = sums[r].total();
}

// offset times minus a row's sum, to be added to the sums.
template <class F>
OUTRIDER_ALWAYS_INLINE int32x4_t minus_offset(std::int32_t minus_sum) {
    return vdupq_n_s32(F::kOffset && !kSigned<F> ? minus_sum * (1 << F::kOffsetShift) : 0);
}

OUTRIDER_ALWAYS_INLINE int32x4_t signed4(const std::byte* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(word)))));
}

OUTRIDER_ALWAYS_INLINE float32x4_t unsigned4(const std::byte* p) {
    std::uint32_t word;
    std::memcpy(&word, p, 4);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word))))));
}

OUTRIDER_ALWAYS_INLINE float32x4_t load_halves(const std::byte* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
}

// Integer sums of a block; where the format has a scale for each half, already multiplied by it.
template <class F, int R>
OUTRIDER_ALWAYS_INLINE void weighted_sums(const std::byte* w, const std::byte* low, const std::byte* block,
                                          const std::int8_t* x, const RowScale* row, int j, int32x4_t (&sums)[R]) {
    if constexpr (F::kHalves) {
        int32x4_t high[R];
        block_sums<F, R, 0, 4>(w, low, x, j, sums);
        block_sums<F, R, 4, 8>(w, low, x, j, high);
        const int32x4_t first = signed4(block + 4 * j), second = signed4(block + 16 + 4 * j);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const int32x4_t less = vaddq_s32(sums[r], minus_offset<F>(row[r].minus_low));
            high[r] = vaddq_s32(high[r], minus_offset<F>(row[r].minus_all - row[r].minus_low));
            sums[r] = vmlaq_s32(vmulq_s32(less, first), high[r], second);
        }
    } else {
        block_sums<F, R, 0, 8>(w, low, x, j, sums);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) sums[r] = vaddq_s32(sums[r], minus_offset<F>(row[r].minus_all));
    }
}

// The factor d and the minimum m of 4 outputs.
template <class F>
OUTRIDER_ALWAYS_INLINE void load_scales(const std::byte* super, const std::byte* block, int j, float32x4_t& d,
                                        float32x4_t& m) {
    if constexpr (F::kHalves) {
        d = load_halves(super + 8 * j);
    } else if constexpr (F::kSuper) {
        d = vmulq_f32(load_halves(super + 8 * j), unsigned4(block + 4 * j));
        m = vnegq_f32(vmulq_f32(load_halves(super + 32 + 8 * j), unsigned4(block + 16 + 4 * j)));
    } else {
        d = load_halves(block + 8 * j);
        if constexpr (F::kMinimum) m = load_halves(block + 32 + 8 * j);
    }
}

template <class F, int R>
void tile(const TileArgs& t) {
    float32x4_t acc[R][4];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) OUTRIDER_UNROLL
    for (int j = 0; j < 4; ++j) acc[r][j] = vdupq_n_f32(0);
    auto [values, scales] = streams_of<F>(t.panel, t.blocks);
    const std::byte* low = t.low;
    const std::int8_t* x = t.bytes;
    const RowScale* row = t.scales;
    for (std::int64_t b = 0; b < t.blocks; ++b) {
        const std::byte* super = scales + b / 8 * F::kSuperBytes;
        const std::byte* block = F::kSuper ? super + (F::kHalves ? 32 : 64) + b % 8 * 32 : scales + b * F::kScaleBytes;
        OUTRIDER_UNROLL
        for (int j = 0; j < 4; ++j) {
            int32x4_t sums[R];
            weighted_sums<F, R>(values, low, block, x, row, j, sums);
            float32x4_t d, m = vdupq_n_f32(0);
            load_scales<F>(super, block, j, d, m);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) {
                acc[r][j] = vfmaq_f32(acc[r][j], vmulq_n_f32(vcvtq_f32_s32(sums[r]), row[r].scale), d);
                if constexpr (F::kMinimum) acc[r][j] = vfmaq_n_f32(acc[r][j], m, row[r].sum);
            }
        }
        values += F::kStepBytes, low += kLowStep, x += 32 * t.group, row += t.group;
    }
    float* y = t.y;
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r, y += t.ldy) {
        alignas(16) float out[kPanel];
        OUTRIDER_UNROLL
        for (int j = 0; j < 4; ++j) vst1q_f32(out + 4 * j, acc[r][j]);
        for (int c = 0; c < t.width; ++c) y[c] = t.add ? y[c] + out[c] : out[c];
    }
}

constexpr int kMaxTile = 4;

template <class F, int... I>
constexpr std::array<Tile, sizeof...(I)> tiles(std::integer_sequence<int, I...>) {
    return {&tile<F, I + 1>...};
}

template <class F>
void multiply(const MultiplyArgs& args) {
    static constexpr auto kTiles = tiles<F>(std::make_integer_sequence<int, kMaxTile>{});
    walk_tiles(args, kTiles.data(), kMaxTile, 1);
}
