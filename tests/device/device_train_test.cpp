// Training on the trap device: the CPU's gradients, weights and checkpoints, what a step costs, and what stops it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/train/train.hpp>

#include "../unit/train/train_fixture.hpp"
#include "child_process.hpp"
#include "trap_device.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const at::Device kTrap(at::kPrivateUse1, 0);

/// A target on the device: its features are there.
class DeviceToy : public ToyVerifier {
public:
    Feedback prefill(std::span<const Prefill> prompts) override {
        Feedback feedback = inner_.prefill(prompts);
        for (SequenceFeedback& one : feedback) one.features = one.features.to(kTrap);
        return feedback;
    }
    TargetHead head() { return inner_.head(); }

private:
    LayeredVerifier inner_;
};

/// A kind with some of its options, as a training and as a drafter whose weights are all random.
struct Kind {
    std::string name;
    std::function<TrainResult(const TrainOptions&, const TrainTarget&)> train;
    std::function<void(const fs::path&)> stir;
};

template <typename Weights>
Weights stirred(Weights weights) {
    std::uint64_t seed = 400;
    for (auto& [name, weight] : weights.named())
        *weight = *weight + noise(weight->sizes().vec(), ++seed, 0.2).to(at::kFloat);
    return weights;
}

Kind ctc(const std::string& name, const std::function<void(CtcTrainOptions&)>& change) {
    CtcTrainOptions options;
    options.frames = 4, options.labels = 3, options.prefix_rank = 16, options.prefix_bottleneck = 0,
    options.intermediate = 64;
    change(options);
    return {name, [=](const TrainOptions& all, const TrainTarget& target) { return train_ctc(all, options, target); },
            [](const fs::path& folder) {
                write_ctc_weights(folder, stirred(read_ctc_weights(folder, read_ctc_config(folder))));
            }};
}

Kind medusa(const std::string& name, const std::function<void(MedusaTrainOptions&)>& change) {
    MedusaTrainOptions options;
    options.heads = 3;
    change(options);
    return {name,
            [=](const TrainOptions& all, const TrainTarget& target) { return train_medusa(all, options, target); },
            [](const fs::path& folder) {
                write_medusa_weights(folder, stirred(read_medusa_weights(folder, read_medusa_config(folder))));
            }};
}

Kind hydra(const std::string& name, const std::function<void(HydraTrainOptions&)>& change) {
    HydraTrainOptions options;
    options.heads = 3, options.intermediate = 64;
    change(options);
    return {name, [=](const TrainOptions& all, const TrainTarget& target) { return train_hydra(all, options, target); },
            [](const fs::path& folder) {
                write_hydra_weights(folder, stirred(read_hydra_weights(folder, read_hydra_config(folder))));
            }};
}

const std::vector<Kind>& kinds() {
    static const std::vector<Kind> all{
        ctc("ctc", [](CtcTrainOptions&) {}),
        ctc("ctc without a prefix", [](CtcTrainOptions& o) { o.conditioning = CtcConditioning::none; }),
        ctc("ctc by the paper's loss", [](CtcTrainOptions& o) { o.loss = CtcLossKind::ctc; }),
        ctc("ctc of few frames", [](CtcTrainOptions& o) { o.frames = 2, o.labels = 5; }),
        ctc("ctc with a teacher", [](CtcTrainOptions& o) { o.teacher = 0.4, o.prefix_bottleneck = 8; }),
        ctc("ctc of two layers",
            [](CtcTrainOptions& o) { o.layers = 2, o.feature_layers = {1, 3}, o.output = HeadOutput::own; }),
        medusa("medusa", [](MedusaTrainOptions&) {}),
        medusa("medusa with a teacher",
               [](MedusaTrainOptions& o) { o.teacher = 0.5, o.blocks = 2, o.output = HeadOutput::own; }),
        hydra("hydra++", [](HydraTrainOptions&) {}),
        hydra("hydra",
              [](HydraTrainOptions& o) {
                  o.prefix_layer = false, o.residual = HydraResidual::matrix, o.output = HeadOutput::own;
                  o.output_bias = true, o.teacher = 0.5;
              }),
    };
    return all;
}

TrainOptions options_in(const fs::path& folder, const char* output, at::Device device, std::int64_t anchors) {
    TrainOptions options = toy_options(folder, anchors);
    options.output = folder / output, options.device = device, options.bf16 = false;
    options.threads = 1, options.overwrite = true;
    return options;
}

TrainTarget target_of(DeviceToy& verifier) { return {verifier.head(), &verifier, "toy target", encode}; }

/// Ends a run after so many steps.
std::function<bool(const TrainProgress&)> stop_at(std::int64_t step) {
    return [step](const TrainProgress& line) { return line.step < step; };
}

