// Groups of options that several commands have, and those of `train`.
#pragma once

#include <CLI/CLI.hpp>

#include "arguments.hpp"
#include "conditions.hpp"

namespace outrider::cli {

/// Which target, and how it is held.
void add_model(CLI::App& app, ModelArguments& model);

/// How tokens are chosen and where a text ends. `max_tokens`: the command's default.
void add_sampling(CLI::App& app, DecodingArguments& decoding, std::int64_t max_tokens);
/// Log-probabilities beside the tokens.
void add_logprobs(CLI::App& app, DecodingArguments& decoding);
/// How many prompts are decoded together.
void add_batch(CLI::App& app, DecodingArguments& decoding);
/// How large trees are, and of which shape.
void add_nodes(CLI::App& app, DecodingArguments& decoding, Conditions& conditions);
/// The same for a command that takes several sizes.
void add_nodes_list(CLI::App& app, CompareArguments& a, Conditions& conditions);
/// Of which shape alone.
void add_tree(CLI::App& app, DecodingArguments& decoding, Conditions& conditions);
void add_policy(CLI::App& app, DecodingArguments& decoding, Conditions& conditions);

void add_train(CLI::App& app, TrainArguments& a);

}  // namespace outrider::cli
