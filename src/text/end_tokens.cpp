#include "end_tokens.hpp"

#include <algorithm>
#include <array>

#include "tokenizer_state.hpp"

// Names as in llama.cpp's src/llama-vocab.cpp (load: "auto-detect special tokens by text", special_eog_ids).
namespace outrider::detail {
namespace {

/// Ends of a turn, of a message and of a text.
constexpr std::array<std::string_view, 22> kEnds = {"<|eot_id|>",
                                                    "<|im_end|>",
                                                    "<|end|>",
                                                    "<|return|>",
                                                    "<|call|>",
                                                    "<|flush|>",
                                                    "<|calls|>",
                                                    "<end_of_turn>",
                                                    "<|endoftext|>",
                                                    "</s>",
                                                    "<|eom_id|>",
                                                    "<EOT>",
                                                    "_<EOT>",
                                                    "[EOT]",
                                                    "[EOS]",
                                                    "<|end_of_text|>",
                                                    "<end_of_utterance>",
                                                    "<eos>",
                                                    "<turn|>",
                                                    "<|tool_response>",
                                                    "[e~[",
                                                    "<\xEF\xBD\x9C"
                                                    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

}  // namespace

bool is_known_end(std::string_view name) { return std::ranges::find(kEnds, name) != kEnds.end(); }

const std::vector<FillMark>& fill_marks() {
    static const std::vector<FillMark> marks = {
        {"fim_pad_token_id", {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
        {"fim_rep_token_id", {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
        {"fim_sep_token_id", {"<|file_sep|>"}}};
    return marks;
}

void add_known_ends(TokenizerState& state, bool by_name) {
    const auto has = [&](const char* name) {
        const AddedToken* token = state.added.find(std::string(name));
        return token != nullptr && token->special;
    };
    // Where messages end with others, <|end|> only ends one channel of a message, and </s> is a mark like any other.
    const bool called = has("<|call|>") || has("<|calls|>");
    const bool channels = called && (has("<|return|>") || has("<|flush|>"));
    const bool plain_s = has("<|tool_response>") || has("<|plamo:eos|>");
    const bool all = by_name || (state.end_ids.empty() && !state.eos);
    for (const AddedToken& token : state.added.all()) {
        if (!token.special || !is_known_end(token.text)) continue;
        if ((channels && token.text == "<|end|>") || (plain_s && token.text == "</s>")) continue;
        const bool turn = token.text == "<|im_end|>" || token.text == "<|eot_id|>";
        if (all || turn || state.chat_template.find(token.text) != std::string::npos) state.end_ids.push_back(token.id);
    }
}

}  // namespace outrider::detail
