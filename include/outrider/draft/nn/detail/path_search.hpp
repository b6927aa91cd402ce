// Draft trees from heads that see the drafted path: which nodes are worth a head's pass, and the tree they make.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <outrider/core/types.hpp>
#include <outrider/core/detail/thread_team.hpp>
#include <outrider/draft/detail/least_chances.hpp>
#include <outrider/tree/token_tree.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <span>
#include <utility>
#include <vector>

namespace outrider {

/// A node whose children are asked for, of one sequence of the batch: `path` is the pending token and what was drafted
/// down to it. Head path.size() - 1 answers.
struct PathRow {
    std::size_t sequence = 0;
    std::span<const TokenId> path;
};

/// Reusable scratch; not thread-safe.
class PathSearch {
public:
    /// Fills scores [rows, padded_row(V)]; columns from V on are left alone. Rows come by head, ascending.
    using Score = std::function<void(std::span<const PathRow> rows, float* scores)>;

    /// For every sequence the `nodes` paths of largest probability, of at most `heads` tokens, exactly; those
    /// that `least` takes for too unlikely are left out. Found nodes are expanded in waves of the kWave most probable
    /// of each sequence; one that does not beat the N-th best found so far has no child that does, since a path is
    /// never likelier than its beginning, and is never expanded. When none is left, the N best found are the N best of
    /// all. Rows that hold NaN or infinities have no children. A sequence's tree does not depend on the others.
    [[nodiscard]] std::vector<TokenTree> best_first(std::span<const TokenId> pending,
                                                    std::span<const TokenId> vocabulary, std::int64_t heads,
                                                    std::int64_t nodes, const LeastChances& least, const Score& score);

    /// The nodes of a static shape, each rank taken in its parent's own list; one pass per depth. Where the shape has
    /// more than `nodes`, the likeliest stay. Paths of a probability up to `least` are left out.
    [[nodiscard]] std::vector<TokenTree> ranked(std::span<const TokenId> pending, std::span<const TokenId> vocabulary,
                                                const TreeTemplate& shape, std::int64_t nodes, const Score& score,
                                                double least = 0);

    static constexpr std::size_t kWave = 8;

    /// Rows of a wave are turned into probabilities by this team, which must live as long as the search; null: by the
    /// calling thread. The trees are the same.
    void use(ThreadTeam* team) noexcept { team_ = team; }

private:
    struct Node {
        double psi = 1.0;  ///< probability of the path
        float log_q = 0.0F;
        TokenId token = kNoToken;
        NodeIndex parent = kNoNode;
        std::int32_t depth = 0;
        std::int32_t choice = 0;  ///< node of the template
    };
    struct Growth {
        std::vector<Node> nodes;  ///< in order of discovery, parents first
        std::vector<NodeIndex> open;
        std::vector<double> best;  ///< the N largest psi, descending
        std::size_t limit = 0;     ///< N
        LeastChances least;

        /// What a node must beat.
        [[nodiscard]] double threshold() const { return least.threshold(best, limit); }
    };
    using Place = std::pair<std::size_t, NodeIndex>;  ///< sequence, node

    void start(std::span<const TokenId> pending);
    /// Scores of `wave`, then expand(place, probabilities of its children).
    void pass(std::vector<Place>& wave, std::size_t columns, const Score& score,
              const std::function<void(Place, const float*)>& expand);
    static void take_wave(Growth& growth, std::size_t sequence, std::vector<Place>& wave);
    static void add_children(Growth& growth, NodeIndex parent, const float* q, std::span<const TokenId> vocabulary,
                             std::int64_t heads);
    [[nodiscard]] std::vector<TokenTree> build(std::int64_t nodes) const;

    std::vector<Growth> growths_;
    std::vector<float> scores_;
    std::vector<char> usable_;  // [rows] whether a row's scores are numbers
    std::vector<TokenId> paths_;
    ThreadTeam* team_ = nullptr;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/path_search-inl.hpp>
#endif
