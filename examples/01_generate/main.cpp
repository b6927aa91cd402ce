// Answers one prompt, drafting with a trained CTC drafter and n-grams merged:
//     01_generate MODEL.gguf DRAFTER_FOLDER+ngram "Why is the sky blue?"
#include <fmt/format.h>
#include <outrider/outrider.hpp>

#include <cstdio>

namespace {

void answer(const char* model_path, const char* drafter, const char* question) {
    // [readme]
    auto engine = outrider::Engine::open({.model = model_path, .drafter = drafter});
    const auto result =
        engine.chat(question, {.max_tokens = 128}, [](std::string_view text) { fmt::print("{}", text); });
    fmt::print("\n{} tokens in {} passes of the target\n", result.stats.tokens, result.stats.rounds);
    // [readme]
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        fmt::print(stderr, "usage: {} MODEL.gguf DRAFTER PROMPT\n", argv[0]);
        return 2;
    }
    try {
        answer(argv[1], argv[2], argv[3]);
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
    return 0;
}
