// What a sampled draft knows beside its tree: which tokens were drawn where, in which order, and from which law.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// What a drafter's trees bring for policies that need draws, as far as it is known before the first one.
enum class DraftDraws : unsigned char {
    unknown,              ///< checked tree by tree
    no_nodes,             ///< roots alone: every policy can decide for them
    none,                 ///< nodes are chosen, and nothing is said of q
    certain,              ///< one path of a chosen tree, as DraftSamples::chosen says it
    chain,                ///< one chain
    independent,          ///< several chains, independent of each other
    without_replacement,  ///< several draws at a node, without replacement
};

/// q of one token.
struct TokenShare {
    TokenId token = kNoToken;
    double q = 0;
};

/// The law that a drafter drew its tokens from: exactly the one, with whatever temperature and truncation was used.
class DraftLaw {
public:
    virtual ~DraftLaw() = default;

    /// Writes q(c | path) for every token c: q [V], all zero on entry. `path`: the tokens below the root, in text
    /// order. The sum is 1 - q(end | path): what is missing from 1 is the probability that the draft ends here.
    virtual void conditional(std::span<const TokenId> path, std::span<double> q) const = 0;

    /// The same as a list: appends each token of `vocabulary` with q > 0, once. Overridden where few tokens have any,
    /// so that acceptance need not look at the others.
    virtual void list(std::span<const TokenId> path, std::size_t vocabulary, std::vector<TokenShare>& shares) const {
        std::vector<double> q(vocabulary, 0.0);
        conditional(path, q);
        for (std::size_t i = 0; i < q.size(); ++i)
            if (q[i] > 0) shares.push_back({static_cast<TokenId>(i), q[i]});
    }
};

/// A draw that ended the draft: a symbol like any other, of probability q(end | path), which the target never says.
inline constexpr TokenId kEndOfDraft = -1;
/// No draws are known there.
inline constexpr std::int32_t kNoPoint = -1;

/// The draws of one draft as a trie of their own. It names tokens, never nodes, so that a tree which lost nodes to a
/// limit of depth after drawing is still verified without bias: what was drawn counts, verified or not.
class DraftSamples {
public:
    struct Draw {
        TokenId token = kEndOfDraft;
        std::int32_t point = kNoPoint;  ///< where the draws after this token stand, or kNoPoint
    };
    enum class Kind {
        independent,          ///< each draw of a point from q(. | path), independent of the others
        without_replacement,  ///< each from q(. | path) without the earlier draws of the point, renormalised
    };
    /// One sampled chain.
    struct Chain {
        std::vector<TokenId> tokens;  ///< below the root, in text order
        bool cut = false;  ///< stopped by a limit: what follows was not drawn. Otherwise the draft ended by chance.
    };

    /// Chains that are independent and of equal law. Whether a chain is cut may depend on its tokens so far, never on
    /// what would have come next. Throws Error for a law that is missing.
    [[nodiscard]] static DraftSamples from_chains(std::shared_ptr<const DraftLaw> law, std::span<const Chain> chains) {
        DraftSamples samples(std::move(law), Kind::independent);
        std::vector<const Chain*> alive;
        for (const Chain& chain : chains) alive.push_back(&chain);
        samples.add_level(0, alive, 0);
        return samples;
    }

    /// Of a tree that was chosen: its likeliest path is a draw from point masses, cut at its end, so that every rule
    /// for one chain takes the tree; the other nodes stand beside it. Each step goes to the child of largest log_q.
    [[nodiscard]] static DraftSamples chosen(const TokenTree& tree);

    /// A trie without draws, to be grown with `add`.
    DraftSamples(std::shared_ptr<const DraftLaw> law, Kind kind) : law_(std::move(law)), kind_(kind), points_(1) {
        require(law_ != nullptr, "DraftSamples: the law is missing; pass the DraftLaw that the tokens were drawn from");
    }

    /// Adds the next draw of `point` (0: the root) and returns the point after it, or kNoPoint for kEndOfDraft. Draws
    /// of one token share the point after it.
    std::int32_t add(std::int32_t point, TokenId token) {
        require(point >= 0 && static_cast<std::size_t>(point) < points_.size(),
                "DraftSamples: point {} does not exist; there are {}", point, points_.size());
        require(token >= kEndOfDraft, "DraftSamples: {} is neither a vocabulary index nor kEndOfDraft", token);
        if (token > largest_) largest_ = token;
        std::int32_t after = kNoPoint;
        for (const Draw& draw : points_[static_cast<std::size_t>(point)])
            if (draw.token == token) {
                require(kind_ == Kind::independent, "DraftSamples: token {} drawn twice without replacement", token);
                after = draw.point;
            }
        if (token != kEndOfDraft && after == kNoPoint) {
            after = static_cast<std::int32_t>(points_.size());
            points_.emplace_back();
        }
        points_[static_cast<std::size_t>(point)].push_back({token, after});
        return after;
    }

