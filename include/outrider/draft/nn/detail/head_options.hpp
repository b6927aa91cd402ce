// How drafters with one head per depth (Medusa, Hydra) turn their heads' probabilities into a tree.
#pragma once

#include <cstdint>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <vector>

namespace outrider {

enum class HeadTree : unsigned char {
    best_first,   ///< the N paths of largest probability: the best tree by the heads' own belief
    static_tree,  ///< ranked choices in a fixed shape
    measured,     ///< the shape of N nodes that the config's measured accuracies make best
    sampled,      ///< chains drawn head by head, with the law they were drawn from (SequenceTree::samples)
};

struct HeadDraftOptions {
    HeadTree tree = HeadTree::best_first;
    /// Of static_tree; empty: Medusa's 63, without choices longer than there are heads. Of a shape with more nodes than
    /// the round's budget, the likeliest stay.
    std::vector<TreeTemplate::Choice> choices = {};
    std::int64_t chains = 1;  ///< of sampled, independent of each other
    std::int64_t top_k = 32;  ///< of sampled: q is renormalised over so many tokens of a head
    std::uint64_t seed = 0;   ///< of sampled; draws are keyed by (seed, sequence, committed)
    int threads = 0;          ///< of the CPU's kernels; 0: the target's; one per physical core where it has none
    bool kernels = true;      ///< on the CPU: packed matrices and plain loops; false: tensor operations
    bool eight_bits = false;  ///< of kernels: all matrices in 8 bits; else those of Hydra's prefix layer in 4
    /// Of Hydra on a device: most that keys and values of all sequences may take. A sequence that finds no room is not
    /// drafted for; its text is the same.
    std::int64_t lane_bytes = std::int64_t{4} << 30;
};

/// What such trees bring for policies that need draws.
[[nodiscard]] constexpr DraftDraws draws_of(const HeadDraftOptions& options) noexcept {
    if (options.tree != HeadTree::sampled) return DraftDraws::none;
    return options.chains <= 1 ? DraftDraws::chain : DraftDraws::independent;
}

}  // namespace outrider
