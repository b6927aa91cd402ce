// Rows as products take them: quantised, rounded, fused with what comes before, packed by parts.
#include <catch2/catch_test_macros.hpp>
#include <algorithm>
#include <limits>

#include <outrider/core/error.hpp>
#include "kernels/row_ops.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

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

TEST_CASE("fused assigns and rows packed by parts equal the row operation and then assign, for every thread count") {
    ThreadTeam one(1), two(2), three(3);
    on_every_format([&](Isa, WeightFormat format) {
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
