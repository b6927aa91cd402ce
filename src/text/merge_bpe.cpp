#include "merge_bpe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include <outrider/core/error.hpp>

namespace outrider::detail {
namespace {

/// Code points of GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes, in ascending
/// order, for U+0100 and up (openai/gpt-2, encoder.py, bytes_to_unicode).
struct Alphabet {
    std::array<std::string, 256> entries;
    std::array<std::int16_t, 512> bytes;

    Alphabet() {
        bytes.fill(-1);
        unsigned next = 256;
        for (unsigned byte = 0; byte < 256; ++byte) {
            const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
            const unsigned point = printable ? byte : next++;
            bytes[point] = static_cast<std::int16_t>(byte);
            if (point >= 0x80) entries[byte].push_back(static_cast<char>(0xC0 | (point >> 6)));
            entries[byte].push_back(static_cast<char>(point < 0x80 ? point : 0x80 | (point & 0x3F)));
        }
    }
};

const Alphabet& alphabet() {
    static const Alphabet instance;
    return instance;
}

/// Bytes of the UTF-8 character at the front of a text that is not empty.
std::size_t character_bytes(std::string_view text) {
    const auto first = static_cast<std::uint8_t>(text[0]);
    const std::size_t size = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    return std::min(size, text.size());
}

/// Best first: least rank, then leftmost. For std::push_heap, which puts the greatest on top.
constexpr auto kWorse = [](const auto& a, const auto& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
};

}  // namespace

std::optional<std::string> bytes_of_entry(std::string_view entry) {
    std::string result;
    for (std::size_t i = 0; i < entry.size(); ++i) {
        unsigned point = static_cast<std::uint8_t>(entry[i]);
        if (point >= 0x80) {
            if (point < 0xC2 || point > 0xC7 || i + 1 == entry.size()) return std::nullopt;
            const unsigned second = static_cast<std::uint8_t>(entry[++i]);
            if ((second & 0xC0) != 0x80) return std::nullopt;
            point = (point & 0x1F) << 6 | (second & 0x3F);
        }
        const int byte = alphabet().bytes[point];
        if (byte < 0) return std::nullopt;
        result.push_back(static_cast<char>(byte));
    }
    return result;
}

const std::string& entry_of_byte(std::uint8_t byte) { return alphabet().entries[byte]; }

MergeBpe::MergeBpe(const std::vector<std::string>& entries,
                   const std::vector<std::pair<std::string, std::string>>& merges, const BpeOptions& options)
    : options_(options) {
    require(merges.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), ErrorKind::damaged_file,
            "too many merges");
    std::unordered_map<std::string_view, TokenId> ids;
    ids.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!entries[i].empty()) ids.emplace(entries[i], static_cast<TokenId>(i));
    }
    const auto id_of = [&](std::string_view entry) {
        const auto found = ids.find(entry);
        return found != ids.end() ? found->second : kNoToken;
    };
    for (unsigned byte = 0; byte < 256; ++byte)
        byte_ids_[byte] = id_of(options.characters ? fmt::format("<0x{:02X}>", byte) : alphabet().entries[byte]);
    if (options.characters)
        for (const auto& [entry, id] : ids)
            if (entry.size() == character_bytes(entry)) characters_.emplace(entry, id);
    merges_.reserve(merges.size());
    std::int32_t rank = 0;
    for (const auto& [left, right] : merges) {
        const TokenId a = id_of(left), b = id_of(right), merged = id_of(left + right);
        require(a >= 0 && b >= 0 && merged >= 0, ErrorKind::damaged_file,
                "merge {} of the tokenizer joins \"{}\" and \"{}\": a part or the "
                "whole is not in the vocabulary",
                rank, left, right);
        merges_.emplace(key(a, b), Merge{rank++, merged});
    }
    if (!options.whole_words) return;
    for (const auto& [entry, id] : ids) {
        if (options.characters)
            words_.emplace(entry, id);
        else if (const auto bytes = bytes_of_entry(entry))
            words_.emplace(*bytes, id);
    }
}

void MergeBpe::offer(Scratch& scratch, std::int32_t left) const {
    const auto& a = scratch.symbols[static_cast<std::size_t>(left)];
    if (a.next < 0) return;
    const TokenId right_id = scratch.symbols[static_cast<std::size_t>(a.next)].id;
    const auto found = merges_.find(key(a.id, right_id));
    if (found == merges_.end()) return;
    scratch.heap.push_back({found->second.rank, left, a.id, right_id, found->second.merged});
    std::ranges::push_heap(scratch.heap, kWorse);
}

void MergeBpe::merge_all(Scratch& scratch) const {
    auto& symbols = scratch.symbols;
    while (!scratch.heap.empty()) {
        std::ranges::pop_heap(scratch.heap, kWorse);
        const Scratch::Candidate best = scratch.heap.back();
        scratch.heap.pop_back();
        auto& left = symbols[static_cast<std::size_t>(best.left)];
        if (left.id != best.left_id || left.next < 0) continue;  // merged since it was offered
        auto& right = symbols[static_cast<std::size_t>(left.next)];
        if (right.id != best.right_id) continue;
        left.id = best.merged;
        left.next = right.next;
        right.id = kNoToken;
        if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.left;
        offer(scratch, best.left);
        if (left.previous >= 0) offer(scratch, left.previous);
    }
}

void MergeBpe::spell(std::string_view word, Scratch& scratch) const {
    auto& symbols = scratch.symbols;
    symbols.clear();
    scratch.heap.clear();
    bool unknown_before = false;
    const auto put = [&](TokenId id) {
        const bool unknown = id < 0;
        if (unknown) id = options_.unknown;
        if (id >= 0 && !(unknown && unknown_before && options_.fuse_unknown)) {
            const auto i = static_cast<std::int32_t>(symbols.size());
            symbols.push_back({id, i - 1, i + 1});
        }
        unknown_before = unknown;
    };
    const auto id_of_byte = [&](char c) { return byte_ids_[static_cast<std::uint8_t>(c)]; };
    for (std::size_t i = 0, size = 1; i < word.size(); i += size) {
        size = options_.characters ? character_bytes(word.substr(i)) : 1;
        const std::string_view character = word.substr(i, size);
        const auto found = characters_.find(std::string(character));
        if (found != characters_.end())
            put(found->second);
        else if (std::ranges::all_of(character, [&](char c) { return id_of_byte(c) >= 0; }))
            for (const char c : character) put(id_of_byte(c));
        else
            put(kNoToken);
    }
    if (!symbols.empty()) symbols.back().next = -1;
}

void MergeBpe::encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& out) const {
    if (word.empty()) return;
    if (!words_.empty()) {
        if (const auto found = words_.find(std::string(word)); found != words_.end()) {
            out.push_back(found->second);
            return;
        }
    }
    require(word.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), ErrorKind::damaged_file,
            "a word of {} bytes is "
            "too long to tokenize",
            word.size());
    spell(word, scratch);
    const auto size = static_cast<std::int32_t>(scratch.symbols.size());
    for (std::int32_t i = 0; i + 1 < size; ++i) offer(scratch, i);
    merge_all(scratch);
    for (std::int32_t i = size > 0 ? 0 : -1; i >= 0; i = scratch.symbols[static_cast<std::size_t>(i)].next) {
        out.push_back(scratch.symbols[static_cast<std::size_t>(i)].id);
    }
}

}  // namespace outrider::detail
