#include "sentencepiece_encoder.hpp"

#include <fmt/format.h>

#include <charconv>

#include <sentencepiece_processor.h>

#include <outrider/core/error.hpp>

namespace outrider::detail {

namespace {

/// The library takes a control piece of one character for text, and then fails; none of them may come from text.
SentencePieceFile without_control_names(SentencePieceFile file) {
    for (std::size_t i = 0; i < file.pieces.size(); ++i)
        if (file.pieces[i].kind == PieceKind::control) file.pieces[i].text = fmt::format("\x01 control {}", i);
    return file;
}

}  // namespace

struct SentencePieceEncoder::Processor {
    sentencepiece::SentencePieceProcessor library;

    Processor(const SentencePieceFile& file, const std::string& name) {
        std::string reason;
        try {
            const auto status = library.LoadFromSerializedProto(file.write());
            if (status.ok()) return;
            reason = status.error_message();
        } catch (const std::exception& error) {  // of its double array
            reason = error.what();
        }
        fail(ErrorKind::damaged_file, "{}: the SentencePiece vocabulary cannot be used: {}", name, reason);
    }
};

SentencePieceEncoder::SentencePieceEncoder(const SentencePieceFile& file, bool only_first, const std::string& name)
    : has_prefix_(file.dummy_prefix) {
    file.check(name);
    SentencePieceFile shown = without_control_names(file);
    whole_ = std::make_unique<const Processor>(shown, name);
    if (!has_prefix_ || !only_first) return;
    shown.dummy_prefix = false;
    middle_ = std::make_unique<const Processor>(shown, name);
}

SentencePieceEncoder::~SentencePieceEncoder() = default;

void SentencePieceEncoder::encode(std::string_view text, bool first, std::vector<TokenId>& out) const {
    if (text.empty()) return;
    std::vector<int> ids;
    const auto status = (first || !middle_ ? whole_ : middle_)->library.Encode(text, &ids);
    require(status.ok(), ErrorKind::damaged_file, "SentencePiece cannot encode a text of {} bytes: {}", text.size(),
            status.error_message());
    out.insert(out.end(), ids.begin(), ids.end());
}

std::string bytes_of(const Piece& piece) {
    if (piece.kind == PieceKind::control || piece.kind == PieceKind::unknown) return {};
    const std::string& text = piece.text;
    if (piece.kind == PieceKind::byte && text.size() == 6 && text.starts_with("<0x")) {
        unsigned byte = 0;
        const auto read = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
        if (read.ptr == text.data() + 5) return std::string(1, static_cast<char>(byte));
    }
    std::string bytes;
    for (std::size_t i = 0; i < text.size();) {
        const bool space = std::string_view(text).substr(i).starts_with(kSpaceMark);
        bytes += space ? ' ' : text[i];
        i += space ? kSpaceMark.size() : 1;
    }
    return bytes;
}

}  // namespace outrider::detail
