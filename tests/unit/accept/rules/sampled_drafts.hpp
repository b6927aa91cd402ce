// Drafters for tests: sampled from a table of conditionals, through Dice, so that their draws are enumerated too.
#pragma once

#include "enumeration.hpp"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/accept/rules/draft_samples.hpp>

namespace outrider::enumeration {

class TableLaw final : public DraftLaw {
public:
    explicit TableLaw(Table table) : table_(std::move(table)) {}
    void conditional(std::span<const TokenId> path, std::span<double> q) const override {
        const auto row = table_(path);
        std::copy(row.begin(), row.end(), q.begin());
    }

private:
    Table table_;
};

/// [V + 1] q and q(end).
[[nodiscard]] inline std::vector<double> with_end(const DraftLaw& law, std::size_t vocabulary, const Text& path) {
    std::vector<double> q(vocabulary);
    law.conditional(path, q);
    double sum = 0;
    for (const double x : q) sum += x;
    q.push_back(std::max(0.0, 1 - sum));
    if (q.back() < 1e-13) q.back() = 0;  // a rounding, not an end
    return q;
}

/// Chains drawn token by token, each cut at `depth`.
template <Dice D>
[[nodiscard]] std::vector<DraftSamples::Chain> draw_chains(const DraftLaw& law, std::size_t vocabulary,
                                                           std::size_t count, std::size_t depth, D& dice) {
    std::vector<DraftSamples::Chain> chains(count);
    for (auto& chain : chains) {
        chain.cut = true;
        while (chain.cut && chain.tokens.size() < depth) {
            const std::size_t symbol = dice.pick(with_end(law, vocabulary, chain.tokens));
            if (symbol == vocabulary)
                chain.cut = false;
            else
                chain.tokens.push_back(static_cast<TokenId>(symbol));
        }
    }
    return chains;
}

/// Fills `samples` with `widths[d]` draws without replacement below each drawn token of depth d.
template <Dice D>
void draw_siblings(DraftSamples& samples, std::int32_t point, std::size_t vocabulary,
                   std::span<const std::size_t> widths, const Text& path, D& dice) {
    if (widths.empty()) return;
    auto q = with_end(samples.law(), vocabulary, path);
    std::vector<std::pair<std::int32_t, TokenId>> drawn;
    for (std::size_t i = 0; i < widths[0]; ++i) {
        if (*std::max_element(q.begin(), q.end()) == 0) break;
        const std::size_t symbol = dice.pick(q);
        q[symbol] = 0;
        const TokenId token = symbol == vocabulary ? kEndOfDraft : static_cast<TokenId>(symbol);
        drawn.push_back({samples.add(point, token), token});
    }
    for (const auto& [after, token] : drawn) {
        if (after == kNoPoint) continue;
        Text next = path;
        next.push_back(token);
        draw_siblings(samples, after, vocabulary, widths.subspan(1), next, dice);
    }
}

using Keep = std::function<bool(const Text&)>;

/// The tree of all draws that `keep` lets in, and of the paths in `more`, with pending token 0.
[[nodiscard]] inline TokenTree tree_of(const DraftSamples& samples, const std::vector<Text>& more = {},
                                       const Keep& keep = {}) {
    TokenTree::Builder builder(0);
    const std::function<void(NodeIndex, std::int32_t, const Text&)> grow = [&](NodeIndex at, std::int32_t point,
                                                                               const Text& path) {
        for (const auto& draw : samples.draws(point)) {
            if (draw.token == kEndOfDraft) continue;
            Text next = path;
            next.push_back(draw.token);
            if (!keep || keep(next)) grow(builder.add(at, draw.token, 0.0F), draw.point, next);
        }
    };
    grow(0, 0, {});
    for (const Text& path : more) {
        NodeIndex at = 0;
        for (const TokenId token : path) at = builder.add(at, token, 0.0F);
    }
    return std::move(builder).build();
}

/// Rows of a table as a rule reads them.
class TargetOfTree {
public:
    TargetOfTree(const Table& table, const TokenTree& tree) : table_(table), tree_(tree) {}
    std::span<const double> operator()(NodeIndex node) { return row_ = table_(text_of(tree_, node)); }

private:
    const Table& table_;
    const TokenTree& tree_;
    std::vector<double> row_;
};

}  // namespace outrider::enumeration
