// A drafter's law as a table: q after each path that a draft drew at.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// The index of the share that a uniform number u in [0, 1) falls into; the last one takes what rounding leaves. There
/// must be one.
[[nodiscard]] inline std::size_t draw_share(std::span<const TokenShare> shares, double u) {
    std::size_t i = 0;
    while (i + 1 < shares.size() && u >= shares[i].q) u -= shares[i++].q;
    return i;
}

/// For drafters that know q at the moment of drawing, and for whom running anew along a path later would cost more than
/// keeping it. Rules ask only for paths at which something was drawn; any other path throws Error.
class ListedLaw final : public DraftLaw {
public:
    /// q after `path`: each token with q > 0 once.
    void add(std::vector<TokenId> path, std::vector<TokenShare> shares) {
        rows_.push_back({std::move(path), std::move(shares)});
    }

    void conditional(std::span<const TokenId> path, std::span<double> q) const override {
        for (const TokenShare& share : at(path)) {
            check(share.token, q.size());
            q[static_cast<std::size_t>(share.token)] = share.q;
        }
    }

    void list(std::span<const TokenId> path, std::size_t vocabulary, std::vector<TokenShare>& shares) const override {
        for (const TokenShare& share : at(path)) {
            check(share.token, vocabulary);
            shares.push_back(share);
        }
    }

private:
    struct Row {
        std::vector<TokenId> path;
        std::vector<TokenShare> shares;
    };

    static void check(TokenId token, std::size_t vocabulary) {
        require(token >= 0 && static_cast<std::size_t>(token) < vocabulary,
                "ListedLaw: token {} is outside the target's vocabulary of {}", token, vocabulary);
    }

    [[nodiscard]] std::span<const TokenShare> at(std::span<const TokenId> path) const {
        for (const Row& row : rows_)
            if (std::equal(path.begin(), path.end(), row.path.begin(), row.path.end())) return row.shares;
        fail("ListedLaw: nothing is known after a path of {} tokens; add the law of every path that has draws",
             path.size());
    }

    std::vector<Row> rows_;
};

}  // namespace outrider
