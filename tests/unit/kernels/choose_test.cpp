#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/row_ops.hpp"

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

namespace {

constexpr std::int64_t kRows = 4;  // at once

/// A file's blocks of a matrix [out, in].
struct File {
    std::int64_t out, in;
    std::vector<std::byte> bytes;

    File(std::int64_t o, std::int64_t i, Draws& draws)
        : out(o), in(i), bytes(random_blocks(WeightFormat::q8_0, o * i / 32, draws, false)) {}

    std::byte* block(std::int64_t row, std::int64_t b) { return bytes.data() + (row * in / 32 + b) * 34; }
    void scale(std::int64_t row, std::int64_t b, std::uint16_t half_bits) { std::memcpy(block(row, b), &half_bits, 2); }
    void weight(std::int64_t row, std::int64_t k, int value) {
        block(row, k / 32)[2 + k % 32] = static_cast<std::byte>(value);
    }
    void copy(std::int64_t from, std::int64_t to) { std::memcpy(block(to, 0), block(from, 0), in / 32 * 34); }
    PackedLinear as(WeightFormat format) const { return PackedLinear::pack_blocks(format, bytes, out, in); }
};

bool same_pick(const RowPick& a, const RowPick& b) {
    return a.index == b.index && same_bits(std::span(&a.value, 1), std::span(&b.value, 1));
}

/// Chosen in 1, 2 and 5 parts, each row's pick is that of all of its outputs. Returns how many of the panels were
/// computed where there was one part.
std::int64_t check_choice(const PackedLinear& matrix, std::span<const float> x, std::int64_t rows) {
    TeamMember alone;
    PackedRows packed;
    packed.assign(alone, x.data(), rows, matrix.in(), matrix.in(), matrix.format());
    std::vector<float> y(static_cast<std::size_t>(rows * matrix.out()));
    matrix.multiply(alone, packed, y.data(), matrix.out());
    ChoiceMemory memory;
    std::int64_t computed = 0;
    std::vector<float> uppers(static_cast<std::size_t>(matrix.panels() * rows));
    for (const std::int64_t parts : {5, 2, 1}) {
        std::vector<RowPick> picks(static_cast<std::size_t>(rows));
        std::vector<float> least(static_cast<std::size_t>(rows), -std::numeric_limits<float>::infinity()), some = least;
        const auto part_of = [&](std::int64_t part) {
            return TeamMember::Range{matrix.panels() * part / parts, matrix.panels() * (part + 1) / parts};
        };
        for (std::int64_t part = 0; part < parts; ++part) {
            matrix.bound(part_of(part), packed, memory, uppers.data(), some.data());
            for (std::size_t r = 0; r < least.size(); ++r) least[r] = std::max(least[r], some[r]);
        }
        for (std::int64_t part = 0; part < parts; ++part) {
            std::vector<RowPick> own(static_cast<std::size_t>(rows));
            matrix.choose(part_of(part), packed, memory, uppers.data(), least.data(), own.data());
            for (std::size_t r = 0; r < own.size(); ++r) picks[r].take(own[r]);
            computed = std::ssize(memory.left);
        }
        for (std::int64_t r = 0; r < rows; ++r) {
            RowPick expected;
            expected.take(y.data() + r * matrix.out(), matrix.out(), 0);
            INFO("row " << r << " of " << rows << ", " << parts
                        << " parts: " << picks[static_cast<std::size_t>(r)].index << ", expected " << expected.index);
            REQUIRE(same_pick(picks[static_cast<std::size_t>(r)], expected));
        }
    }
    return computed;
}

template <typename F>
void where_it_chooses(F body) {
    on_every_path([&] {
        if (PackedLinear::path_chooses()) body();
    });
}

}  // namespace

TEST_CASE("planes give the bits of bytes on every path, from blocks and from floats") {
    const IsaGuard guard;
    Draws draws(41);
    const std::int64_t out = 83, in = 160, most = 30;
    const File file(out, in, draws);
    const std::vector<float> weights = draws.normals(out * (in - 7)), x = draws.normals(most * in);
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        INFO(name(isa));
        const PackedLinear planes = file.as(WeightFormat::q8_planes), bytes = file.as(WeightFormat::q8_0);
        const PackedLinear rounded = PackedLinear::pack(WeightFormat::q8_planes, weights, out, in - 7);
        const PackedLinear expected = PackedLinear::pack(WeightFormat::int8, weights, out, in - 7);
        for (const std::int64_t n : {1, 2, 3, 5, 8, 13, 24, 30}) {
            CHECK(same_bits(product(planes, x, n), product(bytes, x, n)));
            CHECK(same_bits(product(rounded, x, n), product(expected, x, n)));
        }
        CHECK_FALSE(bytes.chooses(1));
        CHECK_FALSE(planes.chooses(kRows + 1));
        CHECK(planes.chooses(kRows) == PackedLinear::path_chooses());
    }
}

