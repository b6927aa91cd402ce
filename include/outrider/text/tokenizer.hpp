// Text to token ids and back: byte-level BPE and SentencePiece, from GGUF metadata or Hugging Face files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

class GgufFile;
struct TokenizerState;  // src/text/tokenizer_state.hpp

/// Whether the text of a special token, "<|im_end|>", stands for that token or is text like any other. User text is
/// always `plain`, so that no user can close a turn.
enum class SpecialText { plain, parse };

/// Whether a text begins here or goes on after other tokens. It matters to SentencePiece vocabularies alone: they put
/// a space before a text.
enum class TextPlace { start, middle };

/// The bytes [begin, end) of a text.
struct TextSpan {
    std::size_t begin = 0, end = 0;
};

/// Immutable and safe to share between threads.
///
/// SentencePiece and spaces: the vocabularies of Llama 2 and its kin write "Hello" as "\u2581Hello", a space before the
/// text. In texts with special tokens every part after one gets it too, as in Llama's own code, llama.cpp and
/// `transformers` (legacy); only the first part does where the files say so (prepend_scheme "first", or "legacy": false
/// without a tokenizer.json). bytes() always spells it out, so the bytes of tokens can be joined in any pieces and no
/// space is lost or doubled; decode() leaves the first one out, being the inverse of encode().
class OUTRIDER_API Tokenizer final : public Detokenizer {
public:
    /// From the keys tokenizer.ggml.* of a GGUF file: byte-level BPE ("gpt2"), SentencePiece BPE ("llama"), or BPE over
    /// characters ("gemma4"). Keys such as add_bos_token and add_space_prefix go before what the pre-tokenizer's name
    /// implies. add_eos_token is for training texts: a prompt does not end with eos. Throws Error for a missing or
    /// damaged vocabulary, another model, and a pre-tokenizer that is not known; each is named.
    [[nodiscard]] static std::shared_ptr<const Tokenizer> from_gguf(const GgufFile& file);

    /// From a Hugging Face folder: its tokenizer.json, or its tokenizer.model where that is all there is, or where the
    /// other one holds a unigram vocabulary or a SentencePiece one with steps that cannot be read. Throws Error.
    [[nodiscard]] static std::shared_ptr<const Tokenizer> from_folder(const std::filesystem::path& folder);

    /// From a tokenizer.json with byte-level BPE, or with BPE over characters and bytes for the others (byte_fallback),
    /// as Llama 2's was converted from SentencePiece. Normalizers are applied: NFC, NFD, NFKC, NFKD, Nmt, Lowercase,
    /// Strip, StripAccents, Prepend, Replace and sequences of them. The files beside it say the rest, where they exist:
    /// tokenizer_config.json (bos and eos tokens, added tokens, chat template), special_tokens_map.json,
    /// added_tokens.json, chat_template.jinja, generation_config.json or config.json (end ids). A raw prompt begins
    /// with what the post-processor puts before a text; what it puts after one is for training and left out. Throws
    /// Error for every part that would be read wrong.
    [[nodiscard]] static std::shared_ptr<const Tokenizer> from_json(const std::filesystem::path& path);

    /// From a SentencePiece tokenizer.model, BPE or unigram. The files beside it say the rest as for from_json; tokens
    /// that were added later are those of tokenizer_config.json (added_tokens_decoder) and added_tokens.json. A prompt
    /// begins with bos unless tokenizer_config.json says otherwise. Throws Error.
    [[nodiscard]] static std::shared_ptr<const Tokenizer> from_sentencepiece(const std::filesystem::path& path);

    ~Tokenizer() override;

    /// The ids of `text`; no bos token is added. Bytes that are not UTF-8 count as U+FFFD. Bytes that the vocabulary
    /// has no token for (rare control characters, in some) become its unknown token, or are left out where it has none:
    /// so do Python's `tokenizers` and llama.cpp. Tokens that the vocabulary marks as added but not special are found
    /// in plain text too, as text.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text, SpecialText special,
                                              TextPlace place = TextPlace::start) const;

    /// The ids of a text that begins here and whose parts `plain` (ascending, without overlaps, at character
    /// boundaries) are user text: a special token is found where none of its bytes is in one. `text` is valid UTF-8.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text, std::span<const TextSpan> plain) const;

    /// The bytes of `tokens` joined, special tokens left out; see Utf8Stream and to_valid_utf8 for text. At the start
    /// of a text the space is left out that encode() put there.
    [[nodiscard]] std::string decode(std::span<const TokenId> tokens, TextPlace place = TextPlace::start) const;

    /// What a token adds to a text. Ids beyond the vocabulary add nothing: a model may have more rows than that, for
    /// padding, and may choose one. Throws Error for negative ids, as piece() and is_special() do.
    [[nodiscard]] std::string bytes(TokenId token) const override;

    /// A token to look at: the bytes, or the name of a special token.
    [[nodiscard]] std::string piece(TokenId token) const;

    [[nodiscard]] bool is_special(TokenId token) const;

    /// Whether a token was added to the vocabulary, special or not: such a one may lie beyond a model's rows.
    [[nodiscard]] bool is_added(TokenId token) const;

    /// The id of a special or added token by its text, "<|im_end|>".
    [[nodiscard]] std::optional<TokenId> find_special(std::string_view text) const;

    /// Ids are 0 to size() - 1. A model may have more rows than that.
    [[nodiscard]] std::int64_t size() const noexcept;

    [[nodiscard]] std::optional<TokenId> bos() const noexcept;

    /// The token that ends a text, as the files name it; one of end_ids().
    [[nodiscard]] std::optional<TokenId> eos() const noexcept;

    /// What a raw prompt begins with: bos, nothing, or the tokens of the vocabulary's own template.
    [[nodiscard]] const std::vector<TokenId>& leading_ids() const noexcept;

    /// True when a raw prompt begins with any.
    [[nodiscard]] bool adds_bos() const noexcept;

    /// Tokens that end a text. Those that the files name (eos, eos_token_id, GGUF's keys), special tokens "<|im_end|>"
    /// and
    /// "<|eot_id|>", and other well-known ends of texts and turns where the chat template writes them or no file names
    /// an end; GGUF: all of those, as in llama.cpp. Ascending.
    [[nodiscard]] const std::vector<TokenId>& end_ids() const noexcept;

    /// Source of the chat template, Jinja; empty when the files have none. See ChatTemplate.
    [[nodiscard]] const std::string& chat_template() const noexcept;

    /// Further chat templates by name ("tool_use"), where the files have several.
    [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& chat_templates() const noexcept;

    /// Names and texts of the tokens that a chat template may write: bos_token, eos_token, and the others that the
    /// files name so.
    [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& named_tokens() const noexcept;

    explicit Tokenizer(std::unique_ptr<const TokenizerState> state);

private:
    std::unique_ptr<const TokenizerState> state_;
};

}  // namespace outrider
