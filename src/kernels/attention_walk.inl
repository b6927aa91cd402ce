// What attention's inner loops share on every path. Included inside the unnamed namespace of one path.

// How far ahead of their use keys and values are asked for: a cache lies in memory as cold as the weights, and a head's
// share of a layer is short enough for the processor's own prefetching to be always just starting.
constexpr std::int64_t kCachePrefetch = 8192;

template <CacheFormat kFormat>
OUTRIDER_ALWAYS_INLINE void prefetch_cache(const void* elements, std::int64_t index, std::int64_t count,
                                           const ReadNext& then) {
    constexpr std::int64_t kBytes = element_bytes(kFormat);
    const char* ahead = static_cast<const char*>(elements) + index * kBytes + kCachePrefetch;
    if (then.next != nullptr && ahead >= then.end)
        ahead = static_cast<const char*>(then.next) + (ahead - static_cast<const char*>(then.end));
    for (std::int64_t i = 0; i < count * kBytes; i += 64) __builtin_prefetch(ahead + i);
}

// A run-time number of queries, 1 to kMost, as a constant.
template <int kMost, typename F>
OUTRIDER_ALWAYS_INLINE void with_count(int count, F f) {
    if constexpr (kMost > 1) {
        if (count < kMost) return with_count<kMost - 1>(count, f);
    }
    f(std::integral_constant<int, kMost>{});
}
