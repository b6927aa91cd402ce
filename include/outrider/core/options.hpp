// What a request asks for. Aggregates with defaults, built with designated initialisers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <outrider/core/logprobs.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// A host's own say on the logits of the token that follows `text` (prompt, emitted text and drafted path), for example
/// a grammar mask: set forbidden entries of `logits` [V] to -infinity. Called before every warper, once per node that
/// the acceptance visits; never for what follows an end token or a stop string. Must be a pure function of its
/// arguments, else the text depends on the drafter.
using LogitHook = std::function<void(std::span<const TokenId> text, std::span<float> logits)>;

/// How the next token is chosen from the target's logits. Applied in this order: repetition penalty, temperature,
/// top-k, top-p, min-p.
struct SamplingOptions {
    double temperature = 0.0;         ///< 0: greedy. Otherwise logits are divided by it.
    double top_p = 1.0;               ///< keep the smallest set of tokens whose probability reaches it; 1: all
    std::int64_t top_k = 0;           ///< keep the k most probable tokens; 0: all
    double min_p = 0.0;               ///< drop tokens below min_p times the largest probability; 0: none
    double repetition_penalty = 1.0;  ///< CTRL's rule (Keskar et al. 2019): divide positive, multiply negative logits
    std::uint64_t seed = 0;           ///< the text is a pure function of target, prompt, options and this
    std::uint64_t stream = 0;         ///< tells requests of one seed apart; independent of batch and slot
    LogitHook logit_hook = {};        ///< see LogitHook; empty: none
};

class Constraint;  // core/constraint.hpp

/// One request.
struct GenerationOptions {
    std::int64_t max_tokens = 128;    ///< emit at most this many tokens
    double temperature = 0.0;         ///< see SamplingOptions
    double top_p = 1.0;               ///< see SamplingOptions
    std::int64_t top_k = 0;           ///< see SamplingOptions
    double min_p = 0.0;               ///< see SamplingOptions
    double repetition_penalty = 1.0;  ///< see SamplingOptions
    /// See SamplingOptions. Empty: a new one for each request, which GenerationResult::seed tells.
    std::optional<std::uint64_t> seed = {};
    std::uint64_t stream = 0;            ///< see SamplingOptions
    LogitHook logit_hook = {};           ///< see LogitHook; empty: none
    bool stop_at_end = true;             ///< stop at the model's end tokens
    std::vector<TokenId> end_ids = {};   ///< further token ids that end the text
    std::vector<std::string> stop = {};  ///< strings that end the text, also across token borders; not part of it
    /// With each token its log-probability, and those of so many most probable ones; 0: the token's alone; empty: none.
    std::optional<std::int64_t> logprobs = {};
    LogprobLaw logprob_law = LogprobLaw::target;  ///< of which law they are
    /// Added to the logits of these tokens; -infinity forbids one.
    std::vector<std::pair<TokenId, float>> logit_bias = {};
    double presence_penalty = 0.0;   ///< taken off the logits of all tokens that the answer holds
    double frequency_penalty = 0.0;  ///< and so much for each time that it does
    std::int64_t min_tokens = 0;     ///< no end token before the answer has so many
    /// What the answer must be, such as JSON of a schema: see Constraint. Applied before everything else; empty: none.
    std::shared_ptr<const Constraint> constraint = {};

    [[nodiscard]] SamplingOptions sampling() const {
        return {temperature, top_p, top_k, min_p, repetition_penalty, seed.value_or(0), stream, logit_hook};
    }
};

}  // namespace outrider
