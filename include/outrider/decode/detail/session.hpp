// The state of one request between rounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <outrider/accept/detail/logprob_rows.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/detail/answer_rules.hpp>
#include <outrider/decode/detail/token_stream.hpp>
#include <outrider/decode/request.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Checks a request against a target. Throws Error with what is wrong and the remedy.
OUTRIDER_API void check_request(const Prompt& prompt, const GenerationOptions& options, const Sink& sink,
                                std::int64_t vocabulary, std::int64_t context);

/// A seed that nobody has asked for before.
[[nodiscard]] OUTRIDER_API std::uint64_t fresh_seed();

/// A fresh id; no two sequences of a process share one, so decoders may share a verifier or a drafter.
[[nodiscard]] OUTRIDER_API SequenceId next_sequence_id();

/// One sequence: what was asked, the text so far, what is counted. Never moves while it is decoded.
class OUTRIDER_API Session {
public:
    /// `vocabulary` and `context`: the target's; prompt and text together never pass the latter.
    Session(SequenceId id, Prompt prompt, const GenerationOptions& options, std::int64_t vocabulary,
            std::int64_t context, Sink sink);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    [[nodiscard]] SequenceId id() const noexcept { return id_; }
    [[nodiscard]] bool ended() const noexcept { return stream_.ended(); }
    /// Tokens that may still be emitted.
    [[nodiscard]] std::int64_t left() const noexcept { return stream_.left(); }

    /// Before the first round: everything but the prompt's last token is to be committed.
    [[nodiscard]] std::int64_t to_prefill() const noexcept { return static_cast<std::int64_t>(text_.size()) - 1; }
    /// Of that, `tokens` tokens from `begin` on.
    [[nodiscard]] Prefill prefill(FeatureRequest features, std::int64_t begin, std::int64_t tokens) const;
    [[nodiscard]] SequenceContext context() const { return {id_, &sampling_, text_}; }
    [[nodiscard]] TokenId pending() const noexcept { return text_.back(); }
    /// Prompt and text so far.
    [[nodiscard]] std::span<const TokenId> text() const noexcept { return text_; }
    [[nodiscard]] std::span<const TokenId> prompt() const noexcept {
        return std::span(text_).first(static_cast<std::size_t>(stats_.prompt_tokens));
    }

    /// A draft without what its text could not use: nodes beyond its last token, and those at end tokens, which the
    /// target chooses itself if it wants them, and those that the request forbids. Drawn nodes stay, since what is left
    /// out must not depend on draws.
    [[nodiscard]] TokenTree usable(TokenTree tree, bool drawn);
    /// The draft, and what the request's constraint expects to follow. Where a constraint fails beside a draft, here or
    /// in `usable`, the root alone is left: the text before a failure is the same as without drafts.
    [[nodiscard]] TokenTree expect(TokenTree tree);

    /// Remembers what the policy chose until `emit`: the tokens of the path, and the next pending token. Throws Error
    /// when the path is none of the tree's, or the token outside the vocabulary.
    void accept(const TokenTree& tree, const Acceptance& chosen, std::int64_t vocabulary);

    /// Reads the log-probabilities of what `accept` remembers, where they were asked for.
    void read_logprobs(const TokenTree& tree, const TreeRows& rows, const Acceptance& chosen);
    [[nodiscard]] bool reads_logprobs() const noexcept { return logprobs_.has_value(); }

    /// Hands the accepted tokens to the stream, up to the one that ends the text, and counts the round. What the
    /// callback throws passes through.
    void emit();

    void end(FinishReason why) { stream_.end(why); }
    /// Ends the sequence with an exception's text, unless it has ended.
    void fail(const std::exception_ptr& error) noexcept;

    /// Of the last round, root included: what becomes committed.
    [[nodiscard]] std::vector<TokenId> committed() const;

    [[nodiscard]] DecodeStats& stats() noexcept { return stats_; }
    /// Of the last round: nodes below the root, and those that were kept.
    [[nodiscard]] std::int64_t drafted() const noexcept { return drafted_; }
    [[nodiscard]] std::int64_t kept() const noexcept { return kept_; }

    /// The result; the session is spent.
    [[nodiscard]] GenerationResult finish();

private:
    [[nodiscard]] bool push(std::size_t i);

    SequenceId id_;
    SamplingOptions sampling_;
    AnswerRules rules_;
    std::vector<TokenId> text_;  ///< prompt and emitted tokens; the last one is pending
    TokenStream stream_;
    DecodeStats stats_;
    std::optional<LogprobRequest> logprobs_;
    std::vector<TokenId> run_;                 ///< accepted in this round, not yet emitted
    std::vector<TokenLogprobs> run_logprobs_;  ///< one for each, where asked for
    std::int64_t drafted_ = 0, height_ = 0, kept_ = 0;
    std::string error_;
    std::exception_ptr exception_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/session-inl.hpp>
#endif
