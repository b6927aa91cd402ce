// outrider generate: answers prompts, as text on standard output or as JSON lines.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <optional>
#include <utility>

#include "arguments.hpp"
#include "engine.hpp"
#include "json_output.hpp"
#include "logprob_table.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "prompts_file.hpp"
#include "report.hpp"
#include "tree_choice.hpp"

namespace outrider::cli {
namespace {

std::vector<PromptRow> read_input(const GenerateArguments& arguments) {
    if (!arguments.prompts.empty()) return read_prompts(arguments.prompts, arguments.limit);
    std::string text = arguments.prompt.value_or("");
    if (!arguments.prompt) text = read_standard_input();
    if (!arguments.prompt && text.ends_with('\n')) text.pop_back();  // the shell's, not the user's
    require(!text.empty(), "the prompt is empty; give --prompt TEXT, --prompts FILE, or text on standard input");
    return {{.id = "prompt", .text = std::move(text), .messages = {}}};
}

nlohmann::ordered_json to_json(const PromptRow& row, const Prompt& prompt, const GenerationResult& result) {
    nlohmann::ordered_json line = {{"id", row.id},
                                   {"prompt_tokens", prompt.tokens.size()},
                                   {"token_ids", result.tokens},
                                   {"text", result.text},
                                   {"finish", to_string(result.finish)}};
    if (!result.logprobs.empty()) line["logprobs"] = logprobs_json(result, *prompt.text);
    line["stats"] = cli::to_json(result.stats);
    return line;
}

/// To standard output at once, so that people see text as it is made.
bool stream(std::string_view text) {
    print(text);
    flush_output();
    return true;
}

}  // namespace

int run(const GenerateArguments& arguments) {
    const std::vector<PromptRow> rows = read_input(arguments);
    refuse_inputs("--json", arguments.json, {arguments.prompts, arguments.model.path});
    ReportFile json("--json", arguments.json, ReportFile::Partial::kept);
    const LlamaModel model = load_model(arguments.model);
    std::vector<Prompt> prompts;
    for (const PromptRow& row : rows) prompts.push_back(make_prompt(model, row, arguments.model.raw));
    const std::string name = drafter_or_default(arguments.drafter, model);
    AnyDecoder decoder =
        make_decoder(model, load_drafter(name, model, arguments.model, arguments.decoding), arguments.decoding);
    check_tree(arguments.decoding.tree, decoder.drafter().kind());

    const bool texts = arguments.json != "-", streaming = texts && rows.size() == 1;
    std::vector<SequenceId> ids;
    for (std::size_t i = 0; i < rows.size(); ++i)
        ids.push_back(join(decoder, rows[i].id, prompts[i], options_for(arguments.decoding, prompts[i], rows[i].sample),
                           streaming ? Sink(stream) : Sink()));

    std::optional<ProgressLine> progress;
    if (rows.size() > 1) progress.emplace("generate", std::ssize(rows));
    for (std::size_t done = 0; done < rows.size(); ++done) {  // in the prompts' order, each as soon as it can
        while (!decoder.finished(ids[done])) decoder.step();
        const GenerationResult result = decoder.take(ids[done]);
        json.write_line(to_text(to_json(rows[done], prompts[done], result)));
        if (streaming)
            stream("\n");
        else if (texts)
            stream(fmt::format("### {}\n{}\n\n", rows[done].id, result.text));
        if (texts && !result.logprobs.empty())
            stream(logprob_table(result, *prompts[done].text) + (streaming ? "" : "\n"));
        if (progress) progress->update(static_cast<std::int64_t>(done) + 1);
    }
    json.finish();
    return 0;
}

}  // namespace outrider::cli
