// CTC's drafts on a device by tensor operations alone, without a kernel of the library.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/detail/ctc_backend.hpp>

#include "device_ways.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Rounds of some sequences: a prompt of seven tokens, then three tokens more in each.
class Rounds {
public:
    Rounds(const LlamaModel& model, const char* name, std::int64_t sequences, bool kernels) {
        const TargetHead head = model.head();
        const auto [config, weights] = CtcKind::read(folders().path(name), head);
        bodies_ = make_ctc_lanes(config, weights, head, {.kernels = kernels});
        features_ = noise({40, ctc_feature_width(config)}, 5, 1.0).to(at::kFloat).to(kTrap);
        for (std::int64_t s = 0; s < sequences; ++s) caches_.push_back(bodies_.backend->make_cache());
    }

    std::vector<TokenTree> next() {
        const std::int64_t rows = known_ == 0 ? 7 : 3;
        std::vector<CtcRound> rounds;
        for (std::size_t s = 0; s < caches_.size(); ++s) {
            const TokenId token = static_cast<TokenId>(8 + s);
            rounds.push_back({caches_[s].get(), known_ + rows,
                              std::vector<TokenId>(static_cast<std::size_t>(rows), token),
                              features_.narrow(0, known_, rows), token, token});
            REQUIRE(bodies_.backend->has_room(*caches_[s], known_ + rows));
        }
        known_ += rows;
        return bodies_.backend->search(rounds, 16, 0.0);
    }

private:
    CtcBodies bodies_;
    at::Tensor features_;
    std::vector<std::unique_ptr<CtcCache>> caches_;
    std::int64_t known_ = 0;
};

void check_same_paths(const TokenTree& got, const TokenTree& wanted) {
    const auto a = paths_of(got), b = paths_of(wanted);
    CHECK(a.size() == b.size());
    for (const auto& [path, log_psi] : b) {
        REQUIRE(a.contains(path));
        CHECK(std::abs(a.at(path) - log_psi) < 1e-3);
    }
}

}  // namespace

TEST_CASE("Operations of a CTC draft without kernels: at most 48 where frames know no prefix, 72 where they do",
          "[budget]") {
    const LlamaModel model = load(kTrap);
    const trap::Trapping trapping;
    const std::pair<const char*, std::int64_t> all[] = {
        {"ctc_plain", 48}, {"ctc", 72}, {"ctc_narrow", 76}, {"ctc_eight", 128}};
    for (const auto& [name, most] : all)
        for (const std::int64_t sequences : {1, 3}) {
            Rounds rounds(model, name, sequences, false);
            (void)rounds.next(), (void)rounds.next();
            trap::clear_counts();
            (void)rounds.next();
            const trap::Counts counts = trap::counts_of("outside");
            CAPTURE(name, sequences, counts.operations);
            CHECK(counts.operations <= most - (sequences == 1));
            CHECK(counts.to_host == 1);
            CHECK(counts.to_device == 1);
            CHECK(counts.blocking_to_device == 0);
            CHECK(counts.fresh == 0);
        }
}

TEST_CASE("CTC drafts without kernels are one graph, and find the trees of the kernels", "[budget]") {
    const LlamaModel model = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_eight", "ctc_plain", "ctc_narrow"})
        for (const std::int64_t sequences : {1, 3}) {
            CAPTURE(name, sequences);
            Rounds kernels(model, name, sequences, true), alone(model, name, sequences, false);
            std::vector<std::vector<TokenTree>> wanted, got;
            for (int round = 0; round < 5; ++round) wanted.push_back(kernels.next());
            std::vector<std::vector<std::string>> traces;
            for (int round = 0; round < 5; ++round) {
                trap::CaptureLint lint;
                got.push_back(alone.next());
                traces.push_back(std::move(lint.trace));
                traces.back().erase(traces.back().begin(), traces.back().begin() + 2);  // features lie elsewhere
                if (round < 2) continue;                                                // make their memory
                CAPTURE(lint.faults);
                REQUIRE(lint.faults.size() == 1);
                CHECK(lint.faults[0].find("a copy to the host") != std::string::npos);
            }
            CHECK(traces[2] == traces[3]);
            CHECK(traces[3] == traces[4]);
            for (std::size_t round = 0; round < 5; ++round)
                for (std::size_t s = 0; s < got[round].size(); ++s) check_same_paths(got[round][s], wanted[round][s]);
        }
}
