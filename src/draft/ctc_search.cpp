#include "ctc_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../vector_clones.hpp"
#include "score_rows.hpp"

namespace outrider {

namespace {

using simd::get;
using simd::put;
using Lanes = simd::Vector<float>;
constexpr std::int64_t kWide = simd::kLanes<float>;

/// z[t] = sum_c a[t][c] f[c].
OUTRIDER_CLONES void masses(const float* a, std::int64_t frames, const float* f, std::int64_t stride, float* z) {
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
OUTRIDER_CLONES void children(const float* a, std::int64_t frames, const float* f, const float* w, std::int64_t stride,
                              float* q) {
    for (std::int64_t c = 0; c < stride; c += kWide) {
        Lanes sum{};
        for (std::int64_t t = 0; t < frames; ++t) sum += w[t] * get(a + t * stride + c);
        put(q + c, sum * get(f + c));
    }
}

}  // namespace

TokenTree CtcSearch::tree(TokenId pending, std::span<const float> logits, std::span<const float> gate,
                          std::span<const TokenId> vocabulary, std::int64_t nodes, const Score& score) {
    limit_ = nodes > 0 ? static_cast<std::size_t>(nodes) : 0;
    frames_ = gate.size(), columns_ = vocabulary.size();
    nodes_.assign(1, Node{});
    best_.clear();
    fresh_.clear(), repeat_.clear(), entry_.clear();
    if (limit_ > 0 && frames_ > 0 && columns_ > 0) {
        load(logits, gate);
        level_.assign(1, 0);
        while (!level_.empty()) {
            next_.clear();
            expand(level_, score);
            level_.clear();
            for (const NodeIndex node : next_)
                if (nodes_[static_cast<std::size_t>(node)].psi >= threshold() &&
                    nodes_[static_cast<std::size_t>(node)].depth < static_cast<std::int32_t>(frames_))
                    level_.push_back(node);
        }
    }
    return build(pending, vocabulary);
}

void CtcSearch::load(std::span<const float> logits, std::span<const float> gate) {
    stride_ = padded_row(columns_);
    a_.resize(frames_ * stride_);
    q_.resize(stride_), z_.resize(frames_);
    blank_.assign(frames_, 1.0F), emit_.assign(frames_, 0.0F);
    for (std::size_t t = 0; t < frames_; ++t) {
        float* row = &a_[t * stride_];
        std::copy_n(logits.data() + t * columns_, columns_, row);
        const float top = exponentials(row, static_cast<std::int64_t>(columns_), static_cast<std::int64_t>(stride_));
        if (std::isnan(top) || std::isnan(gate[t])) {
            std::fill_n(row, stride_, 0.0F);
            continue;
        }
        const float e = std::exp(-std::abs(gate[t]));
        blank_[t] = (gate[t] >= 0 ? 1.0F : e) / (1.0F + e);
        emit_[t] = (gate[t] >= 0 ? e : 1.0F) / (1.0F + e);
    }
}

void CtcSearch::expand(std::span<const NodeIndex> level, const Score& score) {
    prefixes_.clear();
    for (const NodeIndex at : level) {
        const Node& node = nodes_[static_cast<std::size_t>(at)];
        prefixes_.push_back(
            {node.column, node.depth >= 2 ? nodes_[static_cast<std::size_t>(node.parent)].column : -1, node.depth});
    }
    factors_.resize(level.size() * stride_);
    score(prefixes_, factors_.data(), static_cast<std::int64_t>(stride_));
    for (std::size_t i = 0; i < level.size(); ++i) {
        const NodeIndex at = level[i];
        // Scores grew the bar while this level was walked: what no longer beats it has no child that does.
        if (at > 0 && nodes_[static_cast<std::size_t>(at)].psi < threshold()) continue;
        float* factors = &factors_[i * stride_];
        const float top =
            exponentials(factors, static_cast<std::int64_t>(columns_), static_cast<std::int64_t>(stride_));
        if (std::isnan(top)) continue;
        const std::size_t state = fresh_.size() / frames_;
        fresh_.resize(fresh_.size() + frames_), repeat_.resize(fresh_.size());
        nodes_[static_cast<std::size_t>(at)].state = static_cast<std::int32_t>(state);
        complete(nodes_[static_cast<std::size_t>(at)], state, factors);
        add_children(at, factors);
    }
}

/// The forward variables of one prefix, divided by its Psi, as weights of its children.
void CtcSearch::complete(const Node& node, std::size_t state, const float* factors) {
    masses(a_.data(), static_cast<std::int64_t>(frames_), factors, static_cast<std::int64_t>(stride_), z_.data());
    const bool root = node.column < 0;
    const auto last = static_cast<std::size_t>(std::max(node.column, 0));
    const float* entry = root ? nullptr : &entry_[static_cast<std::size_t>(&node - nodes_.data()) * frames_];
    float blank = root ? 1.0F : 0.0F, label = 0.0F;
    for (std::size_t t = 0; t < frames_; ++t) {
        const float scale = z_[t] > 0 && std::isfinite(z_[t]) ? emit_[t] / z_[t] : 0.0F;
        fresh_[state * frames_ + t] = scale * (blank + label);
        repeat_[state * frames_ + t] = scale * blank;
        const float stay = root ? 0.0F : scale * a_[t * stride_ + last] * factors[last] * label;
        const float exact = blank + label;
        label = root ? 0.0F : entry[t] + stay;
        blank = blank_[t] * exact;
    }
}

void CtcSearch::add_children(NodeIndex parent, const float* factors) {
    const Node above = nodes_[static_cast<std::size_t>(parent)];
    const float* fresh = &fresh_[static_cast<std::size_t>(above.state) * frames_];
    const float* repeat = &repeat_[static_cast<std::size_t>(above.state) * frames_];
    children(a_.data(), static_cast<std::int64_t>(frames_), factors, fresh, static_cast<std::int64_t>(stride_),
             q_.data());
    if (above.column >= 0) {
        const auto last = static_cast<std::size_t>(above.column);
        q_[last] = 0;
        for (std::size_t t = 0; t < frames_; ++t) q_[last] += repeat[t] * a_[t * stride_ + last];
        q_[last] *= factors[last];
    }
    const auto least = [&] {
        return std::max(static_cast<float>(threshold() / above.psi), std::numeric_limits<float>::min());
    };
    float bar = least();
    const auto stride = static_cast<std::int64_t>(stride_);
    for (std::int64_t block = find_block(q_.data(), 0, stride, bar); block < stride;
         block = find_block(q_.data(), block + kWide, stride, bar)) {
        for (std::int64_t c = block; c < block + kWide; ++c) {
            if (!(q_[static_cast<std::size_t>(c)] >= bar)) continue;
            const float q = std::min(q_[static_cast<std::size_t>(c)], 1.0F);
            const double psi = above.psi * static_cast<double>(q);
            if (!(psi > threshold())) continue;
            best_.insert(std::upper_bound(best_.begin(), best_.end(), psi, std::greater<>{}), psi);
            if (best_.size() > limit_) best_.pop_back();
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

TokenTree CtcSearch::build(TokenId pending, std::span<const TokenId> vocabulary) {
    std::vector<NodeIndex> order(nodes_.size() - 1);
    std::iota(order.begin(), order.end(), 1);
    const std::size_t kept = std::min(order.size(), limit_);
    std::stable_sort(order.begin(), order.end(), [&](NodeIndex a, NodeIndex b) {
        return nodes_[static_cast<std::size_t>(a)].psi > nodes_[static_cast<std::size_t>(b)].psi;
    });
    order.resize(kept);
    TokenTree::Builder builder(pending, kept);
    std::vector<NodeIndex> place(nodes_.size(), 0);
    for (const NodeIndex at : order) {
        const Node& node = nodes_[static_cast<std::size_t>(at)];
        place[static_cast<std::size_t>(at)] =
            builder.add(place[static_cast<std::size_t>(node.parent)], vocabulary[static_cast<std::size_t>(node.column)],
                        std::log(node.q));
    }
    return std::move(builder).build();
}

}  // namespace outrider
