// The best-first draft tree over the whole draft vocabulary, for frames that know the drafted prefix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/core/detail/thread_team.hpp>
#include <outrider/draft/detail/least_chances.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// A prefix whose scores are asked for, as columns of the draft vocabulary: -1 where the prefix is shorter.
struct CtcPrefix {
    std::int32_t last = -1, last_but_one = -1;
    std::int32_t length = 0;
};

/// The N largest Psi, exactly: no token is left out before its prefix is known, because frames and prefixes have a
/// meaning only together. Prefixes of one length are expanded together, so that their scores are one matrix product.
/// A prefix is expanded if it beats the N-th best found so far; what cannot enter the tree has no child that can
/// (Psi(l c) <= Psi(l)). The recursion is that of ctc/prefix_forward.hpp. Reusable scratch; one search at a time.
class CtcSearch {
public:
    /// Fills [prefixes, stride] with s_l(c); columns from V on are never read. Every member of the team calls it; the
    /// search puts a barrier behind it.
    using Score = std::function<void(TeamMember& member, std::span<const CtcPrefix> prefixes, float* scores,
                                     std::int64_t stride)>;

    /// `logits` [T, V], `gate` [T]; prefixes that `least` takes for too unlikely are left out. A frame that holds NaN
    /// or +inf says nothing: it is blank. `chain`: one path of up to `nodes` nodes, each the likeliest behind the one
    /// before. Every member of a team calls it inside one run; the tree depends neither on their number nor on their
    /// order.
    void run(TeamMember& member, std::span<const float> logits, std::span<const float> gate, std::int64_t nodes,
             const LeastChances& least, const Score& score, bool chain = false);

    /// The tree that was found; `vocabulary` [V] target ids.
    [[nodiscard]] TokenTree tree(TokenId pending, std::span<const TokenId> vocabulary) const;

private:
    struct Node {
        double psi = 1.0;
        float q = 1.0F;
        NodeIndex parent = kNoNode;  ///< of nodes_; 0 is the root
        std::int32_t column = -1, depth = 0, state = -1;
    };

    void clear(std::size_t frames, std::size_t columns, std::int64_t nodes, const LeastChances& least, bool chain);
    void load_frame(std::size_t t, std::span<const float> logits, float gate);
    void open_level();
    void expand(std::size_t place);
    void complete(const Node& node, std::size_t place, const float* factors);
    void children_of(const Node& above, const float* factors, float* q) const;
    void take_level();
    void keep_best_child();
    void take_children(NodeIndex parent, const float* factors, const float* q);
    [[nodiscard]] double threshold() const { return least_.threshold(best_, rivals_); }

    std::size_t frames_ = 0, columns_ = 0, stride_ = 0, limit_ = 0;
    std::size_t rivals_ = 0;  // nodes that a new one has to be among: N, and 1 of a chain's level
    std::int32_t deepest_ = 0;
    bool chain_ = false;
    LeastChances least_;
    std::vector<float> a_;                // [T, stride] exp(logits - row maximum)
    std::vector<float> blank_, emit_;     // [T]
    std::vector<float> factors_, q_, z_;  // [level, stride] f_l(c) and q(c | l), [level, T]
    std::vector<float> fresh_, repeat_;   // [states, T] weights of a_t(c) f_l(c) in q(c | l); of c = last(l)
    std::vector<float> entry_;  // [states, T] a_t(c) f_parent(c) weight / q: where the prefix's last label enters
    std::vector<Node> nodes_;
    std::vector<double> best_;  // the largest psi, descending, at most rivals_
    std::vector<NodeIndex> level_, next_;
    std::vector<CtcPrefix> prefixes_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_search-inl.hpp>
#endif
