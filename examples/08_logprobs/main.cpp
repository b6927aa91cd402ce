// How sure is the model of its answer: the log-probability of every token, from the rows that verification computed.
// They are the same bits with drafts and without.
//     08_logprobs MODEL.gguf "Name a river of Europe."
#include <fmt/format.h>
#include <outrider/outrider.hpp>

#include <cmath>
#include <cstdio>
#include <string>

namespace {

using outrider::GenerationResult;

template <typename Draft>
GenerationResult answer(const outrider::LlamaModel& model, Draft draft, const char* question) {
    outrider::SpeculativeDecoder decoder{std::move(draft), outrider::LlamaVerifier{model}};
    return decoder.generate(model.chat(question), {.max_tokens = 48, .logprobs = 2});
}

bool show(const char* path, const char* question) {
    const auto model = outrider::LlamaModel::load(path);
    const GenerationResult drafted = answer(model, outrider::NgramDraft{}, question);
    const GenerationResult plain = answer(model, outrider::NoDraft{}, question);
    double sum = 0;
    for (std::size_t i = 0; i < drafted.tokens.size(); ++i) {
        const outrider::TokenLogprobs& at = drafted.logprobs[i];
        sum += at.logprob;
        if (at.logprob > std::log(0.5)) continue;
        fmt::print("{:3.0f} % '{}', ", 100 * std::exp(at.logprob), model.tokenizer().bytes(drafted.tokens[i]));
        fmt::print("{:3.0f} % '{}'\n", 100 * std::exp(at.top[1].logprob), model.tokenizer().bytes(at.top[1].token));
    }
    const bool same = drafted.tokens == plain.tokens && drafted.logprobs == plain.logprobs;
    fmt::print("{}\nperplexity {:.3f}, {}\n", drafted.text, std::exp(-sum / double(drafted.tokens.size())),
               same ? "the same bits without drafts" : "OTHER FIGURES WITHOUT DRAFTS");
    return same;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        fmt::print(stderr, "usage: {} MODEL.gguf PROMPT\n", argv[0]);
        return 2;
    }
    try {
        return show(argv[1], argv[2]) ? 0 : 1;
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
