// A small Llama of random weights with drafters of every kind beside it, as folders, to load on any device.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_model.hpp>

#include "../unit/draft/ctc/ctc_fixture.hpp"
#include "../unit/temporary_folder.hpp"
#include "../unit/target/deep_folder.hpp"

namespace outrider::test {

/// Folders of the target and its drafters: ctc (its frames know the prefix), ctc_plain, ctc_narrow (a bottleneck, and
/// features of inner layers), ctc_eight (eight frames), medusa, hydra (with its prefix layer).
class DeviceFolders {
public:
    DeviceFolders() {
        const LlamaModel model = LlamaModel::load(target(), {.threads = 1});
        const TargetHead head = model.head();
        const auto ctc = [&](const char* name, const CtcConfig& config) {
            write_ctc_config(path(name), config);
            write_ctc_weights(path(name), stirred(init_ctc_weights(config, head, 1)));
        };
        CtcConfig config = base_ctc(head);
        ctc("ctc", config);
        config.frames = 8;
        ctc("ctc_eight", config);
        config = base_ctc(head);
        config.conditioning = CtcConditioning::none;
        ctc("ctc_plain", config);
        config = base_ctc(head);
        config.prefix_bottleneck = 8, config.prefix_output = HeadOutput::target, config.feature_layers = {1, 3};
        ctc("ctc_narrow", config);
        write_medusa_config(path("medusa"), medusa_for(head));
        write_medusa_weights(path("medusa"), stirred(init_medusa_weights(medusa_for(head), head, 1)));
        write_hydra_config(path("hydra"), hydra_for(head));
        write_hydra_weights(path("hydra"), stirred(init_hydra_weights(hydra_for(head), head, 1)));
    }

    [[nodiscard]] std::filesystem::path target() const { return target_.path(); }
    [[nodiscard]] std::filesystem::path path(const std::string& name) const { return own_.path() / name; }

    /// By the name of a folder, or "none", "ngram", "lm" (the target itself), or several joined with '+'.
    /// `where`: the device that it computes on, if not the model's; with the kernels of the CPU there.
    [[nodiscard]] std::unique_ptr<DraftModel> drafter(const std::string& name, const LlamaModel& model,
                                                      DrafterOptions options,
                                                      std::optional<at::Device> where = std::nullopt) const {
        options.ctc.kernels = options.heads.kernels = where.has_value();
        options.ctc.threads = options.heads.threads = 1;
        options.lm_model = {.device = model.device(),
                            .weights = model.weights(),
                            .backend = LlamaModel::Backend::device,
                            .cache_tokens = 2000};
        std::string parts;
        for (std::size_t begin = 0; begin <= name.size();) {
            const std::size_t end = std::min(name.find('+', begin), name.size());
            const std::string part = name.substr(begin, end - begin);
            parts += begin == 0 ? "" : "+";
            parts += part == "lm"                          ? "lm:" + target().string()
                     : std::filesystem::exists(path(part)) ? path(part).string()
                                                           : part;
            begin = end + 1;
        }
        return make_drafter(parts, model.head(where), options);
    }

private:
    /// Near their start, so that some drafts come true.
    template <typename Weights>
    static Weights stirred(Weights weights) {
        std::uint64_t seed = 40;
        for (auto& [name, weight] : weights.named())
            *weight = *weight + noise(weight->sizes().vec(), seed++, 0.01).to(at::kFloat);
        return weights;
    }

    static std::vector<TokenId> every_second(const TargetHead& head) {
        std::vector<TokenId> all;
        for (TokenId token = 0; token < static_cast<TokenId>(head.vocabulary); token += 2) all.push_back(token);
        return all;
    }
    static CtcConfig base_ctc(const TargetHead& head) {
        CtcConfig config;
        config.hidden = head.hidden, config.heads = 2, config.kv_heads = 1, config.head_dim = 32;
        config.intermediate = 64, config.frames = 4, config.prefix_rank = 16;
        config.embedding_scale = 0.5, config.feature_scale = 0.5;
        config.target_fingerprint = head.fingerprint, config.vocabulary = every_second(head);
        return config;
    }
    static MedusaConfig medusa_for(const TargetHead& head) {
        MedusaConfig config;
        config.hidden = head.hidden, config.heads = 4, config.output = HeadOutput::target, config.blocks = 2;
        config.target_fingerprint = head.fingerprint, config.vocabulary = every_second(head);
        config.accuracies = {{0.5, 0.2, 0.1}, {0.3, 0.1}, {0.2}, {0.1}};
        return config;
    }
    static HydraConfig hydra_for(const TargetHead& head) {
        HydraConfig config;
        config.hidden = head.hidden, config.heads = 4, config.prefix_layer = true;
        config.attention_heads = 2, config.kv_heads = 1, config.head_dim = 16, config.intermediate = 32;
        config.target_fingerprint = head.fingerprint, config.vocabulary = every_second(head);
        config.accuracies = {{0.5, 0.2, 0.1}, {0.3, 0.1}, {0.2}, {0.1}};
        return config;
    }

    testing::DeepFolder target_;
    TemporaryFolder own_;
};

}  // namespace outrider::test
