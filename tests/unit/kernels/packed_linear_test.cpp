#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <limits>

#include <outrider/core/error.hpp>
#include "kernels/row_ops.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

namespace {

std::string label(Isa isa, WeightFormat format) { return std::string(name(isa)) + " " + std::string(name(format)); }

template <typename F>
void on_every_path(F body) {
    const IsaGuard guard;
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const WeightFormat format : all_formats()) {
            INFO(label(isa, format));
            body(isa, format);
        }
    }
}

}  // namespace

TEST_CASE("products agree with double precision on the rows as they are held") {
    on_every_path([](Isa, WeightFormat format) {
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
    on_every_path([&](Isa isa, WeightFormat format) {
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
    on_every_path([](Isa isa, WeightFormat format) {
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
    on_every_path([](Isa, WeightFormat format) {
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
    on_every_path([](Isa, WeightFormat format) {
        if (made_from_floats(format)) return;
        const BlockShape shape = block_shape(format);
        const auto [d_at, m_at] = scale_places(format);
        std::vector<std::byte> bytes(static_cast<std::size_t>(16 * shape.bytes), std::byte{0xff});
        for (std::int64_t b = 0; b < 16; ++b) {
            std::byte* block = bytes.data() + b * shape.bytes;
            const std::uint16_t one = half(1), zero = 0;
            if (format == WeightFormat::q8_0) std::memset(block, 0x7f, 34);
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

TEST_CASE("rows are quantised to the same bits on every path, odd values included") {
    const IsaGuard guard;
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const std::int64_t in = 32 * 9, n = 3;
    std::vector<float> x = Draws(29).normals(n * in);
    const auto block = [&](std::int64_t b) { return x.begin() + 32 * b; };
    std::fill_n(block(0), 32, 0.0F);
    block(1)[5] = inf;
    block(2)[31] = -inf;
    block(3)[0] = nan;
    std::fill_n(block(4), 32, 1e-41F);  // subnormal
    std::fill_n(block(5), 32, -std::numeric_limits<float>::max());
    for (int i = 0; i < 32; ++i) block(6)[i] = static_cast<float>(i) - 15.5F;  // ties
    block(6)[0] = 127.0F;
    std::vector<std::int8_t> bytes;
    std::vector<std::uint32_t> scales;
    for (const Isa isa : available_isas()) {
        INFO(name(isa));
        force_isa(isa);
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), n, in, in, WeightFormat::q4_1);
        const std::vector<std::int8_t> q(rows.bytes(), rows.bytes() + n * in);
        std::vector<std::uint32_t> s(static_cast<std::size_t>(n * in / 32 * 4));
        std::memcpy(s.data(), rows.scales(), s.size() * 4);
        for (std::size_t i = 0; i < s.size(); ++i)  // NaN payloads may differ
            if (i % 4 < 2 && std::isnan(std::bit_cast<float>(s[i]))) s[i] = 0x7fc00000;
        if (bytes.empty()) bytes = q, scales = s;
        CHECK(bytes == q);
        CHECK(scales == s);
        const auto scale = [&](std::int64_t b) { return rows.scales()[b * n].scale; };
        CHECK(scale(0) == 0);
        CHECK((std::isnan(scale(1)) && std::isnan(scale(2)) && std::isnan(scale(3))));
        CHECK(scale(4) == 0);
        CHECK(scale(5) == std::numeric_limits<float>::max() / 127);
        for (std::int64_t r = 0; r < n; ++r)
            for (std::int64_t k = 7 * 32; k < in; ++k) {
                const double error =
                    packed_value(rows, r, k) - static_cast<double>(x[static_cast<std::size_t>(r * in + k)]);
                REQUIRE(std::abs(error) <= 0.5001 * rows.scales()[k / 32 * n + r].scale);
            }
    }
}

TEST_CASE("rows for bf16 weights are floats or, on the paths bf16 and amx, rounded to nearest even") {
    const IsaGuard guard;
    std::vector<float> x = Draws(97).normals(64);
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> odd{0.0F, -0.0F, 1e-41F, inf, -inf, 1.00390625F, 1.01171875F, 1.0039063692F, 3.4e38F};
    std::copy(odd.begin(), odd.end(), x.begin());
    for (const Isa isa : available_isas()) {
        INFO(name(isa));
        force_isa(isa);
        TeamMember alone;
        PackedRows rows;
        rows.assign(alone, x.data(), 1, 64, 64, WeightFormat::bf16);
        const bool rounded = isa == Isa::bf16 || isa == Isa::amx;
        REQUIRE(rows.form() == (rounded ? RowForm::bf16 : RowForm::f32));
        for (std::size_t k = 0; k < x.size(); ++k) {
            const double held = packed_value(rows, 0, static_cast<std::int64_t>(k));
            if (!rounded)
                CHECK(held == x[k]);
            else if (k >= odd.size())
                CHECK(std::abs(held - x[k]) <= std::ldexp(std::abs(x[k]), -8));
        }
        if (!rounded) continue;
        const std::vector<double> expected{0, 0, 1e-41, inf, -inf, 1, 1.015625, 1.0078125};
        for (std::size_t k = 3; k < expected.size(); ++k)
            CHECK(packed_value(rows, 0, static_cast<std::int64_t>(k)) == expected[k]);
        CHECK(std::abs(packed_value(rows, 0, 2) - 1e-41) < 1e-40);
        CHECK(std::isinf(packed_value(rows, 0, 8)));  // above bf16's largest
        x[0] = nan;
        rows.assign(alone, x.data(), 1, 64, 64, WeightFormat::bf16);
        CHECK(std::isnan(packed_value(rows, 0, 0)));
        CHECK(packed_value(rows, 0, 1) == 0);
    }
}

TEST_CASE("infinities and NaN in a row reach that row's outputs and no other") {
    on_every_path([](Isa, WeightFormat format) {
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
    on_every_path([](Isa, WeightFormat format) {
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
            if (format != WeightFormat::q4_1 && format != WeightFormat::q5_1)
                CHECK_THROWS_AS(PackedLinear::pack(format, std::vector<float>(64), 2, 32), Error);
        }
    });
}

TEST_CASE("floats packed in 4 or 5 bits are the nearest steps between each block's least and largest weight") {
    on_every_path([](Isa, WeightFormat format) {
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
    on_every_path([](Isa, WeightFormat format) {
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
    on_every_path([](Isa, WeightFormat format) {
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
        const std::int64_t out = 576, in = 1536;
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
    on_every_path([](Isa, WeightFormat format) {
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

TEST_CASE("fused assigns and rows packed by parts equal the row operation and then assign, for every thread count") {
    ThreadTeam one(1), two(2), three(3);
    on_every_path([&](Isa, WeightFormat format) {
        if (!made_from_floats(format)) return;  // one of each row form
        for (const std::int64_t in : {45, 96, 576})
            for (const std::int64_t n : {1, 2, 7, 30}) {
                Draws draws(83);
                const auto x = draws.normals(n * 2 * in), weight = draws.normals(in);
                std::vector<float> normed(static_cast<std::size_t>(n * in)), gated = normed;
                for (std::int64_t r = 0; r < n; ++r) {
                    const float* row = x.data() + r * 2 * in;
                    rms_norm_row(row, in, weight.data(), 1e-5F, normed.data() + r * in);
                    silu_gate_row(row, row + in, in, gated.data() + r * in);
                }
                const PackedLinear w = random_matrix(format, 3, in, 89).packed;
                const auto by_norm = product(w, normed, n), by_gate = product(w, gated, n);
                for (ThreadTeam* team : {&one, &two, &three}) {
                    PackedRows rows;
                    std::vector<float> y(static_cast<std::size_t>(3 * n)), z = y, g = y;
                    team->run([&](TeamMember& member) {
                        rows.assign_rms_norm(member, x.data(), n, in, 2 * in, weight.data(), 1e-5F, format);
                        member.barrier();
                        w.multiply(member, rows, y.data(), 3);
                        member.barrier();
                        rows.assign_silu_gate(member, x.data(), n, in, 2 * in, format);
                        member.barrier();
                        w.multiply(member, rows, z.data(), 3);
                        member.barrier();
                        const PackedRows::Parts parts = rows.prepare(member, n, in, format);
                        const auto share = member.range((in + 31) / 32);
                        const std::int64_t first = 32 * share.begin, size = std::min(32 * share.end, in) - first;
                        for (std::int64_t r = 0; r < n && size > 0; ++r)
                            parts.pack(r, first, size, gated.data() + r * in + first);
                        member.barrier();
                        w.multiply(member, rows, g.data(), 3);
                    });
                    REQUIRE(same_bits(g, by_gate));
                    REQUIRE(same_bits(y, by_norm));
                    REQUIRE(same_bits(z, by_gate));
                }
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
