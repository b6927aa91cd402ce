#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <limits>

#include <outrider/core/error.hpp>
#include "kernels/row_ops.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

TEST_CASE("products agree with double precision on the rows as they are held") {
    on_every_format([](Isa, WeightFormat format) {
        for (const auto& [out, size] : {std::pair{16, 32}, {1, 64}, {33, 96}, {83, 576}}) {
            const std::int64_t in = fitting(format, size);
            const TestMatrix m = random_matrix(format, out, in, 7);
            const std::int64_t n = 11;
            const std::vector<float> x = Draws(3).normals(n * in);
            TeamMember alone;
            PackedRows rows;
            rows.assign(alone, x.data(), n, in, in, format);
            std::vector<float> y(static_cast<std::size_t>(n * out));
            m.packed.multiply(alone, rows, y.data(), out);
            double worst = 0;
            for (std::int64_t r = 0; r < n; ++r)
                for (std::int64_t o = 0; o < out; ++o) {
                    double sum = 0, magnitude = 0;
                    for (std::int64_t k = 0; k < in; ++k) {
                        const double term = m.weights[static_cast<std::size_t>(o * in + k)] * packed_value(rows, r, k);
                        sum += term, magnitude += std::abs(term);
                    }
                    worst = std::max(worst, std::abs(y[static_cast<std::size_t>(r * out + o)] - sum) / magnitude);
                }
            CHECK(worst < 3e-6);  // sums of up to 576 rounded terms, relative to the sum of their magnitudes
            CHECK(worst > 0);
        }
    });
}

TEST_CASE("a row has the same bits alone and among 1 to 65 rows, for every thread count") {
    ThreadTeam two(2), three(3);
    ThreadTeam one(1);
    on_every_format([&](Isa isa, WeightFormat format) {
        const std::int64_t out = 83, in = fitting(format, 160), most = 65;
        const TestMatrix m = random_matrix(format, out, in, 11);
        const std::vector<float> x = Draws(5).normals(most * in);
        std::vector<float> alone;
        for (std::int64_t r = 0; r < most; ++r) {
            const auto y = product(m.packed, std::span(x).subspan(static_cast<std::size_t>(r * in), in), 1);
            alone.insert(alone.end(), y.begin(), y.end());
        }
        PackedRows rows;
        for (std::int64_t n = 1; n <= most; ++n) {
            if (isa == Isa::scalar && n % 8 != 1) continue;  // slow and without tiles of integers
            for (ThreadTeam* team : {&one, &two, &three}) {
                std::vector<float> y(static_cast<std::size_t>(n * out), -1.0F);
                team->run([&](TeamMember& member) {
                    rows.assign(member, x.data(), n, in, in, format);
                    member.barrier();
                    m.packed.multiply(member, rows, y.data(), out);
                });
                REQUIRE(same_bits(y, std::span(alone).first(static_cast<std::size_t>(n * out))));
            }
        }
    });
}

TEST_CASE("a row has the same bits at the first and the last place of a large block of rows") {
    on_every_format([](Isa isa, WeightFormat format) {
        const std::int64_t out = 24, in = 1536, n = isa == Isa::scalar ? 50 : 700;
        const TestMatrix m = random_matrix(format, out, in, 13);
        std::vector<float> x = Draws(17).normals(n * in);
        std::copy_n(x.begin(), in, x.end() - in);
        const auto y = product(m.packed, x, n);
        const auto first = product(m.packed, std::span(x).first(static_cast<std::size_t>(in)), 1);
        CHECK(same_bits(first, std::span(y).first(static_cast<std::size_t>(out))));
        CHECK(same_bits(first, std::span(y).last(static_cast<std::size_t>(out))));
    });
}

