// outrider distill: text by the target itself, batched, to train drafters on. One JSON line an answer, written as soon as
// it is finished, so that a stopped run goes on where it was.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include <outrider/core/utf8_stream.hpp>
#include <outrider/draft/no_draft.hpp>

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

struct Job {
    SequenceId sequence;
    std::size_t row;
    std::int64_t prompt_tokens;
};

nlohmann::ordered_json to_json(const PromptRow& row, const Job& job, const GenerationResult& result, double temperature) {
    nlohmann::ordered_json messages = nlohmann::ordered_json::array();
    for (const ChatMessage& message : row.messages)
        messages.push_back({{"role", message.role}, {"content", message.content}});
    if (row.text) messages.push_back({{"role", "user"}, {"content", *row.text}});
    messages.push_back({{"role", "assistant"}, {"content", to_valid_utf8(result.text)}});
    return {{"id", row.id},
            {"temperature", temperature},
            {"finish", to_string(result.finish)},
            {"messages", std::move(messages)},
            {"prompt_tokens", job.prompt_tokens},
            {"completion_ids", result.tokens}};
}

/// Queues every prompt that is not done. Those that do not fit into the target's context are left out, saying so.
std::vector<Job> queue(AnyDecoder& decoder, const LlamaModel& model, const std::vector<PromptRow>& rows,
                       const std::set<std::string>& done, const DistillArguments& arguments) {
    std::vector<Job> jobs;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (done.contains(rows[i].id)) continue;
        try {
            Prompt prompt = make_prompt(model, rows[i], false);
            const auto tokens = std::ssize(prompt.tokens);
            jobs.push_back({decoder.join(std::move(prompt), options_for(arguments.decoding, i)), i, tokens});
        } catch (const Error& error) {
            fmt::print(stderr, "left out: prompt '{}': {}\n", rows[i].id, error.what());
        }
    }
    return jobs;
}

}  // namespace

int run(const DistillArguments& arguments) {
    const std::vector<PromptRow> rows = read_prompts(arguments.prompts, arguments.limit);
    const std::set<std::string> done = finished_ids(arguments.output);
    const LlamaModel model = load_model(arguments.model);
    AnyDecoder decoder = make_decoder(model, std::make_unique<NoDraft>(), arguments.decoding);
    std::vector<Job> jobs = queue(decoder, model, rows, done, arguments);
    const std::int64_t all = std::ssize(jobs);

    std::ofstream out(arguments.output, std::ios::app);
    require(out.is_open(), "--output: '{}' cannot be written", arguments.output);
    Progress progress("distill", all);
    std::int64_t tokens = 0;
    while (!jobs.empty()) {
        decoder.step();
        // Only the first of the queue can have been decoded.
        const auto looked = std::min(std::ssize(jobs), arguments.decoding.batch);
        const auto finished = [&](const Job& job) {
            if (!decoder.finished(job.sequence)) return false;
            const GenerationResult result = decoder.take(job.sequence);
            out << to_json(rows[job.row], job, result, arguments.decoding.generation.temperature).dump() << std::endl;
            tokens += result.stats.tokens;
            return true;
        };
        const auto end = std::remove_if(jobs.begin(), jobs.begin() + looked, finished);
        jobs.erase(end, jobs.begin() + looked);
        require(out.good(), "--output: writing '{}' failed", arguments.output);
        progress.update(all - std::ssize(jobs), fmt::format("{} tokens", tokens));
    }
    fmt::print(stderr, "{}: {} answers, {} tokens; {} were there already\n", arguments.output, all, tokens, done.size());
    return 0;
}

}  // namespace outrider::cli
