// A drafter's worth on a few texts, for `bench`: which ranks of its trees the target keeps, and what a draft costs.
#pragma once

#include <span>
#include <string>

#include <outrider/draft/drafter.hpp>
#include <outrider/target/llama_model.hpp>

#include "bench_forecast.hpp"

namespace outrider::cli {

/// Nodes of the trees that are drafted.
inline constexpr std::int64_t kBenchNodes = 16;

/// Answers built-in prompts, greedily, with trees of kBenchNodes nodes and a fifth of the time of kFewNodes, until
/// about `seconds` are spent or the prompts are through; each gets its share of the time, so that all kinds of text
/// count, or fewer prompts where passes are slow. A round at least. `passes`: what they cost, rows ascending, at least
/// one.
[[nodiscard]] DraftingSeen see_drafting(const LlamaModel& model, std::string name, DraftModel& drafter,
                                        std::span<const PassTime> passes, double seconds);

/// Median seconds of a round of plain decoding of the same prompts, for about so long, a few rounds at least; 0
/// where texts end at once.
[[nodiscard]] double plain_round(const LlamaModel& model, double seconds);

}  // namespace outrider::cli
