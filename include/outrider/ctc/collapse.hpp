// From an alignment (one symbol a frame) to the tokens it stands for (Graves et al. 2006, the map B).
#pragma once

#include <span>
#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

/// CTC's empty symbol inside an alignment. It is a class with its own parameters, never a token id.
inline constexpr TokenId kBlank = -1;

/// Merges neighbours that are equal, then drops blanks: (a, a, -, a, b) -> (a, a, b). Works on token ids and on
/// candidate indices alike; every negative symbol is kBlank.
inline void collapse(std::span<const TokenId> alignment, std::vector<TokenId>& tokens) {
    tokens.clear();
    TokenId previous = kBlank;
    for (const TokenId symbol : alignment) {
        if (symbol != kBlank && symbol != previous) tokens.push_back(symbol);
        previous = symbol;
    }
}

[[nodiscard]] inline std::vector<TokenId> collapse(std::span<const TokenId> alignment) {
    std::vector<TokenId> tokens;
    collapse(alignment, tokens);
    return tokens;
}

/// Frames that the shortest alignment of `tokens` needs: one a token, and a blank between equal neighbours. A label
/// longer than that in T frames has probability zero.
[[nodiscard]] inline std::size_t frames_needed(std::span<const TokenId> tokens) {
    std::size_t frames = tokens.size();
    for (std::size_t i = 1; i < tokens.size(); ++i) frames += tokens[i] == tokens[i - 1];
    return frames;
}

}  // namespace outrider
