// What a server serves: prompts of one model, and a decoder that answers them. No tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <outrider/core/constraint.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/types.hpp>
#include <outrider/decode/request.hpp>
#include <outrider/text/chat_template.hpp>

#include "serve/api_logprobs.hpp"

namespace outrider::serve {

/// Its functions are called from many threads at once.
class Served {
public:
    Served() = default;
    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;
    virtual ~Served() = default;

    /// Throw Error for what the template or the tokenizer refuses.
    [[nodiscard]] virtual Prompt chat(const Chat& chat) const = 0;
    [[nodiscard]] virtual Prompt text(std::string_view text) const = 0;

    /// Most tokens of a sequence, prompt and text together.
    [[nodiscard]] virtual std::int64_t context() const = 0;
    /// A token as clients see it.
    [[nodiscard]] virtual TokenName name(TokenId token) const = 0;

    /// What an answer by this JSON schema must be. Throws ApiError for a schema that is none or is not supported.
    [[nodiscard]] virtual std::shared_ptr<const Constraint> json(const std::string& schema) = 0;

    /// See AsyncDecoder::submit. What comes of the request is told by its callbacks.
    virtual void submit(Prompt prompt, GenerationOptions options, AsyncRequest request) = 0;
    [[nodiscard]] virtual AsyncMetrics metrics() const = 0;
};

}  // namespace outrider::serve
