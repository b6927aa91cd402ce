// Answers one prompt with a trained CTC drafter:  01_generate MODEL.gguf DRAFTER_FOLDER "Why is the sky blue?"
#include <fmt/format.h>
#include <outrider/outrider.hpp>

#include <cstdio>

namespace {

void answer(const char* model_path, const char* drafter_path, const char* question) {
    // [readme]
    auto model = outrider::LlamaModel::load(model_path);
    outrider::SpeculativeDecoder decoder{outrider::CtcDraft::load(drafter_path, model),
                                         outrider::LlamaVerifier{model}, outrider::Match{}};
    const auto result = decoder.generate(model.chat(question), {.max_tokens = 128}, [](std::string_view text) {
        fmt::print("{}", text);
        return true;  // go on
    });
    fmt::print("\n{} tokens in {} passes of the target\n", result.stats.tokens, result.stats.rounds);
    // [readme]
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        fmt::print(stderr, "usage: {} MODEL.gguf DRAFTER_FOLDER PROMPT\n", argv[0]);
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
