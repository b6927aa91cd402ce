// Whether a verifier keeps texts as they are: its rows in a tree against its rows alone, on prompts of the host.
//
//     MyVerifier verifier{...};
//     const LosslessReport report = check_lossless(verifier, prompts);
//     if (!report.lossless()) ...  // report.differences says where
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

struct LosslessOptions {
    std::int64_t tokens = 64;  ///< of each text
    std::int64_t nodes = 12;   ///< of each tree at most, its root apart
    bool chains_only = false;  ///< no branches
    bool companions = true;    ///< verify a second sequence beside each, so that rows of others come before its own
    double near_tie = 1e-3;    ///< gap of the two largest logits below which a place is reported
    std::uint64_t seed = 0;    ///< of the trees
};

/// A place in the text of a prompt: `position` tokens after it.
struct LosslessPlace {
    std::size_t prompt = 0;
    std::int64_t position = 0;
    TokenId token = kNoToken;  ///< what plain decoding says there
    TokenId other = kNoToken;  ///< what the tree said instead; of a near tie, the second
    double gap = 0;            ///< between the two in plain decoding's logits
};

struct LosslessReport {
    std::int64_t tokens = 0;                 ///< of plain decoding
    std::int64_t rows = 0;                   ///< rows in trees that were compared with a row alone
    std::int64_t equal_rows = 0;             ///< of these, equal in every bit
    double largest_difference = 0;           ///< of a logit
    std::vector<LosslessPlace> differences;  ///< where a tree would have changed the text
    std::vector<LosslessPlace> near_ties;    ///< where a difference of near_tie would have

    /// Greedy texts stayed the same here.
    [[nodiscard]] bool lossless() const noexcept { return differences.empty(); }
    /// Rows do not depend on other rows: the same holds for every text, sampled ones too.
    [[nodiscard]] bool exact() const noexcept { return rows > 0 && equal_rows == rows; }
};

namespace detail {

/// One sequence of a verifier under test.
template <TargetVerifier V>
class TestedSequence {
public:
    TestedSequence(V& verifier, std::span<const TokenId> prompt) : verifier_(verifier), id_(next_sequence_id()) {
        const Prefill prefill{id_, prompt.first(prompt.size() - 1), prompt.back(), FeatureRequest::none()};
        (void)none_refused(verifier_.prefill(std::span(&prefill, 1)));
    }
    TestedSequence(const TestedSequence&) = delete;
    TestedSequence& operator=(const TestedSequence&) = delete;
    ~TestedSequence() { detail::release(verifier_, id_); }

