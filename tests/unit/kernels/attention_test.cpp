#include <catch2/catch_test_macros.hpp>

#include <numeric>

#include <outrider/core/error.hpp>
#include "kernels/attention.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

namespace {

double from_bfloat16(std::uint16_t h) { return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16); }

// A cache of `slots` slots for kv_heads heads as the kernel reads it: keys in panels [head][slot / 16][dim][16], values
// [head][slot][dim]; and both in doubles.
struct TestCache {
    std::vector<std::byte> keys, values;
    AttentionShape shape;
    std::int64_t head_stride;

    TestCache(const AttentionShape& with, std::int64_t slots)
        : shape(with), head_stride((slots + kKeyPanel - 1) / kKeyPanel * kKeyPanel * with.head_dim) {
        keys.resize(static_cast<std::size_t>(with.kv_heads * head_stride * element_bytes(with.format)),
                    std::byte{0xff});
        values = keys;
    }

    void put(std::int64_t slot, const float* key, const float* value) {
        const std::int64_t d = shape.head_dim;
        for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
            to_key_panels(shape.format, key + h * d, d, slot,
                          keys.data() + h * head_stride * element_bytes(shape.format));
            to_cache(shape.format, value + h * d, d,
                     values.data() + (h * head_stride + slot * d) * element_bytes(shape.format));
        }
    }
    CacheView view() const { return {keys.data(), values.data(), shape.head_dim, head_stride}; }
    double key(std::int64_t head, std::int64_t slot, std::int64_t d) const {
        return at(keys, head * head_stride + (slot / kKeyPanel * shape.head_dim + d) * kKeyPanel + slot % kKeyPanel);
    }
    double value(std::int64_t head, std::int64_t slot, std::int64_t d) const {
        return at(values, head * head_stride + slot * shape.head_dim + d);
    }

private:
    double at(const std::vector<std::byte>& from, std::int64_t element) const {
        const std::byte* p = from.data() + element * element_bytes(shape.format);
        if (shape.format == CacheFormat::f32) {
            float x = 0;
            std::memcpy(&x, p, 4);
            return x;
        }
        std::uint16_t h = 0;
        std::memcpy(&h, p, 2);
        return shape.format == CacheFormat::f16 ? from_half(h) : from_bfloat16(h);
    }
};

// Whether queries and weights are rounded to bf16 on this path.
bool rounds(Isa isa, CacheFormat format) {
    return format == CacheFormat::bf16 && (isa == Isa::bf16 || isa == Isa::amx);
}

std::vector<float> run(ThreadTeam& team, const AttentionShape& shape, std::span<const AttentionRow> rows,
                       const std::vector<float>& q) {
    const std::int64_t width = shape.heads * shape.head_dim;
    std::int64_t most = 0;
    for (const auto& row : rows) most = std::max(most, row.positions());
    std::vector<float> out(q.size(), -7.0F);
    std::vector<std::vector<float>> scratch(
        static_cast<std::size_t>(team.size()),
        std::vector<float>(static_cast<std::size_t>(attention_scratch(shape, most))));
    const bool packs = shape.head_dim % 32 == 0;
    const auto n = static_cast<std::int64_t>(rows.size());
    PackedRows by_parts, afterwards;
    team.run([&](TeamMember& member) {
        PackedRows::Parts parts;
        if (packs) parts = by_parts.prepare(member, n, width, WeightFormat::q8_0);
        attend(member, shape, rows, q.data(), width, out.data(), width,
               scratch[static_cast<std::size_t>(member.index())].data(), packs ? &parts : nullptr);
        member.barrier();
        if (packs) afterwards.assign(member, out.data(), n, width, width, WeightFormat::q8_0);
    });
    if (packs) CHECK(std::memcmp(by_parts.bytes(), afterwards.bytes(), static_cast<std::size_t>(n * width)) == 0);
    return out;
}

// As the paths that round them have them.
void round_queries(std::vector<float>& q, float scale) {
    std::vector<std::uint16_t> halves(q.size());
    for (float& x : q) x *= scale;
    to_cache(CacheFormat::bf16, q.data(), std::ssize(q), halves.data());
    for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(from_bfloat16(halves[i]));
}

std::vector<AttentionShape> shapes() {
    std::vector<AttentionShape> result;
    for (const CacheFormat format : {CacheFormat::f32, CacheFormat::f16, CacheFormat::bf16})
        for (const auto& [heads, kv, dim] : {std::tuple{9, 3, 64}, {4, 4, 16}, {8, 2, 80}, {5, 1, 48}, {16, 1, 96}})
            for (const float cap : {0.0F, 1.5F})
                result.push_back({format, heads, kv, dim, 1 / std::sqrt(static_cast<float>(dim)), cap});
    return result;
}

}  // namespace

