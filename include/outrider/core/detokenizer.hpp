// From token ids back to bytes: all that the loop needs to know of a tokenizer.
#pragma once

#include <string>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// Immutable and safe to share between threads. The bytes of a text are the bytes of its tokens one after another; one
/// token may hold part of a UTF-8 character.
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

}  // namespace outrider
