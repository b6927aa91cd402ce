// Bodies of ngram.hpp.
#pragma once

#include <outrider/draft/ngram.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>

#include <outrider/draft/detail/ngram_growth-inl.hpp>
#include <outrider/draft/detail/text_progress.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::ngram {

inline constexpr double kPriorTrials = 8.0;  // what the starting values count for
inline constexpr double kMemory = 512.0;     // older outcomes fade beyond this many

// Length buckets: 1, 2, 3, 4, 5-6, 7-10, 11-20, 21 and more.
inline constexpr std::array<std::int32_t, 7> kBucketEnds{1, 2, 3, 4, 6, 10, 20};
// Starting values of the share that comes true, [bucket] for the first rank; later ranks share what is left.
inline constexpr std::array<double, 8> kFirstRank{0.20, 0.40, 0.52, 0.60, 0.70, 0.80, 0.87, 0.92};
inline constexpr std::array<double, 4> kShareOfRest{1.0, 0.15, 0.10, 0.06};

OUTRIDER_INLINE std::uint64_t key_of(std::span<const TokenId> ngram) {
    std::uint64_t key = ngram.size();
    for (const TokenId token : ngram) key = mix64(key ^ static_cast<std::uint64_t>(token));
    return key;
}

/// How many tokens the two texts have in common at their ends, up to `longest`.
OUTRIDER_INLINE std::int32_t common_end(std::span<const TokenId> a, std::span<const TokenId> b, std::int32_t longest) {
    const auto most = std::min({a.size(), b.size(), static_cast<std::size_t>(longest)});
    std::size_t n = 0;
    while (n < most && a[a.size() - 1 - n] == b[b.size() - 1 - n]) ++n;
    return static_cast<std::int32_t>(n);
}

}  // namespace detail::ngram

OUTRIDER_INLINE NgramDraft::NgramDraft(NgramOptions options) : options_(options) {
    require(options.min_match >= 1 && options.min_match <= options.max_match &&
                options.max_match <= static_cast<std::int64_t>(kMaxMatch),
            "NgramOptions: matches of {} to {} tokens; expected 1 <= min_match <= max_match <= {}", options.min_match,
            options.max_match, kMaxMatch);
    require(options.candidates >= 1 && options.branches >= 1,
            "NgramOptions: {} candidates and {} branches; expected at least 1 of each", options.candidates,
            options.branches);
}

OUTRIDER_INLINE std::uint8_t NgramDraft::bucket_of(std::int32_t match) {
    return static_cast<std::uint8_t>(
        std::lower_bound(detail::ngram::kBucketEnds.begin(), detail::ngram::kBucketEnds.end(), match) -
        detail::ngram::kBucketEnds.begin());
}

OUTRIDER_INLINE std::string_view NgramDraft::kind() const {
    switch (options_.mode) {
        case NgramMode::copy: return "ngram:copy";
        case NgramMode::max_gram: return "ngram:maxgram";
        default: return "ngram";
    }
}

OUTRIDER_INLINE std::vector<SequenceTree> NgramDraft::propose(std::span<const SequenceFeedback> feedback,
                                                              DraftBudget budget) {
    std::vector<SequenceTree> trees;
    trees.reserve(feedback.size());
    for (const SequenceFeedback& f : feedback) {
        History& history = histories_[f.sequence];
        update(history, f);
        const TokenTree root = TokenTree::root_only(f.pending);
        trees.push_back({f.sequence, options_.mode == NgramMode::copy ? copy(history, budget.nodes)
                                                                      : Growth(*this, history, root).grow(budget)});
        const TokenTree& tree = trees.back().tree;
        if (budget.draws && tree.drafted() > 0)
            trees.back().samples = std::make_shared<const DraftSamples>(DraftSamples::chosen(tree));
    }
    return trees;
}

OUTRIDER_INLINE void NgramDraft::update(History& history, const SequenceFeedback& f) {
    const std::size_t known = history.text.size();  // its last token was pending
    detail::check_continues("NgramDraft", history.text, f, [&] { histories_.erase(f.sequence); });
    if (known > 0 && f.tokens.empty()) return;
    if (known > 0)
        learn(history.drafted, [&] {
            std::vector<TokenId> actual(f.tokens.begin() + 1, f.tokens.end());
            actual.push_back(f.pending);
            return actual;
        }());
    history.drafted.clear();
    const auto take = [&](TokenId token) {
        if (options_.mode == NgramMode::max_gram && !history.text.empty()) count_bigram(history.text.back(), token);
        append(history, token);
        if (options_.mode == NgramMode::copy && known > 0) follow(history, token);
    };
    for (std::size_t i = known == 0 ? 0 : 1; i < f.tokens.size(); ++i) take(f.tokens[i]);
    take(f.pending);
    if (options_.mode == NgramMode::copy && known == 0) index_prompt(history);
}