TEST_CASE("integer sums are exact on every path") {
    on_every_format([](Isa, WeightFormat format) {
        if (row_form(format) != RowForm::int8) return;
        const std::int64_t out = 50, in = fitting(format, 160), n = 26;
        const TestMatrix m = random_matrix(format, out, in, 19, true);
        Draws draws(23);
        std::vector<float> x(static_cast<std::size_t>(n * in));
        for (float& v : x) v = static_cast<float>(draws.below(255) - 127);
        // Each block's largest is 127, so scales are 1 and all sums are integers below 2^24: floats hold them exactly.
        for (std::size_t i = 0; i < x.size(); i += 32) x[i] = 127.0F;
        // Extremes of one sign must not overflow 16-bit sums.
        for (std::int64_t k = 0; k < in; ++k) x[static_cast<std::size_t>(k)] = 127.0F;
        for (std::int64_t k = 0; k < in; ++k) x[static_cast<std::size_t>(in + k)] = -127.0F;
        const auto y = product(m.packed, x, n);
        for (std::int64_t r = 0; r < n; ++r)
            for (std::int64_t o = 0; o < out; ++o) {
                double sum = 0;
                for (std::int64_t k = 0; k < in; ++k)
                    sum += m.weights[static_cast<std::size_t>(o * in + k)] * x[static_cast<std::size_t>(r * in + k)];
                REQUIRE(y[static_cast<std::size_t>(r * out + o)] == sum);
            }
    });
}

TEST_CASE("largest weights and values do not overflow") {
    on_every_format([](Isa, WeightFormat format) {
        if (made_from_floats(format)) return;
        const BlockShape shape = block_shape(format);
        const auto [d_at, m_at] = scale_places(format);
        std::vector<std::byte> bytes(static_cast<std::size_t>(16 * shape.bytes), std::byte{0xff});
        for (std::int64_t b = 0; b < 16; ++b) {
            std::byte* block = bytes.data() + b * shape.bytes;
            const std::uint16_t one = half(1), zero = 0;
            if (is_bytes(format)) std::memset(block, 0x7f, 34);
            if (format == WeightFormat::q6_k) std::memset(block + 192, 0x7f, 16);
            std::memcpy(block + d_at, &one, 2);
            if (m_at >= 0) std::memcpy(block + m_at, &zero, 2);
        }
        const auto weights = meaning(format, bytes);
        const auto w = PackedLinear::pack_blocks(format, bytes, 16, shape.values);
        for (const float value : {127.0F, -127.0F}) {
            double sum = 0;
            for (std::int64_t k = 0; k < shape.values; ++k) sum += weights[static_cast<std::size_t>(k)] * value;
            const auto y = product(w, std::vector<float>(static_cast<std::size_t>(shape.values), value), 1);
            for (const float v : y) CHECK(std::abs(v - sum) <= 1e-6 * std::abs(sum));
            if (!is_k(format)) CHECK(y[0] == sum);
        }
    });
}

TEST_CASE("infinities and NaN in a row reach that row's outputs and no other") {
    on_every_format([](Isa, WeightFormat format) {
        const std::int64_t out = 20, in = fitting(format, 64), n = 5;
        const TestMatrix m = random_matrix(format, out, in, 31);
        std::vector<float> x = Draws(37).normals(n * in);
        const auto clean = product(m.packed, x, n);
        x[static_cast<std::size_t>(2 * in + 3)] = std::numeric_limits<float>::quiet_NaN();
        const auto y = product(m.packed, x, n);
        for (std::int64_t r = 0; r < n; ++r) {
            const auto at = static_cast<std::size_t>(r * out), count = static_cast<std::size_t>(out);
            if (r == 2)
                CHECK(std::isnan(y[at]));
            else
                CHECK(same_bits(std::span(y).subspan(at, count), std::span(clean).subspan(at, count)));
        }
    });
}

