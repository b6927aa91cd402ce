// Bodies of ctc_search.hpp.
#pragma once

#include <outrider/draft/ctc/detail/ctc_search.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <outrider/core/detail/sigmoid.hpp>
#include <outrider/core/detail/vector_loops.hpp>
#include <outrider/draft/nn/detail/score_rows.hpp>
#include <outrider/tree/detail/keep_best.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::ctc_search {

using simd::get;
using simd::put;
using Lanes = simd::Vector<float>;
inline constexpr std::int64_t kWide = simd::kLanes<float>;

/// z[t] = sum_c a[t][c] f[c].
OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(void, masses,
                                     (const float* a, std::int64_t frames, const float* f, std::int64_t stride,
                                      float* z),
                                     (a, frames, f, stride, z)) {
    for (std::int64_t t = 0; t < frames; ++t) {
        Lanes sum{}, more{};
        for (std::int64_t c = 0; c < stride; c += 2 * kWide) {
            sum += get(a + t * stride + c) * get(f + c);
            more += get(a + t * stride + c + kWide) * get(f + c + kWide);
        }
        sum += more;
        float total = 0;
        for (std::int64_t j = 0; j < kWide; ++j) total += sum[j];
        z[t] = total;
    }
}

/// q[c] = f[c] sum_t w[t] a[t][c].
OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(void, children,
                                     (const float* a, std::int64_t frames, const float* f, const float* w,
                                      std::int64_t stride, float* q),
                                     (a, frames, f, w, stride, q)) {
    for (std::int64_t c = 0; c < stride; c += kWide) {
        Lanes sum{};
        for (std::int64_t t = 0; t < frames; ++t) sum += w[t] * get(a + t * stride + c);
        put(q + c, sum * get(f + c));
    }
}

}  // namespace detail::ctc_search

OUTRIDER_INLINE void CtcSearch::run(TeamMember& member, std::span<const float> logits, std::span<const float> gate,
                                    std::int64_t nodes, const LeastChances& least, const Score& score, bool chain) {
    const bool first = member.index() == 0;
    if (first) clear(gate.size(), gate.empty() ? 0 : logits.size() / gate.size(), nodes, least, chain);
    member.barrier();
    if (level_.empty()) return;
    for (auto t = static_cast<std::size_t>(member.index()); t < frames_; t += static_cast<std::size_t>(member.size()))
        load_frame(t, logits, gate[t]);
    while (!level_.empty()) {
        score(member, prefixes_, factors_.data(), static_cast<std::int64_t>(stride_));
        member.barrier();
        const TeamMember::Range mine = member.range(std::ssize(level_));
        for (std::int64_t i = mine.begin; i < mine.end; ++i) expand(static_cast<std::size_t>(i));
        member.barrier();
        if (first) take_level();
        member.barrier();
    }
}

OUTRIDER_INLINE void CtcSearch::clear(std::size_t frames, std::size_t columns, std::int64_t nodes,
                                      const LeastChances& least, bool chain) {
    limit_ = nodes > 0 ? static_cast<std::size_t>(nodes) : 0, least_ = least, chain_ = chain;
    rivals_ = chain ? 1 : limit_;
    deepest_ = static_cast<std::int32_t>(std::min(frames, limit_));
    frames_ = frames, columns_ = columns, stride_ = padded_row(columns);
    nodes_.assign(1, Node{});
    best_.clear(), level_.clear();
    fresh_.clear(), repeat_.clear(), entry_.clear();
    if (limit_ == 0 || frames_ == 0 || columns_ == 0) return;
    a_.resize(frames_ * stride_);
    blank_.assign(frames_, 1.0F), emit_.assign(frames_, 0.0F);
    level_.assign(1, 0);
    open_level();
}