TEST_CASE("attention agrees with double precision") {
    const IsaGuard guard;
    ThreadTeam team(2);
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const AttentionShape& shape : shapes()) {
            INFO(name(isa) << " format " << int(shape.format) << " head size " << shape.head_dim);
            Draws draws(3);
            const std::int64_t width = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
            TestCache cache(shape, 50);
            for (std::int64_t s = 0; s < 50; ++s) cache.put(s, draws.normals(kv).data(), draws.normals(kv).data());
            std::vector<AttentionRow> rows;
            const std::vector<std::int32_t> slots{40, 43, 49};
            for (const std::int64_t committed : {1, 2, 15, 16, 17, 33, 40})
                rows.push_back({cache.view(), committed, {}});
            rows.push_back({cache.view(), 31, slots});
            rows.push_back({cache.view(), 0, slots});
            const auto q = draws.normals(static_cast<std::int64_t>(rows.size()) * width);
            const auto out = run(team, shape, rows, q);
            for (std::size_t r = 0; r < rows.size(); ++r)
                for (std::int64_t h = 0; h < shape.heads; ++h) {
                    const std::int64_t head = h / (shape.heads / shape.kv_heads);
                    const auto slot = [&](std::int64_t p) {
                        return p < rows[r].committed ? p : slots[static_cast<std::size_t>(p - rows[r].committed)];
                    };
                    const float* query = q.data() + static_cast<std::int64_t>(r) * width + h * shape.head_dim;
                    std::vector<float> rounded(query, query + shape.head_dim);
                    if (rounds(isa, shape.format)) round_queries(rounded, shape.scale);
                    std::vector<double> weights;
                    double most = -1e30, sum = 0;
                    for (std::int64_t p = 0; p < rows[r].positions(); ++p) {
                        double score = 0;
                        for (std::int64_t d = 0; d < shape.head_dim; ++d)
                            score += rounded[static_cast<std::size_t>(d)] * cache.key(head, slot(p), d);
                        if (!rounds(isa, shape.format)) score *= shape.scale;
                        weights.push_back(shape.cap > 0 ? shape.cap * std::tanh(score / shape.cap) : score);
                        most = std::max(most, weights.back());
                    }
                    for (double& weight : weights) sum += weight = std::exp(weight - most);
                    for (std::int64_t d = 0; d < shape.head_dim; ++d) {
                        double exact = 0, near = 3e-6;  // a weight rounded to 8 bits is off by 2^-8 of it at most
                        for (std::int64_t p = 0; p < rows[r].positions(); ++p) {
                            const double part =
                                weights[static_cast<std::size_t>(p)] / sum * cache.value(head, slot(p), d);
                            exact += part;
                            if (rounds(isa, shape.format)) near += std::abs(part) / 256;
                        }
                        REQUIRE(std::abs(out[static_cast<std::size_t>((query - q.data()) + d)] - exact) < near);
                    }
                }
        }
    }
}

TEST_CASE("a row's bits do not depend on where its positions sit, on other rows, or on threads") {
    const IsaGuard guard;
    ThreadTeam one(1), two(2), three(3);
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const AttentionShape& shape : shapes()) {
            INFO(name(isa) << " format " << int(shape.format) << " head size " << shape.head_dim);
            Draws draws(5);
            const std::int64_t width = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim, length = 37;
            std::vector<std::vector<float>> keys, values;
            for (std::int64_t p = 0; p < length; ++p)
                keys.push_back(draws.normals(kv)), values.push_back(draws.normals(kv));
            const auto q = draws.normals(width);
            TestCache plain(shape, length);
            for (std::int64_t p = 0; p < length; ++p)
                plain.put(p, keys[static_cast<std::size_t>(p)].data(), values[static_cast<std::size_t>(p)].data());
            const AttentionRow alone{plain.view(), length, {}};
            const auto expected = run(one, shape, {&alone, 1}, q);

            for (const std::int64_t committed : {0, 1, 15, 16, 30, 36}) {
                // The later positions lie scattered among slots that hold other branches.
                TestCache tree(shape, 80);
                for (std::int64_t s = 0; s < 80; ++s) tree.put(s, draws.normals(kv).data(), draws.normals(kv).data());
                std::vector<std::int32_t> slots;
                for (std::int64_t p = 0; p < length; ++p) {
                    const auto slot = p < committed ? p : committed + (p - committed) * 2 + p % 2;
                    if (p >= committed) slots.push_back(static_cast<std::int32_t>(slot));
                    tree.put(slot, keys[static_cast<std::size_t>(p)].data(),
                             values[static_cast<std::size_t>(p)].data());
                }
                std::vector<AttentionRow> rows;
                std::vector<float> queries;
                for (int r = 0; r < 6; ++r) {
                    if (r == 3)
                        rows.push_back({tree.view(), committed, slots}),
                            queries.insert(queries.end(), q.begin(), q.end());
                    else {
                        rows.push_back({r % 2 == 0 ? tree.view() : plain.view(), 1 + 5 * r, {}});
                        const auto other = draws.normals(width);
                        queries.insert(queries.end(), other.begin(), other.end());
                    }
                }
                for (ThreadTeam* team : {&one, &two, &three}) {
                    const auto out = run(*team, shape, rows, queries);
                    REQUIRE(same_bits(std::span(out).subspan(static_cast<std::size_t>(3 * width), q.size()), expected));
                }
            }
        }
    }
}

