// The parts that generate, compare and distill share: the target, a decoder around it, prompts as ids.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <outrider/accept/policy.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/engine.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/target/llama_model.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "arguments.hpp"
#include "prompts_file.hpp"

namespace outrider::cli {

/// What --template-file names; empty for no name. Throws Error for a file that cannot be read or is empty.
[[nodiscard]] std::string read_template(const std::string& path);

[[nodiscard]] LlamaModel load_model(const ModelArguments& arguments);

/// With the policy that the arguments name. Throws Error for a drafter that does not fit it.
[[nodiscard]] AnyDecoder make_decoder(const LlamaModel& model, std::unique_ptr<DraftModel> drafter,
                                      const DecodingArguments& arguments);

/// Of an engine that is made as the arguments say, around a model that is loaded.
[[nodiscard]] EngineOptions engine_options(const std::string& drafter, const ModelArguments& model_arguments,
                                           const DecodingArguments& arguments);

/// As --pass-times has it; empty: nowhere. Throws Error for a file that holds something else.
[[nodiscard]] std::filesystem::path pass_times_file(const DecodingArguments& arguments);

/// A drafter by name, made as the arguments say.
[[nodiscard]] std::unique_ptr<DraftModel> load_drafter(const std::string& name, const LlamaModel& model,
                                                       const ModelArguments& model_arguments,
                                                       const DecodingArguments& arguments);

/// `drafter`, or where that is empty the best drafter shipped for the model joined with ngram, or ngram alone.
[[nodiscard]] std::string drafter_or_default(const std::string& drafter, const LlamaModel& model);

/// The row's prompt as the target reads it. Throws Error, with the row's id, for what cannot be one.
[[nodiscard]] Prompt make_prompt(const LlamaModel& model, const PromptRow& row, bool raw);

/// Queues a prompt; what is wrong with it is said with its id.
SequenceId join(AnyDecoder& decoder, const std::string& id, Prompt prompt, const GenerationOptions& options,
                Sink sink = {});

/// What the arguments ask for, with the prompt's stream of random numbers.
[[nodiscard]] GenerationOptions options_for(const DecodingArguments& arguments, const Prompt& prompt,
                                            std::uint64_t sample);

}  // namespace outrider::cli
