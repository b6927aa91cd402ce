// The bodies of POST /v1/chat/completions and /v1/completions as values. No tensors, no network.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>
#include <outrider/text/chat_template.hpp>

namespace outrider::serve {

/// What a request may ask for at most, and what holds where it says nothing.
struct RequestLimits {
    GenerationOptions defaults = {};  ///< sampling and max_tokens of a request that names none
    std::int64_t choices = 16;        ///< of one request: prompts times n
    std::int64_t logprobs = 20;       ///< most probable tokens told beside each token
    std::size_t stops = 16;
};

enum class Endpoint : unsigned char { chat, text };

struct ApiRequest {
    Endpoint endpoint = Endpoint::chat;
    std::string model;                                                     ///< empty: not named
    Chat chat;                                                             ///< of Endpoint::chat
    std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  ///< of Endpoint::text
    GenerationOptions generation;  ///< `logprobs` as asked for; no constraint yet
    std::string schema = {};       ///< the JSON schema of response_format, in the order given; empty: any text
    std::int64_t n = 1;            ///< choices of each prompt
    bool stream = false, stream_usage = false;
};

/// Throws ApiError (400) with the name of the field that is wrong or not supported. A field that nobody knows is an
/// error: it would ask for something, and the answer would not show that it was not heard.
[[nodiscard]] ApiRequest parse_request(Endpoint endpoint, std::string_view body, const RequestLimits& limits);

}  // namespace outrider::serve
