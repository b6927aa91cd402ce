// Bodies of json_text.hpp.
#pragma once

#include <outrider/formats/detail/json_text.hpp>

#include <algorithm>
#include <unordered_set>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/mapped_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

inline constexpr int kMaxJsonDepth = 64;

/// `text` with the numbers NaN, Infinity and -Infinity as strings. Python writes and reads them, JSON has none; as
/// strings they do no harm where nobody asks for them, and are named where somebody does.
OUTRIDER_INLINE std::string with_quoted_numbers(std::string_view text) {
    std::string result;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size();) {
        std::size_t size = 1;
        if (in_string && text[i] == '\\')
            size = std::min<std::size_t>(2, text.size() - i);
        else if (text[i] == '"')
            in_string = !in_string;
        const std::string_view rest = text.substr(i);
        for (const std::string_view number : {"NaN", "Infinity", "-Infinity"}) {
            if (in_string || !rest.starts_with(number)) continue;
            result += detail::written("\"{}\"", number);
            size = 0, i += number.size();
            break;
        }
        result += text.substr(i, size);
        i += size;
    }
    return result;
}

[[nodiscard]] Json parse_strict(std::string_view text, const std::string& name);

OUTRIDER_INLINE Json parse_json(std::string_view text, const std::string& name) {
    if (text.find("NaN") == std::string_view::npos && text.find("Infinity") == std::string_view::npos)
        return parse_strict(text, name);
    return parse_strict(with_quoted_numbers(text), name);
}

OUTRIDER_INLINE Json parse_strict(std::string_view text, const std::string& name) {
    std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
        const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
        require(depth + (opens ? 1 : 0) <= kMaxJsonDepth, ErrorKind::damaged_file,
                "{}: JSON nested more than {} levels deep", name, kMaxJsonDepth);
        if (event == Json::parse_event_t::object_start) {
            keys.emplace_back();
        } else if (event == Json::parse_event_t::object_end) {
            keys.pop_back();
        } else if (event == Json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            require(keys.back().insert(key).second, ErrorKind::damaged_file, "{}: the JSON key \"{}\" occurs twice",
                    name, key);
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), watch);
    } catch (const nlohmann::json::exception& error) {
        fail(ErrorKind::damaged_file, "{}: expected JSON: {}", name, json_reason(error));
    }
}

OUTRIDER_INLINE void check_json_depth(std::string_view text, std::string_view name, int most) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') {
            in_string = !in_string;
        } else if (in_string) {
            i += c == '\\' ? 1 : 0;
        } else if (c == '[' || c == '{') {
            require(++depth <= most, "{}: JSON nested more than {} levels deep", name, most);
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
}

OUTRIDER_INLINE std::string json_reason(const nlohmann::json::exception& error) {
    const std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    const auto end = what.find("] ");
    return std::string(what.starts_with("[json.") && end != std::string_view::npos ? what.substr(end + 2) : what);
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
