// Constraints by schema, as clients ask for them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <outrider/core/constraint.hpp>
#include <outrider/core/prompt.hpp>

#include "text/grammar/schema_constraints.hpp"

namespace outrider::serve {

/// Safe from any thread.
class Constraints {
public:
    /// `text`, the detokenizer of `vocabulary` tokens, lives longer.
    Constraints(const Detokenizer& text, std::int64_t vocabulary) : known_(text, vocabulary) {}

    /// Throws ApiError for a schema that is none, or that the grammar cannot express.
    [[nodiscard]] std::shared_ptr<const Constraint> of(const std::string& schema);

private:
    outrider::detail::SchemaConstraints known_;
};

}  // namespace outrider::serve
