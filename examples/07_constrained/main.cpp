// An answer that is JSON of a schema, drafted all the same: what the schema leaves no choice of is drafted for nothing,
// and drafts lose what it forbids before they are verified.
//     07_constrained MODEL.gguf "Name a river of Europe and its length in kilometres."
#include <fmt/format.h>
#include <outrider/outrider.hpp>
#include <outrider/text/grammar.hpp>

#include <cstdio>
#include <memory>

namespace {

constexpr const char* kSchema = R"({"type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "country": {"type": "string", "maxLength": 40},
                   "length_km": {"type": "integer"}, "navigable": {"type": "boolean"}},
    "required": ["name", "country", "length_km", "navigable"]})";

void answer(const char* model_path, const char* question) {
    const auto model = outrider::LlamaModel::load(model_path);
    // [json]
    const auto tokens = std::make_shared<outrider::TokenTrie>(model.tokenizer(), model.config().vocabulary);
    const auto json = std::make_shared<outrider::GrammarConstraint>(outrider::Grammar::json_schema(kSchema), tokens);
    outrider::SpeculativeDecoder decoder{outrider::NgramDraft{}, outrider::LlamaVerifier{model}};
    const auto result = decoder.generate(model.chat(question), {.max_tokens = 200, .constraint = json});
    // [json]
    fmt::print("{}\n{} tokens in {} passes of the target\n", result.text, result.stats.tokens, result.stats.rounds);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        fmt::print(stderr, "usage: {} MODEL.gguf PROMPT\n", argv[0]);
        return 2;
    }
    try {
        answer(argv[1], argv[2]);
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
    return 0;
}
