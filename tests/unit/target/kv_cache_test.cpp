#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/target/detail/kv_cache.hpp>

using namespace outrider;

namespace {

/// Writes `value` + layer into slot `slot` of every layer; values are negative.
void fill(KvCache& cache, std::int64_t slot, float value) {
    for (std::int64_t layer = 0; layer < 2; ++layer) {
        cache.keys(layer).select(1, slot).fill_(value + static_cast<float>(layer) / 4);
        cache.values(layer).select(1, slot).fill_(-value - static_cast<float>(layer) / 4);
    }
}

bool holds(const KvCache& cache, std::int64_t slot, float value) {
    for (std::int64_t layer = 0; layer < 2; ++layer) {
        const float want = value + static_cast<float>(layer) / 4;
        if (!cache.keys(layer).select(1, slot).eq(want).all().item<bool>()) return false;
        if (!cache.values(layer).select(1, slot).eq(-want).all().item<bool>()) return false;
    }
    return true;
}

}  // namespace

TEST_CASE("A cache grows geometrically and keeps what was committed") {
    KvCache cache({.layers = 2, .kv_heads = 3, .head_dim = 4}, at::kFloat);
    CHECK(cache.bytes() == 0);
    std::int64_t growths = 0, capacity = 0;
    for (std::int64_t slot = 0; slot < 2000; ++slot) {
        cache.reserve(1);
        growths += cache.capacity() != capacity;
        capacity = cache.capacity();
        fill(cache, slot, static_cast<float>(slot));
        cache.append(1);
    }
    CHECK(growths < 12);
    CHECK(cache.committed() == 2000);
    for (std::int64_t slot = 0; slot < 2000; slot += 37) REQUIRE(holds(cache, slot, static_cast<float>(slot)));
    const std::size_t settled = static_cast<std::size_t>(2 * 2 * 3 * 4 * 4 * capacity);
    CHECK(cache.bytes() >= settled);
    CHECK(cache.bytes() <= settled * 3 / 2);
}

TEST_CASE("A cache of several large pages begins at one, and grows and is copied as a small one is") {
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf}) {
        KvCache cache({.layers = 2, .kv_heads = 3, .head_dim = 64}, dtype);
        cache.reserve(128);
        REQUIRE(cache.bytes() < kHugePage);
        for (std::int64_t slot = 0; slot < 2000; ++slot) {
            cache.reserve(1);
            if (slot % 37 == 0) fill(cache, slot, static_cast<float>(slot / 37));
            cache.append(1);
        }
        REQUIRE(cache.bytes() > kHugePage);
        const auto settled = static_cast<std::size_t>(2 * 2 * 3 * 64 * cache.capacity()) * c10::elementSize(dtype);
        REQUIRE(cache.bytes() >= settled);
        REQUIRE(cache.bytes() <= settled * 3 / 2);
#if defined(__linux__)
        CHECK(reinterpret_cast<std::uintptr_t>(cache.layer(0).data) % kHugePage == 0);
#endif
        KvCache twin = cache.copy(1500);
        KvCache moved = std::move(cache);
        for (std::int64_t slot = 0; slot < 2000; slot += 37) {
            REQUIRE(holds(moved, slot, static_cast<float>(slot / 37)));
            if (slot < 1500) REQUIRE(holds(twin, slot, static_cast<float>(slot / 37)));
        }
    }
}

