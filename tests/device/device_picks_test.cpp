// What the device picks of rows of logits, beside the policy that picks on the host.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/core/detail/rng.hpp>

#include "device_fixture.hpp"
#include "device_ways.hpp"
#include "target/device_picks.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

constexpr std::int64_t kVocabulary = 700;

/// Rows of logits and how each is picked of, on the CPU.
struct Rows {
    at::Tensor logits;
    std::vector<SamplingOptions> options;

    [[nodiscard]] PickNumbers numbers() const {
        const std::int64_t N = logits.size(0);
        PickNumbers how{.key = at::empty({N}, at::kLong),
                        .temperature = at::empty({N}, at::kDouble),
                        .top_k = at::empty({N}, at::kLong),
                        .top_p = at::empty({N}, at::kDouble),
                        .min_p = at::empty({N}, at::kDouble)};
        for (std::int64_t i = 0; i < N; ++i) {
            const PickNumber one = pick_number(options[static_cast<std::size_t>(i)], position(i), kVocabulary);
            how.key[i] = one.key, how.temperature[i] = one.temperature, how.top_k[i] = one.top_k;
            how.top_p[i] = one.top_p, how.min_p[i] = one.min_p;
        }
        return how;
    }
    /// Of the token behind row i.
    static std::int64_t position(std::int64_t i) { return 1 + i % 5; }

    [[nodiscard]] TokenId expected(std::int64_t i) const {
        const std::vector<TokenId> text(static_cast<std::size_t>(position(i)), TokenId{1});
        const SequenceContext context{.sampling = &options[static_cast<std::size_t>(i)], .text = text};
        return Match{}.accept(TokenTree::root_only(1), {logits.narrow(0, i, 1), {}}, context).pending;
    }
};

Rows rows_of_options(const std::vector<SamplingOptions>& kinds, std::int64_t count, double spread) {
    Rows rows{noise({count, kVocabulary}, 11, spread).to(at::kFloat), {}};
    for (std::int64_t i = 0; i < count; ++i) {
        rows.options.push_back(kinds[static_cast<std::size_t>(i) % kinds.size()]);
        rows.options.back().seed = mix64(static_cast<std::uint64_t>(i)), rows.options.back().stream = 3;
    }
    return rows;
}

std::vector<TokenId> picked(const Rows& rows, Picks wanted, bool kernels, std::int64_t numbers) {
    trap::start();
    const DevicePicks picks(kVocabulary, kTrap, kernels, numbers);
    PickNumbers how = rows.numbers();
    for (at::Tensor* part : {&how.key, &how.temperature, &how.top_k, &how.top_p, &how.min_p}) *part = part->to(kTrap);
    const at::Tensor logits = rows.logits.to(kTrap);
    const at::Tensor made = [&] {
        const trap::Trapping trapping;
        return picks(logits, how, wanted).cpu();
    }();
    const auto* const data = made.const_data_ptr<std::int64_t>();
    return {data, data + made.numel()};
}

}  // namespace

TEST_CASE("The device picks what Match picks: any temperature, top-k, top-p, min-p, in pieces") {
    const std::vector<SamplingOptions> whole{{.temperature = 1}, {.temperature = 0.3}, {.temperature = 7}};
    const std::vector<SamplingOptions> cut{{.temperature = 1, .top_k = 4},
                                           {.temperature = 1.5, .top_p = 0.6},
                                           {.temperature = 0.7, .min_p = 0.1},
                                           {.temperature = 1.2, .top_p = 0.95, .top_k = 50, .min_p = 0.01},
                                           {.temperature = 1},
                                           {.temperature = 2, .top_k = 2000},
                                           {.temperature = 1, .top_k = 1}};
    for (const double spread : {0.01, 2.0, 20.0})
        for (const std::int64_t numbers : {1, 16 * 700, 1 << 22}) {
            for (const bool kernels : {false, true}) {
                CAPTURE(spread, numbers, kernels);
                const Rows all = rows_of_options(whole, 60, spread);
                const std::vector<TokenId> got = picked(all, Picks::of_all, kernels, numbers);
                for (std::int64_t i = 0; i < 60; ++i) CHECK(got[static_cast<std::size_t>(i)] == all.expected(i));
            }
            CAPTURE(spread, numbers);
            const Rows some = rows_of_options(cut, 70, spread);
            const std::vector<TokenId> got = picked(some, Picks::of_some, false, numbers);
            for (std::int64_t i = 0; i < 70; ++i) CHECK(got[static_cast<std::size_t>(i)] == some.expected(i));
        }
}

TEST_CASE("Equal logits rank by id for the device's top-k too, and broken rows and rows of nobody have no pick") {
    Rows rows = rows_of_options({{.temperature = 1, .top_k = 3}}, 8, 1.0);
    rows.logits.narrow(0, 0, 4).fill_(2.5F);
    rows.logits[5][17] = std::numeric_limits<float>::quiet_NaN();
    rows.logits[6][0] = INFINITY;
    rows.logits[7].fill_(-INFINITY);
    const std::vector<TokenId> some = picked(rows, Picks::of_some, false, 1 << 22);
    for (std::int64_t i = 0; i < 5; ++i) CHECK(some[static_cast<std::size_t>(i)] == rows.expected(i));
    CHECK(std::ranges::all_of(some.begin(), some.begin() + 4, [](TokenId token) { return token < 3; }));
    for (std::size_t i = 5; i < 8; ++i) CHECK(some[i] == kNoToken);
    for (const bool kernels : {false, true}) {
        const std::vector<TokenId> all = picked(rows, Picks::of_all, kernels, 1 << 22);
        for (std::size_t i = 5; i < 8; ++i) CHECK(all[i] == kNoToken);
    }
    rows.options.assign(8, SamplingOptions{});  // greedy: zeros
    rows.logits = noise({8, kVocabulary}, 2, 1.0).to(at::kFloat);
    PickNumbers nobody = rows.numbers();
    for (at::Tensor* part : {&nobody.key, &nobody.temperature, &nobody.top_k, &nobody.top_p, &nobody.min_p})
        part->zero_();
    for (const Picks wanted : {Picks::of_all, Picks::of_some}) {
        const DevicePicks picks(kVocabulary, at::kCPU, false);
        CHECK(at::all(picks(rows.logits, nobody, wanted).eq(-1)).item<bool>());
    }
}
