// Whole decodes on the trap device: no host access to device memory, and the tokens of the CPU's tensor path.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <string>
#include <vector>

#include "../unit/target/tiny_copy.hpp"
#include "device_ways.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

std::vector<Way> every_tree() {
    std::vector<Way> ways{{"none"}, {"ngram"}, {"lm"}, {"ctc+ngram"}, {"medusa+hydra"}};
    for (const CtcTree tree : {CtcTree::best_first, CtcTree::static_tree, CtcTree::per_frame})
        for (const char* name : {"ctc", "ctc_plain", "ctc_narrow"}) ways.push_back({name, "match", {.ctc = {tree}}});
    for (const HeadTree tree : {HeadTree::best_first, HeadTree::static_tree, HeadTree::measured})
        for (const char* name : {"medusa", "hydra"}) ways.push_back({name, "match", {.heads = {tree}}});
    ways.push_back({"lm", "match", {.lm = {.tree = LmTree::chain}}});
    return ways;
}

/// Drafters that draw, for a policy that needs draws.
std::vector<Way> every_draw(const PolicyInfo& policy) {
    std::vector<Way> ways;
    const std::int64_t chains = policy.one_chain ? 1 : 2;
    for (const char* name : {"ctc", "ctc_narrow", "medusa", "hydra", "lm"}) {
        Way way{name, std::string(policy.name)};
        way.options.ctc.tree = CtcTree::sampled, way.options.ctc.chains = chains;
        way.options.heads.tree = HeadTree::sampled, way.options.heads.chains = chains;
        way.options.lm.tree = LmTree::sampled, way.options.lm.chains = chains;
        way.temperature = 0.8;
        ways.push_back(way);
    }
    return ways;
}

}  // namespace

TEST_CASE("Every drafter and tree decodes on the device without a touch by the host, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    std::int64_t accepted = 0;
    for (const double temperature : {0.0, 0.8})
        for (Way way : every_tree()) {
            way.temperature = temperature;
            CAPTURE(way.drafter, temperature, static_cast<int>(way.options.ctc.tree),
                    static_cast<int>(way.options.heads.tree));
            const Decoded expected = decode(cpu, way), got = decode(device, way);
            CHECK(got == expected);
            accepted += got.accepted;
        }
    CHECK(accepted > 100);
}

TEST_CASE("Every policy decodes on the device, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const PolicyInfo& policy : policies()) {
        std::vector<Way> ways = every_draw(policy);
        if (!policy.needs_draws) {
            ways.assign(1, {"hydra", std::string(policy.name)});
            ways[0].temperature = 0.8;
        }
        for (const Way& way : ways) {
            CAPTURE(way.drafter, way.policy);
            CHECK(decode(device, way) == decode(cpu, way));
        }
    }
}

TEST_CASE("Every request is sampled on the device, or by its rows where something edits them: the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    Way way{.temperature = 0.8, .sequences = 9};
    way.request = [](std::size_t sequence, GenerationOptions& options) {
        switch (sequence) {
            case 0: options.top_k = 5; break;
            case 1: options.top_p = 0.7; break;
            case 2: options.min_p = 0.2; break;
            case 3: options.top_k = 30, options.top_p = 0.9, options.min_p = 0.01; break;
            case 4: options.repetition_penalty = 1.3; break;
            case 5: options.temperature = 0; break;
            case 6: options.logprobs = 2; break;
            case 7: options.temperature = 5; break;
            default: break;
        }
    };
    for (const char* name : {"none", "ctc", "ngram"}) {
        CAPTURE(name);
        way.drafter = name;
        const Decoded expected = decode(cpu, way);
        CHECK(decode(device, way) == expected);
        const WithKernels kernels;
        CHECK(decode(device, way) == expected);
    }
}

TEST_CASE("With kernels every drafter decodes the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"none", "ctc", "hydra", "lm"}) {
        CAPTURE(name);
        const Decoded expected = decode(cpu, {name});
        const WithKernels kernels;
        CHECK(decode(device, {name}) == expected);
    }
}

TEST_CASE("bfloat16 decodes on the device, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU, Weights::bf16), device = load(kTrap, Weights::bf16);
    const trap::Trapping trapping;
    for (const char* name : {"none", "ctc", "hydra"}) {
        CAPTURE(name);
        CHECK(decode(device, {name}) == decode(cpu, {name}));
    }
}

