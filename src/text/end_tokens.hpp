// Tokens that end a text by their names.
#pragma once

#include <string_view>
#include <vector>

namespace outrider {

struct TokenizerState;

namespace detail {

/// Whether llama.cpp takes a token of this name for a control token and an end, whatever a GGUF file says of its type.
[[nodiscard]] bool is_known_end(std::string_view name);

/// Marks of models that fill in code, which end a text in llama.cpp: each under its key in tokenizer.ggml, or else
/// under the first of the names that the vocabulary has.
struct FillMark {
    const char* key;
    std::vector<std::string_view> names;
};
[[nodiscard]] const std::vector<FillMark>& fill_marks();

/// Adds the tokens that end a text by their names to `end_ids`, where they are special. Every well-known name counts
/// where `by_name` says so (a GGUF file) and where no file names an end. Else "<|im_end|>" and "<|eot_id|>" do, and
/// those that the chat template writes.
void add_known_ends(TokenizerState& state, bool by_name);

}  // namespace detail
}  // namespace outrider
