#include "json_text.hpp"

#include <unordered_set>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/mapped_file.hpp>

namespace outrider::detail {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
    std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
        require(depth <= kMaxDepth, "{}: JSON nested more than {} levels deep", name, kMaxDepth);
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

Json read_json(const std::filesystem::path& path) {
    const SharedBytes file = SharedBytes::map(path);
    return parse_json({reinterpret_cast<const char*>(file.span().data()), file.size()}, path.string());
}

const Json& field(const Json& object, const char* key) {
    static const Json kNull;
    if (!object.is_object()) return kNull;
    const auto found = object.find(key);
    return found != object.end() ? *found : kNull;
}

bool flag(const Json& object, const char* key, bool fallback) {
    const Json& value = field(object, key);
    return value.is_boolean() ? value.get<bool>() : fallback;
}

std::string text(const Json& object, const char* key) {
    const Json& value = field(object, key);
    return value.is_string() ? value.get<std::string>() : std::string();
}

std::string shown(const Json& value) {
    const std::string whole = value.dump(-1, ' ', true);
    return whole.size() > 300 ? whole.substr(0, 300) + "..." : whole;
}

}  // namespace outrider::detail
