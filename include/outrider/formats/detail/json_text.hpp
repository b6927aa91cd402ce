// JSON from files of strangers: bounded depth, no doubled keys, failures as Error.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace outrider::detail {

using Json = nlohmann::json;

/// Parses `text`; `name` stands in messages. NaN, Infinity and -Infinity, which Python writes, are read as strings of
/// that text. Throws Error for bad syntax, bad UTF-8, more than 64 levels or a key that occurs twice in one object.
[[nodiscard]] Json parse_json(std::string_view text, const std::string& name);

/// Throws Error for a text that nests deeper than `most` levels; syntax is not looked at. For documents that are parsed
/// by other means: whatever reads, copies or writes them goes down with them level by level.
void check_json_depth(std::string_view text, std::string_view name, int most = 200);

/// Parses a whole file. Throws Error.
[[nodiscard]] Json read_json(const std::filesystem::path& path);

/// `object[key]`, or null where there is none.
[[nodiscard]] const Json& field(const Json& object, const char* key);

/// The value at `key` where it is of that kind, else `fallback` or "".
[[nodiscard]] bool flag(const Json& object, const char* key, bool fallback);
[[nodiscard]] std::string text(const Json& object, const char* key);

/// What the library says of a fault, without its own class and number in front.
[[nodiscard]] std::string json_reason(const nlohmann::json::exception& error);

/// A value for messages: one line of ASCII, cut when long.
[[nodiscard]] std::string shown(const Json& value);

}  // namespace outrider::detail

#ifndef OUTRIDER_COMPILED
#include <outrider/formats/detail/json_text-inl.hpp>
#endif
