// What `compare` says of each drafter: the counts of design, the gain over plain decoding with its uncertainty, and
// whether the texts are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>
#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>
#include <outrider/engine/make_policy.hpp>

namespace outrider::cli {

/// One prompt's answer by one drafter.
struct Outcome {
    std::vector<TokenId> tokens;
    DecodeStats stats;
};

/// Where two texts part. `logit_gap`: how far apart the target's logits of the two tokens are there, where known; a
/// tiny gap means that rounding decided.
struct Difference {
    std::string id;
    std::int64_t position = 0;
    std::optional<double> logit_gap = {};
    std::size_t prompt = 0;  ///< its place among the prompts; ids may occur twice
};

/// Ratio of decoding times to plain decoding, per token, prefill apart; with a 95 % bootstrap interval over prompts.
struct Gain {
    double gamma = 1, low = 1, high = 1;
};

struct Row {
    std::string drafter, kind;
    DecodeStats total;
    Gain gain;
    std::vector<Difference> differences;
    TextPromise promise = TextPromise::same_text;  ///< only such a text must be the plain one; see to_table
    std::optional<std::int64_t> nodes = {};        ///< as asked for; nullopt: auto
};

/// First position at which the two differ (the length of the shorter one when it is a beginning of the other), or
/// nullopt when they are equal.
[[nodiscard]] std::optional<std::int64_t> first_difference(std::span<const TokenId> a, std::span<const TokenId> b);

/// `plain` and `drafted` are the same prompts, in the same order. A pure function: the resampling has its own seed.
[[nodiscard]] Gain gain_over(std::span<const Outcome> plain, std::span<const Outcome> drafted);

/// Sums, gain and differences of one drafter.
[[nodiscard]] Row summarise(std::string drafter, std::string kind, std::span<const std::string> ids,
                            std::span<const Outcome> plain, std::span<const Outcome> drafted);

/// A size of trees as options have it: a number, or "auto".
[[nodiscard]] nlohmann::ordered_json nodes_to_json(const std::optional<std::int64_t>& nodes);

/// Tokens, rounds and seconds of decoding by prompt, for who compares rows prompt by prompt.
[[nodiscard]] nlohmann::ordered_json prompts_to_json(std::span<const std::string> ids,
                                                     std::span<const Outcome> outcomes);

[[nodiscard]] nlohmann::ordered_json to_json(const DecodeStats& stats);
[[nodiscard]] nlohmann::ordered_json to_json(const Row& row);

/// The table that people read, with the sizes of trees where rows differ in them. Its last column: "yes" or "no, N
/// differ" where the texts must be the same; "same law" where they are other draws from the target's law; "lossy, N
/// differ".
[[nodiscard]] std::string to_table(std::span<const Row> rows);

}  // namespace outrider::cli
