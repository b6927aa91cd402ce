// The small form of a drafter drafts as the large one does with the kernels.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/nn/detail/compact_drafter.hpp>
#include <outrider/draft/nn/detail/weight_blocks.hpp>

#include "../../temporary_folder.hpp"
#include "heads_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Both forms under one roof; true where they draft the same trees.
template <typename Draft>
bool drafts_alike(const std::filesystem::path& large, const std::filesystem::path& small, const TargetHead& head) {
    compact_drafter(large, small);
    Draft one_form = Draft::load(large, head), other = Draft::load(small, head);
    CHECK(one_form.config().vocabulary == other.config().vocabulary);
    const Text text(40);
    bool alike = true;
    for (std::int64_t known = 0; known < 39; known += 13)
        alike = alike &&
                same(one(one_form, text.feedback(known, known + 13)), one(other, text.feedback(known, known + 13)));
    return alike;
}

std::uintmax_t bytes(const std::filesystem::path& folder) {
    return std::filesystem::file_size(folder / "model.safetensors");
}

}  // namespace

TEST_CASE("weight blocks: what was rounded is rounded to itself, and lies within half a step") {
    using outrider::detail::BlockFormat;
    for (const auto& [format, steps] :
         {std::pair{BlockFormat::q4_1, 15.0F}, {BlockFormat::q5_1, 31.0F}, {BlockFormat::q8_0, 254.0F}})
        for (std::uint64_t seed = 0; seed < 3000; ++seed) {
            const RandomKey key(seed, 7, 0);
            const float scale = std::exp2(static_cast<float>(seed % 16) - 12.0F);
            const float shift = seed % 3 == 0 ? 0.0F : scale * static_cast<float>(key.uniform(99) - 0.5);
            std::array<float, outrider::detail::kBlockWeights> weights{}, once{}, twice{};
            for (std::size_t i = 0; i < weights.size(); ++i)
                weights[i] = seed % 17 == 0 ? shift : shift + scale * static_cast<float>(2 * key.uniform(i) - 1);
            std::array<std::byte, 34> block{}, again{};
            outrider::detail::encode_block(format, weights.data(), block.data());
            outrider::detail::decode_block(format, block.data(), once.data());
            outrider::detail::encode_block(format, once.data(), again.data());
            outrider::detail::decode_block(format, again.data(), twice.data());
            const auto [least, largest] = std::ranges::minmax(weights);
            const float span = format == BlockFormat::q8_0 ? 2 * std::max(-least, largest) : largest - least;
            if (span / steps >= 0x1p-14F) REQUIRE(once == twice);
            if (span / steps >= 0x1p-14F) REQUIRE(block == again);
            // Half a step, and what half precision takes from the scale over all steps and from the minimum.
            const float allowed = span / steps * 0.5F + span * 0x1p-10F + std::abs(least) * 0x1p-11F + steps * 0x1p-25F;
            for (std::size_t i = 0; i < weights.size(); ++i) REQUIRE(std::abs(once[i] - weights[i]) <= allowed);
        }
}

TEST_CASE("compact_drafter: the small form of every kind drafts the same trees from fewer bytes") {
    const TemporaryFolder own;
    const TargetHead head = toy_head();
    const auto large = own.path() / "large", small = own.path() / "small";
    SECTION("ctc") {
        CtcConfig config = toy_config(CtcConditioning::prefix);
        config.intermediate = 64;
        write_ctc_config(large, config);
        write_ctc_weights(large, toy_weights(config, head));
        CHECK(drafts_alike<CtcDraft>(large, small, head));
        CHECK(bytes(small) < bytes(large));
    }
    SECTION("medusa") {
        write_medusa_config(large, toy_medusa(HeadOutput::own, 2));
        write_medusa_weights(large, toy_weights(toy_medusa(HeadOutput::own, 2), head));
        CHECK(drafts_alike<MedusaDraft>(large, small, head));
        CHECK(bytes(small) < bytes(large));
    }
    SECTION("medusa, the whole vocabulary") {
        write_medusa_config(large, toy_medusa(HeadOutput::own, 1, true));
        write_medusa_weights(large, toy_weights(toy_medusa(HeadOutput::own, 1, true), head));
        CHECK(drafts_alike<MedusaDraft>(large, small, head));
    }
    SECTION("hydra") {
        write_hydra_config(large, toy_hydra(true));
        write_hydra_weights(large, toy_weights(toy_hydra(true), head));
        CHECK(drafts_alike<HydraDraft>(large, small, head));
        CHECK(bytes(small) < bytes(large));
    }
}

TEST_CASE("compact_drafter: refuses what it cannot make small, and overwrites nothing") {
    const TemporaryFolder own;
    const TargetHead head = toy_head();
    const auto large = own.path() / "large", small = own.path() / "small";
    CHECK_THROWS_AS(compact_drafter(own.path() / "nowhere", small), Error);
    write_medusa_config(large, toy_medusa(HeadOutput::own, 2));
    CHECK_THROWS_AS(compact_drafter(large, small), Error);  // no weights
    write_medusa_weights(large, toy_weights(toy_medusa(HeadOutput::own, 2), head));
    CHECK_THROWS_AS(compact_drafter(large, large), Error);
    compact_drafter(large, small);
    CHECK_THROWS_AS(compact_drafter(large, small), Error);
    CHECK_THROWS_AS(compact_drafter(small, own.path() / "smaller"), Error);
    // A block whose last row was cut off.
    const SafeTensors file = SafeTensors::open(small / "model.safetensors");
    std::vector<SafeTensorView> views;
    for (const SafeTensor& tensor : file.tensors()) {
        views.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data});
        if (!outrider::detail::block_format(tensor)) continue;
        views.back().shape[0] -= 1;
        views.back().data = tensor.data.first(tensor.data.size() / static_cast<std::size_t>(tensor.shape[0]) *
                                              static_cast<std::size_t>(views.back().shape[0]));
    }
    const auto cut = own.path() / "cut";
    std::filesystem::create_directories(cut);
    std::filesystem::copy_file(small / "config.json", cut / "config.json");
    write_safetensors(cut / "model.safetensors", views);
    CHECK_THROWS_AS(MedusaDraft::load(cut, head), Error);
}
