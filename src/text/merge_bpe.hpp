// BPE by merges (Sennrich et al. 2016): one word to token ids, from bytes as in GPT-2 or from characters as in Llama.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/types.hpp>

namespace outrider::detail {

/// The bytes that a vocabulary entry of GPT-2's alphabet spells (256 printable characters, one for each byte); nothing
/// when the entry has other characters.
[[nodiscard]] std::optional<std::string> bytes_of_entry(std::string_view entry);

/// The entry that spells `byte`.
[[nodiscard]] const std::string& entry_of_byte(std::uint8_t byte);

struct BpeOptions {
    bool whole_words = false;    ///< a word that is a token is that token, whatever the merges say (ignore_merges)
    TokenId unknown = kNoToken;  ///< stands for a byte that has no token; kNoToken: such bytes are left out
    bool fuse_unknown = false;   ///< neighbouring unknown bytes are one token
    /// Words begin as characters; one that is no entry as its bytes, the entries "<0x00>" to "<0xFF>" (byte_fallback).
    bool characters = false;
};

/// Immutable once built; safe to share between threads.
class MergeBpe {
public:
    /// The work space of one thread; reused from word to word.
    struct Scratch {
        struct Symbol {
            TokenId id;
            std::int32_t previous, next;  // indices, -1 at the ends; id < 0: merged away
        };
        struct Candidate {
            std::int32_t rank, left;
            TokenId left_id, right_id, merged;
        };
        std::vector<Symbol> symbols;
        std::vector<Candidate> heap;
    };

    /// `entries`: the vocabulary in GPT-2's alphabet, or as it is for characters, by id; empty strings are no tokens.
    /// `merges`: pairs of entries, best first. Throws Error when a part or a result of a merge is no token.
    MergeBpe(const std::vector<std::string>& entries, const std::vector<std::pair<std::string, std::string>>& merges,
             const BpeOptions& options);

    /// Appends the ids of `word`.
    void encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& out) const;

private:
    struct Merge {
        std::int32_t rank;
        TokenId merged;
    };
    struct HashKey {
        std::size_t operator()(std::uint64_t key) const noexcept { return static_cast<std::size_t>(mix64(key)); }
    };

    static std::uint64_t key(TokenId left, TokenId right) {
        return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    }
    void spell(std::string_view word, Scratch& scratch) const;
    void offer(Scratch& scratch, std::int32_t left) const;
    void merge_all(Scratch& scratch) const;

    BpeOptions options_;
    std::array<TokenId, 256> byte_ids_;
    std::unordered_map<std::uint64_t, Merge, HashKey> merges_;
    std::unordered_map<std::string, TokenId> words_;       // by bytes; filled only when whole words go before merges
    std::unordered_map<std::string, TokenId> characters_;  // entries of one character, where words begin as those
};

}  // namespace outrider::detail
