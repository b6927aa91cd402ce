// A JSON schema as GBNF.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/text/grammar.hpp>

namespace outrider {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDepth = 256;                  // of schemas inside each other, references followed
constexpr std::int64_t kMostRepetitions = 4096;  // what GBNF takes

// Numbers are bounded, so that every one of them is finite and every text comes to an end.
constexpr std::string_view kPrimitives = R"gbnf(
space ::= | " " | "\n" [ \t]{0,20}
char ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2}))
hex ::= [0-9a-fA-F]
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
object ::= "{" space ("\"" char* "\"" space ":" space value space ("," space "\"" char* "\"" space ":" space value space)*)? "}"
array ::= "[" space (value space ("," space value space)*)? "]"
)gbnf";

constexpr std::array kNotes{"title", "description", "default",  "examples",   "$schema",  "$id",
                            "$defs", "definitions", "readOnly", "deprecated", "$comment", "writeOnly"};

constexpr std::array<std::string_view, 7> kTypes{"object", "array", "string", "integer", "number", "boolean", "null"};

std::string literal_of(std::string_view text) {
    std::string literal = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') literal += '\\';
        literal += c;
    }
    return literal + '"';
}

class SchemaWriter {
public:
    explicit SchemaWriter(const Json& document) : document_(document) {}

    std::string write() {
        const std::string root = rule_of(document_, "#");
        return fmt::format("root ::= {}\n{}{}", root, rules_, kPrimitives);
    }

private:
    std::string add(const std::string& body) {
        std::string name = fmt::format("r{}", count_++);
        rules_ += fmt::format("{} ::= {}\n", name, body);
        return name;
    }

    /// A schema's rule; `where`: its place, for messages.
    std::string rule_of(const Json& schema, const std::string& where) {
        // Each step takes stack, and a chain of references is as long as its document.
        require(
            depth_ < kMostDepth, ErrorKind::not_supported,
            "JSON schema, {}: {} schemas inside each other, references followed, expected at most {}; write it flatter",
            where, depth_ + 1, kMostDepth);
        ++depth_;
        std::string rule = rule_here(schema, where);
        --depth_;
        return rule;
    }

    std::string rule_here(const Json& schema, const std::string& where) {
        if (schema.is_boolean() && schema.get<bool>()) return "value";
        require(schema.is_object(), "JSON schema, {}: expected an object or true", where);
        if (schema.contains("$ref")) return reference(schema, where);
        if (schema.contains("const")) return values(schema, "const", where);
        if (schema.contains("enum")) return values(schema, "enum", where);
        if (schema.contains("anyOf")) return any_of(schema, where);
        if (!schema.contains("type")) {
            if (schema.contains("properties")) return object(schema, where);
            if (schema.contains("items")) return array(schema, where);
            allow(schema, where, {});
            return "value";
        }
        const std::vector<std::string> types = types_of(schema, where);
        if (types.size() == 1) return typed(schema, types[0], where);
        std::vector<std::string> rules;
        for (const std::string& type : types) rules.push_back(typed(schema, type, where, true));
        return add(fmt::format("{}", fmt::join(rules, " | ")));
    }

    /// The names that `type` gives, each once: a name that came again would write all that is inside again, at every
    /// level.
    static std::vector<std::string> types_of(const Json& schema, const std::string& where) {
        const Json& given = schema["type"];
        const Json list = given.is_array() ? given : Json::array({given});
        require(!list.empty(), "JSON schema, {}: type must be a name or a list of names", where);
        std::vector<std::string> types;
        for (const Json& each : list) {
            require(each.is_string(), "JSON schema, {}: type must be a name or a list of names", where);
            auto type = each.get<std::string>();
            require(std::ranges::find(kTypes, type) != kTypes.end(),
                    "JSON schema, {}: unknown type {}, expected one of {}", where, type,
                    fmt::format("{}", fmt::join(kTypes, ", ")));
            require(std::ranges::find(types, type) == types.end(), "JSON schema, {}: type names {} twice", where, type);
            types.push_back(std::move(type));
        }
        return types;
    }

    static bool is_of(const Json& value, const std::string& type) {
        if (type == "object") return value.is_object();
        if (type == "array") return value.is_array();
        if (type == "string") return value.is_string();
        if (type == "boolean") return value.is_boolean();
        if (type == "null") return value.is_null();
        if (type == "number") return value.is_number();
        return value.is_number_integer() || (value.is_number_float() && std::trunc(value.get<double>()) == value);
    }