OUTRIDER_INLINE void NgramDraft::index_prompt(History& history) const {
    const std::span<const TokenId> text(history.text);
    history.prompt = text.size();
    for (std::size_t end = 1; end < text.size(); ++end)
        for (auto n = static_cast<std::size_t>(options_.min_match);
             n <= std::min(end, static_cast<std::size_t>(options_.max_match)); ++n) {
            const auto [it, fresh] = history.places.try_emplace(detail::ngram::key_of(text.subspan(end - n, n)),
                                                                static_cast<std::int32_t>(end));
            if (!fresh) it->second = kSeveral;
        }
}

/// The output has gained a token: the place in the prompt goes on with it, or is sought anew.
OUTRIDER_INLINE void NgramDraft::follow(History& history, TokenId token) const {
    const std::span<const TokenId> text(history.text);
    const bool agrees = history.source >= 0 && text[static_cast<std::size_t>(history.source)] == token;
    history.source = agrees ? history.source + 1 : -1;
    history.run = agrees ? history.run + 1 : 0;
    if (history.source >= static_cast<std::int32_t>(history.prompt)) history.source = -1;
    if (history.source >= 0) return;
    const std::size_t output = text.size() - history.prompt;
    for (auto n = std::min(static_cast<std::size_t>(options_.max_match), output);
         n >= static_cast<std::size_t>(options_.min_match); --n) {
        const auto it = history.places.find(detail::ngram::key_of(text.last(n)));
        if (it == history.places.end() || it->second < 0) continue;
        history.source = it->second;
        history.run = static_cast<std::int32_t>(n);
        return;
    }
}

OUTRIDER_INLINE TokenTree NgramDraft::copy(History& history, std::int64_t nodes) const {
    history.drafted.clear();
    TokenTree::Builder tree(history.text.back(), static_cast<std::size_t>(std::max<std::int64_t>(nodes, 0)));
    if (history.source < 0) return std::move(tree).build();
    NodeIndex at = 0;
    for (std::int64_t i = 0; i < nodes; ++i) {
        const auto from = static_cast<std::size_t>(history.source + i);
        if (from >= history.prompt) break;
        const Kind kind{bucket_of(history.run + static_cast<std::int32_t>(i)), 0, 0};
        history.drafted.push_back({history.text[from], at, kind});
        at = tree.add(at, history.text[from], static_cast<float>(std::log(probability(kind))));
    }
    return std::move(tree).build();
}

OUTRIDER_INLINE void NgramDraft::count_bigram(TokenId first, TokenId second) {
    Successor& successor = bigrams_[first];
    if (successor.lead == 0) successor.token = second;
    successor.lead += successor.token == second ? 1 : -1;
}

/// Walks the last proposal along what the target chose: every child on the way was a trial.
OUTRIDER_INLINE void NgramDraft::learn(const std::vector<Drafted>& drafted, std::span<const TokenId> actual) {
    NodeIndex at = 0;
    for (const TokenId token : actual) {
        NodeIndex next = kNoNode;
        for (std::size_t i = 0; i < drafted.size(); ++i) {
            if (drafted[i].parent != at) continue;
            const bool came_true = drafted[i].token == token;
            if (came_true) next = static_cast<NodeIndex>(i) + 1;
            if (!drafted[i].kind) continue;
            came_true_[index(*drafted[i].kind)].learn(1.0, came_true ? 1.0 : 0.0, detail::ngram::kMemory);
        }
        if (next == kNoNode) return;
        at = next;
    }
}

