// The multiply rates of bench_machine.hpp.
#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/rng.hpp>

#include "bench_machine.hpp"
#include "kernels/isa.hpp"
#include "kernels/packed_linear.hpp"

namespace outrider::cli {
namespace {

constexpr std::int64_t kSide = 2048;
constexpr int kProducts = 3;  // at least: one of them may lose its core
constexpr std::array<std::int64_t, 2> kRates{1, 16};
constexpr WeightFormat kQuantised[] = {WeightFormat::q4_0, WeightFormat::q4_1, WeightFormat::q5_0, WeightFormat::q5_1,
                                       WeightFormat::q4_k, WeightFormat::q5_k, WeightFormat::q6_k};

/// What the model holds most matrices in, among those below 8 bits, else q4_1; then those that any model can be held
/// in.
std::vector<WeightFormat> formats_for(std::string_view held) {
    const auto holds = [&](WeightFormat format) { return held.find(name(format)) != std::string_view::npos; };
    const auto* own = std::find_if(std::begin(kQuantised), std::end(kQuantised), holds);
    return {own == std::end(kQuantised) ? WeightFormat::q4_1 : *own, WeightFormat::q8_0, WeightFormat::bf16,
            WeightFormat::f32};
}

PackedLinear random_matrix(WeightFormat format, ThreadTeam& team) {
    const RandomKey key(1, 0, 0);
    if (format == WeightFormat::f32 || format == WeightFormat::bf16) {
        std::vector<float> weights(static_cast<std::size_t>(kSide * kSide));
        for (std::size_t i = 0; i < weights.size(); ++i)
            weights[i] = static_cast<float>(key.bits(i) >> 40) * 1e-8F - 0.08F;
        return PackedLinear::pack(format, weights, kSide, kSide, &team);
    }
    const BlockShape shape = block_shape(format);
    std::vector<std::byte> blocks(static_cast<std::size_t>(kSide * kSide / shape.values * shape.bytes));
    for (std::size_t i = 0; i < blocks.size(); ++i)
        blocks[i] = static_cast<std::byte>(key.bits(i) & 0x3b);  // no scale is infinite or NaN
    return PackedLinear::pack_blocks(format, blocks, kSide, kSide, &team);
}

/// The shortest of as many products as fit into `seconds`, of a few at least, after a first one.
double product_seconds(ThreadTeam& team, const PackedLinear& matrix, std::int64_t n, double seconds) {
    const std::vector<float> x(static_cast<std::size_t>(n * kSide), 0.5F);
    std::vector<float> y(static_cast<std::size_t>(n * kSide));
    PackedRows rows;
    const auto product = [&] {
        const double start = now_seconds();
        team.run([&](TeamMember& member) {
            rows.assign(member, x.data(), n, kSide, kSide, matrix.format());
            member.barrier();
            matrix.multiply(member, rows, y.data(), kSide);
        });
        return now_seconds() - start;
    };
    const double until = now_seconds() + seconds;
    product();
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kProducts || now_seconds() < until; ++i) best = std::min(best, product());
    return best;
}

}  // namespace

std::vector<MultiplyRate> multiply_rates(ThreadTeam& team, std::string_view held, double seconds) {
    const IsaGuard guard;
    std::vector<Isa> paths = available_isas();
    if (paths.size() > 1 && active_isa() != Isa::scalar) paths.erase(paths.begin());
    const std::vector<WeightFormat> formats = formats_for(held);
    const double share = seconds / double(paths.size() * formats.size() * kRates.size());
    std::vector<MultiplyRate> rates;
    for (const WeightFormat format : formats) {
        const PackedLinear matrix = random_matrix(format, team);
        for (const Isa path : paths) {
            force_isa(path);
            for (const std::int64_t n : kRates) {
                const double product = product_seconds(team, matrix, n, share);
                rates.push_back(
                    {std::string(name(path)), std::string(name(format)), n, 2.0 * double(n * kSide * kSide) / product});
            }
        }
    }
    return rates;
}

}  // namespace outrider::cli
