// Bodies of shard_index.hpp.
#pragma once

#include <outrider/formats/detail/shard_index.hpp>

#include <string_view>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/json_text.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

OUTRIDER_INLINE std::map<std::string, std::string> read_shard_index(const std::filesystem::path& path) {
    const Json root = read_json(path);
    const auto map = root.is_object() ? root.find("weight_map") : root.end();
    require(root.is_object() && map != root.end() && map->is_object(), ErrorKind::damaged_file,
            "{}: expected weight_map, tensors with their "
            "files",
            path.string());
    std::map<std::string, std::string> result;
    for (const auto& [tensor, file] : map->items()) {
        const std::string shard = file.is_string() ? file.get<std::string>() : std::string();
        require(!shard.empty() && shard != "." && shard != ".." &&
                    shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos,
                ErrorKind::damaged_file, "{}: tensor {} is in \"{}\"; expected the name of a file in the same folder",
                path.string(), tensor, shard);
        result.emplace(tensor, shard);
    }
    return result;
}

}  // namespace outrider::detail
