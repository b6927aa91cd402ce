// Constraints by schema, shared by requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <outrider/core/constraint.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/text/grammar.hpp>

namespace outrider::detail {

/// What one schema's grammar has worked out serves the next request of the same schema. Safe from any thread.
class SchemaConstraints {
public:
    /// `text`, the detokenizer of `vocabulary` tokens, lives longer.
    SchemaConstraints(const Detokenizer& text, std::int64_t vocabulary) : text_(text), vocabulary_(vocabulary) {}

    /// Throws Error as Grammar::json_schema does.
    [[nodiscard]] std::shared_ptr<const Constraint> of(const std::string& schema) {
        constexpr std::size_t kMostSchemas = 16;  // times GrammarConstraint::kMostBytes
        const std::scoped_lock lock(mutex_);
        if (const auto found = known_.find(schema); found != known_.end()) return found->second;
        const Grammar grammar = Grammar::json_schema(schema);
        if (tokens_ == nullptr) tokens_ = std::make_shared<const TokenTrie>(text_, vocabulary_);
        auto constraint = std::make_shared<const GrammarConstraint>(grammar, tokens_);
        if (known_.size() >= kMostSchemas) known_.clear();  // running texts keep theirs
        known_.emplace(schema, constraint);
        return constraint;
    }

private:
    const Detokenizer& text_;
    std::int64_t vocabulary_;
    std::mutex mutex_;
    std::shared_ptr<const TokenTrie> tokens_;  ///< made for the first schema
    std::map<std::string, std::shared_ptr<const Constraint>> known_;
};

}  // namespace outrider::detail