OUTRIDER_INLINE void CtcSearch::load_frame(std::size_t t, std::span<const float> logits, float gate) {
    float* row = &a_[t * stride_];
    std::copy_n(logits.data() + t * columns_, columns_, row);
    const float top = exponentials(row, static_cast<std::int64_t>(columns_), static_cast<std::int64_t>(stride_));
    if (std::isnan(top) || std::isnan(gate)) {
        std::fill_n(row, stride_, 0.0F);
        return;
    }
    blank_[t] = detail::sigmoid(gate), emit_[t] = detail::sigmoid(-gate);
}

/// Room for a level's prefixes: each has a place of its own in everything that is computed for it.
OUTRIDER_INLINE void CtcSearch::open_level() {
    prefixes_.clear();
    const std::size_t states = fresh_.size() / frames_;
    for (std::size_t i = 0; i < level_.size(); ++i) {
        Node& node = nodes_[static_cast<std::size_t>(level_[i])];
        node.state = static_cast<std::int32_t>(states + i);
        prefixes_.push_back(
            {node.column, node.depth >= 2 ? nodes_[static_cast<std::size_t>(node.parent)].column : -1, node.depth});
    }
    fresh_.resize((states + level_.size()) * frames_), repeat_.resize(fresh_.size());
    factors_.resize(level_.size() * stride_), q_.resize(factors_.size()), z_.resize(level_.size() * frames_);
}

/// What follows a prefix of the level, whatever follows the others. Scores that say nothing have no
/// detail::ctc_search::children.
OUTRIDER_INLINE void CtcSearch::expand(std::size_t place) {
    const Node& node = nodes_[static_cast<std::size_t>(level_[place])];
    float* factors = &factors_[place * stride_];
    float* q = &q_[place * stride_];
    const float top = exponentials(factors, static_cast<std::int64_t>(columns_), static_cast<std::int64_t>(stride_));
    if (std::isnan(top)) {
        std::fill_n(q, stride_, 0.0F);
        return;
    }
    complete(node, place, factors);
    children_of(node, factors, q);
}

/// Children enter in the order of the level, whoever computed them; the next level are those that may have some.
OUTRIDER_INLINE void CtcSearch::take_level() {
    next_.clear();
    if (chain_) best_.clear();  // of the level before
    for (std::size_t i = 0; i < level_.size(); ++i) {
        const NodeIndex at = level_[i];
        // Scores grew the bar while this level was walked: what no longer beats it has no child that does.
        if (at > 0 && nodes_[static_cast<std::size_t>(at)].psi < threshold()) continue;
        take_children(at, &factors_[i * stride_], &q_[i * stride_]);
    }
    if (chain_) keep_best_child();
    level_.clear();
    for (const NodeIndex node : next_)
        if (nodes_[static_cast<std::size_t>(node)].psi >= threshold() &&
            nodes_[static_cast<std::size_t>(node)].depth < deepest_)
            level_.push_back(node);
    open_level();
}

/// Of a chain: each child that entered was likelier than the one before, so the last one is the best.
OUTRIDER_INLINE void CtcSearch::keep_best_child() {
    if (next_.empty()) return;
    const std::size_t last = nodes_.size() - 1, first = nodes_.size() - next_.size();
    nodes_[first] = nodes_[last];
    std::copy_n(&entry_[last * frames_], frames_, &entry_[first * frames_]);
    nodes_.resize(first + 1), entry_.resize(nodes_.size() * frames_);
    next_.assign(1, static_cast<NodeIndex>(first));
}

