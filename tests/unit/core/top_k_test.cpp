#include "../ctc/alignment_reference.hpp"

#include <catch2/catch_test_macros.hpp>
#include <outrider/core/detail/top_k.hpp>

#include <algorithm>
#include <limits>
#include <numeric>

using namespace outrider;
using reference::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::int32_t> by_full_sort(const std::vector<float>& row, std::size_t k) {
    std::vector<std::int32_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
    });
    std::erase_if(order, [&](std::int32_t i) { return row[static_cast<std::size_t>(i)] == -kInf; });
    order.resize(std::min(order.size(), k));
    return order;
}

}  // namespace

TEST_CASE("order_key orders floats as integers and can be undone") {
    const std::vector<float> ascending{-kInf, -3e38F, -1.5F, -1e-40F, 0.0F, 1e-40F, 1e-3F, 2.0F, 3e38F, kInf};
    for (std::size_t i = 0; i + 1 < ascending.size(); ++i) {
        CHECK(order_key(ascending[i]) < order_key(ascending[i + 1]));
        CHECK(from_order_key(order_key(ascending[i])) == ascending[i]);
    }
    CHECK(order_key(kNan) > order_key(kInf));
    CHECK(order_key(-kNan) < order_key(-kInf));
}

TEST_CASE("top-k equals a full stable sort") {
    Random random(1);
    TopK top_k;
    std::vector<std::int32_t> chosen;
    for (int trial = 0; trial < 600; ++trial) {
        std::vector<float> row(1 + random.below(trial % 3 == 0 ? 3000 : 200));
        // Coarse values make ties common; some entries are -inf.
        const double grain = trial % 2 == 0 ? 1.0 : 1e-6;
        for (float& x : row) {
            x = static_cast<float>(std::floor(3.0 * random.normal() / grain) * grain) + 0.0F;
            if (random.uniform() < 0.05) x = -kInf;
        }
        const std::size_t k = 1 + random.below(trial % 5 == 0 ? row.size() + 20 : 24);
        const auto expected = by_full_sort(row, k);
        const TopK::Row state = top_k.select(row, k, chosen);
        CHECK(state == (expected.empty() ? TopK::Row::empty : TopK::Row::usable));
        REQUIRE(chosen == expected);
    }
}

TEST_CASE("top-k sees NaN and +inf wherever they stand") {
    TopK top_k;
    std::vector<std::int32_t> chosen;
    for (const std::size_t size : {1U, 63U, 64U, 65U, 200U})
        for (const float bad : {kNan, -kNan, kInf})
            for (std::size_t place = 0; place < size; ++place) {
                std::vector<float> row(size, 0.5F);
                REQUIRE(top_k.select(row, 4, chosen) == TopK::Row::usable);
                row[place] = bad;
                REQUIRE(top_k.select(row, 4, chosen) == TopK::Row::spoiled);
                REQUIRE(chosen.empty());
            }
    CHECK(top_k.select(std::vector<float>(100, -kInf), 4, chosen) == TopK::Row::empty);
    CHECK(top_k.select({}, 4, chosen) == TopK::Row::empty);
}
