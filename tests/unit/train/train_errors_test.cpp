// What leaves a training: Error, and what the host's own callback threw.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <stdexcept>
#include <string>

#include <outrider/core/error.hpp>
#include <outrider/train/train.hpp>

#include "../translated_error.hpp"
#include "train_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

MedusaTrainOptions two_heads() {
    MedusaTrainOptions options;
    options.heads = 2;
    return options;
}

/// Its device has gone.
class BrokenVerifier final : public ToyVerifier {
public:
    Feedback prefill(std::span<const Prefill>) override { TORCH_CHECK(false, "the device is gone"); }
};

}  // namespace

TEST_CASE("train: folders that cannot be made, for features and for the drafter") {
    const fs::path folder = scratch();
    std::ofstream(folder / "file") << "in the way";
    ToyVerifier verifier;
    TrainOptions options = toy_options(folder, 64);
    const auto refused = MessageMatches(ContainsSubstring("cannot make the folder"));
    options.features = folder / "file" / "features";
    CHECK_THROWS_MATCHES(train_medusa(options, two_heads(), toy_target(&verifier)), Error, refused);
    options.features = folder / "features", options.output = folder / "file" / "drafter";
    CHECK_THROWS_MATCHES(train_medusa(options, two_heads(), toy_target(&verifier)), Error, refused);
}

TEST_CASE("train: what LibTorch throws arrives as an Error, for every kind of drafter") {
    const TrainOptions options = toy_options(scratch(), 64);
    BrokenVerifier broken;
    const std::string said = "the device is gone";
    CtcTrainOptions ctc;
    ctc.intermediate = 64;
    HydraTrainOptions hydra;
    hydra.heads = 2, hydra.intermediate = 64;
    check_translated([&] { return train_medusa(options, two_heads(), toy_target(&broken)); }, said);
    check_translated([&] { return train_ctc(options, ctc, toy_target(&broken)); }, said);
    check_translated([&] { return train_hydra(options, hydra, toy_target(&broken)); }, said);
}

TEST_CASE("train: what the host's callback throws arrives as it is") {
    TrainOptions options = toy_options(scratch(), 64);
    ToyVerifier verifier;
    options.progress = [](const TrainProgress&) -> bool { throw std::logic_error("the host's own"); };
    CHECK_THROWS_AS(train_medusa(options, two_heads(), toy_target(&verifier)), std::logic_error);
}