    /// The draws of a point, in the order drawn; none for kNoPoint. Valid until the next add.
    [[nodiscard]] std::span<const Draw> draws(std::int32_t point) const {
        if (point == kNoPoint) return {};
        return points_[static_cast<std::size_t>(point)];
    }
    [[nodiscard]] const DraftLaw& law() const noexcept { return *law_; }
    [[nodiscard]] Kind kind() const noexcept { return kind_; }

    /// Largest token drawn, kEndOfDraft if there is none.
    [[nodiscard]] TokenId largest_token() const noexcept { return largest_; }

    /// Made by `chosen`: the draws were certain, so that any node may be dropped.
    [[nodiscard]] bool is_chosen() const noexcept { return chosen_; }

    /// Whether the draws are one chain: no point has more than one.
    [[nodiscard]] bool is_chain() const noexcept {
        for (const auto& draws : points_)
            if (draws.size() > 1) return false;
        return true;
    }

private:
    void add_level(std::int32_t point, const std::vector<const Chain*>& alive, std::size_t depth) {
        for (const Chain* chain : alive)
            if (depth < chain->tokens.size())
                add(point, chain->tokens[depth]);
            else if (!chain->cut)
                add(point, kEndOfDraft);
        const std::vector<Draw> draws = points_[static_cast<std::size_t>(point)];  // add moves the points
        for (std::size_t i = 0; i < draws.size(); ++i) {
            bool first = draws[i].token != kEndOfDraft;
            for (std::size_t j = 0; j < i; ++j) first = first && draws[j].token != draws[i].token;
            if (!first) continue;
            std::vector<const Chain*> below;
            for (const Chain* chain : alive)
                if (depth < chain->tokens.size() && chain->tokens[depth] == draws[i].token) below.push_back(chain);
            add_level(draws[i].point, below, depth + 1);
        }
    }

    std::shared_ptr<const DraftLaw> law_;
    Kind kind_;
    std::vector<std::vector<Draw>> points_;
    TokenId largest_ = kEndOfDraft;
    bool chosen_ = false;
};

/// q = 1 for the next token of one path, and nothing anywhere else.
class PointMassLaw final : public DraftLaw {
public:
    explicit PointMassLaw(std::vector<TokenId> chain) : chain_(std::move(chain)) {}

    void conditional(std::span<const TokenId> path, std::span<double> q) const override {
        if (const TokenId next = after(path); next != kNoToken && static_cast<std::size_t>(next) < q.size())
            q[static_cast<std::size_t>(next)] = 1.0;
    }
    void list(std::span<const TokenId> path, std::size_t vocabulary, std::vector<TokenShare>& shares) const override {
        if (const TokenId next = after(path); next != kNoToken && static_cast<std::size_t>(next) < vocabulary)
            shares.push_back({next, 1.0});
    }

private:
    [[nodiscard]] TokenId after(std::span<const TokenId> path) const {
        if (path.size() >= chain_.size()) return kNoToken;
        for (std::size_t i = 0; i < path.size(); ++i)
            if (path[i] != chain_[i]) return kNoToken;
        return chain_[path.size()];
    }

    std::vector<TokenId> chain_;
};

inline DraftSamples DraftSamples::chosen(const TokenTree& tree) {
    std::vector<TokenId> tokens;
    for (NodeIndex at = 0;;) {
        NodeIndex next = kNoNode;
        for (auto i = static_cast<std::size_t>(at) + 1; i < tree.size(); ++i)
            if (tree.parents()[i] == at &&
                (next == kNoNode || tree.log_q()[i] > tree.log_q()[static_cast<std::size_t>(next)]))
                next = static_cast<NodeIndex>(i);
        if (next == kNoNode) break;
        tokens.push_back(tree.token(at = next));
    }
    const Chain chain{tokens, true};
    DraftSamples samples = from_chains(std::make_shared<PointMassLaw>(std::move(tokens)), std::span(&chain, 1));
    samples.chosen_ = true;
    return samples;
}

}  // namespace outrider
