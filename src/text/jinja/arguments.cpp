#include "arguments.hpp"

#include <algorithm>

namespace outrider::jinja {

void Arguments::bind(std::string_view callee, std::initializer_list<std::string_view> names) {
    require(placed.size() <= names.size(), "{}: {} arguments, expected at most {}", callee, placed.size(),
            names.size());
    bound_.assign(names.size(), nullptr);
    for (std::size_t i = 0; i < placed.size(); ++i) bound_[i] = &placed[i];
    for (const auto& [name, value] : named) {
        const auto found = std::ranges::find(names, name);
        require(found != names.end(), "{}: there is no argument '{}'", callee, name);
        const Value*& place = bound_[static_cast<std::size_t>(found - names.begin())];
        require(place == nullptr, "{}: the argument '{}' is given twice", callee, name);
        place = &value;
    }
}

const Value& Arguments::needed(std::size_t i, std::string_view callee) const {
    require((*this)[i] != nullptr, "{}: argument {} is missing", callee, i + 1);
    return *(*this)[i];
}

Value Arguments::take_first(std::string_view callee) {
    require(!placed.empty(), "{}: an argument is missing", callee);
    Value first = std::move(placed.front());
    placed.erase(placed.begin());
    return first;
}

}  // namespace outrider::jinja
