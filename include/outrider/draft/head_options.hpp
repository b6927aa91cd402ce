// How drafters with one head per depth (Medusa, Hydra) turn their heads' probabilities into a tree.
#pragma once

#include <outrider/tree/tree_template.hpp>
#include <vector>

namespace outrider {

enum class HeadTree : unsigned char {
    best_first,   ///< the N paths of largest probability: the best tree by the heads' own belief
    static_tree,  ///< ranked choices in a fixed shape
    measured,     ///< the shape of N nodes that the config's measured accuracies make best
};

struct HeadDraftOptions {
    HeadTree tree = HeadTree::best_first;
    /// Of static_tree; empty: Medusa's 63, without choices longer than there are heads. Of a shape with more nodes than
    /// the round's budget, the likeliest stay.
    std::vector<TreeTemplate::Choice> choices = {};
    int threads = 0;      ///< of the CPU's kernels; 0: one per physical core
    bool kernels = true;  ///< on the CPU: packed int8 matrices and plain loops; false: tensor operations
};

}  // namespace outrider
