// Attention's inner loops: scores of queries over panels of keys, and weighted sums of values. Included inside the
// unnamed namespace of one path. Every score is one chain of sums over the head's elements, every output one chain over
// the positions, so neither depends on how many queries or panels share a tile.

#include "attention_walk.inl"

template <CacheFormat kFormat>
OUTRIDER_ALWAYS_INLINE Vec load_cache(const void* elements, std::int64_t index) {
    if constexpr (kFormat == CacheFormat::f32)
        return Vec::load(static_cast<const float*>(elements) + index);
    else if constexpr (kFormat == CacheFormat::f16)
        return Vec::load_f16(static_cast<const std::uint16_t*>(elements) + index);
    else
        return Vec::load_bf16(static_cast<const std::uint16_t*>(elements) + index);
}

template <CacheFormat kFormat, int Q, int kPanels>
OUTRIDER_ALWAYS_INLINE void score_tile(const ScoreArgs& a, std::int64_t panel, const float* q, float* scores) {
    constexpr int kVectors = static_cast<int>(kKeyPanel) / Vec::kLanes;
    Vec sum[Q][kPanels * kVectors];
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) OUTRIDER_UNROLL
    for (int j = 0; j < kPanels * kVectors; ++j) sum[i][j] = Vec::zero();
    const std::int64_t at = panel * a.head_dim * kKeyPanel;
    for (std::int64_t d = 0; d < a.head_dim; ++d, q += kScoreQueries) {
        prefetch_cache<kFormat>(a.keys, at + d * kPanels * kKeyPanel, kPanels * kKeyPanel, a.then);
        Vec key[kPanels * kVectors];
        OUTRIDER_UNROLL
        for (int j = 0; j < kPanels * kVectors; ++j)
            key[j] = load_cache<kFormat>(a.keys,
                                         at + (j / kVectors * a.head_dim + d) * kKeyPanel + j % kVectors * Vec::kLanes);
        OUTRIDER_UNROLL
        for (int i = 0; i < Q; ++i) {
            const Vec query = Vec::broadcast_here(q + i);
            OUTRIDER_UNROLL
            for (int j = 0; j < kPanels * kVectors; ++j) sum[i][j] = Vec::fma(key[j], query, sum[i][j]);
        }
    }
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) OUTRIDER_UNROLL
    for (int j = 0; j < kPanels * kVectors; ++j)
        sum[i][j].store(scores + i * a.stride + panel * kKeyPanel + j * Vec::kLanes);
}

template <CacheFormat kFormat>
void score_format(const ScoreArgs& a) {
    constexpr int kTogether = Vec::kLanes == 16 ? 2 : 1;  // panels
    const int parts = (a.queries + kScoreTile - 1) / kScoreTile;
    for (int part = 0, first = 0; part < parts; ++part) {
        const int now = (a.queries - first) / (parts - part);
        with_count<kScoreTile>(now, [&](auto count) {
            std::int64_t panel = 0;
            for (; panel + kTogether <= a.panels; panel += kTogether)
                score_tile<kFormat, count, kTogether>(a, panel, a.q + first, a.scores + first * a.stride);
            for (; panel < a.panels; ++panel)
                score_tile<kFormat, count, 1>(a, panel, a.q + first, a.scores + first * a.stride);
        });
        first += now;
    }
}

void score_panels(const ScoreArgs& a) {
    switch (a.format) {
        case CacheFormat::f32: return score_format<CacheFormat::f32>(a);
        case CacheFormat::f16: return score_format<CacheFormat::f16>(a);
        case CacheFormat::bf16: return score_format<CacheFormat::bf16>(a);
    }
}

// `V` vectors of the head from element d on, for the Q queries from `query` on.
template <CacheFormat kFormat, int Q, int V, bool kListed>
OUTRIDER_ALWAYS_INLINE void mix_tile(const MixArgs& a, int query, std::int64_t d) {
    Vec acc[Q][V];
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) OUTRIDER_UNROLL
    for (int j = 0; j < V; ++j) acc[i][j] = a.resume ? Vec::load(a.out[query + i] + d + j * Vec::kLanes) : Vec::zero();
    const float* weights = a.weights + query * a.stride;
    for (std::int64_t p = 0; p < a.positions; ++p, ++weights) {
        const std::int64_t at = (kListed ? a.slots[p] : a.first + p) * a.slot_stride + d;
        if constexpr (!kListed) prefetch_cache<kFormat>(a.values, at, V * Vec::kLanes, a.then);
        Vec value[V];
        OUTRIDER_UNROLL
        for (int j = 0; j < V; ++j) value[j] = load_cache<kFormat>(a.values, at + j * Vec::kLanes);
        OUTRIDER_UNROLL
        for (int i = 0; i < Q; ++i) {
            const Vec weight = Vec::broadcast_here(weights + i * a.stride);
            OUTRIDER_UNROLL
            for (int j = 0; j < V; ++j) acc[i][j] = Vec::fma(weight, value[j], acc[i][j]);
        }
    }
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) {
        const Vec factor = Vec::set1(a.factors != nullptr ? a.factors[query + i] : 1.0F);
        OUTRIDER_UNROLL
        for (int j = 0; j < V; ++j) (acc[i][j] * factor).store(a.out[query + i] + d + j * Vec::kLanes);
    }
}

template <CacheFormat kFormat, bool kListed>
void mix_format(const MixArgs& a) {
    const int parts = (a.queries + kMixTile - 1) / kMixTile;
    for (int part = 0, query = 0; part < parts; ++part) {
        const int now = (a.queries - query) / (parts - part);
        with_count<kMixTile>(now, [&](auto count) {
            std::int64_t d = 0;
            for (; d + kMixVectors * Vec::kLanes <= a.head_dim; d += kMixVectors * Vec::kLanes)
                mix_tile<kFormat, count, kMixVectors, kListed>(a, query, d);
            for (; d < a.head_dim; d += Vec::kLanes) mix_tile<kFormat, count, 1, kListed>(a, query, d);
        });
        query += now;
    }
}

template <CacheFormat kFormat>
void mix_any(const MixArgs& a) {
    if (a.slots != nullptr)
        mix_format<kFormat, true>(a);
    else
        mix_format<kFormat, false>(a);
}

void mix_values(const MixArgs& a) {
    switch (a.format) {
        case CacheFormat::f32: return mix_any<CacheFormat::f32>(a);
        case CacheFormat::f16: return mix_any<CacheFormat::f16>(a);
        case CacheFormat::bf16: return mix_any<CacheFormat::bf16>(a);
    }
}
