// Speculative decoding of a model that is neither Llama nor made of tensors: see markov_verifier.hpp. Two sequences are
// decoded together, sampled; the library's n-gram drafter rides ahead, and the text is that of plain decoding.
#include <fmt/format.h>
#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "markov_verifier.hpp"

namespace {

template <typename Draft>
std::vector<std::string> tell(const char* name, Draft draft) {
    auto model = std::make_shared<example::MarkovModel>(example::kReading);
    outrider::SpeculativeDecoder decoder{std::move(draft), example::MarkovVerifier{model}};
    std::vector<outrider::SequenceId> ids;
    for (std::uint64_t stream = 0; stream < 2; ++stream)
        ids.push_back(decoder.join(example::prompt_of("the rider "),
                                   {.max_tokens = 200, .temperature = 0.5, .seed = 3, .stream = stream}));
    decoder.run();
    std::vector<std::string> texts;
    outrider::DecodeStats stats;
    for (const auto id : ids) {
        auto result = decoder.take(id);
        texts.push_back(std::move(result.text));
        stats += result.stats;
    }
    fmt::print("{:<8} {} bytes in {} rounds\n", name, stats.tokens, stats.rounds);
    return texts;
}

}  // namespace

int main() {
    const auto plain = tell("plain", outrider::NoDraft{}), drafted = tell("ngram", outrider::NgramDraft{});
    for (const std::string& text : plain) fmt::print("the rider {}\n", text);
    fmt::print("{}\n", plain == drafted ? "the same with and without drafts" : "THE TEXTS DIFFER");
    return plain == drafted ? 0 : 1;
}
