// Medusa and Hydra drafters of a few thousand weights for the toy target, and both networks restated as plain loops.
#pragma once

#include <cmath>
#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>

#include "../ctc/ctc_fixture.hpp"

namespace outrider::test {

inline std::vector<TokenId> toy_draft_vocabulary() {
    std::vector<TokenId> all;
    for (TokenId token = 1; token < kToyVocabulary; token += 2) all.push_back(token);
    return all;
}

inline MedusaConfig toy_medusa(HeadOutput output, std::int64_t blocks = 1, bool whole_vocabulary = false) {
    MedusaConfig config;
    config.hidden = kToyHidden, config.heads = 3, config.blocks = blocks, config.output = output;
    config.target_fingerprint = "toy", config.target_name = "toy target";
    if (!whole_vocabulary) config.vocabulary = toy_draft_vocabulary();
    config.accuracies = {{0.5, 0.2, 0.1}, {0.3, 0.1}, {0.2}};
    return config;
}

inline HydraConfig toy_hydra(bool prefix_layer, HydraResidual residual = HydraResidual::feature,
                             HeadOutput output = HeadOutput::target, std::int64_t blocks = 1) {
    HydraConfig config;
    config.hidden = kToyHidden, config.heads = 3, config.blocks = blocks;
    config.residual = residual, config.output = output, config.output_bias = output != HeadOutput::target;
    config.prefix_layer = prefix_layer;
    if (prefix_layer) config.attention_heads = 4, config.kv_heads = 2, config.head_dim = 16, config.intermediate = 48;
    config.embedding_scale = 0.7, config.feature_scale = 0.6;
    config.target_fingerprint = "toy", config.target_name = "toy target";
    config.vocabulary = toy_draft_vocabulary();
    config.accuracies = {{0.5, 0.2, 0.1}, {0.3, 0.1}, {0.2}};
    return config;
}

/// Noise in every weight: nothing stays at its quiet start.
template <typename Weights>
Weights stirred(Weights weights, std::uint64_t seed, double scale) {
    for (auto& [name, weight] : weights.named())
        *weight = *weight + noise(weight->sizes().vec(), seed++, scale).to(weight->scalar_type());
    return weights;
}
inline MedusaWeights toy_weights(const MedusaConfig& config, const TargetHead& head) {
    return stirred(init_medusa_weights(config, head, 3), 900, 0.2);
}
inline HydraWeights toy_weights(const HydraConfig& config, const TargetHead& head) {
    return stirred(init_hydra_weights(config, head, 3), 900, 0.2);
}

using Numbers = std::vector<double>;

inline Numbers numbers(const at::Tensor& x) {
    const at::Tensor flat = x.to(at::kDouble).contiguous();
    return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// W x, W [out, in].
inline Numbers times(const at::Tensor& weight, const Numbers& x) {
    const Numbers w = numbers(weight);
    Numbers y(w.size() / x.size(), 0.0);
    for (std::size_t o = 0; o < y.size(); ++o)
        for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    return y;
}
inline Numbers plus(Numbers x, const Numbers& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
    return x;
}
inline Numbers silu(Numbers x) {
    for (double& v : x) v /= 1.0 + std::exp(-v);
    return x;
}
inline Numbers scaled(Numbers x, double factor) {
    for (double& v : x) v *= factor;
    return x;
}
inline Numbers rms_norm(const Numbers& x, const at::Tensor& weight, double eps) {
    double square = 0;
    for (const double v : x) square += v * v;
    Numbers y = numbers(weight);
    for (std::size_t i = 0; i < x.size(); ++i) y[i] *= x[i] / std::sqrt(square / static_cast<double>(x.size()) + eps);
    return y;
}

/// Head `k`'s logits from h_{n-1}.
inline Numbers plain_medusa(const MedusaWeights& weights, const at::Tensor& output, std::size_t k, const Numbers& h) {
    Numbers x = h;
    for (const MedusaWeights::Block& block : weights.heads[k])
        x = plus(x, silu(plus(times(block.weight, x), numbers(block.bias))));
    return times(output, x);
}

/// Turns one head of q or k by a position: element i with element i + D / 2.
inline void plain_rotate(double* head, std::int64_t D, std::int64_t position, double theta) {
    for (std::int64_t i = 0; i < D / 2; ++i) {
        const double angle =
            static_cast<double>(position) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
        const double a = head[i], b = head[i + D / 2];
        head[i] = a * std::cos(angle) - b * std::sin(angle),
        head[i + D / 2] = b * std::cos(angle) + a * std::sin(angle);
    }
}

/// g_{n-1} from h_0 .. h_{n-1}: one decoder layer, causal, over the scaled features.
inline Numbers plain_ground(const HydraConfig& c, const HydraWeights& w, const std::vector<Numbers>& features) {
    if (!c.prefix_layer) return features.back();
    const std::int64_t D = c.head_dim, N = c.attention_heads * D, K = c.kv_heads * D;
    std::vector<Numbers> qkv;
    for (std::size_t j = 0; j < features.size(); ++j) {
        qkv.push_back(
            times(w.prefix.qkv, rms_norm(scaled(features[j], c.feature_scale), w.prefix.attn_norm, c.norm_eps)));
        for (std::int64_t h = 0; h < c.attention_heads + c.kv_heads; ++h)
            plain_rotate(qkv.back().data() + h * D, D, static_cast<std::int64_t>(j), c.rope_theta);
    }
    Numbers mixed(static_cast<std::size_t>(N), 0.0);
    for (std::int64_t h = 0; h < c.attention_heads; ++h) {
        const std::int64_t kv = h / (c.attention_heads / c.kv_heads);
        Numbers p;
        double sum = 0;
        for (const Numbers& row : qkv) {
            double dot = 0;
            for (std::int64_t i = 0; i < D; ++i)
                dot += qkv.back()[static_cast<std::size_t>(h * D + i)] * row[static_cast<std::size_t>(N + kv * D + i)];
            p.push_back(std::exp(dot / std::sqrt(static_cast<double>(D))));
            sum += p.back();
        }
        for (std::size_t j = 0; j < qkv.size(); ++j)
            for (std::int64_t i = 0; i < D; ++i)
                mixed[static_cast<std::size_t>(h * D + i)] +=
                    p[j] / sum * qkv[j][static_cast<std::size_t>(N + K + kv * D + i)];
    }
    Numbers x = plus(scaled(features.back(), c.feature_scale), times(w.prefix.attn_out, mixed));
    const Numbers inner = times(w.prefix.gate_up, rms_norm(x, w.prefix.mlp_norm, c.norm_eps));
    Numbers gate = silu(Numbers(inner.begin(), inner.begin() + c.intermediate));
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= inner[i + gate.size()];
    return rms_norm(plus(x, times(w.prefix.down, gate)), w.prefix_norm, c.norm_eps);
}

/// Head k's logits, k = path.size() - 1; `path`: x_n and what was drafted.
inline Numbers plain_hydra(const HydraConfig& c, const HydraWeights& w, const at::Tensor& target_rows,
                           const TargetHead& head, const Numbers& ground, const std::vector<TokenId>& path) {
    const std::size_t k = path.size() - 1;
    Numbers x = scaled(ground, c.feature_scale);
    for (const TokenId token : path) {
        const Numbers e = scaled(numbers(head.embed(std::span(&token, 1))), c.embedding_scale);
        x.insert(x.end(), e.begin(), e.end());
    }
    const HydraWeights::Block& first = w.heads[k][0];
    const Numbers inner = silu(plus(times(first.weight, x), numbers(first.bias)));
    Numbers y = c.residual == HydraResidual::feature
                    ? plus(ground, inner)
                    : plus(plus(times(first.residual, x), numbers(first.residual_bias)), inner);
    for (std::size_t j = 1; j < w.heads[k].size(); ++j)
        y = plus(y, silu(plus(times(w.heads[k][j].weight, y), numbers(w.heads[k][j].bias))));
    const std::size_t which = c.output == HeadOutput::own ? k : 0;
    Numbers logits = times(c.output == HeadOutput::target ? target_rows : w.output[which], y);
    return c.output_bias ? plus(logits, numbers(w.output_bias[which])) : logits;
}

}  // namespace outrider::test