TEST_CASE("A cache grows layer by layer while its last slots fill") {
    const std::int64_t layers = 12;
    KvCache cache({.layers = layers, .kv_heads = 1, .head_dim = 16}, at::kHalf);
    std::int64_t most_at_once = 0, partly = 0;
    std::vector<std::int64_t> before(layers, 0);
    for (std::int64_t slot = 0; slot < 3000; ++slot) {
        cache.reserve(1);
        std::int64_t moved = 0, larger = 0;
        for (std::int64_t l = 0; l < layers; ++l) {
            const auto at = static_cast<std::size_t>(l);
            const std::int64_t capacity = cache.layer(l).capacity;
            REQUIRE(capacity > slot);
            REQUIRE(capacity % 32 == 0);
            REQUIRE(cache.keys(l).size(1) == capacity);
            REQUIRE(cache.keys(l).data_ptr() == cache.layer(l).data);
            moved += capacity != before[at] ? 1 : 0;
            larger += capacity > cache.capacity() ? 1 : 0;
            before[at] = capacity;
            cache.values(l).select(1, slot).fill_(static_cast<float>((slot * 7 + l) % 1000));
        }
        if (slot > 0) most_at_once = std::max(most_at_once, moved);
        partly += larger > 0 && larger < layers ? 1 : 0;
        cache.append(1);
    }
    CHECK(most_at_once <= 1);  // 12 layers in 32 slots and more
    CHECK(partly > 200);
    const KvCache twin = cache.copy(2990);
    for (std::int64_t l = 0; l < layers; ++l)
        for (std::int64_t slot = 0; slot < 2990; slot += 13) {
            const auto want = static_cast<float>((slot * 7 + l) % 1000);
            REQUIRE(cache.values(l).select(1, slot).eq(want).all().item<bool>());
            REQUIRE(twin.values(l).select(1, slot).eq(want).all().item<bool>());
        }
    cache.truncate(10);  // while it grows or not, more at once than it has planned for
    cache.reserve(20000);
    CHECK(cache.capacity() >= 20010);
    CHECK(cache.values(3).select(1, 9).eq(static_cast<float>(9 * 7 + 3)).all().item<bool>());
}

TEST_CASE("Keys in panels move, grow and stay as keys in slots do") {
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf}) {
        KvCache panels({.layers = 2, .kv_heads = 3, .head_dim = 4, .key_panels = true}, dtype);
        KvCache slots({.layers = 2, .kv_heads = 3, .head_dim = 4}, dtype);
        // One head's keys [capacity, head_dim] of a layer.
        const auto keys_of = [](const KvCache& cache, std::int64_t layer, std::int64_t head) {
            return cache.keys(layer)[head].view({-1, 4, 16}).transpose(1, 2).reshape({-1, 4});
        };
        const auto write = [&](std::int64_t slot) {
            for (std::int64_t layer = 0; layer < 2; ++layer)
                for (std::int64_t head = 0; head < 3; ++head) {
                    const at::Tensor key = at::arange(4).to(dtype) + static_cast<double>(4 * slot + layer + 100 * head);
                    slots.keys(layer)[head][slot].copy_(key);
                    panels.keys(layer)[head].view({-1, 4, 16})[slot / 16].select(1, slot % 16).copy_(key);
                    slots.values(layer)[head][slot].copy_(-key);
                    panels.values(layer)[head][slot].copy_(-key);
                }
        };
        const std::vector<std::vector<NodeIndex>> paths{{1, 2, 3}, {2, 5}, {7, 11, 12, 13}, {}, {1, 4, 19}};
        for (int round = 0; round < 20; ++round) {
            for (KvCache* cache : {&panels, &slots}) cache->reserve(20);
            for (std::int64_t slot = slots.committed(); slot < slots.committed() + 20; ++slot) write(slot);
            for (KvCache* cache : {&panels, &slots}) cache->keep(paths[static_cast<std::size_t>(round) % paths.size()]);
        }
        const std::int64_t n = slots.committed();
        REQUIRE(panels.committed() == n);
        for (std::int64_t layer = 0; layer < 2; ++layer) {
            for (std::int64_t head = 0; head < 3; ++head)
                CHECK(keys_of(panels, layer, head).slice(0, 0, n).equal(slots.keys(layer)[head].slice(0, 0, n)));
            CHECK(panels.values(layer).slice(1, 0, n).equal(slots.values(layer).slice(1, 0, n)));
        }
    }
}

TEST_CASE("keep moves the accepted path directly behind the root") {
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
        KvCache cache({.layers = 2, .kv_heads = 3, .head_dim = 4}, dtype);
        cache.reserve(3);
        for (std::int64_t slot = 0; slot < 3; ++slot) fill(cache, slot, static_cast<float>(slot));
        cache.append(3);
        cache.reserve(6);
        for (std::int64_t row = 0; row < 6; ++row) fill(cache, 3 + row, static_cast<float>(10 + row));
        cache.keep(std::vector<NodeIndex>{1, 3, 4});
        CHECK(cache.committed() == 7);
        const std::vector<float> want{0, 1, 2, 10, 11, 13, 14};
        for (std::size_t slot = 0; slot < want.size(); ++slot)
            CHECK(holds(cache, static_cast<std::int64_t>(slot), want[slot]));
        cache.reserve(1);
        fill(cache, 7, 20);
        cache.keep({});
        CHECK(cache.committed() == 8);
        CHECK(holds(cache, 7, 20));
    }
}
