#include "serve/constraints.hpp"

#include <outrider/core/error.hpp>

#include "serve/api_error.hpp"

namespace outrider::serve {

std::shared_ptr<const Constraint> Constraints::of(const std::string& schema) {
    try {
        return known_.of(schema);
    } catch (const Error& error) {
        throw ApiError(400, "invalid_schema", error.what(), "response_format");
    }
}

}  // namespace outrider::serve