TEST_CASE("rows that share a cache have the bits of rows alone") {
    const IsaGuard guard;
    ThreadTeam one(1), two(2), three(3);
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const AttentionShape& shape : shapes()) {
            INFO(name(isa) << " format " << int(shape.format) << " head size " << shape.head_dim);
            Draws draws(11);
            const std::int64_t width = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim, slots = 90;
            TestCache cache(shape, slots), other(shape, 20);
            for (std::int64_t s = 0; s < slots; ++s) cache.put(s, draws.normals(kv).data(), draws.normals(kv).data());
            for (std::int64_t s = 0; s < 20; ++s) other.put(s, draws.normals(kv).data(), draws.normals(kv).data());
            // A tree's rows behind 40 committed slots, windows that begin anywhere, one far from the others, rows of
            // another cache in between.
            const std::vector<std::int32_t> chain{40, 41, 44}, branch{40, 57, 89}, leaf{40};
            std::vector<AttentionRow> rows;
            const auto add = [&](bool of_other, std::int64_t committed, std::span<const std::int32_t> behind,
                                 std::int64_t first) {
                rows.push_back({of_other ? other.view() : cache.view(), committed, behind, first});
            };
            for (int i = 0; i < 3; ++i) add(false, 40, chain, 0), add(false, 40, branch, 0), add(false, 40, leaf, 0);
            for (int i = 0; i < 5; ++i) add(false, 41 + i, {}, 0);
            add(true, 7, {}, 0), add(true, 13, {}, 5), add(true, 20, {}, 0);
            for (const std::int64_t first : {0, 1, 15, 16, 17, 30, 33}) add(false, 40 - first, chain, first);
            add(false, 2, {}, 88), add(false, 2, {}, 0), add(false, 0, chain, 0), add(false, 1, {}, 40);
            for (std::int64_t first = 3; first < 60; first += 7) add(false, 10, {}, first);
            const auto q = draws.normals(std::ssize(rows) * width);
            std::vector<float> alone;
            for (std::size_t r = 0; r < rows.size(); ++r) {
                const auto at = q.begin() + static_cast<std::int64_t>(r) * width;
                const auto row = run(one, shape, {&rows[r], 1}, std::vector<float>(at, at + width));
                alone.insert(alone.end(), row.begin(), row.end());
            }
            for (ThreadTeam* team : {&one, &two, &three}) REQUIRE(same_bits(run(*team, shape, rows, q), alone));
        }
    }
}

TEST_CASE("cache elements are rounded to nearest even on every path") {
    const IsaGuard guard;
    Draws draws(7);
    std::vector<float> x = draws.normals(1000);
    for (const float v : {0.0F, -0.0F, 65504.0F, 65519.9F, 65520.0F, 1e9F, 6e-5F, 5.9e-8F, 2.9e-8F, 3e-8F,
                          1.00048828125F, 1.00146484375F, 1e-40F, std::numeric_limits<float>::infinity()})
        x.push_back(v), x.push_back(-v);
    const auto n = static_cast<std::int64_t>(x.size());
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::bf16}) {
        std::vector<std::uint16_t> expected;
        for (const Isa isa : available_isas()) {
            force_isa(isa);
            std::vector<std::uint16_t> halves(x.size());
            to_cache(format, x.data(), n, halves.data());
            if (expected.empty()) expected = halves;
            CHECK(halves == expected);
        }
        for (std::size_t i = 0; i < 1000; ++i) {
            const double back = format == CacheFormat::f16 ? from_half(expected[i]) : from_bfloat16(expected[i]);
            CHECK(std::abs(back - x[i]) <=
                  std::abs(x[i]) * (format == CacheFormat::f16 ? 1.0 / 2048 : 1.0 / 256) + 3e-8);
        }
        if (format == CacheFormat::f16) {
            CHECK(expected[1004] == 0x7bff);  // 65504
            CHECK(expected[1006] == 0x7bff);  // 65519.9 is below the tie
            CHECK(expected[1008] == 0x7c00);
        }
    }
}

TEST_CASE("shapes that do not fit and rows that see nothing are errors") {
    ThreadTeam team(1);
    const std::vector<float> q(64);
    AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 64};
    TestCache cache(shape, 2);
    const AttentionRow blind{cache.view(), 0, {}}, row{cache.view(), 1, {}};
    CHECK_THROWS_AS(run(team, shape, {&blind, 1}, q), Error);
    shape.head_dim = 24;
    CHECK_THROWS_AS(run(team, shape, {&row, 1}, q), Error);
    shape.head_dim = 16, shape.heads = 4, shape.kv_heads = 3;
    CHECK_THROWS_AS(run(team, shape, {&row, 1}, q), Error);
}
