// Searches on a device find the trees of the host's.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/detail/ctc_beam.hpp>

#include "device_ways.hpp"

using namespace outrider;
using namespace outrider::test;

TEST_CASE("Trees that are found on the device are the host search's") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_eight", "ctc_plain", "ctc_narrow", "hydra"})
        for (const auto& [sequences, chains] : {std::pair<std::size_t, bool>{1, false}, {3, false}, {3, true}}) {
            CAPTURE(name, sequences, chains);
            Way way{.drafter = name, .nodes = 16, .sequences = sequences, .chains = chains};
            way.options.ctc.top_k = 1000;  // the host's search of plain frames looks at all tokens, too
            const Decoded expected = decode(cpu, way), got = decode(device, way);
            REQUIRE(got.trees.size() == expected.trees.size());
            for (std::size_t i = 0; i < got.trees.size(); ++i) {
                if (chains) CHECK(static_cast<std::size_t>(got.trees[i].height()) == got.trees[i].drafted());
                const auto a = paths_of(got.trees[i]), b = paths_of(expected.trees[i]);
                CHECK(a.size() == b.size());
                for (const auto& [path, log_psi] : b) {
                    CHECK(a.contains(path));
                    if (a.contains(path)) CHECK(std::abs(a.at(path) - log_psi) < 1e-3);
                }
            }
        }
}

namespace {

/// Scores of no meaning, the same on every device.
struct FixedScores final : outrider::detail::CtcBeamScores {
    explicit FixedScores(const at::Tensor& all) : scores(all) {}
    [[nodiscard]] at::Tensor root() override { return scores.narrow(0, 0, 1); }
    [[nodiscard]] at::Tensor longer(const at::Tensor&, const at::Tensor& column) override {
        return scores.narrow(0, 1, column.size(1));
    }
    [[nodiscard]] at::Tensor tokens(std::int64_t length) override {
        return at::empty({1, scores.size(0) - 1, length == 1 ? 1 : 2}, scores.options().dtype(at::kLong));
    }
    [[nodiscard]] at::Tensor behind(std::int64_t) override { return scores.narrow(0, 1, scores.size(0) - 1); }
    at::Tensor scores;  // [1 + P, V]
};

}  // namespace

TEST_CASE("The CTC search is 2 launches a level with kernels, and at most 11 operations without", "[budget]") {
    trap::start();
    const std::int64_t T = 6, V = 50, nodes = 16;
    const at::Tensor frames = noise({T, V + 2}, 1, 3).to(at::kFloat),
                     scores = noise({1 + nodes, V}, 2, 2).to(at::kFloat);
    frames.select(1, V + 1).copy_(-frames.select(1, V));
    FixedScores on_host(scores), on_device(scores.to(kTrap));
    outrider::detail::CtcBeam host(T, V, at::kCPU), beam(T, V, kTrap);
    const at::Tensor there = frames.to(kTrap), wanted = host.fetched(host.search(frames, nodes, on_host, false), nodes);
    beam.reserve(nodes);
    for (const bool kernels : {false, true}) {
        trap::clear_counts();
        const trap::Trapping trapping;
        const at::Tensor found = beam.fetched(beam.search(there, nodes, on_device, kernels), nodes);
        CHECK(at::allclose(found, wanted, 1e-4, 1e-4));
        const trap::Counts all = trap::counts_of("outside");
        CAPTURE(kernels, all.operations);
        CHECK(all.operations <= (kernels ? 2 * T + 5 : 11 * T - 6));
        CHECK(all.to_host == 1);
        CHECK(all.to_device == 0);
    }
}