TEST_CASE("inputs that are no multiple of 32 are padded for formats made from floats and refused for blocks") {
    on_every_format([](Isa, WeightFormat format) {
        if (made_from_floats(format)) {
            const std::int64_t out = 17, in = 45, n = 3;
            const TestMatrix m = random_matrix(format, out, in, 41);
            const auto x = Draws(43).normals(n * in);
            const auto y = product(m.packed, x, n);
            for (std::int64_t r = 0; r < n; ++r)
                for (std::int64_t o = 0; o < out; ++o) {
                    double sum = 0;
                    for (std::int64_t k = 0; k < in; ++k)
                        sum +=
                            m.weights[static_cast<std::size_t>(o * in + k)] * x[static_cast<std::size_t>(r * in + k)];
                    // int8 rounds the row's values too: half a step of 1 / 127 of its largest each; bf16 by 2^-8 of
                    // each.
                    const double most = row_form(format) == RowForm::int8   ? 0.4
                                        : row_form(format) == RowForm::bf16 ? 0.1
                                                                            : 1e-4;
                    CHECK(std::abs(y[static_cast<std::size_t>(r * out + o)] - sum) < most);
                }
        } else {
            const std::vector<std::byte> bytes(static_cast<std::size_t>(block_shape(format).bytes) * 4);
            CHECK_THROWS_AS(PackedLinear::pack_blocks(format, bytes, 2, 45), Error);
            CHECK_THROWS_AS(PackedLinear::pack_blocks(format, bytes, 2, block_shape(format).values), Error);
            CHECK_THROWS_AS(PackedLinear::pack_blocks(format, bytes, 4, block_shape(format).values / 2), Error);
            if (format != WeightFormat::q4_1 && format != WeightFormat::q5_1 && format != WeightFormat::q8_planes)
                CHECK_THROWS_AS(PackedLinear::pack(format, std::vector<float>(64), 2, 32), Error);
        }
    });
}

TEST_CASE("floats packed in 4 or 5 bits are the nearest steps between each block's least and largest weight") {
    on_every_format([](Isa, WeightFormat format) {
        if (format != WeightFormat::q4_1 && format != WeightFormat::q5_1) return;
        const std::int64_t out = 21, in = 77, n = 4;
        std::vector<float> weights = Draws(71).normals(out * in);
        for (std::int64_t k = 0; k < in; ++k) {
            weights[static_cast<std::size_t>(k)] = -0.75F;   // no step at all
            weights[static_cast<std::size_t>(in + k)] += 9;  // all of one sign
        }
        const PackedLinear packed = PackedLinear::pack(format, weights, out, in);
        std::vector<double> held(weights.begin(), weights.end());
        round_between(held, in, format == WeightFormat::q4_1 ? 15 : 31);
        const std::vector<float> x = Draws(73).normals(n * in);
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), n, in, in, format);
        const auto y = product(packed, x, n);
        for (std::int64_t r = 0; r < n; ++r)
            for (std::int64_t o = 0; o < out; ++o) {
                double sum = 0, magnitude = 0;
                for (std::int64_t k = 0; k < in; ++k) {
                    const double term = held[static_cast<std::size_t>(o * in + k)] * packed_value(rows, r, k);
                    sum += term, magnitude += std::abs(term);
                }
                CHECK(std::abs(y[static_cast<std::size_t>(r * out + o)] - sum) < 1e-5 * magnitude);
            }
    });
}

