// Bodies of session.hpp.
#pragma once

#include <outrider/decode/detail/session.hpp>

#include <atomic>
#include <random>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/core/detail/words_of.hpp>
#include <outrider/tree/detail/subtree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void check_request(const Prompt& prompt, const GenerationOptions& options, const Sink& sink,
                                   std::int64_t vocabulary, std::int64_t context) {
    require(!prompt.tokens.empty(),
            "The prompt is empty; give at least one token (a begin or end-of-text token will do)");
    for (std::size_t i = 0; i < prompt.tokens.size(); ++i)
        require(prompt.tokens[i] >= 0 && prompt.tokens[i] < vocabulary,
                "Prompt token {} is {}, outside the target's vocabulary of {}", i, prompt.tokens[i], vocabulary);
    require(static_cast<std::int64_t>(prompt.tokens.size()) < context,
            "The prompt has {} tokens and the target holds {}, prompt and text together; shorten the prompt",
            prompt.tokens.size(), context);
    check_options(options);
    require(
        prompt.text || (!sink.wants_text() && options.stop.empty()),
        "A text callback or a stop string needs Prompt::text; make the prompt with a tokenizer, or use a callback on "
        "token ids");
}

OUTRIDER_INLINE std::uint64_t fresh_seed() {
    std::random_device bits;
    return std::uint64_t{bits()} << 32 | bits();
}

OUTRIDER_INLINE SequenceId next_sequence_id() {
    static std::atomic<SequenceId> next{1};
    return next++;
}

OUTRIDER_INLINE Session::Session(SequenceId id, Prompt prompt, const GenerationOptions& options,
                                 std::int64_t vocabulary, std::int64_t context, Sink sink)
    : id_(id),
      sampling_(options.sampling()),
      rules_(options, TokenStream::end_ids_of(prompt, options), vocabulary),
      stream_(id, prompt, options,
              std::min(options.max_tokens, context - static_cast<std::int64_t>(prompt.tokens.size())),
              std::move(sink)) {
    text_ = std::move(prompt.tokens);
    stats_.prompt_tokens = static_cast<std::int64_t>(text_.size());
    if (rules_.finished()) stream_.end(FinishReason::stop);
    if (options.logprobs) logprobs_ = LogprobRequest{*options.logprobs, options.logprob_law};
    if (!sampling_.logit_hook && !rules_.any()) return;
    // Acceptance may walk on below a drafted token that ends the text. Nothing of it is emitted, and a hook need not
    // know what follows an end: a grammar has nothing to allow there.
    sampling_.logit_hook = [this, hook = std::move(sampling_.logit_hook)](std::span<const TokenId> text,
                                                                          std::span<float> logits) {
        if (stream_.would_end(text.subspan(text_.size()))) return;
        if (rules_.any()) rules_.edit(text.subspan(this->prompt().size()), logits);
        if (hook) hook(text, logits);
    };
}

OUTRIDER_INLINE TokenTree Session::usable(TokenTree tree, bool drawn) {
    TokenTree fits = subtree(std::move(tree), [&](const TokenTree& whole, NodeIndex node) {
        return whole.depth(node) < left() && (drawn || !stream_.is_end(whole.token(node)));
    });
    if (drawn || !rules_.any()) return fits;
    try {
        return rules_.prune(std::move(fits));
    } catch (...) {
        return TokenTree::root_only(pending());
    }
}

OUTRIDER_INLINE TokenTree Session::expect(TokenTree tree) {
    if (!rules_.any()) return tree;
    try {
        return rules_.expect(std::move(tree), left() - 1);
    } catch (...) {
        return TokenTree::root_only(pending());
    }
}

OUTRIDER_INLINE Prefill Session::prefill(FeatureRequest features, std::int64_t begin, std::int64_t tokens) const {
    const auto first = static_cast<std::size_t>(begin), count = static_cast<std::size_t>(tokens);
    return {id_, std::span(text_).subspan(first, count), text_[first + count], std::move(features), begin};
}

OUTRIDER_INLINE void Session::accept(const TokenTree& tree, const Acceptance& chosen, std::int64_t vocabulary) {
    NodeIndex at = 0;
    run_.clear();
    for (const NodeIndex node : chosen.path) {
        require(node > 0 && static_cast<std::size_t>(node) < tree.size() && tree.parent(node) == at,
                "AcceptancePolicy: node {} does not follow node {} in the tree; a path leads from the root downwards",
                node, at);
        run_.push_back(tree.token(at = node));
    }
    require(chosen.pending >= 0 && chosen.pending < vocabulary,
            "AcceptancePolicy: pending token {} is outside the vocabulary of {}", chosen.pending, vocabulary);
    run_.push_back(chosen.pending);
    drafted_ = static_cast<std::int64_t>(tree.drafted());
    height_ = tree.height();
    kept_ = 0;
}

OUTRIDER_INLINE void Session::read_logprobs(const TokenTree& tree, const TreeRows& rows, const Acceptance& chosen) {
    if (logprobs_) run_logprobs_ = logprobs_of(tree, rows, context(), chosen, *logprobs_);
}

OUTRIDER_INLINE std::vector<TokenId> Session::committed() const {
    std::vector<TokenId> tokens{pending()};
    tokens.insert(tokens.end(), run_.begin(), run_.end() - 1);
    return tokens;
}

OUTRIDER_INLINE bool Session::push(std::size_t i) {
    if (!stream_.push(run_[i], logprobs_ ? &run_logprobs_[i] : nullptr)) return false;
    if (rules_.any() && !rules_.advance(run_[i])) stream_.end(FinishReason::stop);
    return !ended();
}

OUTRIDER_INLINE void Session::emit() {
    const auto count = [](std::vector<std::int64_t>& per_depth, std::int64_t depth) {
        if (per_depth.size() < static_cast<std::size_t>(depth)) per_depth.resize(static_cast<std::size_t>(depth), 0);
        for (std::int64_t d = 0; d < depth; ++d) ++per_depth[static_cast<std::size_t>(d)];
    };
    ++stats_.rounds;
    stats_.drafted += drafted_;
    count(stats_.drafted_per_depth, height_);
    const auto before = static_cast<std::int64_t>(stream_.tokens().size());
    const auto settle = [&] {  // also when the callback throws: what it saw is part of the text
        const auto emitted = static_cast<std::int64_t>(stream_.tokens().size()) - before;
        kept_ = std::min(emitted, static_cast<std::int64_t>(run_.size()) - 1);
        text_.insert(text_.end(), run_.begin(), run_.begin() + emitted);
        stats_.tokens += emitted;
        stats_.accepted += kept_;
        count(stats_.accepted_per_depth, kept_);
    };
    try {
        for (std::size_t i = 0; i < run_.size(); ++i)
            if (!push(i)) break;
    } catch (...) {
        settle();
        throw;
    }
    settle();
}

OUTRIDER_INLINE void Session::fail(const std::exception_ptr& error) noexcept {
    if (ended()) return;
    stream_.end(FinishReason::failed);
    exception_ = error;
    error_ = detail::words_of(error);
}

OUTRIDER_INLINE GenerationResult Session::finish() {
    text_.resize(static_cast<std::size_t>(stats_.prompt_tokens));
    return {std::move(stream_.tokens()),
            std::move(stream_.text()),
            stream_.finish(),
            std::move(stats_),
            std::move(error_),
            sampling_.seed,
            std::move(exception_),
            std::move(stream_.logprobs()),
            std::move(text_)};
}

}  // namespace outrider