/// A tensor of two checkpoints: the norm of what differs over its own.
struct Apart {
    double off = 0.0;
    std::string name = {};
    double norm = 0.0;
};

/// The worst of those whose names begin so.
Apart apart(const fs::path& one, const fs::path& other, std::string_view what) {
    const SafeTensors a = SafeTensors::open(one / "checkpoint.safetensors"),
                      b = SafeTensors::open(other / "checkpoint.safetensors");
    Apart worst;
    double all = 0;
    CHECK(a.names() == b.names());
    for (const SafeTensor& tensor : a.tensors()) {
        if (!tensor.name.starts_with(what)) continue;
        std::vector<float> x = to_floats(tensor), y = to_floats(b.tensor(tensor.name));
        REQUIRE(x.size() == y.size());
        const at::Tensor p = at::tensor(x, at::kDouble), q = at::tensor(y, at::kDouble);
        const double norm = p.norm().item<double>();
        INFO(tensor.name);
        CHECK(std::isfinite(norm));
        const double off = norm > 1e-9 ? (p - q).norm().item<double>() / norm : 0.0;
        if (off >= worst.off) worst = {off, tensor.name, norm};
        all += norm;
    }
    CHECK(all > 0);
    return worst;
}

}  // namespace

// First: a process that has differentiated on a device cannot be forked.
TEST_CASE("A host that touches what training keeps on the device is caught", "[train]") {
    trap::start();
    at::set_num_threads(1);
    class Meddling final : public DeviceToy {
    public:
        Feedback prefill(std::span<const Prefill> prompts) override {
            Feedback feedback = DeviceToy::prefill(prompts);
            const volatile auto* raw = static_cast<const float*>(feedback[0].features.storage().data());
            (void)*raw;
            return feedback;
        }
    };
    const fs::path folder = scratch();
    const auto [status, said] = trap::in_child([&] {
        Meddling verifier;
        const trap::Trapping trapping;
        const trap::Stage stage("a planted read in training");
        (void)kinds()[0].train(options_in(folder, "drafter", kTrap, 64), target_of(verifier));
    });
    CHECK(status == trap::kFaultStatus);
    CHECK_THAT(said, ContainsSubstring("the host touched device memory") && ContainsSubstring("a planted read"));
}

TEST_CASE("A step on the device has every gradient of the CPU's, whatever the kind", "[train]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const TrainTarget target = target_of(verifier);
    for (const Kind& kind : kinds()) {
        CAPTURE(kind.name);
        (void)kind.train(options_in(folder, "start", at::kCPU, 64), target);
        kind.stir(folder / "start");
        for (const auto& [output, device] : {std::pair{"host", at::Device(at::kCPU)}, std::pair{"device", kTrap}}) {
            TrainOptions options = options_in(folder, output, device, 6400);
            options.from = folder / "start", options.clip = 1e6, options.progress = stop_at(1);
            const trap::Trapping trapping;
            CHECK(kind.train(options, target).last.step == 1);
        }
        const Apart gradient = apart(folder / "host", folder / "device", "first.");  // a tenth of it
        CAPTURE(gradient.name, gradient.norm);
        CHECK(gradient.off < 1e-4);
        CHECK(apart(folder / "host", folder / "device", "weight.").off < 1e-4);
    }
}

TEST_CASE("A training on the device ends where the CPU's does", "[train]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const TrainTarget target = target_of(verifier);
    for (const char* name : {"ctc of two layers", "medusa", "hydra++"}) {
        const Kind& kind = *std::ranges::find(kinds(), name, &Kind::name);
        const TrainResult host = kind.train(options_in(folder, "host", at::kCPU, 6400), target);
        const trap::Trapping trapping;
        const TrainResult device = kind.train(options_in(folder, "device", kTrap, 6400), target);
        REQUIRE((host.last.held_out_beta && device.last.held_out_beta && device.finished));
        CAPTURE(name, *host.last.held_out_beta, *device.last.held_out_beta);
        CHECK(device.last.anchors == host.last.anchors);
        CHECK(std::abs(*device.last.held_out_beta - *host.last.held_out_beta) < 0.05 * *host.last.held_out_beta);
        CHECK(std::abs(*device.last.held_out_loss - *host.last.held_out_loss) < 0.02 * *host.last.held_out_loss);
        CHECK(*device.last.held_out_beta > 1.0);
    }
}