TEST_CASE("a stack gives the outputs of its matrices side by side, formats mixed") {
    on_every_format([](Isa, WeightFormat format) {
        const std::int64_t in = fitting(format, 96), n = 7;
        const WeightFormat other = row_form(format) == RowForm::int8 ? WeightFormat::q8_0 : format;
        const auto a = random_matrix(format, 40, in, 47).packed, b = random_matrix(other, 7, in, 53).packed,
                   c = random_matrix(format, 16, in, 59).packed;
        const auto stacked = PackedLinear::stack({a, b, c});
        CHECK(stacked.out() == 63);
        CHECK(stacked.in() == in);
        CHECK(stacked.bytes() == a.bytes() + b.bytes() + c.bytes());
        const auto x = Draws(61).normals(n * in);
        const auto y = product(stacked, x, n), ya = product(a, x, n), yb = product(b, x, n), yc = product(c, x, n);
        for (std::size_t r = 0; r < n; ++r) {
            const auto row = std::span(y).subspan(r * 63, 63);
            CHECK(same_bits(row.first(40), std::span(ya).subspan(r * 40, 40)));
            CHECK(same_bits(row.subspan(40, 7), std::span(yb).subspan(r * 7, 7)));
            CHECK(same_bits(row.last(16), std::span(yc).subspan(r * 16, 16)));
        }
    });
    const auto narrow = random_matrix(WeightFormat::f32, 4, 32, 1).packed;
    CHECK_THROWS_AS(PackedLinear::stack({narrow, random_matrix(WeightFormat::f32, 4, 64, 1).packed}), Error);
    CHECK_THROWS_AS(PackedLinear::stack({narrow, random_matrix(WeightFormat::q4_1, 4, 32, 1).packed}), Error);
    CHECK_THROWS_AS(PackedLinear::stack({narrow, random_matrix(WeightFormat::bf16, 4, 32, 1).packed}), Error);
    CHECK_THROWS_AS(PackedLinear::stack({PackedLinear{}}), Error);
}

TEST_CASE("the path amx sums bf16 products in the stated order, for 1 to 40 rows of matrices of odd sizes") {
    const IsaGuard guard;
    const auto there = available_isas();
    if (std::find(there.begin(), there.end(), Isa::amx) == there.end()) SKIP("this machine has no AMX: nothing tested");
    force_isa(Isa::amx);
    for (const auto& [out, in] :
         {std::pair<std::int64_t, std::int64_t>{1, 31}, {15, 32}, {17, 45}, {48, 160}, {83, 576}}) {
        const std::int64_t most = 40;
        const TestMatrix m = random_matrix(WeightFormat::bf16, out, in, 101);
        const std::vector<float> x = Draws(103).normals(most * in);
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), most, in, in, WeightFormat::bf16);
        std::vector<float> expected(static_cast<std::size_t>(most * out));
        for (std::int64_t r = 0; r < most; ++r)
            for (std::int64_t o = 0; o < out; ++o) {
                float& sum = expected[static_cast<std::size_t>(r * out + o)];
                for (std::int64_t first = 0; first < in; first += 32) {
                    float by[2] = {};  // even and odd k; each product is exact
                    for (std::int64_t k = first; k < std::min(in, first + 32); ++k)
                        by[k % 2] += static_cast<float>(m.weights[static_cast<std::size_t>(o * in + k)] *
                                                        packed_value(rows, r, k));
                    sum += by[0] + by[1];
                }
            }
        for (std::int64_t n = 1; n <= most; ++n) {
            INFO(n << " rows, [" << out << ", " << in << "]");
            const auto part = std::span(x).first(static_cast<std::size_t>(n * in));
            REQUIRE(
                same_bits(product(m.packed, part, n), std::span(expected).first(static_cast<std::size_t>(n * out))));
        }
    }
}

TEST_CASE("Store::add adds the product to what is there") {
    on_every_format([](Isa, WeightFormat format) {
        const std::int64_t out = 21, in = fitting(format, 64), n = 3, ldy = 30;
        const auto w = random_matrix(format, out, in, 67).packed;
        const auto x = Draws(71).normals(n * in), start = Draws(73).normals(n * ldy);
        const auto y = product(w, x, n);
        std::vector<float> sum = start;
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), n, in, in, format);
        w.multiply(alone, rows, sum.data(), ldy, Store::add);
        for (std::size_t r = 0; r < n; ++r)
            for (std::size_t c = 0; c < ldy; ++c) {
                const float before = start[r * ldy + c];
                CHECK(sum[r * ldy + c] == (c < out ? before + y[r * out + c] : before));
            }
    });
}

