#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/text/grammar.hpp>

namespace outrider {

TokenTrie::TokenTrie(const Detokenizer& text, std::int64_t vocabulary)
    : same_(static_cast<std::size_t>(vocabulary), kNoToken), bytes_(static_cast<std::size_t>(vocabulary)) {
    for (std::size_t token = 0; token < bytes_.size(); ++token) {
        try {
            bytes_[token] = text.bytes(static_cast<TokenId>(token));
        } catch (const Error&) {  // a model may have more rows than its tokenizer has tokens
        }
    }
    std::vector<TokenId> sorted(bytes_.size());
    std::iota(sorted.begin(), sorted.end(), TokenId{0});
    std::ranges::stable_sort(sorted, {}, [&](TokenId token) -> std::string_view { return bytes(token); });
    nodes_.push_back({.end = 1});
    std::vector<std::int32_t> path{0};  // nodes of the last token's bytes
    for (const TokenId token : sorted) {
        const std::string& word = bytes(token);
        if (word.empty()) continue;
        std::size_t common = 0;
        while (common + 1 < path.size() && common < word.size() &&
               nodes_[static_cast<std::size_t>(path[common + 1])].byte == static_cast<std::uint8_t>(word[common]))
            ++common;
        path.resize(common + 1);
        for (std::size_t depth = common; depth < word.size(); ++depth) {
            path.push_back(static_cast<std::int32_t>(nodes_.size()));
            nodes_.push_back(
                {.byte = static_cast<std::uint8_t>(word[depth]), .depth = static_cast<std::int32_t>(depth) + 1});
        }
        Node& end = nodes_[static_cast<std::size_t>(path.back())];
        if (end.token == kNoToken)
            end.token = token;
        else
            same_[static_cast<std::size_t>(token)] = std::exchange(same_[static_cast<std::size_t>(end.token)], token);
        for (const std::int32_t node : path)
            nodes_[static_cast<std::size_t>(node)].end = static_cast<std::int32_t>(nodes_.size());
    }
}

std::vector<TokenId> TokenTrie::cut(std::string_view text) const {
    std::vector<TokenId> tokens;
    while (!text.empty()) {
        TokenId longest = kNoToken;
        std::size_t length = 0;
        std::int32_t at = 0;
        for (std::size_t depth = 0; depth < text.size(); ++depth) {
            std::int32_t child = at + 1;
            const std::int32_t end = nodes_[static_cast<std::size_t>(at)].end;
            while (child < end &&
                   nodes_[static_cast<std::size_t>(child)].byte != static_cast<std::uint8_t>(text[depth]))
                child = nodes_[static_cast<std::size_t>(child)].end;
            if (child >= end) break;
            at = child;
            if (const TokenId token = nodes_[static_cast<std::size_t>(at)].token; token != kNoToken)
                longest = token, length = depth + 1;
        }
        if (longest == kNoToken) break;
        tokens.push_back(longest);
        text.remove_prefix(length);
    }
    return tokens;
}

}  // namespace outrider
