#include "describe_model.hpp"

#include <filesystem>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <outrider/core/error.hpp>
#include <outrider/target/model_config.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/text/tokenizer.hpp>

#include "engine.hpp"
#include "formats/gguf.hpp"
#include "model_facts.hpp"
#include "target/checkpoint.hpp"
#include "target/model_backend.hpp"
#include "target/weight_forms.hpp"
#include "text.hpp"

namespace outrider::cli {
namespace {

/// What keeps a model from running, part by part; empty: nothing.
using Missing = std::vector<std::string>;

/// Calls `read`; what is wrong goes into `missing`.
template <typename Read>
void try_part(const char* part, Missing& missing, Read&& read) {
    try {
        read();
    } catch (const Error& error) {
        missing.push_back(fmt::format("{}: {}", part, error.what()));
    }
}

void check_target(const std::filesystem::path& path, const ModelFacts& facts, Missing& missing) {
    try_part("architecture", missing, [&] {
        if (std::filesystem::is_directory(path))
            (void)ModelConfig::from_hf(path);
        else
            (void)ModelConfig::from_gguf(GgufFile::open(path));
    });
    if (!facts.unreadable.empty())
        missing.push_back(fmt::format("number formats: {} cannot be read", fmt::join(facts.unreadable, ", ")));
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path, Missing& missing) {
    std::shared_ptr<const Tokenizer> tokenizer;
    try_part("tokenizer", missing, [&] {
        tokenizer = std::filesystem::is_directory(path) ? Tokenizer::from_folder(path)
                                                        : Tokenizer::from_gguf(GgufFile::open(path));
    });
    return tokenizer;
}

std::string tensor_table(const ModelFacts& facts) {
    std::vector<std::vector<std::string>> rows = {{"  kind", "tensors", "parameters", "size", "format"}};
    for (const TensorKind& kind : facts.tensors) {
        std::vector<std::string> formats;
        for (const auto& [name, count] : kind.formats)
            formats.push_back(kind.formats.size() == 1 ? name : fmt::format("{} {}", count, name));
        rows.push_back({"  " + kind.name, std::to_string(kind.tensors), std::to_string(kind.parameters),
                        readable_bytes(kind.bytes), fmt::format("{}", fmt::join(formats, ", "))});
    }
    return table(rows);
}

std::string token_names(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
    std::vector<std::string> names;
    for (const TokenId id : ids) names.push_back(fmt::format("{} {}", id, quote(tokenizer.piece(id))));
    return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

std::string tokenizer_lines(const ModelFacts& facts, const Tokenizer* tokenizer) {
    std::string lines = fmt::format("tokenizer: {}", facts.tokenizer.empty() ? "not said" : facts.tokenizer);
    if (tokenizer == nullptr) return lines + ", not supported\n";
    return lines + fmt::format(", {} tokens\n  texts begin with {}\n  texts end with {}\n", tokenizer->size(),
                               token_names(*tokenizer, tokenizer->leading_ids()),
                               token_names(*tokenizer, tokenizer->end_ids()));
}

std::string template_line(const ModelArguments& arguments, const Tokenizer* tokenizer) {
    if (tokenizer == nullptr) return "template: not looked at, for want of the tokenizer\n";
    std::vector<std::string> others;
    for (const auto& [name, source] : tokenizer->chat_templates()) others.push_back(name);
    const std::string more = others.empty() ? "" : fmt::format(" (also: {})", fmt::join(others, ", "));
    const std::string file = read_template(arguments.template_file);
    try {
        if (!file.empty()) {
            (void)ChatTemplate::parse(file);
            return fmt::format("template: {}, {} bytes, supported\n", quote(arguments.template_file), file.size());
        }
        if (!arguments.chat_template.empty()) return fmt::format("template: built-in {}\n", arguments.chat_template);
        (void)ChatTemplate::of(*tokenizer);
    } catch (const Error& error) {
        return fmt::format("template: {}{}\n", error.what(), more);
    }
    return fmt::format("template: the model's own, {} bytes, supported{}\n", tokenizer->chat_template().size(), more);
}

/// What the CPU's kernels hold of the matrices, and a token's keys and values, for each value of --weights.
std::string held_table(const std::filesystem::path& path, std::int64_t cache_values) {
    const Checkpoint checkpoint = Checkpoint::open(path, 0);
    if (!kernels_fit(checkpoint.config)) return {};
    std::vector<std::vector<std::string>> rows = {{"  --weights", "matrices", "a token in the cache"}};
    for (const Weights weights : {Weights::automatic, Weights::stored, Weights::bf16, Weights::int8, Weights::f32}) {
        const std::size_t bytes = kernel_target::packed_bytes(*checkpoint.source, checkpoint.config, weights);
        const std::int64_t value = weights == Weights::f32 ? 4 : 2;  // f16 elsewhere
        rows.push_back({"  " + std::string(name_of(weights)), readable_bytes(static_cast<std::int64_t>(bytes)),
                        readable_bytes(value * cache_values)});
    }
    return table(rows);
}

/// `held`: see held_table; empty where the model cannot be run.
std::string memory_lines(const ModelFacts& facts, const std::string& held) {
    constexpr std::int64_t kCacheBytes = 2;  // f16, but with --weights f32
    std::string lines = fmt::format("memory\n  weights as stored: {}\n", readable_bytes(facts.bytes()));
    if (!facts.cache_values) return lines + "  cache of keys and values: not known\n";
    const std::int64_t token = *facts.cache_values * kCacheBytes;
    lines += fmt::format("  cache of keys and values: {} a token", readable_bytes(token));
    if (facts.context)
        lines +=
            fmt::format(", {} for the whole context of {}", readable_bytes(token * *facts.context), *facts.context);
    return lines + '\n' + held;
}

std::string drafter_lines(const ModelFacts& facts, bool runs) {
    if (!runs) return "drafters: none, while the model itself cannot be run\n";
    const auto size = [](const std::optional<std::int64_t>& value) { return value ? fmt::format("{}", *value) : "?"; };
    const std::string fits =
        fmt::format("for hidden size {} and {} rows of output", size(facts.hidden), size(facts.rows));
    return fmt::format(
        "drafters\n"
        "  none, ngram, ngram:copy, ngram:maxgram: fit any model\n"
        "  lm:CHECKPOINT: a smaller model with the same tokenizer\n"
        "  ctc: folders made by `outrider train --kind ctc` on this model\n"
        "  medusa, hydra: published or trained heads {0}\n"
        "  eagle, eagle3, mtp, dflash: not supported\n",
        fits);
}

}  // namespace

std::string describe_model(const ModelArguments& arguments) {
    const std::filesystem::path path = arguments.path;
    const ModelFacts facts = read_facts(path);
    Missing missing;
    check_target(path, facts, missing);
    const auto tokenizer = load_tokenizer(path, missing);
    std::string held;
    if (missing.empty()) try_part("tensors", missing, [&] { held = held_table(path, facts.cache_values.value_or(0)); });
    std::string text = fmt::format("model: {}, {}\n", quote(arguments.path), facts.format);
    if (!facts.name.empty()) text += fmt::format("name: {}\n", quote(facts.name));
    text += fmt::format("family: {}\n", facts.family.empty() ? "not said" : quote(facts.family));
    text += missing.empty() ? "supported: yes\n" : "supported: no\n";
    for (const std::string& part : missing) text += fmt::format("  {}\n", part);
    for (const auto& [label, value] : facts.sizes) text += fmt::format("{}: {}\n", label, value);
    text += fmt::format("tensors: {}, {} parameters, {}\n{}", facts.count(), facts.parameters(),
                        readable_bytes(facts.bytes()), tensor_table(facts));
    return text + tokenizer_lines(facts, tokenizer.get()) + template_line(arguments, tokenizer.get()) +
           memory_lines(facts, held) + drafter_lines(facts, missing.empty());
}

}  // namespace outrider::cli
