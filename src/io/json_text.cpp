#include "json_text.hpp"

#include <unordered_set>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/io/mapped_file.hpp>

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

}  // namespace outrider::detail
