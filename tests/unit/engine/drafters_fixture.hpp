// Untrained drafters for the small Llama.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>

#include "../draft/ctc/ctc_fixture.hpp"

namespace outrider::test {

inline const std::string kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

/// Heads near their start, so that some drafts come true where the text repeats itself.
template <typename Weights>
Weights stirred(Weights weights) {
    std::uint64_t seed = 40;
    for (auto& [name, weight] : weights.named())
        *weight = *weight + noise(weight->sizes().vec(), seed++, 0.01).to(at::kFloat);
    return weights;
}

inline MedusaConfig medusa_for(const TargetHead& head) {
    MedusaConfig config;
    config.hidden = head.hidden, config.heads = 4, config.output = HeadOutput::target;
    config.target_fingerprint = head.fingerprint;
    return config;
}

inline HydraConfig hydra_for(const TargetHead& head) {
    HydraConfig config;
    config.hidden = head.hidden, config.heads = 4, config.target_fingerprint = head.fingerprint;
    config.prefix_layer = true;
    config.attention_heads = 2, config.kv_heads = 1, config.head_dim = 16, config.intermediate = 32;
    for (TokenId token = 0; token < static_cast<TokenId>(head.vocabulary); token += 2)
        config.vocabulary.push_back(token);
    return config;
}

inline CtcConfig ctc_for(const TargetHead& head, std::vector<std::int64_t> layers) {
    CtcConfig config;
    config.hidden = head.hidden, config.heads = 2, config.kv_heads = 1, config.head_dim = 32, config.intermediate = 64,
    config.frames = 4, config.prefix_rank = 16, config.target_fingerprint = head.fingerprint;
    config.embedding_scale = 0.5, config.feature_scale = 0.5, config.feature_layers = std::move(layers);
    for (TokenId token = 0; token < static_cast<TokenId>(head.vocabulary); ++token) config.vocabulary.push_back(token);
    return config;
}

inline std::unique_ptr<CtcDraft> ctc(const TargetHead& head, std::vector<std::int64_t> layers) {
    const CtcConfig config = ctc_for(head, std::move(layers));
    return std::make_unique<CtcDraft>(config, stirred(init_ctc_weights(config, head, 1)), head,
                                      CtcDraftOptions{.threads = 1});
}

inline std::vector<std::unique_ptr<DraftModel>> drafters(const TargetHead& head) {
    const auto medusa = [&](HeadDraftOptions options) {
        return std::make_unique<MedusaDraft>(medusa_for(head), stirred(init_medusa_weights(medusa_for(head), head, 1)),
                                             head, options);
    };
    const auto hydra = [&](HeadDraftOptions options) {
        return std::make_unique<HydraDraft>(hydra_for(head), stirred(init_hydra_weights(hydra_for(head), head, 1)),
                                            head, options);
    };
    std::vector<std::unique_ptr<DraftModel>> all, parts;
    all.push_back(medusa({.threads = 1}));
    all.push_back(medusa({.tree = HeadTree::static_tree, .threads = 1}));
    all.push_back(medusa({.tree = HeadTree::sampled, .chains = 2, .threads = 1}));
    all.push_back(hydra({.threads = 1}));
    all.push_back(hydra({.tree = HeadTree::sampled, .chains = 3, .threads = 1}));
    all.push_back(hydra({.tree = HeadTree::static_tree, .threads = 1, .kernels = false}));
    parts.push_back(medusa({.threads = 1}));
    parts.push_back(hydra({.threads = 1}));
    all.push_back(std::make_unique<MergedDraft>(std::move(parts)));
    return all;
}

}  // namespace outrider::test
