// outrider distill: text by the target itself, batched, to train drafters on. One JSON line an answer, written as soon
// as it is finished, so that a stopped run goes on where it was.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include <outrider/accept/match.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/train/distill.hpp>

#include "arguments.hpp"
#include "distilled_file.hpp"
#include "engine.hpp"
#include "engine/prompt_stream.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "prompts_file.hpp"

namespace outrider::cli {
namespace {

/// Prompts of a file that are not done. Those that do not fit into the target's context are left out, saying so.
class FilePrompts {
public:
    FilePrompts(const LlamaModel& model, std::vector<PromptRow> rows, std::int64_t context, bool raw)
        : model_(model), rows_(std::move(rows)), context_(context), raw_(raw) {}

    std::optional<DistillPrompt> operator()() {
        while (at_ < rows_.size()) {
            const PromptRow& row = rows_[at_++];
            require(row.variables.empty(),
                    "prompt '{}': `tools`, `documents` and `chat_template_kwargs` do not go into the "
                    "training text; expected messages alone",
                    row.id);
            Prompt prompt = make_prompt(model_, row, raw_);
            if (std::ssize(prompt.tokens) >= context_) {
                tell(fmt::format("left out: prompt '{}' has {} tokens, the target's context {}\n", row.id,
                                 prompt.tokens.size(), context_));
                continue;
            }
            DistillPrompt result{row.id, std::move(prompt), {}, 0, row.sample};
            result.stream = detail::prompt_stream(result.prompt, row.sample);
            if (raw_)
                result.raw = row.text;
            else
                result.messages = messages_of(row);
            return result;
        }
        return std::nullopt;
    }

private:
    const LlamaModel& model_;
    std::vector<PromptRow> rows_;
    std::int64_t context_;
    bool raw_;
    std::size_t at_ = 0;
};

/// How many of the ids are "self/SEED/number", and the number after the largest.
std::pair<std::int64_t, std::uint64_t> self_prompts_done(const std::set<std::string>& ids, std::uint64_t seed) {
    const std::string prefix = fmt::format("self/{}/", seed);
    std::int64_t count = 0;
    std::uint64_t next = 0;
    for (const std::string& id : ids) {
        if (!id.starts_with(prefix)) continue;
        std::uint64_t number = 0;
        std::from_chars(id.data() + prefix.size(), id.data() + id.size(), number);
        ++count, next = std::max(next, number + 1);
    }
    return {count, next};
}

/// Writes lines as they come, and shows how far it is.
class Writer {
public:
    Writer(DistilledFile& output, std::int64_t all) : output_(output), progress_("distill", all) {}

    bool operator()(const DistilledText& text) {
        output_.append(distilled_line(text));
        ++texts_, tokens_ += std::ssize(text.answer.tokens);
        progress_.update(texts_, fmt::format("{} tokens", tokens_));
        return true;
    }

private:
    DistilledFile& output_;
    ProgressLine progress_;
    std::int64_t texts_ = 0, tokens_ = 0;
};

DistillTotals answer_file(const DistillArguments& arguments, std::vector<PromptRow> rows, const LlamaModel& model,
                          AnyDecoder& decoder, DistilledFile& output) {
    rows = output.left_of(std::move(rows));
    const std::int64_t left = std::ssize(rows);
    FilePrompts prompts(model, std::move(rows), decoder.verifier().context(), arguments.model.raw);
    Writer writer(output, left);
    return distill(decoder, std::ref(prompts), std::ref(writer), arguments.decoding.generation);
}

PromptOverlap prompts_to_avoid(const std::vector<std::string>& files) {
    PromptOverlap overlap;
    for (const std::string& file : files)
        for (const PromptRow& row : read_prompts(file, 0)) {
            if (row.text) overlap.add(*row.text);
            for (const ChatMessage& message : row.messages)
                if (message.role == "user") overlap.add(message.content);
        }
    return overlap;
}

DistillTotals answer_self(const DistillArguments& arguments, SelfPromptOptions options, const LlamaModel& model,
                          AnyDecoder& decoder, DistilledFile& output) {
    options.drawing.temperature = arguments.prompt_temperature;
    options.drawing.seed = arguments.decoding.generation.seed;
    const auto [count, next] = self_prompts_done(output.ids(), options.drawing.seed.value_or(0));
    AnyDecoder sampler(std::make_unique<NoDraft>(), std::make_unique<LlamaVerifier>(model), std::make_unique<Match>(),
                       {.nodes = 0, .max_batch = static_cast<std::size_t>(arguments.decoding.batch)});
    options.at_once = std::max<std::int64_t>(4 * arguments.decoding.batch, 64);
    const bool raw = arguments.model.raw;
    if (raw) options.raw_tokens = arguments.prompt_tokens;
    SelfPrompts prompts(
        sampler, raw ? UserTurn{.prompt = model.text_start()} : model.user_turn(),
        [&](std::string_view text) { return raw ? model.raw(text) : model.chat(text); }, std::move(options), next);
    std::int64_t left = arguments.self_prompts - count;
    Writer writer(output, std::max<std::int64_t>(left, 0));
    const auto next_prompt = [&]() -> std::optional<DistillPrompt> {
        if (left-- <= 0) return std::nullopt;
        DistillPrompt prompt = prompts.next();
        prompt.stream = detail::prompt_stream(prompt.prompt, 0);  // answered as the same prompt of a file is
        return prompt;
    };
    const DistillTotals totals = distill(decoder, next_prompt, std::ref(writer), arguments.decoding.generation);
    tell(fmt::format("{} prompts drawn, {} of them dropped\n", prompts.drawn(), prompts.dropped()));
    return totals;
}

}  // namespace

int run(const DistillArguments& arguments) {
    refuse_inputs("--output", arguments.output, {arguments.prompts, arguments.model.path});
    DistilledFile output(arguments.output, arguments.model.raw);
    std::vector<PromptRow> rows;
    if (!arguments.prompts.empty()) rows = read_prompts(arguments.prompts, arguments.limit);
    SelfPromptOptions self;
    self.excluded = prompts_to_avoid(arguments.exclude);
    const LlamaModel model = load_model(arguments.model);
    AnyDecoder decoder = make_decoder(model, std::make_unique<NoDraft>(), arguments.decoding);
    const DistillTotals totals = arguments.self_prompts > 0
                                     ? answer_self(arguments, std::move(self), model, decoder, output)
                                     : answer_file(arguments, std::move(rows), model, decoder, output);
    tell(fmt::format("{}: {} answers, {} tokens; {} were there already\n", arguments.output, totals.texts,
                     totals.tokens, output.size()));
    return 0;
}

}  // namespace outrider::cli
