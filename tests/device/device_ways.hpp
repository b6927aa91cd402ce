// Decodes on the trap device and on the CPU, by the same words, and what they cost.
#pragma once

#include <ATen/Parallel.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/engine/make_policy.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "counted_parts.hpp"
#include "device_fixture.hpp"

namespace outrider::test {

inline const at::Device kTrap(at::kPrivateUse1, 0);

inline const DeviceFolders& folders() {
    static const DeviceFolders all;
    return all;
}

inline LlamaModel load(at::Device device, Weights weights = Weights::f32) {
    trap::start();
    at::set_num_threads(1);
    return LlamaModel::load(
        folders().target(),
        {.device = device, .weights = weights, .backend = LlamaModel::Backend::device, .cache_tokens = 2000});
}

struct Way {
    std::string drafter = "none", policy = "match";
    DrafterOptions options = {};
    double temperature = 0.0;
    std::int64_t nodes = 8;
    std::size_t sequences = 3;
    std::int64_t tokens = 12;
    std::optional<at::Device> drafter_device = {};
    bool chains = false;                                                ///< the drafter is asked for them
    std::function<void(std::size_t, GenerationOptions&)> request = {};  ///< further options of a sequence
};

struct Decoded {
    std::vector<std::vector<TokenId>> texts;
    std::int64_t accepted = 0, rounds = 0;  ///< rounds after the first
    std::vector<TokenTree> trees;
    [[nodiscard]] bool operator==(const Decoded& other) const { return texts == other.texts; }
};

/// Counts of the trap device are those of the rounds after the first.
inline Decoded decode(const LlamaModel& model, const Way& way) {
    SpeculativeDecoder decoder{
        CountedDraft{folders().drafter(way.drafter, model, way.options, way.drafter_device), way.chains},
        CountedVerifier{std::make_unique<LlamaVerifier>(model)}, CountedPolicy{make_policy(way.policy)},
        DecoderOptions{.nodes = way.nodes}};
    const std::vector<std::vector<TokenId>> prompts{{5, 9, 31, 7}, {12}, {100, 101, 100, 101, 100, 101, 100}};
    std::vector<SequenceId> ids;
    for (std::size_t i = 0; i < way.sequences; ++i) {
        GenerationOptions options{.max_tokens = way.tokens, .stop_at_end = false};
        options.temperature = way.temperature, options.seed = 7, options.stream = i;
        if (way.request) way.request(i, options);
        ids.push_back(decoder.join({prompts[i % prompts.size()]}, options));
    }
    decoder.step();
    trap::clear_counts();
    decoder.verifier().rounds = 0;
    while (decoder.step()) {
    }
    Decoded all;
    all.rounds = decoder.verifier().rounds;
    all.trees = decoder.drafter().drafted;
    for (const SequenceId id : ids) {
        GenerationResult result = decoder.take(id);
        all.accepted += result.stats.accepted;
        all.texts.push_back(std::move(result.tokens));
    }
    return all;
}

/// Counts of one stage, a round.
struct Share {
    double operations = 0, to_device = 0, blocking = 0, to_host = 0, to_host_bytes = 0, fresh = 0;

    Share(const std::string& stage, std::int64_t rounds) {
        const trap::Counts all = trap::counts_of(stage);
        const auto n = static_cast<double>(std::max<std::int64_t>(rounds, 1));
        operations = static_cast<double>(all.operations) / n, to_device = static_cast<double>(all.to_device) / n;
        blocking = static_cast<double>(all.blocking_to_device) / n, to_host = static_cast<double>(all.to_host) / n;
        to_host_bytes = static_cast<double>(all.to_host_bytes) / n, fresh = static_cast<double>(all.fresh) / n;
    }
};

/// While one lives, passes that are made use the library's kernels.
struct WithKernels {
    WithKernels() { (void)setenv("OUTRIDER_KERNELS", "1", 1); }
    ~WithKernels() { (void)unsetenv("OUTRIDER_KERNELS"); }
};

inline const std::vector<std::string> kFamilies = {"qwen2",    "qwen3", "gemma3", "gemma2",  "smollm3", "mistral",
                                                   "mistral3", "phi3",  "glm4",   "granite", "olmo2",   "olmo3"};

inline std::filesystem::path family(const std::string& name) {
    return std::filesystem::path(OUTRIDER_SOURCE_DIR "/tests/golden/families") / name / "hf";
}

}  // namespace outrider::test