    /// Throws Error for keywords beside these that restrict the text.
    static void allow(const Json& schema, const std::string& where, std::initializer_list<std::string_view> known) {
        for (const auto& [key, value] : schema.items()) {
            const bool fine =
                std::ranges::find(known, key) != known.end() || std::ranges::find(kNotes, key) != kNotes.end();
            require(fine, ErrorKind::not_supported,
                    "JSON schema, {}: {} is not supported here; leave it out, or write a grammar", where, key);
        }
    }

    std::string typed(const Json& schema, const std::string& type, const std::string& where, bool among = false) {
        if (among) {  // keywords of the other types say nothing of this one
            Json own = schema;
            own["type"] = type;
            const auto keep = [&](std::initializer_list<const char*> keys, bool of_this) {
                for (const char* key : keys)
                    if (!of_this) own.erase(key);
            };
            keep({"properties", "required", "additionalProperties"}, type == "object");
            keep({"items", "minItems", "maxItems"}, type == "array");
            keep({"minLength", "maxLength"}, type == "string");
            return typed(own, type, where);
        }
        if (type == "object") return object(schema, where);
        if (type == "array") return array(schema, where);
        if (type == "string") return string(schema, where);
        allow(schema, where, {"type"});
        return type;  // the rule's name too
    }

    std::string reference(const Json& schema, const std::string& where) {
        allow(schema, where, {"$ref"});
        const auto to = schema["$ref"].is_string() ? schema["$ref"].get<std::string>() : std::string();
        require(to.starts_with('#'), ErrorKind::not_supported,
                "JSON schema, {}: $ref must point into this document, as #/$defs/NAME", where);
        const auto known = references_.find(to);
        if (known != references_.end()) return known->second;
        const Json::json_pointer pointer(to.substr(1));
        require(document_.contains(pointer), "JSON schema, {}: $ref {} leads nowhere", where, to);
        std::string name = fmt::format("ref{}", references_.size());
        references_.emplace(to, name);
        const std::string target = rule_of(document_.at(pointer), to);
        rules_ += fmt::format("{} ::= {}\n", name, target);
        return name;
    }

    /// The values of `enum` or `const`, as far as they are of the types that stand beside it.
    std::string values(const Json& schema, const char* key, const std::string& where) {
        allow(schema, where, {key, "type"});
        const Json& given = schema[key];
        const bool one = std::string_view(key) == "const";
        require(one || (given.is_array() && !given.empty()), "JSON schema, {}: enum must be a list of values", where);
        const Json list = one ? Json::array({given}) : given;
        const std::vector<std::string> types =
            schema.contains("type") ? types_of(schema, where) : std::vector<std::string>{};
        std::vector<std::string> words;
        for (const Json& value : list)
            if (types.empty() || std::ranges::any_of(types, [&](const auto& type) { return is_of(value, type); }))
                words.push_back(literal_of(value.dump()));
        require(!words.empty(),
                "JSON schema, {}: no value of {} is of type {}, so nothing is allowed; change one of them", where, key,
                fmt::format("{}", fmt::join(types, " or ")));
        return add(fmt::format("{}", fmt::join(words, " | ")));
    }

    std::string any_of(const Json& schema, const std::string& where) {
        allow(schema, where, {"anyOf"});
        require(schema["anyOf"].is_array() && !schema["anyOf"].empty(), "JSON schema, {}: anyOf must be a list", where);
        std::vector<std::string> rules;
        for (std::size_t i = 0; i < schema["anyOf"].size(); ++i)
            rules.push_back(rule_of(schema["anyOf"][i], fmt::format("{}/anyOf/{}", where, i)));
        return add(fmt::format("{}", fmt::join(rules, " | ")));
    }

    static std::int64_t number(const Json& schema, const char* key, std::int64_t otherwise, const std::string& where) {
        if (!schema.contains(key)) return otherwise;
        require(schema[key].is_number_integer() &&
                    (schema[key].is_number_unsigned() || schema[key].get<std::int64_t>() >= 0),
                "JSON schema, {}: {} must be a whole number", where, key);
        const auto value = schema[key].get<std::uint64_t>();
        require(value <= std::uint64_t{kMostRepetitions}, ErrorKind::not_supported,
                "JSON schema, {}: {} is {}, expected at most {}; leave it out, or give a smaller number", where, key,
                value, kMostRepetitions);
        return static_cast<std::int64_t>(value);
    }