TEST_CASE("Drafters on the CPU beside a target on the device leave it alone, and the tokens are the CPU's") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_plain", "medusa", "hydra"}) {
        CAPTURE(name);
        const Decoded expected = decode(cpu, {name});
        const Decoded got = decode(device, {.drafter = name, .drafter_device = at::Device(at::kCPU)});
        CHECK(got == expected);
        const Share propose("propose", got.rounds);
        CHECK(propose.to_host >= 1);  // features
        CHECK(propose.to_device == 0);
        CHECK(propose.operations <= 6);  // where only rows of them are wanted
    }
}

TEST_CASE("Drafters on a device beside a target on the CPU: the same tokens, and features travel") {
    const LlamaModel cpu = load(at::kCPU);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_plain", "ctc_narrow", "medusa", "hydra"}) {
        CAPTURE(name);
        const Decoded expected = decode(cpu, {name});
        const Decoded got = decode(cpu, {.drafter = name, .drafter_device = kTrap});
        CHECK(got == expected);
        CHECK(got.accepted == expected.accepted);
        CHECK(Share("propose", got.rounds).to_device >= 1);
    }
}

TEST_CASE("Weights that lie on two devices are refused by name", "[errors]") {
    const LlamaModel device = load(kTrap);
    const TargetHead head = device.head();
    const auto refused = [](auto&& make) {
        try {
            make();
            FAIL("it was taken");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::bad_request);
            const std::string said = error.what();
            CHECK(said.find("lies on cpu") != std::string::npos);
            CHECK(said.find("move all to one device") != std::string::npos);
        }
    };
    const CtcConfig config = read_ctc_config(folders().path("ctc"));
    CtcWeights weights = read_ctc_weights(folders().path("ctc"), config);
    for (auto& [name, weight] : weights.named())
        if (name != "queries") *weight = weight->to(kTrap);
    refused([&] { (void)CtcDraft(config, weights, head); });
    const HydraConfig hydra = read_hydra_config(folders().path("hydra"));
    HydraWeights heads = read_hydra_weights(folders().path("hydra"), hydra);
    const std::string last = heads.named().back().first;
    for (auto& [name, weight] : heads.named())
        if (name != last) *weight = weight->to(kTrap);
    refused([&] { (void)HydraDraft(hydra, heads, head); });
}

namespace {

/// A drafter with the fault that the device is for: it reads the features where they lie.
class Careless final : public DraftModel {
public:
    [[nodiscard]] std::string_view kind() const override { return "careless"; }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& it : feedback) {
            const float first = static_cast<const float*>(it.features.storage().data())[0];
            trees.push_back({it.sequence, TokenTree::root_only(first > 1e30F ? 0 : it.pending)});
        }
        return trees;
    }
    void forget(SequenceId) override {}
};

}  // namespace

TEST_CASE("A drafter that reads device memory on the host is caught in its stage") {
    const LlamaModel device = load(kTrap);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        const trap::Trapping trapping;
        SpeculativeDecoder decoder{CountedDraft{std::make_unique<Careless>()},
                                   CountedVerifier{std::make_unique<LlamaVerifier>(device)},
                                   CountedPolicy{make_policy("match")}, DecoderOptions{.nodes = 4}};
        (void)decoder.generate({{5, 9, 31, 7}}, {.max_tokens = 4});
        _exit(0);
    }
    close(ends[1]);
    std::string said(4096, '\0');
    said.resize(static_cast<std::size_t>(std::max<ssize_t>(0, read(ends[0], said.data(), said.size()))));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == trap::kFaultStatus));
    CHECK(said.find("in stage propose") != std::string::npos);
}

TEST_CASE("A row that holds NaN has no token, and the error names its node") {
    trap::start();
    const testing::TinyCopy broken;
    broken.rewrite([](std::vector<SafeTensorView>& tensors) {
        static std::vector<std::uint16_t> norm;
        for (SafeTensorView& t : tensors)
            if (t.name == "model.norm.weight") {
                norm.assign(t.data.size() / 2, 0x7fc0);  // bfloat16 NaN
                t.data = std::as_bytes(std::span(norm));
            }
    });
    const LlamaModel model = LlamaModel::load(
        broken.path(),
        {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 100});
    const trap::Trapping trapping;
    SpeculativeDecoder decoder{CountedDraft{folders().drafter("none", model, {})},
                               CountedVerifier{std::make_unique<LlamaVerifier>(model)},
                               CountedPolicy{make_policy("match")}, DecoderOptions{.nodes = 0}};
    CHECK_THROWS_AS(decoder.generate({{5, 9}}, {.max_tokens = 4}), Error);
}
