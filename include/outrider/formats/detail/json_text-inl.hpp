// Bodies of json_text.hpp.
#pragma once

#include <outrider/formats/detail/json_text.hpp>

#include <unordered_set>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/mapped_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

inline constexpr int kMaxJsonDepth = 64;

OUTRIDER_INLINE Json parse_json(std::string_view text, const std::string& name) {
    std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
        require(depth <= kMaxJsonDepth, "{}: JSON nested more than {} levels deep", name, kMaxJsonDepth);
        if (event == Json::parse_event_t::object_start) {
            keys.emplace_back();
        } else if (event == Json::parse_event_t::object_end) {
            keys.pop_back();
        } else if (event == Json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            require(keys.back().insert(key).second, "{}: the JSON key \"{}\" occurs twice", name, key);
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), watch);
    } catch (const nlohmann::json::exception& error) {
        fail("{}: expected JSON: {}", name, error.what());
    }
}

OUTRIDER_INLINE Json read_json(const std::filesystem::path& path) {
    const SharedBytes file = SharedBytes::map(path);
    return parse_json({reinterpret_cast<const char*>(file.span().data()), file.size()}, path.string());
}

OUTRIDER_INLINE const Json& field(const Json& object, const char* key) {
    static const Json kNull;
    if (!object.is_object()) return kNull;
    const auto found = object.find(key);
    return found != object.end() ? *found : kNull;
}

OUTRIDER_INLINE bool flag(const Json& object, const char* key, bool fallback) {
    const Json& value = field(object, key);
    return value.is_boolean() ? value.get<bool>() : fallback;
}

OUTRIDER_INLINE std::string text(const Json& object, const char* key) {
    const Json& value = field(object, key);
    return value.is_string() ? value.get<std::string>() : std::string();
}

OUTRIDER_INLINE std::string shown(const Json& value) {
    const std::string whole = value.dump(-1, ' ', true);
    return whole.size() > 300 ? whole.substr(0, 300) + "..." : whole;
}

}  // namespace outrider::detail
