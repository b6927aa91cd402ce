#include "sentencepiece_file.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

// Field numbers and defaults as in sentencepiece_model.proto; encoding as in protobuf's "Encoding" guide. The library's
// package has no header for its messages.
namespace outrider::detail {
namespace {

namespace tag {
constexpr std::uint64_t kPieces = 1, kTrainer = 2, kNormalizer = 3;
constexpr std::uint64_t kText = 1, kScore = 2, kKind = 3;
constexpr std::uint64_t kModelType = 3, kSuffix = 24, kByteFallback = 35;
constexpr std::uint64_t kUnknown = 45, kBos = 46, kEos = 47, kPad = 48;
constexpr std::uint64_t kCharsmap = 2, kDummyPrefix = 3, kCollapse = 4, kEscape = 5;
}  // namespace tag

constexpr std::uint64_t kUnigram = 1, kBpe = 2;

/// Fields of one message, one after another.
class WireReader {
public:
    WireReader(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    /// Goes to the next field; false at the end.
    bool next() {
        if (bytes_.empty()) return false;
        const std::uint64_t key = varint();
        number_ = key >> 3, value_ = 0, text_ = {};
        switch (key & 7) {
            case 0: value_ = varint(); break;
            case 1: text_ = take(8); break;
            case 2: text_ = take(varint()); break;
            case 5: text_ = take(4); break;
            default: damaged();
        }
        type_ = key & 7;
        return true;
    }

    [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
    [[nodiscard]] std::uint64_t integer() const { return expect(0), value_; }
    [[nodiscard]] std::string_view text() const { return expect(2), text_; }
    [[nodiscard]] float real() const {
        expect(5);
        float result = 0;
        std::memcpy(&result, text_.data(), sizeof(result));  // little-endian, like every machine the library runs on
        return result;
    }

private:
    [[noreturn]] void damaged() const {
        fail(ErrorKind::damaged_file, "{}: not a SentencePiece vocabulary, or a damaged one", name_);
    }
    void expect(std::uint64_t type) const {
        if (type_ != type) damaged();
    }

    std::string_view take(std::uint64_t size) {
        if (size > bytes_.size()) damaged();
        const std::string_view result = bytes_.substr(0, static_cast<std::size_t>(size));
        bytes_.remove_prefix(result.size());
        return result;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<std::uint8_t>(take(1)[0]);
            value |= std::uint64_t{byte & 0x7Fu} << shift;
            if (byte < 0x80) return value;
        }
        damaged();
    }

    std::string_view bytes_;
    const std::string& name_;
    std::uint64_t number_ = 0, type_ = 0, value_ = 0;
    std::string_view text_;
};

Piece read_piece(std::string_view bytes, const std::string& name) {
    Piece piece;
    for (WireReader in(bytes, name); in.next();) {
        if (in.number() == tag::kText)
            piece.text = in.text();
        else if (in.number() == tag::kScore)
            piece.score = in.real();
        else if (in.number() == tag::kKind)
            piece.kind = static_cast<PieceKind>(in.integer());
    }
    return piece;
}

void read_trainer(std::string_view bytes, SentencePieceFile& file, const std::string& name) {
    std::uint64_t model = kUnigram;
    for (WireReader in(bytes, name); in.next();) {
        switch (in.number()) {
            case tag::kModelType: model = in.integer(); break;
            case tag::kSuffix:
                require(in.integer() == 0, ErrorKind::not_supported,
                        "{}: a vocabulary that writes white space behind words is not supported", name);
                break;
            case tag::kByteFallback: file.byte_fallback = in.integer() != 0; break;
            case tag::kUnknown: file.unknown = in.text(); break;
            case tag::kBos: file.bos = in.text(); break;
            case tag::kEos: file.eos = in.text(); break;
            case tag::kPad: file.pad = in.text(); break;
            default: break;
        }
    }
    require(model == kUnigram || model == kBpe, ErrorKind::not_supported,
            "{}: a SentencePiece model of type {} is not supported; expected "
            "unigram ({}) or BPE ({})",
            name, model, kUnigram, kBpe);
    file.bpe = model == kBpe;
}

void read_normalizer(std::string_view bytes, SentencePieceFile& file, const std::string& name) {
    for (WireReader in(bytes, name); in.next();) {
        switch (in.number()) {
            case tag::kCharsmap: file.charsmap = in.text(); break;
            case tag::kDummyPrefix: file.dummy_prefix = in.integer() != 0; break;
            case tag::kCollapse: file.collapse_spaces = in.integer() != 0; break;
            case tag::kEscape:
                require(in.integer() != 0, ErrorKind::not_supported,
                        "{}: a vocabulary with spaces as they are is not supported; expected U+2581", name);
                break;
            default: break;
        }
    }
}

void put_varint(std::string& to, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
    to.push_back(static_cast<char>(value));
}
void put_integer(std::string& to, std::uint64_t number, std::uint64_t value) {
    put_varint(to, number << 3);
    put_varint(to, value);
}
void put_text(std::string& to, std::uint64_t number, std::string_view text) {
    put_varint(to, number << 3 | 2);
    put_varint(to, text.size());
    to += text;
}

/// A list of normalisation: the size of a double array (darts-clone), its units, and the replacements, each ended by a
/// zero. Walking it must stay inside whatever the text is: the library does not look.
bool charsmap_holds(std::string_view map) {
    std::uint32_t size = 0;
    if (map.size() <= sizeof(size)) return false;
    std::memcpy(&size, map.data(), sizeof(size));
    map.remove_prefix(sizeof(size));
    if (size == 0 || size % 1024 != 0 || size >= map.size() || map.back() != '\0') return false;
    const std::size_t units = size / 4, replacements = map.size() - size;
    const auto unit = [&](std::size_t at) {
        std::uint32_t value = 0;
        std::memcpy(&value, map.data() + 4 * at, sizeof(value));
        return value;
    };
    for (std::size_t i = 0; i < units; ++i) {
        const std::uint32_t u = unit(i);
        if (i > 0 && u >> 31 != 0) continue;  // a value, not a step; the root is walked whatever it says
        const std::size_t next = i ^ (static_cast<std::size_t>(u >> 10) << ((u & 0x200) >> 6));
        if ((next | 255) >= units) return false;  // any byte of text may follow
        if ((u & 0x100) != 0 && (unit(next) & 0x7FFFFFFF) >= replacements) return false;
    }
    return true;
}

}  // namespace

SentencePieceFile SentencePieceFile::parse(std::string_view bytes, const std::string& name) {
    SentencePieceFile file;
    for (WireReader in(bytes, name); in.next();) {
        if (in.number() == tag::kPieces)
            file.pieces.push_back(read_piece(in.text(), name));
        else if (in.number() == tag::kTrainer)
            read_trainer(in.text(), file, name);
        else if (in.number() == tag::kNormalizer)
            read_normalizer(in.text(), file, name);
    }
    require(!file.pieces.empty(), ErrorKind::damaged_file, "{}: not a SentencePiece vocabulary: it has no pieces",
            name);
    return file;
}

void SentencePieceFile::check(const std::string& name) const {
    require(pieces.size() < (std::size_t{1} << 24), ErrorKind::damaged_file, "{}: a vocabulary of {} tokens", name,
            pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const Piece& piece = pieces[i];
        const auto kind = static_cast<std::int32_t>(piece.kind);
        require(!piece.text.empty() && piece.text.find('\0') == std::string::npos && is_valid_utf8(piece.text),
                ErrorKind::damaged_file, "{}: token {} is empty or not UTF-8", name, i);
        require(kind >= 1 && kind <= 6, ErrorKind::damaged_file, "{}: token {} is of the type {}; expected 1 to 6",
                name, i, kind);
        require(std::isfinite(piece.score), ErrorKind::damaged_file, "{}: token {} has the score {}", name, i,
                piece.score);
    }
    require(charsmap.empty() || charsmap_holds(charsmap), ErrorKind::damaged_file,
            "{}: the rules of normalisation are damaged", name);
}

std::string SentencePieceFile::write() const {
    std::string bytes, part;
    for (const Piece& piece : pieces) {
        part.clear();
        put_text(part, tag::kText, piece.text);
        put_varint(part, tag::kScore << 3 | 5);
        const auto score = std::bit_cast<std::uint32_t>(piece.score);
        for (int shift = 0; shift < 32; shift += 8) part.push_back(static_cast<char>(score >> shift));
        put_integer(part, tag::kKind, static_cast<std::uint64_t>(piece.kind));
        put_text(bytes, tag::kPieces, part);
    }
    part.clear();
    put_integer(part, tag::kModelType, bpe ? kBpe : kUnigram);
    put_integer(part, tag::kByteFallback, byte_fallback ? 1 : 0);
    put_text(part, tag::kUnknown, unknown);
    put_text(part, tag::kBos, bos);
    put_text(part, tag::kEos, eos);
    put_text(part, tag::kPad, pad);
    put_text(bytes, tag::kTrainer, part);
    part.clear();
    if (!charsmap.empty()) put_text(part, tag::kCharsmap, charsmap);
    put_integer(part, tag::kDummyPrefix, dummy_prefix ? 1 : 0);
    put_integer(part, tag::kCollapse, collapse_spaces ? 1 : 0);
    put_text(bytes, tag::kNormalizer, part);
    return bytes;
}

}  // namespace outrider::detail
