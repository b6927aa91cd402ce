// outrider distill: text by the target itself, batched, to train drafters on. One JSON line an answer, written as soon as
// it is finished, so that a stopped run goes on where it was.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
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
#include "engine.hpp"
#include "progress.hpp"
#include "prompts_file.hpp"

namespace outrider::cli {
namespace {

/// Ids that the output holds already. Half a last line, left by a run that was killed, is cut off.
std::set<std::string> finished_ids(const std::string& path) {
    std::set<std::string> ids;
    std::ifstream in(path);
    std::string line;
    std::uintmax_t whole = 0;
    for (std::int64_t number = 1; std::getline(in, line) && !in.eof(); ++number) {
        try {
            ids.insert(nlohmann::json::parse(line).at("id").get<std::string>());
        } catch (const nlohmann::json::exception& error) {
            fail("{}:{}: not a line of distilled text ({}); give another --output", path, number, error.what());
        }
        whole += line.size() + 1;
    }
    in.close();
    if (std::filesystem::exists(path) && std::filesystem::file_size(path) > whole) std::filesystem::resize_file(path, whole);
    return ids;
}

/// Prompts of a file that are not done. Those that do not fit into the target's context are left out, saying so.
class FilePrompts {
public:
    FilePrompts(const LlamaModel& model, std::vector<PromptRow> rows, const std::set<std::string>& done, std::int64_t context)
        : model_(model), rows_(std::move(rows)), done_(done), context_(context) {}

    std::optional<DistillPrompt> operator()() {
        for (; at_ < rows_.size(); ++at_) {
            const PromptRow& row = rows_[at_];
            if (done_.contains(row.id)) continue;
            require(row.variables.empty(), "prompt '{}': `tools`, `documents` and `chat_template_kwargs` do not go into the "
                    "training text; expected messages alone", row.id);
            Prompt prompt = make_prompt(model_, row, false);
            if (std::ssize(prompt.tokens) >= context_) {
                fmt::print(stderr, "left out: prompt '{}' has {} tokens, the target's context {}\n", row.id,
                           prompt.tokens.size(), context_);
                continue;
            }
            std::vector<ChatMessage> messages = row.messages;
            if (row.text) messages.push_back({"user", *row.text});
            return DistillPrompt{row.id, std::move(prompt), std::move(messages), at_++};
        }
        return std::nullopt;
    }

    [[nodiscard]] std::int64_t to_do() const {
        std::int64_t count = 0;
        for (const PromptRow& row : rows_) count += done_.contains(row.id) ? 0 : 1;
        return count;
    }

private:
    const LlamaModel& model_;
    std::vector<PromptRow> rows_;
    const std::set<std::string>& done_;
    std::int64_t context_;
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
    Writer(const std::string& path, std::int64_t all)
        : path_(path), out_(path, std::ios::app), progress_("distill", all) {
        require(out_.is_open(), "--output: '{}' cannot be written", path);
    }

    bool operator()(const DistilledText& text) {
        out_ << distilled_line(text) << std::endl;
        require(out_.good(), "--output: writing '{}' failed", path_);
        ++texts_, tokens_ += std::ssize(text.answer.tokens);
        progress_.update(texts_, fmt::format("{} tokens", tokens_));
        return true;
    }

private:
    std::string path_;
    std::ofstream out_;
    Progress progress_;
    std::int64_t texts_ = 0, tokens_ = 0;
};

DistillTotals answer_file(const DistillArguments& arguments, const LlamaModel& model, AnyDecoder& decoder,
                          const std::set<std::string>& done) {
    FilePrompts prompts(model, read_prompts(arguments.prompts, arguments.limit), done, decoder.verifier().context());
    Writer writer(arguments.output, prompts.to_do());
    return distill(decoder, std::ref(prompts), std::ref(writer), arguments.decoding.generation);
}

DistillTotals answer_self(const DistillArguments& arguments, const LlamaModel& model, AnyDecoder& decoder,
                          const std::set<std::string>& done) {
    SelfPromptOptions options;
    options.drawing.temperature = arguments.prompt_temperature;
    options.drawing.seed = arguments.decoding.generation.seed.value_or(0);
    for (const std::string& file : arguments.exclude)
        for (const PromptRow& row : read_prompts(file, 0)) {
            if (row.text) options.excluded.add(*row.text);
            for (const ChatMessage& message : row.messages)
                if (message.role == "user") options.excluded.add(message.content);
        }
    const auto [count, next] = self_prompts_done(done, options.drawing.seed.value_or(0));
    AnyDecoder sampler(std::make_unique<NoDraft>(), std::make_unique<LlamaVerifier>(model),
                       std::make_unique<Match>(),
                       {.nodes = 0, .max_batch = static_cast<std::size_t>(arguments.decoding.batch)});
    options.at_once = std::max<std::int64_t>(4 * arguments.decoding.batch, 64);
    SelfPrompts prompts(sampler, model.user_turn(), [&](std::string_view user) { return model.chat(user); },
                        std::move(options), next);
    std::int64_t left = arguments.self_prompts - count;
    Writer writer(arguments.output, std::max<std::int64_t>(left, 0));
    const DistillTotals totals = distill(
        decoder, [&] { return left-- > 0 ? std::optional(prompts.next()) : std::nullopt; }, std::ref(writer),
        arguments.decoding.generation);
    fmt::print(stderr, "{} prompts drawn, {} of them dropped\n", prompts.drawn(), prompts.dropped());
    return totals;
}

}  // namespace

int run(const DistillArguments& arguments) {
    const std::set<std::string> done = finished_ids(arguments.output);
    const LlamaModel model = load_model(arguments.model);
    AnyDecoder decoder = make_decoder(model, std::make_unique<NoDraft>(), arguments.decoding);
    const DistillTotals totals = arguments.self_prompts > 0 ? answer_self(arguments, model, decoder, done)
                                                            : answer_file(arguments, model, decoder, done);
    fmt::print(stderr, "{}: {} answers, {} tokens; {} were there already\n", arguments.output, totals.texts,
               totals.tokens, done.size());
    return 0;
}

}  // namespace outrider::cli
