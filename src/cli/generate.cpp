// outrider generate: answers prompts, as text on standard output or as JSON lines.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <ostream>
#include <utility>

#include <outrider/core/utf8_stream.hpp>

#include "arguments.hpp"
#include "engine.hpp"
#include <outrider/draft/nn/detail/progress.hpp>
#include "prompts_file.hpp"
#include "report.hpp"

namespace outrider::cli {
namespace {

std::vector<PromptRow> read_input(const GenerateArguments& arguments) {
    if (!arguments.prompts.empty()) return read_prompts(arguments.prompts, arguments.limit);
    std::string text = arguments.prompt.value_or("");
    if (!arguments.prompt) text.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (!arguments.prompt && text.ends_with('\n')) text.pop_back();  // the shell's, not the user's
    require(!text.empty(), "the prompt is empty; give --prompt TEXT, --prompts FILE, or text on standard input");
    return {{"prompt", std::move(text), {}}};
}

nlohmann::ordered_json to_json(const PromptRow& row, const Prompt& prompt, const GenerationResult& result) {
    nlohmann::ordered_json line = {{"id", row.id},
                                   {"prompt_tokens", prompt.tokens.size()},
                                   {"token_ids", result.tokens},
                                   {"text", to_valid_utf8(result.text)},
                                   {"finish", to_string(result.finish)}};
    line["stats"] = cli::to_json(result.stats);
    return line;
}

bool print(std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

/// Where the JSON lines go; nowhere without --json.
class JsonLines {
public:
    explicit JsonLines(const std::string& path) {
        if (path.empty()) return;
        if (path != "-") {
            file_.open(path);
            require(file_.is_open(), "--json: '{}' cannot be written", path);
        }
        out_ = path == "-" ? &std::cout : &file_;
    }

    void write(const nlohmann::ordered_json& line) {
        if (!out_) return;
        *out_ << line.dump() << std::endl;
        require(out_->good(), "--json: writing failed");
    }

private:
    std::ofstream file_;
    std::ostream* out_ = nullptr;
};

}  // namespace

int run(const GenerateArguments& arguments) {
    const std::vector<PromptRow> rows = read_input(arguments);
    JsonLines json(arguments.json);
    const LlamaModel model = load_model(arguments.model);
    std::vector<Prompt> prompts;
    for (const PromptRow& row : rows) prompts.push_back(make_prompt(model, row, arguments.model.raw));
    const std::string name = drafter_or_default(arguments.drafter, model);
    AnyDecoder decoder = make_decoder(model, load_drafter(name, model, arguments.model, arguments.decoding),
                                   arguments.decoding);

    const bool texts = arguments.json != "-", streaming = texts && rows.size() == 1;
    std::vector<SequenceId> ids;
    for (std::size_t i = 0; i < rows.size(); ++i)
        ids.push_back(join(decoder, rows[i].id, prompts[i], options_for(arguments.decoding, i),
                           streaming ? Sink(print) : Sink()));

    std::optional<Progress> progress;
    if (rows.size() > 1) progress.emplace("generate", std::ssize(rows));
    for (std::size_t done = 0; done < rows.size(); ++done) {  // in the prompts' order, each as soon as it can
        while (!decoder.finished(ids[done])) decoder.step();
        const GenerationResult result = decoder.take(ids[done]);
        if (streaming)
            print("\n");
        else if (texts)
            print(fmt::format("### {}\n{}\n\n", rows[done].id, result.text));
        json.write(to_json(rows[done], prompts[done], result));
        if (progress) progress->update(static_cast<std::int64_t>(done) + 1);
    }
    return 0;
}

}  // namespace outrider::cli
