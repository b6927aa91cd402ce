// Swaps drafters without changing a word of the text:  02_swap_drafters MODEL.gguf "PROMPT" [NAME ...]
// First as types: what is called is known when compiling. Then by name: a folder of a trained drafter, "ngram",
// "folder+ngram", chosen by the user of the program. The loop is the same template.
#include <fmt/format.h>
#include <outrider/outrider.hpp>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

namespace {

using outrider::LlamaVerifier;
using outrider::SpeculativeDecoder;

// [swap]
/// One answer with any drafter, by value or by pointer.
template <typename Draft>
std::string answer(const char* name, Draft draft, const outrider::LlamaModel& model, const char* prompt) {
    SpeculativeDecoder decoder{std::move(draft), LlamaVerifier{model}};
    const auto result = decoder.generate(model.chat(prompt), {.max_tokens = 48});
    fmt::print("{:<40} {:5.2f} tokens per pass\n", name, result.stats.beta());
    return result.text;
}
// [swap]

bool all_the_same(const outrider::LlamaModel& model, const char* prompt, int names, char** name) {
    // Types, at compile time.
    const std::string plain = answer("NoDraft", outrider::NoDraft{}, model, prompt);
    bool same = answer("NgramDraft", outrider::NgramDraft{}, model, prompt) == plain;
    const outrider::NgramOptions copies{.mode = outrider::NgramMode::copy};
    same = answer("MergedDraft of two", outrider::MergedDraft{outrider::NgramDraft{}, outrider::NgramDraft{copies}},
                  model, prompt) == plain &&
           same;

    // Names, at run time.
    for (int i = 0; i < names; ++i) {
        std::unique_ptr<outrider::DraftModel> draft = outrider::make_drafter(name[i], model.head());
        same = answer(name[i], std::move(draft), model, prompt) == plain && same;
    }
    fmt::print("{}\n{}\n", plain, same ? "every drafter gave this text" : "THE TEXTS DIFFER");
    return same;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        fmt::print(stderr, "usage: {} MODEL.gguf PROMPT [DRAFTER ...]\n", argv[0]);
        return 2;
    }
    try {
        return all_the_same(outrider::LlamaModel::load(argv[1]), argv[2], argc - 3, argv + 3) ? 0 : 1;
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
