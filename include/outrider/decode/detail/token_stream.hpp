// One sequence's output: takes the tokens one by one, makes text of them, and says when the text ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/detail/stop_filter.hpp>
#include <outrider/decode/request.hpp>

namespace outrider {

/// Cuts at end ids, stop strings and the limit, wherever in an accepted run they fall. Text is handed on as whole UTF-8
/// characters, and held back only while it could still become a stop string.
class TokenStream {
public:
    /// `limit`: emit at most this many tokens (max_tokens, or what the target's context leaves).
    TokenStream(SequenceId sequence, const Prompt& prompt, const GenerationOptions& options, std::int64_t limit,
                Sink sink)
        : sequence_(sequence),
          detokenizer_(prompt.text),
          end_ids_(end_ids_of(prompt, options)),
          stops_(options.stop),
          limit_(limit),
          sink_(std::move(sink)) {
        if (limit_ <= 0) finish_ = FinishReason::length;
    }

    /// Tokens that end a request's text.
    [[nodiscard]] static std::vector<TokenId> end_ids_of(const Prompt& prompt, const GenerationOptions& options) {
        std::vector<TokenId> ids = options.end_ids;
        if (options.stop_at_end) ids.insert(ids.end(), prompt.end_ids.begin(), prompt.end_ids.end());
        return ids;
    }

    /// Emits one token and returns whether more may follow. What the callback throws passes through; the stream has
    /// then recorded the token and its text, and has not ended. `logprobs`: where they were asked for.
    bool push(TokenId token, const TokenLogprobs* logprobs = nullptr) {
        tokens_.push_back(token);
        if (logprobs != nullptr) logprobs_.push_back(*logprobs);
        const bool ends = is_end(token);
        std::string piece = ends || !detokenizer_ ? std::string{} : stops_.push(utf8_.feed(detokenizer_->bytes(token)));
        FinishReason why = FinishReason::running;
        if (ends || stops_.stopped())
            why = FinishReason::stop;
        else if (left() == 0)
            why = FinishReason::length;
        if (why != FinishReason::running && !stops_.stopped()) {
            piece += last_words();
            if (stops_.stopped()) why = FinishReason::stop;  // which these completed
        }
        text_ += piece;
        if (!sink_({sequence_, token, piece, logprobs})) end(FinishReason::cancelled);
        if (why != FinishReason::running) finish_ = why;  // whatever the callback said of going on
        return !ended();
    }

    /// Whether this token ends the text whatever stands before it.
    [[nodiscard]] bool is_end(TokenId token) const {
        return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end();
    }

    /// Whether the text would end with one of these tokens, were they pushed next: by an end token or a stop string.
    [[nodiscard]] bool would_end(std::span<const TokenId> next) const {
        if (std::any_of(next.begin(), next.end(), [&](TokenId token) { return is_end(token); })) return true;
        if (!detokenizer_ || !stops_.any()) return false;
        Utf8Stream utf8 = utf8_;
        StopFilter stops = stops_;
        for (const TokenId token : next) (void)stops.push(utf8.feed(detokenizer_->bytes(token)));
        return stops.stopped();
    }

    /// Ends the text from outside, unless it has ended.
    void end(FinishReason why) {
        if (!ended()) finish_ = why;
    }

    /// Tokens that may still be emitted.
    [[nodiscard]] std::int64_t left() const noexcept { return limit_ - static_cast<std::int64_t>(tokens_.size()); }
    [[nodiscard]] bool ended() const noexcept { return finish_ != FinishReason::running; }
    [[nodiscard]] FinishReason finish() const noexcept { return finish_; }
    [[nodiscard]] std::vector<TokenId>& tokens() noexcept { return tokens_; }
    [[nodiscard]] std::string& text() noexcept { return text_; }
    [[nodiscard]] std::vector<TokenLogprobs>& logprobs() noexcept { return logprobs_; }

private:
    /// What the two filters still hold when the text ends without a stop string.
    [[nodiscard]] std::string last_words() {
        std::string rest = stops_.push(utf8_.flush());
        if (!stops_.stopped()) rest += stops_.flush();
        return rest;
    }

    SequenceId sequence_;
    std::shared_ptr<const Detokenizer> detokenizer_;
    std::vector<TokenId> end_ids_;
    Utf8Stream utf8_;
    StopFilter stops_;
    std::int64_t limit_;
    Sink sink_;
    std::vector<TokenId> tokens_;
    std::string text_;
    std::vector<TokenLogprobs> logprobs_;
    FinishReason finish_ = FinishReason::running;
};

}  // namespace outrider