TEST_CASE("the choice is the pick of the whole product: shapes, ties, odd rows") {
    where_it_chooses([] {
        Draws draws(43);
        for (const auto& [out, in] : {std::pair<std::int64_t, std::int64_t>{16, 32}, {1, 64}, {83, 96}, {1030, 640}}) {
            File file(out, in, draws);
            for (std::int64_t i = 0; i < out / 3; ++i) file.copy(draws.below(out), draws.below(out));
            const PackedLinear matrix = file.as(WeightFormat::q8_planes);
            for (std::int64_t rows = 1; rows <= kRows; ++rows) {
                std::vector<float> x = draws.normals(rows * in);
                for (std::int64_t i = 0; i < in / 16; ++i)  // a few dimensions are large, as in models
                    x[static_cast<std::size_t>(draws.below(rows * in))] *= 30;
                (void)check_choice(matrix, x, rows);
                std::fill_n(x.begin(), in, 0.0F);
                (void)check_choice(matrix, x, rows);  // all outputs are equal: the lowest one
                for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                        1e-30F, 1e-38F, 1e30F, 1e36F, 3e38F}) {
                    x[static_cast<std::size_t>(draws.below(in))] = odd;
                    (void)check_choice(matrix, x, rows);
                }
            }
        }
    });
}

TEST_CASE("weights that are no numbers are chosen or passed over as in the whole product") {
    where_it_chooses([] {
        Draws draws(47);
        constexpr std::uint16_t kInfinity = 0x7c00, kNan = 0x7e00;
        for (const bool all : {false, true}) {
            File file(203, 96, draws);
            for (std::int64_t row = 0; row < file.out; ++row)
                if (all || row % 3 == 0) file.scale(row, draws.below(3), draws.below(2) == 0 ? kNan : kInfinity);
            if (all)
                for (std::int64_t row = 0; row < file.out; ++row) file.scale(row, 1, kNan);
            const PackedLinear matrix = file.as(WeightFormat::q8_planes);
            for (std::int64_t rows = 1; rows <= kRows; ++rows)
                (void)check_choice(matrix, draws.normals(rows * 96), rows);
        }
    });
}

// What is not read of one output says the opposite of what is, as strongly as it can: its estimate is far below, and it
// is as large as its bound.
TEST_CASE("an output that reaches its bound is found") {
    where_it_chooses([] {
        Draws draws(53);
        const std::int64_t in = 640, out = 400;
        std::int64_t computed = 0;
        for (int trial = 0; trial < 60; ++trial) {
            File file(out, in, draws);
            std::vector<float> x(static_cast<std::size_t>(in));
            for (float& v : x) v = draws.below(2) == 0 ? 1.0F : -1.0F;  // as integers 127 and -127: all norms are equal
            for (std::int64_t row = 0; row < out; ++row)
                for (std::int64_t b = 0; b < in / 32; ++b) {
                    file.scale(row, b, half(0.01));
                    for (std::int64_t k = 32 * b; k < 32 * b + 32; ++k) file.weight(row, k, 16 * (k % 3) + 7 + k % 2);
                }
            const std::int64_t best = draws.below(out);
            for (std::int64_t k = 0; k < in; ++k) {
                const int high = static_cast<int>(16 * (k % 3));
                file.weight(best, k, high + (x[static_cast<std::size_t>(k)] > 0 ? 15 : 0));
            }
            const PackedLinear matrix = file.as(WeightFormat::q8_planes);
            computed += check_choice(matrix, x, 1);
            const std::vector<float> y = product(matrix, x, 1);
            CHECK(std::ranges::max_element(y) - y.begin() == best);
        }
        CHECK(computed > 0);
    });
}

// Of the largest output every estimated product overflows, and none of its own does.
TEST_CASE("an output is found where only its estimate overflows") {
    where_it_chooses([] {
        Draws draws(61);
        const std::int64_t in = 160, out = 64, best = 50, second = 5;
        File file(out, in, draws);
        for (std::int64_t row = 0; row < out; ++row)
            for (std::int64_t b = 0; b < in / 32; ++b) {
                file.scale(row, b, half(row == best ? 0.01 : 0.02));
                for (std::int64_t k = 32 * b; k < 32 * b + 32; ++k)
                    file.weight(row, k, row == best ? -113 : row == second ? -112 : -127);
            }
        const PackedLinear matrix = file.as(WeightFormat::q8_planes);
        const std::vector<float> x(static_cast<std::size_t>(in), 127 * 7.2e32F);
        (void)check_choice(matrix, x, 1);
        const std::vector<float> y = product(matrix, x, 1);
        CHECK(std::isfinite(y[best]));
        CHECK(std::ranges::max_element(y) - y.begin() == best);
    });
}

TEST_CASE("where one output stands out few are computed") {
    where_it_chooses([] {
        Draws draws(59);
        const std::int64_t in = 640, out = 16384;
        const File file(out, in, draws);
        const PackedLinear matrix = file.as(WeightFormat::q8_planes);
        const std::vector<double> weights = meaning(WeightFormat::q8_0, file.bytes);
        for (std::int64_t rows = 1; rows <= kRows; ++rows) {
            std::vector<float> x;
            for (std::int64_t r = 0; r < rows; ++r) {
                const std::int64_t like = draws.below(out);
                for (std::int64_t k = 0; k < in; ++k)
                    x.push_back(static_cast<float>(weights[static_cast<std::size_t>(like * in + k)]) + draws.normal());
            }
            CHECK(check_choice(matrix, x, rows) < 20);
        }
    });
}
