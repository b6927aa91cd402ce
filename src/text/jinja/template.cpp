#include "template.hpp"

#include <algorithm>

namespace outrider::jinja {

Template Template::parse(std::string_view source) {
    return Template(std::make_shared<const Program>(jinja::parse(source)));
}

Text Template::render(const Variables& variables, const DateFormatter& date, const Limits& limits) const {
    return Evaluator(*program_, limits, date).run(variables);
}

bool Template::mentions(std::string_view name) const {
    return std::ranges::find(program_->names, name) != program_->names.end();
}

}  // namespace outrider::jinja