    std::string string(const Json& schema, const std::string& where) {
        allow(schema, where, {"type", "minLength", "maxLength"});
        const std::int64_t least = number(schema, "minLength", 0, where), most = number(schema, "maxLength", -1, where);
        if (least == 0 && most < 0) return "string";
        require(most < 0 || least <= most, "JSON schema, {}: minLength is above maxLength", where);
        return add(most < 0 ? fmt::format(R"("\"" char{{{},}} "\"")", least)
                            : fmt::format(R"("\"" char{{{},{}}} "\"")", least, most));
    }

    std::string array(const Json& schema, const std::string& where) {
        allow(schema, where, {"type", "items", "minItems", "maxItems"});
        const std::int64_t least = number(schema, "minItems", 0, where), most = number(schema, "maxItems", -1, where);
        require(most < 0 || least <= most, "JSON schema, {}: minItems is above maxItems", where);
        if (most == 0) return add(R"("[" space "]")");
        const std::string item = schema.contains("items") ? rule_of(schema["items"], where + "/items") : "value";
        const std::string more = most < 0 ? fmt::format("{},", std::max<std::int64_t>(least - 1, 0))
                                          : fmt::format("{},{}", std::max<std::int64_t>(least - 1, 0), most - 1);
        const std::string items = fmt::format(R"({} space ("," space {} space){{{}}})", item, item, more);
        return add(fmt::format(R"("[" space {} "]")", least > 0 ? items : fmt::format("({})?", items)));
    }

    std::string object(const Json& schema, const std::string& where) {
        allow(schema, where, {"type", "properties", "required", "additionalProperties"});
        const Json properties = schema.value("properties", Json::object());
        require(properties.is_object(), "JSON schema, {}: properties must be an object", where);
        const std::set<std::string> required = required_of(schema, properties, where);
        if (properties.empty()) return map(schema, where);
        struct Pair {
            std::string rule;
            bool required;
        };
        std::vector<Pair> pairs;
        for (const auto& [key, value] : properties.items()) {
            const std::string inner = rule_of(value, where + "/properties/" + key);
            pairs.push_back({add(fmt::format(R"({} space ":" space {} space)", literal_of(Json(key).dump()), inner)),
                             required.contains(key)});
        }
        // From the last to the first: what may follow where no property has been written, and where one has.
        std::string first = R"("")", more = first;
        for (std::size_t i = pairs.size(); i-- > 0;) {
            const std::string here = pairs[i].rule + " " + more;
            const std::string next = R"("," space )" + here;
            first = pairs[i].required ? add(here) : add(here + " | " + first);
            more = pairs[i].required ? add(next) : add(next + " | " + more);
        }
        return add(fmt::format(R"("{{" space {} "}}")", first));
    }

    static std::set<std::string> required_of(const Json& schema, const Json& properties, const std::string& where) {
        std::set<std::string> required;
        for (const Json& key : schema.value("required", Json::array())) {
            require(key.is_string() && properties.contains(key.get<std::string>()),
                    "JSON schema, {}: required names {}, which is no property", where, key.dump());
            required.insert(key.get<std::string>());
        }
        return required;
    }

    /// An object without named properties.
    std::string map(const Json& schema, const std::string& where) {
        const Json extra = schema.value("additionalProperties", Json(true));
        if (extra.is_boolean() && !extra.get<bool>()) return add(R"("{" space "}")");
        if (extra.is_boolean()) return "object";
        const std::string pair =
            add(R"(string space ":" space )" + rule_of(extra, where + "/additionalProperties") + " space");
        return add(fmt::format(R"("{{" space ({} ("," space {})*)? "}}")", pair, pair));
    }

    const Json& document_;
    std::string rules_;
    std::map<std::string, std::string> references_;
    int count_ = 0, depth_ = 0;
};

}  // namespace

std::string json_schema_to_gbnf(std::string_view schema) {
    detail::check_json_depth(schema, "JSON schema");
    try {
        const Json document = Json::parse(schema);
        return SchemaWriter(document).write();
    } catch (const Json::exception& error) {  // no JSON, a pointer that is none, a list where a value is expected
        fail("JSON schema: {}", detail::json_reason(error));
    }
}

}  // namespace outrider
