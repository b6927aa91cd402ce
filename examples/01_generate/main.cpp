// Answers one prompt, drafting with a trained CTC drafter and n-grams merged:
//     01_generate MODEL.gguf DRAFTER_FOLDER+ngram "Why is the sky blue?"
#include <iostream>
#include <outrider/outrider.hpp>

namespace {

void answer(const char* model_path, const char* drafter, const char* question) {
    // [readme]
    auto engine = outrider::Engine::open({.model = model_path, .drafter = drafter});
    const auto result =
        engine.chat(question, {.max_tokens = 128}, [](std::string_view text) { std::cout << text << std::flush; });
    std::cout << '\n' << result.stats.tokens << " tokens in " << result.stats.rounds << " passes of the target\n";
    // [readme]
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: " << argv[0] << " MODEL.gguf DRAFTER PROMPT\n";
        return 2;
    }
    try {
        answer(argv[1], argv[2], argv[3]);
    } catch (const outrider::Error& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
