// Constraints by schema, shared by requests.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <outrider/core/constraint.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/text/grammar.hpp>

namespace outrider::serve {

/// What one schema's grammar has worked out serves the next request of the same schema. Safe from any thread.
class Constraints {
public:
    /// `text`, the detokenizer of `vocabulary` tokens, lives longer.
    Constraints(const Detokenizer& text, std::int64_t vocabulary) : text_(text), vocabulary_(vocabulary) {}

    /// Throws ApiError for a schema that is none, or that the grammar cannot express.
    [[nodiscard]] std::shared_ptr<const Constraint> of(const std::string& schema);

private:
    const Detokenizer& text_;
    std::int64_t vocabulary_;
    std::mutex mutex_;
    std::shared_ptr<const TokenTrie> tokens_;  ///< made for the first schema
    std::map<std::string, std::shared_ptr<const Constraint>> known_;
};

}  // namespace outrider::serve
