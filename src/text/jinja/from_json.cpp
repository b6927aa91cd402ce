#include "from_json.hpp"

#include <limits>

namespace outrider::jinja {

Value from_json(const nlohmann::ordered_json& json, Meter& meter) {
    const Meter::Level level(meter);
    switch (json.type()) {
        case nlohmann::ordered_json::value_t::null: return None{};
        case nlohmann::ordered_json::value_t::boolean: return Value(json.get<bool>());
        case nlohmann::ordered_json::value_t::number_integer: return Value(json.get<std::int64_t>());
        case nlohmann::ordered_json::value_t::number_unsigned:
            require(json.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()},
                    "the integer {} is beyond 64 bits with a sign", json.get<std::uint64_t>());
            return Value(json.get<std::int64_t>());
        case nlohmann::ordered_json::value_t::number_float: return Value(json.get<double>());
        case nlohmann::ordered_json::value_t::string: return Value(Text(json.get<std::string>(), Origin::user));
        case nlohmann::ordered_json::value_t::array: {
            std::vector<Value> items;
            for (const auto& item : json) items.push_back(from_json(item, meter));
            return Value::list(std::move(items));
        }
        default: {
            auto dict = std::make_shared<Dict>();
            for (const auto& [key, value] : json.items())
                dict->set(Value(Text(key, Origin::user)), from_json(value, meter), meter);
            return Value(std::shared_ptr<const Dict>(std::move(dict)));
        }
    }
}

}  // namespace outrider::jinja
