// Attention of some query heads of one row that share a KV head. Included inside the unnamed namespace of one path.

template <CacheFormat kFormat>
OUTRIDER_INLINE Vec load_cache(const void* elements, std::int64_t index) {
    if constexpr (kFormat == CacheFormat::f32) return Vec::load(static_cast<const float*>(elements) + index);
    else if constexpr (kFormat == CacheFormat::f16) return Vec::load_f16(static_cast<const std::uint16_t*>(elements) + index);
    else return Vec::load_bf16(static_cast<const std::uint16_t*>(elements) + index);
}

// Scores of kLanes positions for `H` heads: lane-wise products are summed over the head's vectors first, then all lanes
// of all positions in one transposed tree, the same tree for every position. Four positions at a time share the loads of
// the queries.
template <CacheFormat kFormat, int H>
OUTRIDER_INLINE void score_positions(const HeadArgs& a, const std::int64_t* offsets, std::int64_t position) {
    constexpr int L = Vec::kLanes, P = 4;
    Vec partial[H][L];
    for (int first = 0; first < L; first += P) {
        Vec sum[P][H];
        OUTRIDER_UNROLL
        for (int p = 0; p < P; ++p)
            OUTRIDER_UNROLL
            for (int h = 0; h < H; ++h) sum[p][h] = Vec::zero();
        for (std::int64_t d = 0; d < a.head_dim; d += L) {
            Vec query[H];
            OUTRIDER_UNROLL
            for (int h = 0; h < H; ++h) query[h] = Vec::load(a.q + h * a.head_dim + d);
            OUTRIDER_UNROLL
            for (int p = 0; p < P; ++p) {
                const Vec key = load_cache<kFormat>(a.keys, offsets[first + p] + d);
                OUTRIDER_UNROLL
                for (int h = 0; h < H; ++h) sum[p][h] = Vec::fma(key, query[h], sum[p][h]);
            }
        }
        OUTRIDER_UNROLL
        for (int p = 0; p < P; ++p)
            OUTRIDER_UNROLL
            for (int h = 0; h < H; ++h) partial[h][first + p] = sum[p][h];
    }
    OUTRIDER_UNROLL
    for (int h = 0; h < H; ++h)
        (Vec::add_transposed(partial[h]) * Vec::set1(a.scale)).store(a.scores + h * a.score_stride + position);
}

template <CacheFormat kFormat, int H>
OUTRIDER_INLINE void all_scores(const HeadArgs& a) {
    constexpr int L = Vec::kLanes;
    std::int64_t offsets[L];
    for (std::int64_t position = 0; position < a.positions; position += L) {
        // Beyond the end the last position stands in; those scores are overwritten before they are used.
        for (int p = 0; p < L; ++p) offsets[p] = a.offset(std::min(position + p, a.positions - 1));
        score_positions<kFormat, H>(a, offsets, position);
    }
}

// Weighted sum of values in text order: 4 vectors of H heads at a time.
template <CacheFormat kFormat, int H, int kVectors>
OUTRIDER_INLINE void mix_values(const HeadArgs& a, std::int64_t d, const float* inverse_sums) {
    Vec acc[H][kVectors];
    OUTRIDER_UNROLL
    for (int h = 0; h < H; ++h)
        for (int j = 0; j < kVectors; ++j) acc[h][j] = Vec::zero();
    for (std::int64_t p = 0; p < a.positions; ++p) {
        const std::int64_t at = a.offset(p) + d;
        Vec weight[H];
        OUTRIDER_UNROLL
        for (int h = 0; h < H; ++h) weight[h] = Vec::set1(a.scores[h * a.score_stride + p]);
        OUTRIDER_UNROLL
        for (int j = 0; j < kVectors; ++j) {
            const Vec value = load_cache<kFormat>(a.values, at + j * Vec::kLanes);
            OUTRIDER_UNROLL
            for (int h = 0; h < H; ++h) acc[h][j] = Vec::fma(weight[h], value, acc[h][j]);
        }
    }
    OUTRIDER_UNROLL
    for (int h = 0; h < H; ++h)
        for (int j = 0; j < kVectors; ++j)
            (acc[h][j] * Vec::set1(inverse_sums[h])).store(a.out + h * a.head_dim + d + j * Vec::kLanes);
}

template <CacheFormat kFormat, int H>
void attend_heads(const HeadArgs& a) {
    all_scores<kFormat, H>(a);
    float inverse_sums[H];
    for (int h = 0; h < H; ++h) inverse_sums[h] = 1.0F / exponentials(a.scores + h * a.score_stride, a.positions);
    constexpr int kVectors = kMixVectors;
    std::int64_t d = 0;
    for (; d + kVectors * Vec::kLanes <= a.head_dim; d += kVectors * Vec::kLanes)
        mix_values<kFormat, H, kVectors>(a, d, inverse_sums);
    for (; d < a.head_dim; d += Vec::kLanes) mix_values<kFormat, H, 1>(a, d, inverse_sums);
}

template <CacheFormat kFormat>
void attend_any(HeadArgs a) {
    while (a.heads > 0) {
        const std::int64_t now = std::min<std::int64_t>(a.heads, 3);
        if (now == 3) attend_heads<kFormat, 3>(a);
        else if (now == 2) attend_heads<kFormat, 2>(a);
        else attend_heads<kFormat, 1>(a);
        a.heads -= now, a.q += now * a.head_dim, a.out += now * a.head_dim;
    }
}

void attend_group(const HeadArgs& a) {
    switch (a.format) {
        case CacheFormat::f32: return attend_any<CacheFormat::f32>(a);
        case CacheFormat::f16: return attend_any<CacheFormat::f16>(a);
        case CacheFormat::bf16: return attend_any<CacheFormat::bf16>(a);
    }
}
