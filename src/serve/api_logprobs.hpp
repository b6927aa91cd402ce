// Log-probabilities in the API's form. No tensors, no network.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>

#include "serve/api_request.hpp"

namespace outrider::serve {

/// A token as clients see it.
struct TokenName {
    std::string bytes;  ///< that it adds to a text; empty for special tokens
    std::string name;   ///< of a special token; else empty
};
using TokenNames = std::function<TokenName(TokenId)>;

/// Of one text, told whole or piece by piece: a token is told once the text is certain where it begins, so those that
/// a stop string cuts off, and end tokens, never are.
class LogprobWriter {
public:
    /// `top`: most probable tokens beside each.
    LogprobWriter(Endpoint endpoint, std::int64_t top, TokenNames names)
        : endpoint_(endpoint), top_(top), names_(std::move(names)) {}

    /// The next token.
    void push(TokenId token, TokenLogprobs logprobs);

    /// `text` became certain: the API's object of the tokens that begin in what is. Null: none.
    [[nodiscard]] nlohmann::ordered_json take(std::string_view text);

private:
    struct Waiting {
        TokenName name;
        TokenLogprobs logprobs;
        std::size_t begin;  ///< bytes before it
    };

    [[nodiscard]] nlohmann::ordered_json of_chat(const Waiting& token) const;
    void add_of_text(nlohmann::ordered_json& object, const Waiting& token);

    Endpoint endpoint_;
    std::int64_t top_;
    TokenNames names_;
    std::deque<Waiting> waiting_;
    std::size_t bytes_ = 0;    ///< of all tokens
    std::string text_;         ///< what is certain
    std::size_t counted_ = 0;  ///< bytes of it whose characters are in `characters_`
    std::int64_t characters_ = 0;
};

}  // namespace outrider::serve
