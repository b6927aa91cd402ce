// Text between special tokens to ids, by the library SentencePiece.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/types.hpp>

#include "sentencepiece_file.hpp"

namespace outrider::detail {

/// Immutable; safe to share between threads.
class SentencePieceEncoder {
public:
    /// `only_first`: only a text's beginning gets the space that the vocabulary asks for, not what follows special
    /// tokens. Throws Error for a vocabulary that the library refuses. `name` stands in messages.
    SentencePieceEncoder(const SentencePieceFile& file, bool only_first, const std::string& name);
    ~SentencePieceEncoder();

    /// Appends the ids of valid UTF-8. `first`: it begins a text.
    void encode(std::string_view text, bool first, std::vector<TokenId>& out) const;

    /// Whether the beginning of a text gets a space.
    [[nodiscard]] bool has_prefix() const noexcept { return has_prefix_; }

private:
    struct Processor;
    std::unique_ptr<const Processor> whole_, middle_;  // middle_: without the space, where it is needed
    bool has_prefix_ = false;
};

/// What each piece adds to a text; nothing for control and unknown ones.
[[nodiscard]] std::string bytes_of(const Piece& piece);

}  // namespace outrider::detail