    [[nodiscard]] SequenceId id() const noexcept { return id_; }

private:
    V& verifier_;
    SequenceId id_;
};

/// [V] a row on the CPU.
inline std::vector<float> row_of(const at::Tensor& logits, std::int64_t row) {
    const at::Tensor one = logits.select(0, row).to(at::kCPU, at::kFloat).contiguous();
    return {one.data_ptr<float>(), one.data_ptr<float>() + one.numel()};
}

/// The largest entry, the lowest id among equals; and the same without it.
inline std::pair<TokenId, TokenId> best_two(const std::vector<float>& row) {
    const auto best = std::max_element(row.begin(), row.end());
    auto second = best == row.begin() ? std::next(best) : row.begin();
    for (auto it = row.begin(); it != row.end(); ++it)
        if (it != best && *it > *second) second = it;
    return {static_cast<TokenId>(best - row.begin()), static_cast<TokenId>(second - row.begin())};
}

/// A tree below text[at] that holds some of what follows there, and branches beside it, with so many leaves at most.
inline TokenTree test_tree(std::span<const TokenId> text, std::size_t at, std::int64_t vocabulary,
                           const LosslessOptions& options, std::int64_t leaves, std::vector<NodeIndex>& path) {
    const RandomKey dice(options.seed, text.size(), static_cast<std::int64_t>(at));
    const auto below = [&](std::uint64_t draw, std::int64_t n) {
        return static_cast<std::int64_t>(dice.bits(draw) % static_cast<std::uint64_t>(n));
    };
    TokenTree::Builder tree(text[at]);
    const auto left = static_cast<std::int64_t>(text.size() - at) - 1;
    const std::int64_t deep = std::min(left, below(0, options.nodes + 1));
    NodeIndex last = 0;
    for (std::int64_t d = 0; d < deep; ++d) {
        // A branch before the path's own node, so that the path is no chain of neighbouring rows.
        const bool room = static_cast<std::int64_t>(tree.size()) + (deep - d) < options.nodes && leaves > 1;
        if (room && below(2 * static_cast<std::uint64_t>(d) + 1, 2) == 0) {
            (void)tree.add(last, static_cast<TokenId>(below(2 * static_cast<std::uint64_t>(d) + 2, vocabulary)), 0.0F);
            --leaves;
        }
        last = tree.add(last, text[at + static_cast<std::size_t>(d) + 1], 0.0F);
        path.push_back(last);
    }
    // What is wrong goes on below the path, or instead of it.
    if (static_cast<std::int64_t>(tree.size()) <= options.nodes && left > deep)
        (void)tree.add(last, static_cast<TokenId>(below(1000, vocabulary)), 0.0F);
    return std::move(tree).build();
}

template <TargetVerifier V>
class LosslessCheck {
public:
    LosslessCheck(V& verifier, const LosslessOptions& options)
        : verifier_(verifier), options_(options), limits_(limits_of(verifier)) {
        if (limits_.sequences == 1 || limits_.leaves == 1 || (limits_.rows > 0 && limits_.rows < 3))
            options_.companions = false;
        const std::int64_t others = options_.companions ? 1 : 0;  // rows, leaves
        if (limits_.rows > 0) options_.nodes = std::min(options_.nodes, limits_.rows - 1 - others);
        leaves_ = limits_.leaves > 0 ? limits_.leaves - others : std::numeric_limits<std::int64_t>::max();
        if (options_.chains_only || limits_.chains_only) leaves_ = 1;
    }

    void run(std::size_t which, std::span<const TokenId> prompt) {
        auto room = static_cast<std::int64_t>(verifier_.context());
        if (limits_.tokens > 0) room = std::min(room, limits_.tokens / (options_.companions ? 2 : 1));
        require(std::ssize(prompt) < room,
                "check_lossless: prompt {} has {} tokens, expected fewer than the {} that the target holds of it",
                which, prompt.size(), room);
        plain(which, prompt, std::min(options_.tokens, room - std::ssize(prompt)));
        drafted(which, prompt);
    }

    [[nodiscard]] LosslessReport& report() noexcept { return report_; }

private:
    /// The text token by token: rows_[i] follows text_[i], text_[0] is the prompt's last token.
    void plain(std::size_t which, std::span<const TokenId> prompt, std::int64_t tokens) {
        text_ = {prompt.back()};
        rows_.clear();
        TestedSequence<V> sequence(verifier_, prompt);
        for (std::int64_t i = 0; i < tokens; ++i) {
            const SequenceTree root{sequence.id(), TokenTree::root_only(text_.back())};
            rows_.push_back(row_of(none_refused(verifier_.verify(std::span(&root, 1))).logits, 0));
            const auto [best, second] = best_two(rows_.back());
            if (const double gap = gap_of(best, second, rows_.back()); gap < options_.near_tie)
                report_.near_ties.push_back({which, i, best, second, gap});
            const SequenceAcceptance kept = kept_of(sequence.id(), root.tree, {{}, best});
            (void)none_refused(verifier_.commit(std::span(&kept, 1)));
            text_.push_back(best);
        }
        report_.tokens += tokens;
    }

