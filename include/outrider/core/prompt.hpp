// A prompt as the decoder takes it: ids, and what is needed to turn the answer into text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// From token ids back to bytes: all that the loop needs to know of a tokenizer. Immutable and safe to share between
/// threads. The bytes of a text are the bytes of its tokens one after another; one token may hold part of a UTF-8
/// character.
class OUTRIDER_API Detokenizer {
public:
    virtual ~Detokenizer() = default;

    /// The bytes that `token` adds to a text; empty for special tokens. Throws Error for ids outside the vocabulary.
    [[nodiscard]] virtual std::string bytes(TokenId token) const = 0;

protected:
    Detokenizer() = default;
    Detokenizer(const Detokenizer&) = default;
    Detokenizer& operator=(const Detokenizer&) = default;
};

/// Made by a model from chat messages or raw text, or by a host from ids alone (then only token callbacks work).
struct Prompt {
    std::vector<TokenId> tokens;                        ///< at least one
    std::vector<TokenId> end_ids = {};                  ///< the model's own end tokens
    std::shared_ptr<const Detokenizer> text = nullptr;  ///< needed by text callbacks and stop strings
};

/// The beginning of a conversation, up to where the user's words come next.
struct UserTurn {
    Prompt prompt;
    std::vector<std::string> stop = {};  ///< strings that end the user's words where no end token does
};

}  // namespace outrider
