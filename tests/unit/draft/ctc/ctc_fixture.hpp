// A toy target and a CTC drafter of a few thousand weights for it.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::test {

/// float64 noise in (-scale, scale), the same for every run.
inline at::Tensor noise(std::vector<std::int64_t> shape, std::uint64_t seed, double scale) {
    at::Tensor x = at::empty(shape, at::kDouble);
    const RandomKey key(seed, 0, 0);
    for (std::int64_t i = 0; i < x.numel(); ++i)
        x.data_ptr<double>()[i] = scale * (2 * key.uniform(static_cast<std::uint64_t>(i)) - 1);
    return x;
}

inline constexpr std::int64_t kToyHidden = 32, kToyVocabulary = 40;

inline TargetHead toy_head() {
    const auto rows = [](at::Tensor table) {
        return [table](std::span<const TokenId> ids) {
            return table.index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong));
        };
    };
    return {"toy",
            kToyHidden,
            kToyVocabulary,
            rows(noise({kToyVocabulary, kToyHidden}, 101, 1.0).to(at::kFloat)),
            rows(noise({kToyVocabulary, kToyHidden}, 102, 1.0).to(at::kFloat)),
            noise({kToyHidden}, 103, 0.5).to(at::kFloat) + 1.0,
            1e-5};
}

/// Names every second token of the toy vocabulary.
inline CtcConfig toy_config(CtcConditioning conditioning) {
    CtcConfig config;
    config.hidden = kToyHidden, config.heads = 2, config.kv_heads = 1, config.head_dim = 32, config.intermediate = 48,
    config.frames = 4;
    config.conditioning = conditioning, config.prefix_rank = 16;
    config.target_fingerprint = "toy", config.target_name = "toy target";
    for (TokenId token = 1; token < kToyVocabulary; token += 2) config.vocabulary.push_back(token);
    return config;
}

/// Random weights, also where training starts from zero, so that everything matters.
inline CtcWeights toy_weights(const CtcConfig& config, const TargetHead& head) {
    CtcWeights weights = init_ctc_weights(config, head, 5);
    const auto fill = [](at::Tensor& weight, std::uint64_t seed, double scale) {
        if (weight.defined()) weight = noise(weight.sizes().vec(), seed, scale).to(at::kFloat);
    };
    fill(weights.blank, 104, 0.3);
    fill(weights.prefix_out, 105, 0.5);
    fill(weights.fuse, 106, 0.15);
    fill(weights.prefix_in, 107, 0.15);
    std::uint64_t seed = 108;
    for (LayerWeights& layer : weights.layers) fill(layer.attn_out, seed++, 0.15), fill(layer.down, seed++, 0.15);
    weights.final_norm = head.final_norm.clone();
    return weights;
}

/// One sequence's tree.
inline TokenTree one(DraftModel& draft, const SequenceFeedback& feedback, std::int64_t nodes = 12) {
    return draft.propose(std::span(&feedback, 1), {nodes}).at(0).tree;
}

/// A text of `length` tokens and features for it.
struct Text {
    std::vector<TokenId> tokens;
    at::Tensor features;

    explicit Text(std::int64_t length, std::uint64_t seed = 1)
        : features(noise({length, kToyHidden}, seed, 2).to(at::kFloat)) {
        for (std::int64_t i = 0; i < length; ++i)
            tokens.push_back(static_cast<TokenId>(mix64(seed ^ static_cast<std::uint64_t>(i)) % kToyVocabulary));
    }

    /// What a drafter that knows the first `known` tokens hears when `pending` is the index of the pending one.
    [[nodiscard]] SequenceFeedback feedback(std::int64_t known, std::int64_t pending, SequenceId id = 1) const {
        return {id,
                {tokens.begin() + known, tokens.begin() + pending},
                features.slice(0, known, pending),
                tokens[static_cast<std::size_t>(pending)],
                pending};
    }
};

inline bool same(const TokenTree& a, const TokenTree& b) {
    return std::ranges::equal(a.tokens(), b.tokens()) && std::ranges::equal(a.parents(), b.parents()) &&
           std::ranges::equal(a.log_q(), b.log_q());
}

/// log Psi of every node, by its path of tokens.
inline std::map<std::vector<TokenId>, double> paths_of(const TokenTree& tree) {
    std::map<std::vector<TokenId>, double> paths;
    for (NodeIndex node = 1; node < static_cast<NodeIndex>(tree.size()); ++node) {
        std::vector<TokenId> path;
        double log_psi = 0;
        for (const NodeIndex step : path_to(tree, node))
            path.push_back(tree.token(step)), log_psi += tree.log_q()[static_cast<std::size_t>(step)];
        paths[path] = log_psi;
    }
    return paths;
}

/// One path of so many nodes, each the likeliest behind the one before: of the nodes of `larger`, a tree of the same
/// drafter, none that stands beside it is likelier.
inline void check_chain(const TokenTree& chain, std::size_t nodes, const TokenTree& larger) {
    REQUIRE(chain.drafted() == nodes);
    REQUIRE(chain.height() == static_cast<NodeIndex>(nodes));
    const std::vector<TokenId> whole(chain.tokens().begin() + 1, chain.tokens().end());
    const auto mine = paths_of(chain);
    std::size_t shared = 0;
    for (const auto& [path, log_psi] : paths_of(larger)) {
        if (path.size() > nodes || !std::equal(path.begin(), path.end() - 1, whole.begin())) continue;
        const auto end = whole.begin() + static_cast<std::ptrdiff_t>(path.size());
        const double best = mine.at({whole.begin(), end});
        CHECK(log_psi < best + 1e-4);
        if (path.back() != end[-1]) continue;
        CHECK(std::abs(log_psi - best) < 1e-4);
        ++shared;
    }
    CHECK(shared >= std::min<std::size_t>(nodes, 3));
}

/// What a drafter proposes where the target takes no branches.
inline TokenTree chain_of(DraftModel& draft, const SequenceFeedback& feedback, std::int64_t nodes) {
    return draft.propose(std::span(&feedback, 1), {.nodes = nodes, .chains = true}).at(0).tree;
}

/// Each 32 weights of a row as the nearest of `steps` + 1 values from the least to the largest one.
inline at::Tensor rounded(const at::Tensor& matrix, int steps) {
    at::Tensor result = matrix.clone();
    for (std::int64_t row = 0; row < matrix.size(0); ++row)
        for (std::int64_t begin = 0; begin < matrix.size(1); begin += 32) {
            at::Tensor block = result[row].slice(0, begin, std::min(begin + 32, matrix.size(1)));
            const at::Tensor low = block.min().to(at::kHalf).to(at::kFloat),
                             step = ((block.max() - block.min()) / steps).to(at::kHalf).to(at::kFloat);
            block.copy_(((block - low) / step).round().clamp(0, steps) * step + low);
        }
    return result;
}

/// Kernels with packed weights and 8-bit rows against tensor operations: most of the paths, and nearly their
/// probabilities.
inline void check_follows(DraftModel& reference, DraftModel& fast, const Text& text) {
    const auto a = paths_of(one(reference, text.feedback(0, 33), 40)),
               b = paths_of(one(fast, text.feedback(0, 33), 40));
    std::size_t shared = 0;
    for (const auto& [path, log_psi] : a) {
        if (!b.contains(path)) continue;
        ++shared;
        CHECK(std::abs(b.at(path) - log_psi) < 0.25);
    }
    CHECK(shared >= 30);
}

}  // namespace outrider::test
