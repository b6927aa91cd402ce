// Text to train drafters on, written by the target itself: answers to prompts, and prompts that it makes up.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/text/chat_template.hpp>

namespace outrider {

/// A prompt to answer.
struct DistillPrompt {
    std::string id;
    Prompt prompt;
    std::vector<ChatMessage> messages;    ///< what `prompt` was made of; written out with the answer
    std::uint64_t stream = 0;             ///< of the answer's draws, see SamplingOptions
    std::uint64_t sample = 0;             ///< which draw of this prompt it is; written out, where it is not the first
    std::optional<std::string> raw = {};  ///< the text that `prompt` was made of instead, without a chat template
};

/// An answer, or how a raw text goes on.
struct DistilledText {
    std::string id;
    std::vector<ChatMessage> messages;  ///< before the answer
    std::int64_t prompt_tokens = 0;
    double temperature = 0.0;
    GenerationResult answer;
    std::uint64_t sample = 0;
    std::optional<std::string> raw = {};  ///< the text before it; `messages` is empty then
};

/// The line of JSON, without a line break, that read_conversations reads.
[[nodiscard]] OUTRIDER_API std::string distilled_line(const DistilledText& text);

struct DistillTotals {
    std::int64_t texts = 0, tokens = 0;
};

/// Answers every prompt that `next` gives until it gives none. A prompt is asked for when a place of the decoder's
/// batch is free, so batches stay full to the end and a source may make prompts up as it goes. `take` gets answers in
/// the order in which they end; it returns false to stop, which loses what is being decoded. `options.stream` is the
/// prompt's. Throws what the decoder throws, and what `next` and `take` throw.
OUTRIDER_API DistillTotals distill(AnyDecoder& decoder, const std::function<std::optional<DistillPrompt>()>& next,
                                   const std::function<bool(const DistilledText&)>& take,
                                   const GenerationOptions& options);

/// What a set of prompts has in common with a text, in runs of six words (letters and digits, lower case).
class OUTRIDER_API PromptOverlap {
public:
    void add(std::string_view prompt);

    /// Part of the text's runs that occur in the prompts added, in [0, 1]; 0 for a text shorter than a run.
    [[nodiscard]] double share(std::string_view text) const;

private:
    std::unordered_set<std::uint64_t> runs_;  ///< hashes
};

struct SelfPromptOptions {
    /// How prompts are drawn; a prompt that does not end by itself within max_tokens is dropped.
    GenerationOptions drawing = {.max_tokens = 160, .temperature = 1.0, .top_p = 0.95, .top_k = 200};
    std::int64_t at_once = 256;   ///< prompts drawn together
    std::int64_t min_tokens = 6;  ///< shorter ones are dropped
    double most_overlap = 0.2;    ///< those that share more of their runs of six words with `excluded` are dropped
    PromptOverlap excluded = {};  ///< prompts that drafters are measured on
    /// Above 0: prompts are the first so many tokens of texts, which the target continues (drawing.max_tokens is left
    /// alone). For a base model, which ends no user's words; a text that ends before is dropped.
    std::int64_t raw_tokens = 0;
};

/// Prompts that a target makes up. One that was tuned on conversations is given the chat template up to where a user's
/// words begin, and writes such words (Magpie, Xu et al. 2024, arXiv 2406.08464); a base model writes the beginning of
/// a text. They are as varied as what it was trained on, and need no data. Prompt i of a seed is a pure function of
/// target, template and options; ids are "self/SEED/i".
class OUTRIDER_API SelfPrompts {
public:
    /// `opening`: LlamaModel::user_turn() of the target of `decoder`, whose policy must sample (Match); for raw texts
    /// LlamaModel::text_start() as the turn's prompt. `encode`: the prompt that asks for an answer,
    /// LlamaModel::chat; for raw texts LlamaModel::raw. `first`: number of the first prompt to draw.
    SelfPrompts(AnyDecoder& decoder, UserTurn opening, std::function<Prompt(std::string_view)> encode,
                SelfPromptOptions options, std::uint64_t first = 0);

    /// The next one, drawing more when none is left. Throws Error when a whole draw gives nothing that can be used.
    [[nodiscard]] DistillPrompt next();

    /// How many were drawn, and of these dropped.
    [[nodiscard]] std::uint64_t drawn() const noexcept { return drawn_; }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }

private:
    void draw();
    [[nodiscard]] bool raw() const noexcept { return options_.raw_tokens > 0; }
    [[nodiscard]] bool usable(const GenerationResult& result, std::string_view text);

    AnyDecoder& decoder_;
    UserTurn opening_;
    std::function<Prompt(std::string_view)> encode_;
    SelfPromptOptions options_;
    std::uint64_t number_, drawn_ = 0, dropped_ = 0;
    std::unordered_set<std::string> seen_;  ///< beginnings
    std::vector<DistillPrompt> ready_;      ///< the last is next
};

}  // namespace outrider