TEST_CASE("packing is the same whatever the team, keeps to the file's size, and rows must fit") {
    ThreadTeam team(3);
    for (const WeightFormat format : all_formats()) {
        if (made_from_floats(format)) continue;
        Draws draws(79);
        // A low plane is made of whole groups of 32 panels.
        const std::int64_t out = format == WeightFormat::q8_planes ? 1024 : 576, in = 1536;
        const auto bytes = random_blocks(format, out * in / block_shape(format).values, draws, false);
        const auto a = PackedLinear::pack_blocks(format, bytes, out, in),
                   b = PackedLinear::pack_blocks(format, bytes, out, in, &team);
        const auto x = draws.normals(in);
        CHECK(same_bits(product(a, x, 1), product(b, x, 1)));
        CHECK(static_cast<double>(a.bytes()) <= 1.05 * static_cast<double>(bytes.size()));
        TeamMember alone;
        PackedRows rows;
        std::vector<float> y(static_cast<std::size_t>(out));
        rows.assign(alone, x.data(), 1, in, in, WeightFormat::f32);
        CHECK_THROWS_AS(a.multiply(alone, rows, y.data(), out), Error);
        rows.assign(alone, x.data(), 1, in / 2, in, format);
        CHECK_THROWS_AS(a.multiply(alone, rows, y.data(), out), Error);
    }
}

TEST_CASE("some panels of a stack give the bits of the whole product, and write nothing else") {
    on_every_format([](Isa, WeightFormat format) {
        const std::int64_t in = fitting(format, 96), n = 5, out = 40 + 83;
        const PackedLinear w =
            PackedLinear::stack({random_matrix(format, 40, in, 3).packed, random_matrix(format, 83, in, 5).packed});
        REQUIRE(w.panels() == 3 + 6);
        const auto x = Draws(29).normals(n * in);
        const auto whole = product(w, x, n);
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), n, in, in, format);
        const auto column = [](std::int64_t panel) {
            return panel <= 2 ? 16 * panel : std::min<std::int64_t>(40 + 16 * (panel - 3), 123);
        };
        for (std::int64_t begin = 0; begin <= 9; ++begin)
            for (std::int64_t end = begin; end <= 9; ++end) {
                std::vector<float> y(static_cast<std::size_t>(n * out), -7.0F), expected = y;
                w.multiply({begin, end}, rows, y.data(), out);
                if (begin < end)
                    for (std::int64_t r = 0; r < n; ++r)
                        std::copy(whole.begin() + r * out + column(begin), whole.begin() + r * out + column(end),
                                  expected.begin() + r * out + column(begin));
                REQUIRE(same_bits(y, expected));
            }
    });
}

TEST_CASE("matrices of one model share memory and outlive one another") {
    const std::int64_t out = 1024, in = 256;
    std::vector<PackedLinear> kept;
    const auto x = Draws(91).normals(in);
    std::vector<std::vector<float>> expected;
    for (std::uint64_t i = 0; i < 80; ++i) {  // more than one piece of memory
        const auto m = random_matrix(WeightFormat::q8_0, out, in, 92 + i % 3).packed;
        if (i % 2 == 0) kept.push_back(m), expected.push_back(product(m, x, 1));
    }
    for (std::size_t i = 0; i < kept.size(); ++i) {
        CHECK(same_bits(product(kept[i], x, 1), expected[i]));
        kept[i] = PackedLinear{};
    }
}

TEST_CASE("a path that the machine lacks is refused") {
    const IsaGuard guard;
    const auto there = available_isas();
    for (const Isa isa : {Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512, Isa::vnni, Isa::bf16, Isa::amx}) {
        if (std::find(there.begin(), there.end(), isa) != there.end()) {
            force_isa(isa);
            CHECK(active_isa() == isa);
        } else {
            CHECK_THROWS_AS(force_isa(isa), Error);
        }
    }
}
