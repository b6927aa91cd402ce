// What a long prompt costs a text that is being decoded: the longest gap between two of its rounds, by rows a step.
//     prefill_gap MODEL.gguf [PROMPT = 4000] [THREADS = 0] [ROWS = 16,32,64,128,192,100000] [DRAFTER = ngram]
// DRAFTER: as make_drafter names them. One that reads features takes up those of the whole prompt in its first draft
// behind it, which is part of the gap. "usual" is the median time of its rounds while nobody enters, "gap" the
// longest time from the end of one of its rounds to the end of the next while the prompt enters, "piece" the longest
// prefill call where pieces have forwards of their own. The bar: gap <= 3 usual + piece. "one": pieces go with the
// trees in one forward, "two": they have their own.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/error.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

/// The verifier, with a clock at its prefill.
class TimedVerifier {
public:
    TimedVerifier(const LlamaModel& model, bool one)
        : verifier_(model, {.prefill_rows = 192, .pass_times_file = ""}), one_(one) {}
    Feedback prefill(std::span<const Prefill> prompts) {
        const double start = now_seconds();
        Feedback told = verifier_.prefill(prompts);
        longest_piece = std::max(longest_piece, now_seconds() - start);
        return told;
    }
    [[nodiscard]] bool extends() const { return verifier_.extends(); }
    [[nodiscard]] bool mixes() const { return one_ && verifier_.mixes(); }
    MixedOutput verify_beside(std::span<const SequenceTree> trees, std::span<const Prefill> prompts) {
        return verifier_.verify_beside(trees, prompts);
    }
    TreeOutput verify(std::span<const SequenceTree> trees) { return verifier_.verify(trees); }
    Feedback commit(std::span<const SequenceAcceptance> accepted) { return verifier_.commit(accepted); }
    void release(SequenceId id) { verifier_.release(id); }
    [[nodiscard]] std::int64_t vocabulary() const { return verifier_.vocabulary(); }
    [[nodiscard]] std::int64_t context() const { return verifier_.context(); }

    double longest_piece = 0;

private:
    LlamaVerifier verifier_;
    bool one_;
};

struct Gap {
    double usual = 0, gap = 0, piece = 0, first_token = 0;
    std::int64_t tokens = 0;  ///< of the running request while the prompt entered
};

struct Ask {
    const LlamaModel& model;
    std::string drafter;
    Prompt running, prompt;
};

Gap measure(const Ask& ask, std::int64_t rows, bool one) {
    TimedVerifier verifier(ask.model, one);
    SpeculativeDecoder decoder{
        make_drafter(ask.drafter, ask.model.head()), std::ref(verifier), {.nodes = 4, .prefill_rows = rows}};
    std::int64_t tokens = 0;
    (void)decoder.join(ask.running, {.max_tokens = 4000, .stop_at_end = false},
                       [&](std::span<const TokenId>) { ++tokens; });
    decoder.step();
    std::vector<double> rounds;
    for (int i = 0; i < 60; ++i) {
        const double start = now_seconds();
        decoder.step();
        rounds.push_back(now_seconds() - start);
    }
    std::ranges::sort(rounds);
    Gap gap{.usual = rounds[rounds.size() / 2]};
    tokens = 0, verifier.longest_piece = 0;
    bool through = false;
    (void)decoder.join(ask.prompt, {.max_tokens = 1}, [&](std::span<const TokenId>) { through = true; });
    const double start = now_seconds();
    for (double before = start; !through;) {
        decoder.step();
        const double now = now_seconds();
        gap.gap = std::max(gap.gap, now - std::exchange(before, now));
    }
    gap.first_token = now_seconds() - start, gap.piece = verifier.longest_piece, gap.tokens = tokens;
    return gap;
}

int run(int argc, char** argv) {
    require(argc >= 2, "usage: prefill_gap MODEL.gguf [PROMPT] [THREADS] [ROWS,..] [DRAFTER]");
    const int length = argc > 2 ? std::atoi(argv[2]) : 4000;
    const LlamaModel model = LlamaModel::load(argv[1], {.threads = argc > 3 ? std::atoi(argv[3]) : 0});
    std::stringstream list(argc > 4 ? argv[4] : "16,32,64,128,192,100000");
    std::string words = "Tell me about the sea, the wind and the ships that cross it. ";
    while (std::ssize(model.raw(words).tokens) < length) words += words;
    Prompt prompt = model.raw(words);
    prompt.tokens.resize(static_cast<std::size_t>(length));
    const Ask ask{model, argc > 5 ? argv[5] : "ngram", model.chat("Write a long story about a lighthouse."), prompt};
    fmt::print("{}, {} threads, drafts of {}, a prompt of {} tokens beside one running text\n",
               model.weights_description(), model.threads(), ask.drafter, length);
    fmt::print("  rows forwards  usual     piece       gap  3 usual + piece        first token  tokens meanwhile\n");
    for (std::string each; std::getline(list, each, ',');) {
        double bar = 0, piece = 0;
        for (const bool one : {false, true}) {
            const Gap gap = measure(ask, std::atoll(each.c_str()), one);
            if (!one) piece = gap.piece, bar = 3 * gap.usual + gap.piece;
            fmt::print("{:6} {:8} {:4.1f} ms {:6.1f} ms {:6.1f} ms {:6.1f} ms {}  {:8.2f} s  {:8}\n", each,
                       one ? "one" : "two", 1e3 * gap.usual, 1e3 * piece, 1e3 * gap.gap, 1e3 * bar,
                       gap.gap <= bar ? "(held)  " : "(missed)", gap.first_token, gap.tokens);
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
