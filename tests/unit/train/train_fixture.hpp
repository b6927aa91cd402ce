// A target whose text follows a rule, text of it, and options for trainings of a second.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/train/train.hpp>

#include "../draft/ctc/ctc_fixture.hpp"
#include "../temporary_folder.hpp"

namespace outrider::test {

namespace fs = std::filesystem;

/// A target whose next token is a function of the last two, and whose feature of a token tells that function's value
/// through a fixed random table.
class ToyVerifier : public Verifier {
public:
    std::int64_t calls = 0;

    static TokenId next(TokenId before, TokenId last) {
        return static_cast<TokenId>((3 * last + before + 1) % (kToyVocabulary / 2) * 2 + 1);
    }

    Feedback prefill(std::span<const Prefill> prompts) override {
        static const at::Tensor table = noise({kToyVocabulary, kToyHidden}, 300, 2).to(at::kFloat);
        Feedback feedback;
        for (const Prefill& prompt : prompts) {
            ++calls;
            std::vector<std::int64_t> ids;
            for (std::size_t i = 0; i < prompt.tokens.size(); ++i)
                ids.push_back(next(i > 0 ? prompt.tokens[i - 1] : 0, prompt.tokens[i]));
            // The pending token is a committed one here: its feature belongs to the text as well.
            feedback.push_back({prompt.sequence,
                                {prompt.tokens.begin(), prompt.tokens.end()},
                                table.index_select(0, at::tensor(ids, at::kLong)),
                                prompt.pending,
                                static_cast<std::int64_t>(prompt.tokens.size())});
        }
        return feedback;
    }
    TreeOutput verify(std::span<const SequenceTree>) override { fail("not needed"); }
    Feedback commit(std::span<const SequenceAcceptance>) override { fail("not needed"); }
    void release(SequenceId) override {}
    std::int64_t vocabulary() const override { return kToyVocabulary; }
    std::int64_t context() const override { return 4096; }
};

/// The same text by a target of layers 1 to 8 whose final features tell nothing, while those after layer 3 tell the
/// token after the next one, which is the first that a drafter does not know. Layers get their columns in the order in
/// which they were asked for, the last of a call first.
class LayeredVerifier final : public ToyVerifier {
public:
    Feedback prefill(std::span<const Prefill> prompts) override {
        static const at::Tensor table = noise({kToyVocabulary, kToyHidden}, 301, 1.7).to(at::kFloat);
        Feedback feedback = ToyVerifier::prefill(prompts);
        for (std::size_t k = 0; k < feedback.size(); ++k) {
            SequenceFeedback& one = feedback[k];
            const std::int64_t rows = one.features.size(0);
            std::vector<std::int64_t> ids;
            for (std::size_t i = 0; i < one.tokens.size(); ++i)
                ids.push_back(next(one.tokens[i], next(i > 0 ? one.tokens[i - 1] : 0, one.tokens[i])));
            std::vector<at::Tensor> parts{noise({rows, kToyHidden}, 400, 2).to(at::kFloat)};
            for (const std::int64_t layer : prompts[k].features.layers)
                parts.push_back(
                    layer == 3 ? table.index_select(0, at::tensor(ids, at::kLong))
                               : noise({rows, kToyHidden}, 400 + static_cast<std::uint64_t>(layer), 1).to(at::kFloat));
            one.features = at::cat(parts, 1);
        }
        return feedback;
    }

    TargetHead head() {
        TargetHead head = toy_head();
        head.fingerprint = "toy with layers";
        head.feature_layers = 8;
        return head;
    }
};

/// One token a character, behind token 0.
inline std::vector<TokenId> toy_tokens(std::string_view text) {
    std::vector<TokenId> tokens{0};
    for (const char c : text) tokens.push_back(static_cast<TokenId>(static_cast<unsigned char>(c) % kToyVocabulary));
    return tokens;
}

/// Prompts of toy messages.
inline const PromptEncoder encode{
    .chat = [](std::span<const ChatMessage> messages) { return toy_tokens(messages.front().content); }};

/// A new folder, gone when the test program ends.
inline fs::path scratch() {
    static std::deque<test::TemporaryFolder> folders;
    return folders.emplace_back().path();
}

/// Rows `first` to first + rows of an endless text, in a file of their own; answers of `length` tokens.
inline fs::path toy_text(const fs::path& folder, int rows, int first = 0, std::size_t length = 24) {
    const fs::path path = folder / fmt::format("text-{}.jsonl", first);
    std::ofstream file(path);
    for (int i = first; i < first + rows; ++i) {
        const std::string prompt = {static_cast<char>('a' + i % 26), static_cast<char>('A' + i / 26 % 26),
                                    static_cast<char>('0' + i % 7)};
        std::vector<TokenId> tokens = toy_tokens(prompt);
        const auto prompt_tokens = tokens.size();
        while (tokens.size() < prompt_tokens + length)
            tokens.push_back(ToyVerifier::next(tokens[tokens.size() - 2], tokens.back()));
        file << nlohmann::json{{"messages",
                                {{{"role", "user"}, {"content", prompt}}, {{"role", "assistant"}, {"content", "-"}}}},
                               {"prompt_tokens", prompt_tokens},
                               {"completion_ids",
                                std::vector<TokenId>(tokens.begin() + static_cast<std::ptrdiff_t>(prompt_tokens),
                                                     tokens.end())},
                               {"temperature", i % 4 == 3 ? 0.7 : 0.0}}
                    .dump()
             << "\n";
    }
    return path;
}

inline TrainOptions toy_options(const fs::path& folder, std::int64_t anchors) {
    TrainOptions options;
    options.data = {toy_text(folder, 160)};
    options.output = folder / "drafter", options.features = folder / "features";
    options.held_out = 64, options.vocabulary = 32;
    options.batch_anchors = 64, options.group_anchors = 8, options.anchors = anchors, options.learning_rate = 4e-3,
    options.ema = 0.9;
    options.report_seconds = 0, options.checkpoint_minutes = 1e6, options.evaluate_minutes = 1e6, options.seed = 3;
    return options;
}

inline TrainTarget toy_target(Verifier* verifier) { return {toy_head(), verifier, "toy target", encode}; }

}  // namespace outrider::test
