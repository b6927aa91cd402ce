// What is asked for: of a request, of a decoder, and of a drafter in one round. Aggregates with defaults, built with
// designated initialisers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

/// Of which law.
enum class LogprobLaw {
    target,  ///< the target's own logits at temperature 1, before hooks, penalties and warpers
    warped   ///< what the token was chosen from, after all of them; temperature 0, which has no law, counts as 1
};

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

    /// Whether logits are changed before anything is chosen by them. Otherwise a row is the target's own.
    [[nodiscard]] bool edits_logits() const { return logit_hook || repetition_penalty != 1.0; }
    /// Whether top-k, top-p or min-p may drop tokens.
    [[nodiscard]] bool truncates() const { return top_k > 0 || top_p < 1.0 || min_p > 0.0; }
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
    /// What the answer must be, such as JSON of a schema: see Constraint; empty: none. Applied after the four above,
    /// and before logit_hook, the repetition penalty and the warpers.
    std::shared_ptr<const Constraint> constraint = {};

    [[nodiscard]] SamplingOptions sampling() const {
        return {temperature, top_p, top_k, min_p, repetition_penalty, seed.value_or(0), stream, logit_hook};
    }
};

/// As a number of nodes: see budget::TreeBudget.
inline constexpr std::int64_t kAutoNodes = -1;

/// Tokens of prompts that a step takes where nobody waits for a round.
inline constexpr std::int64_t kRowsAlone = 192;

/// Tokens that wait for a drafter: see DecoderOptions::owed_tokens.
inline constexpr std::int64_t kOwedTokens = 256;

/// What holds for all sequences of a decoder.
struct DecoderOptions {
    /// Nodes that each sequence may draft in a round; 0: plain; kAutoNodes: as many as pay, see budget::TreeBudget.
    std::int64_t nodes = kAutoNodes;
    std::size_t max_batch = 64;  ///< sequences decoded together; more wait their turn
    /// Tokens of prompts that a step takes beside the round of those that are decoded, all joiners together; fewer make
    /// smoother texts and slower prompts. Where the target takes both in one forward, rows of trees count among them,
    /// up to half. Where nobody is decoded, kRowsAlone at least. The texts do not depend on it.
    std::int64_t prefill_rows = 48;
    /// Tokens whose features wait for a drafter that is not asked, in each sequence, of its prompt too. When there are
    /// more it is given them, and drafts nothing; where others are decoded meanwhile, about so many a step, so that
    /// nobody waits for one long prompt to be taken up. What waits costs so many rows of FeatureRequest::width floats.
    /// Drafters that read no features are owed token ids alone, which wait without a bound.
    std::int64_t owed_tokens = kOwedTokens;
};

/// What a drafter may spend on each sequence of a round. The prices are for drafters that can do with less; without
/// them time does not matter, and the same history gives the same tree on every machine.
struct DraftBudget {
    std::int64_t nodes = 16;                   ///< nodes below the root; 0 asks for the root alone
    double second_price = 0;                   ///< tokens that a second of drafting has to bring; 0: no prices
    std::span<const double> tree_prices = {};  ///< [nodes + 1] tokens that n nodes have to bring, for the time that
                                               ///< verifying them takes; owned by who asks, for the call
    std::int64_t owed_tokens = kOwedTokens;    ///< for drafters made of several: see DecoderOptions
    bool chains = false;  ///< the target takes no branches: one path of up to `nodes` nodes is asked for, and what a
                          ///< tree has beside its first path is cut off
    bool draws = true;    ///< whether anybody reads SequenceTree::samples; false: they may be left out

    /// A path probability below which a node is not worth finding: half of what a node has to bring at least, on
    /// average over a tree of the size where that is least (half, since a drafter's word may be corrected upwards). 0
    /// without prices.
    [[nodiscard]] double least_chance() const {
        if (second_price <= 0 || tree_prices.size() < 2) return 0.0;
        double least = tree_prices[1];
        for (std::size_t n = 2; n < tree_prices.size(); ++n)
            least = std::min(least, tree_prices[n] / static_cast<double>(n));
        return std::max(0.0, 0.5 * least);
    }
};

}  // namespace outrider
