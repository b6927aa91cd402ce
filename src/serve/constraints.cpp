#include "serve/constraints.hpp"

#include <utility>

#include <outrider/core/error.hpp>

#include "serve/api_error.hpp"

namespace outrider::serve {
namespace {

constexpr std::size_t kMostSchemas = 64;

Grammar grammar_of(const std::string& schema) {
    try {
        return Grammar::json_schema(schema);
    } catch (const Error& error) {
        throw ApiError(400, "invalid_schema", error.what(), "response_format");
    }
}

}  // namespace

std::shared_ptr<const Constraint> Constraints::of(const std::string& schema) {
    const std::scoped_lock lock(mutex_);
    if (const auto found = known_.find(schema); found != known_.end()) return found->second;
    const Grammar grammar = grammar_of(schema);
    if (tokens_ == nullptr) tokens_ = std::make_shared<const TokenTrie>(text_, vocabulary_);
    auto constraint = std::make_shared<const GrammarConstraint>(grammar, tokens_);
    if (known_.size() >= kMostSchemas) known_.clear();  // running texts keep theirs
    known_.emplace(schema, constraint);
    return constraint;
}

}  // namespace outrider::serve
