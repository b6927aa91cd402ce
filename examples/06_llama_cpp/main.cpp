// Speculative decoding of a model that llama.cpp runs: see llama_cpp_verifier.hpp. Tokens and chat template are
// llama.cpp's too; drafters and loop are the library's. A trained drafter borrows embedding and output matrix from the
// same file.
//     06_llama_cpp MODEL.gguf DRAFTER "Why is the sky blue?" [TOKENS]     DRAFTER: ngram, a drafter's folder, lm:...,
//     a+b
#include <fmt/format.h>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/engine.hpp>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "llama_cpp_verifier.hpp"

namespace {

/// llama.cpp's vocabulary.
class Text final : public outrider::Detokenizer {
public:
    explicit Text(std::shared_ptr<llama_model> model) : model_(std::move(model)) {}

    [[nodiscard]] std::string bytes(outrider::TokenId token) const override {
        std::string piece(256, '\0');
        const int size = llama_token_to_piece(vocabulary(), token, piece.data(), 256, 0, false);
        piece.resize(static_cast<std::size_t>(std::max(size, 0)));
        return piece;
    }
    [[nodiscard]] const llama_vocab* vocabulary() const { return llama_model_get_vocab(model_.get()); }

private:
    std::shared_ptr<llama_model> model_;
};

outrider::Prompt chat(const std::shared_ptr<llama_model>& model, const std::string& question) {
    const auto text = std::make_shared<const Text>(model);
    const llama_chat_message message{"user", question.c_str()};
    std::string chat(question.size() * 2 + 1024, '\0');
    const int length = llama_chat_apply_template(llama_model_chat_template(model.get(), nullptr), &message, 1, true,
                                                 chat.data(), static_cast<int>(chat.size()));
    outrider::require(length > 0 && length <= std::ssize(chat), "llama.cpp does not know the model's chat template");
    outrider::Prompt prompt{.tokens = std::vector<outrider::TokenId>(static_cast<std::size_t>(length) + 8),
                            .text = text};
    const int tokens = llama_tokenize(text->vocabulary(), chat.data(), length, prompt.tokens.data(),
                                      static_cast<int>(prompt.tokens.size()), true, true);
    prompt.tokens.resize(static_cast<std::size_t>(std::max(tokens, 0)));
    for (outrider::TokenId token = 0; token < llama_vocab_n_tokens(text->vocabulary()); ++token)
        if (llama_vocab_is_eog(text->vocabulary(), token)) prompt.end_ids.push_back(token);
    return prompt;
}

std::string answer(const std::string& path, const std::shared_ptr<llama_model>& model, const std::string& drafter,
                   const std::string& question, std::int64_t tokens) {
    const int threads = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U));
    outrider::DrafterOptions options;
    options.ctc.threads = options.heads.threads = options.lm_model.threads = threads;
    outrider::SpeculativeDecoder decoder{make_drafter(drafter, outrider::TargetHead::from_gguf(path), options),
                                         example::LlamaCppVerifier{model, {.threads = threads}}};
    const auto result = decoder.generate(chat(model, question), {.max_tokens = tokens});
    const double seconds = result.stats.seconds.decoding();
    fmt::print("{:<40} {:6.1f} tokens a second, {:.2f} a pass ({} tokens, {} passes)\n", drafter,
               double(result.stats.tokens) / seconds, result.stats.beta(), result.stats.tokens, result.stats.rounds);
    return result.text;
}

void run(const std::string& path, const std::string& drafter, const std::string& question, std::int64_t tokens) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    const std::shared_ptr<llama_model> model(llama_model_load_from_file(path.c_str(), llama_model_default_params()),
                                             llama_model_free);
    outrider::require(model != nullptr, outrider::ErrorKind::damaged_file, "llama.cpp cannot read {}", path);
    const std::string plain = answer(path, model, "none", question, tokens);
    const std::string drafted = answer(path, model, drafter, question, tokens);
    fmt::print("{}\n{}\n", drafted,
               plain == drafted ? "the same without drafts" : "ANOTHER TEXT WITHOUT DRAFTS: " + plain);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4 || argc > 5) {
        fmt::print(stderr, "usage: {} MODEL.gguf DRAFTER PROMPT [TOKENS]\n", argv[0]);
        return 2;
    }
    try {
        run(argv[1], argv[2], argv[3], argc == 5 ? std::atoll(argv[4]) : 128);
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
    return 0;
}
