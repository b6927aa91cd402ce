// A compiled body of outrider, and through it LibTorch, PCRE2 and SentencePiece, found by pkg-config's flags.
#include <outrider/core/error.hpp>
#include <outrider/target/llama_model.hpp>

#include <cstdio>
#include <cstring>

int main() {
    try {
        (void)outrider::LlamaModel::load("nowhere.gguf");
    } catch (const outrider::Error& error) {
        std::printf("%s\n", error.what());
        return std::strstr(error.what(), "nowhere.gguf") != nullptr ? 0 : 1;
    }
    return 1;
}
