// A drafter's worth on a few texts, for `bench`: which ranks of its trees the target keeps, and what a draft costs.
#pragma once

#include <memory>
#include <string>

#include <outrider/draft/drafter.hpp>
#include <outrider/target/llama_model.hpp>

#include "bench_forecast.hpp"

namespace outrider::cli {

/// Nodes of the trees that are drafted.
inline constexpr std::int64_t kBenchNodes = 16;

/// Answers built-in prompts, greedily, with trees of kBenchNodes nodes, until about `seconds` are spent or the prompts
/// are through; each gets its share of the time, so that all kinds of text count, or fewer prompts where passes are
/// slow. A round at least. `pass_seconds`: of one pass over such a tree.
[[nodiscard]] DraftingSeen see_drafting(const LlamaModel& model, std::string name, std::unique_ptr<DraftModel> drafter,
                                        double pass_seconds, double seconds);

}  // namespace outrider::cli
