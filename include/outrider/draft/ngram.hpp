// Drafts from the text itself: what followed the longest match of the newest tokens, in the prompt or in the output.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <outrider/budget/detail/hit_rate.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/detail/tree_extender.hpp>
#include <outrider/draft/drafter.hpp>

namespace outrider {

enum class NgramMode : unsigned char {
    lookup,  ///< a tree of what followed the longest matches, in the prompt or in the output (Saxena 2023)
    copy,  ///< the prompt from the place that the output follows; after a divergence, what follows the only place where
           ///< the output's newest tokens stand in the prompt (Sun et al. 2021, for texts that are edited)
    max_gram,  ///< a chain of what followed the longest match, then by bigrams (Max-Gram of cascade drafting, Chen et
               ///< al. 2023); the bigrams are those of every text that this drafter saw
};

struct NgramOptions {
    NgramMode mode = NgramMode::lookup;
    std::int64_t max_match = 4;   ///< longest n-gram that is indexed; matches are then measured up to 32 tokens back
    std::int64_t min_match = 1;   ///< shortest that counts
    std::int64_t candidates = 8;  ///< earlier places looked at for each n-gram, newest first
    std::int64_t branches = 6;    ///< different next tokens proposed after one node, at most
};

/// Prompt lookup (Saxena 2023) as a best-first tree: each node is continued by the tokens that followed the longest
/// matches of its context, and the nodes of largest path probability are kept. As a chain (DraftBudget::chains), each
/// node is continued by the likeliest token. The probability of a continuation is the share of its kind (length of the
/// match, rank, whether the places agree) that came true so far, in every sequence that this drafter saw, so log_q is
/// calibrated and a function of the history alone. Indexing a token is O(1). Any path can be continued like that, so
/// the paths of other drafters are as well (TreeExtender; `copy` does not).
class OUTRIDER_API NgramDraft final : public DraftModel, public TreeExtender {
public:
    explicit NgramDraft(NgramOptions options = {});

    /// "ngram", "ngram:copy" or "ngram:maxgram"
    [[nodiscard]] std::string_view kind() const override;
    /// The likeliest path is said to be a draw from point masses.
    [[nodiscard]] DraftDraws draws() const override { return DraftDraws::certain; }
    [[nodiscard]] FeatureRequest features() const override { return FeatureRequest::none(); }
    [[nodiscard]] bool cheap() const override { return true; }

    [[nodiscard]] TokenTree extend(SequenceId sequence, const TokenTree& drafted, const DraftBudget& budget) override;

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override { histories_.erase(sequence); }

private:
    static constexpr std::size_t kMaxMatch = 8;
    static constexpr std::int32_t kLongest = 32;  ///< matches are measured no further back

    /// Kind of a continuation: bucket of its match length, rank among its siblings, and whether the places of that
    /// length are one, several of one mind, or several that differ.
    struct Kind {
        std::uint8_t length = 0, rank = 0, agreement = 0;
    };
    /// A token that followed a match: `place` is its index in the text.
    struct Continuation {
        TokenId token = kNoToken;
        std::int32_t place = 0;
        std::int32_t match = 0;
        std::int32_t votes = 0;  ///< places looked at that were followed by this token
    };
    struct Drafted {
        TokenId token;
        NodeIndex parent;
        std::optional<Kind> kind;  ///< nothing: another drafter's, of which this one says nothing
    };
    struct History {
        std::vector<TokenId> text;                               ///< committed tokens and the pending one
        std::unordered_map<std::uint64_t, std::int32_t> newest;  ///< n-gram -> index of its newest successor
        std::vector<std::array<std::int32_t, kMaxMatch>> older;  ///< [index][n - 1] the one before that, or -1
        std::vector<Drafted> drafted;                            ///< the last proposal, root not included
        // Of `copy`:
        std::size_t prompt = 0;    ///< tokens of the prompt
        std::int32_t source = -1;  ///< the next token to copy, an index in the prompt; -1: the place is lost
        std::int32_t run = 0;      ///< tokens that agree before it
        std::unordered_map<std::uint64_t, std::int32_t> places;  ///< n-gram of the prompt -> its successor, or kSeveral
    };

    void update(History& history, const SequenceFeedback& feedback);
    class Growth;
    static std::uint8_t bucket_of(std::int32_t match);
    void learn(const std::vector<Drafted>& drafted, std::span<const TokenId> actual);
    void append(History& history, TokenId token) const;
    static constexpr std::int32_t kSeveral = -2;
    void index_prompt(History& history) const;
    void follow(History& history, TokenId token) const;
    [[nodiscard]] TokenTree copy(History& history, std::int64_t nodes) const;
    void count_bigram(TokenId first, TokenId second);
    static void count(std::vector<Continuation>& found, const Continuation& one);
    static void keep_longest(std::vector<Continuation>& found, std::size_t most);
    void continuations(const History& history, std::span<const TokenId> context, const Continuation* followed,
                       std::vector<Continuation>& found) const;
    [[nodiscard]] double probability(Kind kind) const;
    static std::size_t index(Kind k) { return (k.length * kRanks + k.rank) * kAgreements + k.agreement; }

    NgramOptions options_;
    std::unordered_map<SequenceId, History> histories_;
    struct Successor {
        TokenId token = kNoToken;
        std::int32_t lead = 0;  ///< a majority vote (Boyer and Moore 1981)
    };
    std::unordered_map<TokenId, Successor> bigrams_;
    static constexpr std::size_t kLengths = 8, kRanks = 4, kAgreements = 3;
    std::array<budget::HitRate, kLengths * kRanks * kAgreements> came_true_{};
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/ngram-inl.hpp>
#endif