/// Appends a token; the n-grams that end just before it have a successor now and enter the index.
OUTRIDER_INLINE void NgramDraft::append(History& history, TokenId token) const {
    const auto end = static_cast<std::int32_t>(history.text.size());  // n-grams [end - n, end)
    history.text.push_back(token);
    history.older.emplace_back();
    history.older.back().fill(-1);
    const std::span<const TokenId> text(history.text);
    for (std::int64_t n = options_.min_match; n <= options_.max_match && n <= end; ++n) {
        const auto length = static_cast<std::size_t>(n);
        const auto [it, fresh] = history.newest.try_emplace(
            detail::ngram::key_of(text.subspan(static_cast<std::size_t>(end) - length, length)), end);
        if (!fresh) history.older[static_cast<std::size_t>(end)][length - 1] = std::exchange(it->second, end);
    }
}

/// The longest matches first, of equal ones the most frequent; at most `most` of them.
OUTRIDER_INLINE void NgramDraft::keep_longest(std::vector<Continuation>& found, std::size_t most) {
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
        return a.match != b.match ? a.match > b.match : a.votes > b.votes;
    });
    if (found.size() > most) found.resize(most);
}

/// One that was found, once more or as a new one.
OUTRIDER_INLINE void NgramDraft::count(std::vector<Continuation>& found, const Continuation& one) {
    for (Continuation& known : found)
        if (known.token == one.token) {
            ++known.votes;
            if (one.match > known.match) known.match = one.match, known.place = one.place;
            return;
        }
    found.push_back(one);
}

/// The tokens that followed earlier occurrences of the end of `context`, longest match first, one entry a token.
/// `followed`: the continuation that the context's last token came from; the one after it goes first.
OUTRIDER_INLINE void NgramDraft::continuations(const History& history, std::span<const TokenId> context,
                                               const Continuation* followed, std::vector<Continuation>& found) const {
    const std::vector<TokenId>& text = history.text;
    found.clear();
    const auto offer = [&](std::int32_t place, std::int32_t match) {
        count(found, {text[static_cast<std::size_t>(place)], place, match, 1});
    };
    std::int32_t followed_place = -1;
    const auto branches =
        options_.mode == NgramMode::max_gram ? std::size_t{1} : static_cast<std::size_t>(options_.branches);
    if (followed != nullptr && followed->place >= 0 && static_cast<std::size_t>(followed->place) + 1 < text.size()) {
        followed_place = followed->place + 1;
        offer(followed_place, followed->match + 1);
    }
    const auto longest = std::min<std::size_t>(static_cast<std::size_t>(options_.max_match), context.size());
    for (std::size_t n = longest; n >= static_cast<std::size_t>(options_.min_match); --n) {
        const std::span<const TokenId> ngram = context.last(n);
        const auto it = history.newest.find(detail::ngram::key_of(ngram));
        std::int32_t place = it == history.newest.end() ? -1 : it->second;
        for (std::int64_t tries = 0; place >= 0 && tries < options_.candidates; ++tries) {
            const auto before = std::span(text).first(static_cast<std::size_t>(place));
            const std::int32_t match = detail::ngram::common_end(before, context, kLongest);
            const auto length =
                static_cast<std::int32_t>(n);  // longer matches were offered before; shorter: equal keys
            if (place != followed_place && (match == length || (match > length && n == longest))) offer(place, match);
            place = history.older[static_cast<std::size_t>(place)][n - 1];
        }
        if (found.size() >= branches) break;
    }
    keep_longest(found, branches);
    if (!found.empty() || options_.mode != NgramMode::max_gram) return;
    if (const auto it = bigrams_.find(context.back()); it != bigrams_.end())
        found.push_back({it->second.token, -1, 0, 1});
}

OUTRIDER_INLINE double NgramDraft::probability(Kind kind) const {
    const double first = detail::ngram::kFirstRank[kind.length];
    const double share = kind.rank == 0 ? first : (1.0 - first) * detail::ngram::kShareOfRest[kind.rank];
    return std::clamp(came_true_[index(kind)](share, detail::ngram::kPriorTrials), 1e-4, 0.999);
}

OUTRIDER_INLINE TokenTree NgramDraft::extend(SequenceId sequence, const TokenTree& drafted, const DraftBudget& budget) {
    const auto it = histories_.find(sequence);
    const bool asked = it != histories_.end() && it->second.text.back() == drafted.token(0);
    require(asked,
            "NgramDraft: the tree to extend is that of sequence {} with the pending token {}; propose for it first",
            sequence, drafted.token(0));
    DraftBudget further = budget;
    if (options_.mode == NgramMode::copy) further.nodes = 0;
    return Growth(*this, it->second, drafted).grow(further);
}

}  // namespace outrider
