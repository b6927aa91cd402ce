// The check of verifiers finds what it is for, and nothing where nothing is.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <exception>
#include <vector>

#include <outrider/decode/check_lossless.hpp>
#include <outrider/decode/measure_passes.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const std::vector<std::vector<TokenId>> kPrompts{{1, 2, 3}, {4}, {5, 6}};

/// A fake target with one fault.
class Faulty final : public FakeTarget {
public:
    enum class Fault { none, row_noise, small_noise, sequence_order };
    Faulty(FakeLaw law, Fault fault) : FakeTarget(law), fault_(fault) {}

    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override {
        TreeOutput output = FakeTarget::verify(trees);
        const std::int64_t n = output.offsets.back();
        for (std::int64_t row = 1; row < n; ++row) {
            if (fault_ == Fault::row_noise) output.logits[row][row % law().vocabulary] += 3.0;
            if (fault_ == Fault::small_noise) output.logits[row] += 1e-3;
        }
        if (fault_ == Fault::sequence_order && trees.size() > 1) output.logits = output.logits.flip(0);
        return output;
    }

private:
    Fault fault_;
};

}  // namespace

TEST_CASE("a target whose rows stand alone passes, with trees, chains and companions", "[decode]") {
    for (const bool chains : {false, true})
        for (const bool companions : {false, true})
            for (const std::int64_t nodes : {1, 5, 12}) {
                FakeTarget target;
                const LosslessOptions options{
                    .tokens = 40, .nodes = nodes, .chains_only = chains, .companions = companions};
                const LosslessReport report = check_lossless(target, kPrompts, options);
                CHECK(report.lossless());
                CHECK(report.exact());
                CHECK(report.tokens == 3 * 40);
                CHECK(report.rows == 3 * 40);
                CHECK(report.largest_difference == 0);
                CHECK(target.held() == 0);
            }
}

TEST_CASE("a target whose rows depend on their neighbours is found", "[decode]") {
    Faulty loud({}, Faulty::Fault::row_noise);
    const LosslessReport report = check_lossless(loud, kPrompts);
    CHECK_FALSE(report.lossless());
    CHECK_FALSE(report.exact());
    CHECK(report.largest_difference == 3.0);
    REQUIRE(!report.differences.empty());
    CHECK(report.differences[0].token != report.differences[0].other);
    CHECK(report.differences[0].gap >= 0);
    Faulty quiet({}, Faulty::Fault::small_noise);
    const LosslessReport close = check_lossless(quiet, kPrompts);
    CHECK(close.lossless());
    CHECK_FALSE(close.exact());
    CHECK(close.largest_difference > 5e-4);
    Faulty mixed({}, Faulty::Fault::sequence_order);
    CHECK_FALSE(check_lossless(mixed, kPrompts).lossless());
    Faulty sound({}, Faulty::Fault::none);
    CHECK(check_lossless(sound, kPrompts).exact());
}

TEST_CASE("near ties are told", "[decode]") {
    FakeTarget coarse(FakeLaw{.levels = 3});  // many equal logits
    const LosslessReport report = check_lossless(coarse, kPrompts);
    CHECK(report.lossless());
    CHECK(report.near_ties.size() > 10);
    for (const LosslessPlace& place : report.near_ties) CHECK(place.gap == 0);
    FakeTarget fine(FakeLaw{.levels = 1'000'000});
    CHECK(check_lossless(fine, kPrompts).near_ties.empty());
}

TEST_CASE("prompts that cannot be checked are refused, and those at the context's end are not", "[decode]") {
    FakeTarget target(FakeLaw{.context = 20});
    CHECK_THROWS_AS(check_lossless(target, std::vector<std::vector<TokenId>>{{}}), Error);
    CHECK_THROWS_AS(check_lossless(target, std::vector<std::vector<TokenId>>{std::vector<TokenId>(20, 1)}), Error);
    const std::vector<std::vector<TokenId>> long_one{std::vector<TokenId>(15, 1)};
    const LosslessReport report = check_lossless(target, long_one);
    CHECK(report.tokens == 5);
    CHECK(report.exact());
}

TEST_CASE("passes are timed by a verifier's own calls, beside a sequence that it knows", "[decode]") {
    FakeTarget target(FakeLaw{.context = 2000});
    const std::vector<TokenId> prompt{1, 2};
    const Prefill known{77, prompt, 3, FeatureRequest::none()};
    (void)target.prefill(std::span(&known, 1));
    const std::vector<PassTime> times = measure_passes(target, {.rows = {1, 4, 16}, .context = 10, .seconds = 30});
    REQUIRE(times.size() == 3);
    CHECK(target.held() == 1);
    const std::int64_t sweeps = (target.passes - 1) / 3 - 1;  // after a first pass, and each size once
    CHECK((sweeps >= 6 && sweeps <= 15));
    CHECK(target.passes == 1 + 3 * (1 + sweeps));
    CHECK(target.rows == 1 + 21 * (1 + sweeps));
    for (std::size_t i = 0; i < 3; ++i) CHECK(times[i].seconds > 0);
    CHECK(times[2].rows == 16);
    CHECK(times[0].seconds <= times[2].seconds);
    FakeTarget narrow(FakeLaw{.context = 40});
    CHECK(measure_passes(narrow).empty());
    CHECK(narrow.passes == 0);
}

TEST_CASE("passes of a target that refuses are not timed, and no size is beyond its rows", "[decode]") {
    class Full final : public FakeTarget {
    public:
        using FakeTarget::FakeTarget;
        [[nodiscard]] VerifierLimits limits() const override { return {.rows = 8}; }
        [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override {
            TreeOutput output = FakeTarget::verify(trees);
            most_rows = std::max(most_rows, output.offsets.back());
            if (full) output.refused = {std::make_exception_ptr(Error("full", ErrorKind::out_of_memory))};
            return output;
        }
        bool full = false;
        std::int64_t most_rows = 0;
    };
    Full target(FakeLaw{.context = 2000});
    CHECK(measure_passes(target, {.seconds = 30}).back().rows == 8);
    CHECK(target.most_rows == 8);
    target.full = true;
    CHECK(measure_passes(target, {.seconds = 30}).empty());
    CHECK(target.held() == 0);
}
