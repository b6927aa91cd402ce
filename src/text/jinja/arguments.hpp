// The arguments of a call, evaluated.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "value.hpp"

namespace outrider::jinja {

class Arguments {
public:
    std::vector<Value> placed;
    std::vector<std::pair<std::string, Value>> named;

    /// Says what the parameters of `callee` are called; operator[] works from now on. Throws Error for an argument that
    /// it does not have.
    void bind(std::string_view callee, std::initializer_list<std::string_view> names);

    /// Null where the call does not give it.
    [[nodiscard]] const Value* operator[](std::size_t i) const { return i < bound_.size() ? bound_[i] : nullptr; }

    /// Throws Error where the call does not give it.
    [[nodiscard]] const Value& needed(std::size_t i, std::string_view callee) const;

    [[nodiscard]] bool flag(std::size_t i, bool otherwise) const {
        return (*this)[i] ? is_true(*(*this)[i]) : otherwise;
    }
    [[nodiscard]] std::int64_t integer(std::size_t i, std::int64_t otherwise, std::string_view callee) const {
        return (*this)[i] ? integer_of(*(*this)[i], callee) : otherwise;
    }

    /// The first placed one, taken out of them: the filter's name in map("upper"). Throws Error when there is none.
    [[nodiscard]] Value take_first(std::string_view callee);

private:
    std::vector<const Value*> bound_;
};

}  // namespace outrider::jinja