    /// The same text with trees, whatever they say, so that one difference does not hide the next.
    void drafted(std::size_t which, std::span<const TokenId> prompt) {
        std::optional<TestedSequence<V>> other;
        if (options_.companions) other.emplace(verifier_, prompt);
        TestedSequence<V> sequence(verifier_, prompt);
        TokenId beside = text_[0];
        for (std::size_t at = 0; at < rows_.size();) {
            std::vector<NodeIndex> path;
            const std::span<const TokenId> said(text_.data(), rows_.size());
            std::vector<SequenceTree> trees;
            if (options_.companions) trees.push_back({other->id(), TokenTree::root_only(beside)});
            trees.push_back({sequence.id(), test_tree(said, at, verifier_.vocabulary(), options_, leaves_, path)});
            const TreeOutput output = none_refused(verifier_.verify(trees));
            const std::int64_t first = output.offsets[trees.size() - 1];
            compare(which, at, row_of(output.logits, first));
            for (std::size_t d = 0; d < path.size(); ++d)
                compare(which, at + d + 1, row_of(output.logits, first + path[d]));
            std::vector<SequenceAcceptance> kept;
            if (options_.companions) {
                beside = best_two(row_of(output.logits, 0)).first;
                kept.push_back(kept_of(other->id(), trees[0].tree, {{}, beside}));
            }
            const std::size_t next = at + path.size() + 1;
            kept.push_back(kept_of(sequence.id(), trees.back().tree, {std::move(path), text_[next]}));
            (void)none_refused(verifier_.commit(kept));
            at = next;
        }
    }

    void compare(std::size_t which, std::size_t at, const std::vector<float>& row) {
        const std::vector<float>& alone = rows_[at];
        ++report_.rows;
        report_.equal_rows += row == alone;
        for (std::size_t v = 0; v < row.size(); ++v)
            if (row[v] != alone[v])
                report_.largest_difference =
                    std::max(report_.largest_difference, std::abs(double{row[v]} - double{alone[v]}));
        const TokenId said = best_two(row).first, expected = text_[at + 1];
        if (said != expected)
            report_.differences.push_back(
                {which, static_cast<std::int64_t>(at), expected, said, gap_of(expected, said, alone)});
    }

    static double gap_of(TokenId a, TokenId b, const std::vector<float>& row) {
        return double{row[static_cast<std::size_t>(a)]} - double{row[static_cast<std::size_t>(b)]};
    }

    V& verifier_;
    LosslessOptions options_;
    VerifierLimits limits_;
    std::int64_t leaves_ = 1;  ///< of a tree
    LosslessReport report_;
    std::vector<TokenId> text_;
    std::vector<std::vector<float>> rows_;
};

}  // namespace detail

/// Decodes each prompt greedily row by row, and once more with random trees that hold its text beside wrong branches,
/// and compares every row with its row alone, as far as the verifier's limits go. Sequences are its own and are
/// released; end tokens do not end a text. Memory: `tokens` rows of logits. Throws Error for an empty prompt and for
/// one that fills the context, and what the verifier throws.
template <TargetVerifier V>
[[nodiscard]] LosslessReport check_lossless(V& verifier, std::span<const std::vector<TokenId>> prompts,
                                            const LosslessOptions& options = {}) {
    require(verifier.vocabulary() >= 2, "check_lossless: a vocabulary of {}, expected at least 2",
            static_cast<std::int64_t>(verifier.vocabulary()));
    require(options.nodes >= 1 && options.tokens >= 1, "check_lossless: {} nodes and {} tokens, expected at least 1",
            options.nodes, options.tokens);
    detail::LosslessCheck<V> check(verifier, options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        require(!prompts[i].empty() && std::ssize(prompts[i]) < verifier.context(),
                "check_lossless: prompt {} has {} tokens, expected at least 1 and fewer than the context's {}", i,
                prompts[i].size(), static_cast<std::int64_t>(verifier.context()));
        check.run(i, prompts[i]);
    }
    return std::move(check.report());
}

}  // namespace outrider
