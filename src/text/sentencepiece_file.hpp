// The fields of a SentencePiece vocabulary (tokenizer.model) that decide how text is encoded, read and written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::detail {

/// The numbers are those of the file's enumeration, which GGUF's token types copy.
enum class PieceKind : std::int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// U+2581, which stands for a space.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

struct Piece {
    std::string text;  ///< UTF-8, spaces as U+2581; "<0x0A>" for a byte
    float score = 0;
    PieceKind kind = PieceKind::normal;
};

/// A ModelProto (sentencepiece_model.proto of the library) without what training left in it.
struct SentencePieceFile {
    std::vector<Piece> pieces;  ///< by id
    bool bpe = false;           ///< else a unigram language model
    bool byte_fallback = false;
    bool dummy_prefix = true;  ///< a text is encoded with a space before it
    bool collapse_spaces = true;
    std::string charsmap;  ///< precompiled rules of normalisation
    std::string unknown = "<unk>", bos = "<s>", eos = "</s>", pad = "<pad>";

    /// Throws Error for bytes that are no such message and for kinds of model that are not supported. `name` stands in
    /// messages.
    [[nodiscard]] static SentencePieceFile parse(std::string_view bytes, const std::string& name);

    /// Throws Error for what the library would not survive: pieces that are no UTF-8, infinite scores, rules of
    /// normalisation that point outside of themselves.
    void check(const std::string& name) const;

    /// The message's bytes.
    [[nodiscard]] std::string write() const;
};

}  // namespace outrider::detail
