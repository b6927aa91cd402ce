// Bodies of medusa_network.hpp.
#pragma once

#include <outrider/draft/medusa/detail/medusa_network.hpp>

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/weight_layout.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE NamedWeights MedusaWeights::named() {
    NamedWeights all;
    for (std::size_t i = 0; i < heads.size(); ++i)
        for (std::size_t j = 0; j < heads[i].size(); ++j) {
            all.emplace_back(detail::written("heads.{}.{}.weight", i, j), &heads[i][j].weight);
            all.emplace_back(detail::written("heads.{}.{}.bias", i, j), &heads[i][j].bias);
        }
    for (std::size_t i = 0; i < output.size(); ++i)
        all.emplace_back(output_name("output", i, output.size()), &output[i]);
    std::erase_if(all, [](const auto& entry) { return !entry.second->defined(); });
    return all;
}

OUTRIDER_INLINE NamedConstWeights MedusaWeights::named() const {
    NamedConstWeights all;
    for (const auto& [name, weight] : const_cast<MedusaWeights*>(this)->named()) all.emplace_back(name, weight);
    return all;
}

/// Sizes the vectors in `weights` to the config and lists all weights: one list for reading, checking and naming.
OUTRIDER_INLINE std::vector<WantedWeight> layout(const MedusaConfig& config, MedusaWeights& weights) {
    const std::int64_t H = config.hidden;
    weights.heads.resize(static_cast<std::size_t>(config.heads));
    std::vector<WantedWeight> wanted;
    for (std::size_t i = 0; i < weights.heads.size(); ++i) {
        weights.heads[i].resize(static_cast<std::size_t>(config.blocks));
        for (std::size_t j = 0; j < weights.heads[i].size(); ++j) {
            wanted.push_back({detail::written("heads.{}.{}.weight", i, j), &weights.heads[i][j].weight, {H, H}});
            wanted.push_back({detail::written("heads.{}.{}.bias", i, j), &weights.heads[i][j].bias, {H}});
        }
    }
    weights.output.resize(output_count(config.output, config.heads));
    for (std::size_t i = 0; i < weights.output.size(); ++i)
        wanted.push_back(
            {output_name("output", i, weights.output.size()), &weights.output[i], {output_rows(config.vocabulary), H}});
    return wanted;
}

OUTRIDER_INLINE MedusaWeights init_medusa_weights(const MedusaConfig& config, const TargetHead& head,
                                                  std::uint64_t seed) {
    check_medusa_config(config);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    MedusaWeights weights;
    (void)layout(config, weights);
    const double spread = 1.0 / std::sqrt(static_cast<double>(config.hidden));
    for (auto& blocks : weights.heads)
        for (MedusaWeights::Block& block : blocks) {
            block.weight = aten::zeros({config.hidden, config.hidden});
            block.bias = aten::empty({config.hidden}).uniform_(-spread, spread, random);
        }
    for (at::Tensor& output : weights.output)
        output = head.output_rows(draft_ids(config.vocabulary, head.vocabulary)).to(at::kCPU, at::kFloat).clone();
    check_medusa_weights(config, weights);
    return weights;
}

OUTRIDER_INLINE void check_medusa_weights(const MedusaConfig& config, const MedusaWeights& weights) {
    MedusaWeights copy = weights;
    check_weights("Medusa drafter", layout(config, copy));
    require(weights.heads.size() == copy.heads.size() && weights.output.size() == copy.output.size(),
            ErrorKind::damaged_file, "Medusa drafter: {} heads and {} output matrices, its config asks for {} and {}",
            weights.heads.size(), weights.output.size(), copy.heads.size(), copy.output.size());
    for (std::size_t i = 0; i < copy.heads.size(); ++i)
        require(weights.heads[i].size() == copy.heads[i].size(), ErrorKind::damaged_file,
                "Medusa drafter: head {} has {} blocks, expected {}", i, weights.heads[i].size(), copy.heads[i].size());
}

OUTRIDER_INLINE at::Tensor medusa_state(const MedusaConfig&, const MedusaWeights& weights, std::int64_t head,
                                        const at::Tensor& features, at::ScalarType compute) {
    const auto& blocks = weights.heads[static_cast<std::size_t>(head)];
    at::Tensor x = features.to(blocks.front().bias.scalar_type());
    for (const MedusaWeights::Block& block : blocks) x = residual_block(x, block.weight, block.bias, compute);
    return x;
}

OUTRIDER_INLINE const at::Tensor& medusa_output(const MedusaConfig& config, const MedusaWeights& weights,
                                                const TargetTables& tables, std::int64_t head) {
    if (config.output == HeadOutput::target) return tables.output;
    return weights.output[config.output == HeadOutput::own ? static_cast<std::size_t>(head) : 0];
}

OUTRIDER_INLINE at::Tensor medusa_logits(const MedusaConfig& config, const MedusaWeights& weights,
                                         const TargetTables& tables, const at::Tensor& features,
                                         at::ScalarType compute) {
    std::vector<at::Tensor> parts;
    for (std::int64_t i = 0; i < config.heads; ++i) {
        parts.push_back(medusa_state(config, weights, i, features, compute));
        if (config.output == HeadOutput::own)
            parts.back() = mixed_linear(parts.back(), medusa_output(config, weights, tables, i), compute);
    }
    if (config.output == HeadOutput::own) return aten::stack(parts);
    const at::Tensor logits = mixed_linear(aten::cat(parts), medusa_output(config, weights, tables, 0), compute);
    return logits.view({config.heads, features.size(0), logits.size(1)});
}

OUTRIDER_INLINE MedusaWeights read_medusa_weights(const std::filesystem::path& folder, const MedusaConfig& config,
                                                  WeightType type) {
    MedusaWeights weights;
    read_weights(folder, "Medusa drafter", layout(config, weights), type);
    return weights;
}

OUTRIDER_INLINE void write_medusa_weights(const std::filesystem::path& folder, const MedusaWeights& weights) {
    write_weights(folder, "medusa", weights.named());
}

}  // namespace outrider