/// The forward variables of one prefix, divided by its Psi, as weights of its detail::ctc_search::children.
OUTRIDER_INLINE void CtcSearch::complete(const Node& node, std::size_t place, const float* factors) {
    float* z = &z_[place * frames_];
    detail::ctc_search::masses(a_.data(), static_cast<std::int64_t>(frames_), factors,
                               static_cast<std::int64_t>(stride_), z);
    const auto state = static_cast<std::size_t>(node.state);
    const bool root = node.column < 0;
    const auto last = static_cast<std::size_t>(std::max(node.column, 0));
    const float* entry = root ? nullptr : &entry_[static_cast<std::size_t>(&node - nodes_.data()) * frames_];
    float blank = root ? 1.0F : 0.0F, label = 0.0F;
    for (std::size_t t = 0; t < frames_; ++t) {
        const float scale = z[t] > 0 && std::isfinite(z[t]) ? emit_[t] / z[t] : 0.0F;
        fresh_[state * frames_ + t] = scale * (blank + label);
        repeat_[state * frames_ + t] = scale * blank;
        const float stay = root ? 0.0F : scale * a_[t * stride_ + last] * factors[last] * label;
        const float exact = blank + label;
        label = root ? 0.0F : entry[t] + stay;
        blank = blank_[t] * exact;
    }
}

/// q(c | l) of every column.
OUTRIDER_INLINE void CtcSearch::children_of(const Node& above, const float* factors, float* q) const {
    const float* fresh = &fresh_[static_cast<std::size_t>(above.state) * frames_];
    const float* repeat = &repeat_[static_cast<std::size_t>(above.state) * frames_];
    detail::ctc_search::children(a_.data(), static_cast<std::int64_t>(frames_), factors, fresh,
                                 static_cast<std::int64_t>(stride_), q);
    if (above.column < 0) return;
    const auto last = static_cast<std::size_t>(above.column);
    q[last] = 0;
    for (std::size_t t = 0; t < frames_; ++t) q[last] += repeat[t] * a_[t * stride_ + last];
    q[last] *= factors[last];
}

/// Those that are among the best so far become nodes.
OUTRIDER_INLINE void CtcSearch::take_children(NodeIndex parent, const float* factors, const float* q_of) {
    const Node above = nodes_[static_cast<std::size_t>(parent)];
    const float* fresh = &fresh_[static_cast<std::size_t>(above.state) * frames_];
    const float* repeat = &repeat_[static_cast<std::size_t>(above.state) * frames_];
    const auto least = [&] {
        return std::max(static_cast<float>(threshold() / above.psi), std::numeric_limits<float>::min());
    };
    float bar = least();
    const auto stride = static_cast<std::int64_t>(stride_);
    for (std::int64_t block = find_block(q_of, 0, stride, bar); block < stride;
         block = find_block(q_of, block + detail::ctc_search::kWide, stride, bar)) {
        for (std::int64_t c = block; c < block + detail::ctc_search::kWide; ++c) {
            if (!(q_of[c] >= bar)) continue;
            const float q = std::min(q_of[c], 1.0F);
            const double psi = above.psi * static_cast<double>(q);
            if (!(psi > threshold())) continue;
            best_.insert(std::upper_bound(best_.begin(), best_.end(), psi, std::greater<>{}), psi);
            if (best_.size() > rivals_) best_.pop_back();
            next_.push_back(static_cast<NodeIndex>(nodes_.size()));
            nodes_.push_back({psi, q, parent, static_cast<std::int32_t>(c), above.depth + 1, -1});
            entry_.resize(nodes_.size() * frames_);
            float* entry = &entry_[(nodes_.size() - 1) * frames_];
            const float* weight = c == above.column ? repeat : fresh;
            const auto column = static_cast<std::size_t>(c);
            for (std::size_t t = 0; t < frames_; ++t)
                entry[t] = weight[t] * a_[t * stride_ + column] * factors[column] / q;
            bar = least();
        }
    }
}

OUTRIDER_INLINE TokenTree CtcSearch::tree(TokenId pending, std::span<const TokenId> vocabulary) const {
    return keep_best(
        pending, nodes_.size(), static_cast<std::int64_t>(limit_), [&](std::size_t i) { return nodes_[i].psi; },
        [&](std::size_t i) {
            const Node& node = nodes_[i];
            return DraftNode{node.parent, vocabulary[static_cast<std::size_t>(node.column)], std::log(node.q)};
        });
}

}  // namespace outrider