TEST_CASE("A training moves between CPU and device by its checkpoints", "[train]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const TrainTarget target = target_of(verifier);
    const Kind& kind = kinds()[0];
    (void)kind.train(options_in(folder, "whole", at::kCPU, 640), target);
    for (const auto& [output, first, second] :
         {std::tuple{"there", at::Device(at::kCPU), kTrap}, std::tuple{"back", kTrap, at::Device(at::kCPU)}}) {
        CAPTURE(output);
        TrainOptions options = options_in(folder, output, first, 640);
        options.progress = stop_at(4);
        CHECK(!kind.train(options, target).finished);
        options.progress = nullptr, options.device = second, options.resume = true, options.overwrite = false;
        const TrainResult result = kind.train(options, target);
        CHECK((result.finished && result.last.step == 10));
        CHECK(apart(folder / "whole", folder / output, "weight.").off < 1e-2);
    }
}

TEST_CASE("Beside a step's numbers nothing travels, and operations do not grow with the groups", "[train][budget]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const TrainTarget target = target_of(verifier);
    /// What steps 15 to 22 cost each, in an epoch that has seen all texts; each of them reports.
    const auto steady = [&](const Kind& kind, std::int64_t group) {
        std::vector<trap::Counts> until;
        for (const std::int64_t stop : {14, 22}) {
            TrainOptions options = options_in(folder, "drafter", kTrap, 64 * 200);
            options.group_anchors = group, options.progress = stop_at(stop);
            trap::clear_counts();
            const trap::Trapping trapping;
            const trap::Stage stage("train");
            (void)kind.train(options, target);
            until.push_back(trap::counts_of("train"));
        }
        return std::pair(until[0], until[1]);
    };
    (void)steady(kinds()[0], 8);  // all features are computed
    const std::vector<std::pair<const char*, std::int64_t>> bounds{
        {"ctc", 620}, {"ctc with a teacher", 700}, {"medusa", 170}, {"hydra++", 420}};
    for (const auto& [name, most] : bounds) {
        const Kind& kind = *std::ranges::find(kinds(), name, &Kind::name);
        const auto [before, after] = steady(kind, 8);
        const std::int64_t operations = (after.operations - before.operations) / 8;
        CAPTURE(name, operations, after.to_device - before.to_device, after.to_host - before.to_host);
        CHECK(operations > 20);
        CHECK(operations <= most);
        CHECK(after.to_device - before.to_device == 8);  // numbers of the batch, in one block
        CHECK(after.blocking_to_device == before.blocking_to_device);
        CHECK(after.to_host - before.to_host == 8);  // what the line of progress says
        CHECK(after.to_host_bytes - before.to_host_bytes < 8 * 256);
        const auto [few_before, few_after] = steady(kind, 2);  // four times the groups, a fourth of the anchors each
        CHECK(std::abs((few_after.operations - few_before.operations) / 8 - operations) <= 2);
    }
}

TEST_CASE("Features that the target computes on the device stay there", "[train][budget]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const auto to_device = [&](std::size_t bytes) {
        TrainOptions options = options_in(folder, "drafter", kTrap, 64 * 200);
        options.device_feature_bytes = bytes, options.progress = stop_at(8);
        trap::clear_counts();
        const trap::Stage stage("train");
        (void)kinds()[6].train(options, target_of(verifier));
        return trap::counts_of("train").to_device_bytes;
    };
    const std::int64_t computed = to_device(std::size_t{1} << 30);  // the target's own copies among them
    const std::int64_t read = to_device(std::size_t{1} << 30);      // from files, as they are needed
    const std::int64_t tight = to_device(20000);                    // for some ten texts: others come again
    CHECK(read > 8 * 8 * 20 * kToyHidden * 2);
    CHECK(tight >= read);
    CHECK(computed > 0);
}

TEST_CASE("A device without the memory for a training says so, and what to do", "[train]") {
    trap::start();
    at::set_num_threads(1);
    const fs::path folder = scratch();
    DeviceToy verifier;
    const trap::MemoryLimit limit(trap::in_use() + 200000);
    for (const Kind* kind : {&kinds()[0], &kinds()[6], &kinds()[8]}) {
        CAPTURE(kind->name);
        try {
            (void)kind->train(options_in(folder, "drafter", kTrap, 6400), target_of(verifier));
            FAIL("it had the memory");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::out_of_memory);
            CHECK_THAT(error.what(), ContainsSubstring("trap:0") && ContainsSubstring("batch_anchors"));
        }
    }
}

TEST_CASE("Training on a device that is not there is an error that names it", "[train]") {
    const fs::path folder = scratch();
    DeviceToy verifier;
    try {
        (void)kinds()[0].train(options_in(folder, "drafter", at::Device(at::kCUDA, 63), 64), target_of(verifier));
        FAIL("it was trained");
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::not_supported);
        CHECK_THAT(error.what(), ContainsSubstring("device cuda:63"));
    }
}
