// The check of verifiers finds what it is for, and nothing where nothing is.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <vector>

#include <outrider/decode/check_lossless.hpp>

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
