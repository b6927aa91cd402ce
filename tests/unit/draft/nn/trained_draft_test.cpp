// Trained drafters: what LibTorch throws while one is loaded arrives as an Error.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <filesystem>

#include <outrider/core/error.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/nn/detail/compact_drafter.hpp>

#include "../../temporary_folder.hpp"
#include "../../translated_error.hpp"
#include "heads_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

/// A target that has lost its tables.
TargetHead broken_head() {
    TargetHead head = toy_head();
    head.embed =
        head.output_rows = [](std::span<const TokenId>) -> at::Tensor { TORCH_CHECK(false, "the tables are gone"); };
    return head;
}

template <typename Draft>
void check_load(const std::filesystem::path& folder) {
    CHECK_NOTHROW(Draft::load(folder, toy_head()));
    check_translated([&] { return Draft::load(folder, broken_head()); }, "the tables are gone");
}

}  // namespace

TEST_CASE("load translates what LibTorch throws, for every kind of drafter") {
    const TemporaryFolder own;
    const std::filesystem::path folder = own.path() / "drafter";
    SECTION("ctc") {
        const CtcConfig config = toy_config(CtcConditioning::prefix);
        write_ctc_config(folder, config), write_ctc_weights(folder, toy_weights(config, toy_head()));
        check_load<CtcDraft>(folder);
    }
    SECTION("medusa") {
        const MedusaConfig config = toy_medusa(HeadOutput::target);
        write_medusa_config(folder, config), write_medusa_weights(folder, toy_weights(config, toy_head()));
        check_load<MedusaDraft>(folder);
    }
    SECTION("hydra") {
        const HydraConfig config = toy_hydra(false);
        write_hydra_config(folder, config), write_hydra_weights(folder, toy_weights(config, toy_head()));
        check_load<HydraDraft>(folder);
    }
}

TEST_CASE("a drafter's folder that cannot be made is an Error") {
    const TemporaryFolder own;
    const std::filesystem::path in_the_way = own.write("file", "");
    const auto refused = MessageMatches(ContainsSubstring("cannot make the folder"));
    const CtcConfig config = toy_config(CtcConditioning::prefix);
    CHECK_THROWS_MATCHES(write_ctc_config(in_the_way / "small", config), Error, refused);
    CHECK_THROWS_MATCHES(write_ctc_weights(in_the_way / "small", toy_weights(config, toy_head())), Error, refused);
    const std::filesystem::path large = own.path() / "large";
    write_ctc_config(large, config), write_ctc_weights(large, toy_weights(config, toy_head()));
    CHECK_THROWS_MATCHES(compact_drafter(large, in_the_way / "small"), Error, refused);
}
