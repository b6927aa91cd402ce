#include "serve/api_request.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include "serve/api_error.hpp"

namespace outrider::serve {
namespace {

using Json = nlohmann::ordered_json;  // a schema's properties are written in the order given

[[noreturn]] void refuse(const std::string& field, const std::string& message, const char* code = "invalid_value") {
    throw ApiError(400, code, fmt::format("{}: {}", field, message), field);
}

[[noreturn]] void refuse_unsupported(const std::string& field, std::string_view remedy) {
    refuse(field, fmt::format("is not supported by this server; {}", remedy), "unsupported_parameter");
}

/// Reads the fields of a body one by one; what is left at the end nobody knows.
class Fields {
public:
    explicit Fields(Json body) : body_(std::move(body)) {}

    /// Null where it is absent or null.
    [[nodiscard]] Json take(const std::string& name) {
        const auto found = body_.find(name);
        if (found == body_.end()) return {};
        Json value = std::move(*found);
        body_.erase(found);
        return value;
    }

    template <typename Number>
    void number(const std::string& name, Number& value, const Range<Number>& range) {
        const Json given = take(name);
        if (given.is_null()) return;
        const bool fits = std::is_integral_v<Number> ? given.is_number_integer() : given.is_number();
        if (!fits || !in_range(given, range))
            refuse(name, fmt::format("expected {}, got {}", range.words(), given.dump().substr(0, 60)));
        value = given.get<Number>();
    }

    void boolean(const std::string& name, bool& value) {
        const Json given = take(name);
        if (given.is_null()) return;
        if (!given.is_boolean()) refuse(name, "expected true or false");
        value = given.get<bool>();
    }

    /// A field that is heard only where it asks for nothing.
    void only(const std::string& name, std::initializer_list<Json> nothing, std::string_view remedy) {
        const Json given = take(name);
        if (given.is_null() || std::find(nothing.begin(), nothing.end(), given) != nothing.end()) return;
        refuse_unsupported(name, remedy);
    }

    void nothing_left() const {
        if (!body_.empty())
            refuse(body_.begin().key(), "is no field that this server knows; leave it out", "unknown_parameter");
    }

private:
    template <typename Number>
    static bool in_range(const Json& given, const Range<Number>& range) {
        if constexpr (std::is_integral_v<Number>)
            // What is above the largest int64 comes as an unsigned number.
            if (std::is_signed_v<Number> && given.is_number_unsigned() &&
                given.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
                return false;
        if constexpr (std::is_unsigned_v<Number>)
            if (!given.is_number_unsigned()) return false;
        return range.holds(given.get<Number>());
    }

    Json body_;
};

/// What reads the document later goes down with it, level by level.
constexpr int kDeepest = 64;
/// Names of fields, all levels together: an object that keeps their order looks through them.
constexpr std::size_t kMostFields = 10'000;

Json read_body(std::string_view body) {
    std::size_t fields = 0;
    const auto small = [&fields](int depth, Json::parse_event_t event, const Json&) {
        if (depth > kDeepest)
            throw ApiError(400, "invalid_json", fmt::format("the body is nested deeper than {} levels", kDeepest));
        if (event == Json::parse_event_t::key && ++fields > kMostFields)
            throw ApiError(400, "invalid_json", fmt::format("the body has more than {} fields", kMostFields));
        return true;
    };
    Json json = Json::parse(body, small, false);
    if (json.is_discarded()) throw ApiError(400, "invalid_json", "the body is no JSON");
    if (!json.is_object()) throw ApiError(400, "invalid_json", "the body is no JSON object");
    return json;
}

std::string text_of(const Json& given, const std::string& field) {
    if (!given.is_string()) refuse(field, "expected a string");
    return given.get<std::string>();
}

std::vector<std::string> read_stops(const Json& given, std::size_t most) {
    std::vector<std::string> stops;
    if (given.is_null()) return stops;
    if (given.is_array())
        for (const Json& each : given) stops.push_back(text_of(each, "stop"));
    else
        stops.push_back(text_of(given, "stop"));
    if (stops.size() > most) refuse("stop", fmt::format("expected at most {} strings, got {}", most, stops.size()));
    for (const std::string& stop : stops) {
        if (stop.empty()) refuse("stop", "a stop string is empty");
        if (stop.size() > 1024) refuse("stop", "a stop string is longer than 1024 bytes");
    }
    return stops;
}

/// `seed` of any integer: the API's are signed.
std::optional<std::uint64_t> read_seed(const Json& given) {
    if (given.is_null()) return std::nullopt;
    if (!given.is_number_integer()) refuse("seed", "expected an integer");
    return given.is_number_unsigned() ? given.get<std::uint64_t>()
                                      : static_cast<std::uint64_t>(given.get<std::int64_t>());
}

std::vector<TokenId> read_tokens(const Json& given) {
    std::vector<TokenId> tokens;
    for (const Json& token : given) {
        if (!token.is_number_unsigned() || token.get<std::uint64_t>() > INT32_MAX)
            refuse("prompt", "expected a text, token ids, or a list of these");
        tokens.push_back(token.get<TokenId>());
    }
    return tokens;
}

void read_prompts(const Json& given, ApiRequest& request) {
    if (given.is_string() || (given.is_array() && !given.empty() && given[0].is_number())) {
        read_prompts(Json::array({given}), request);
        return;
    }
    if (!given.is_array() || given.empty()) refuse("prompt", "expected a text, token ids, or a list of these");
    for (const Json& each : given) {
        if (each.is_string())
            request.prompts.emplace_back(each.get<std::string>());
        else if (each.is_array() && !each.empty())
            request.prompts.emplace_back(read_tokens(each));
        else
            refuse("prompt", "expected a text, token ids, or a list of these, none empty");
    }
}

/// `content` as a list of parts, which clients send for plain text as well.
std::string joined_parts(const Json& parts) {
    std::string text;
    for (const Json& part : parts) {
        const bool is_text =
            part.is_object() && part.contains("type") && part["type"] == "text" && part.contains("text");
        if (!is_text) refuse("messages", "a part of a content is no text; this server reads text alone");
        text += text_of(part["text"], "messages");
    }
    return text;
}

void read_chat(Fields& fields, ApiRequest& request) {
    Json chat = {{"messages", fields.take("messages")}};
    if (!chat["messages"].is_array() || chat["messages"].empty())
        refuse("messages", "expected a list of at least one message");
    for (Json& message : chat["messages"])
        if (message.is_object() && message.contains("content") && message["content"].is_array())
            message["content"] = joined_parts(message["content"]);
    if (Json more = fields.take("chat_template_kwargs"); !more.is_null())
        chat["chat_template_kwargs"] = std::move(more);
    try {
        request.chat = Chat::from_json(chat.dump());
    } catch (const Error& error) {
        refuse("messages", error.what());
    }
}

/// {"token id": what is added to its logit}.
std::vector<std::pair<TokenId, float>> read_bias(const Json& given) {
    constexpr Range<double> range{.low = -100, .high = 100};  // the API's
    if (!given.is_object()) refuse("logit_bias", "expected an object of token ids and numbers");
    std::vector<std::pair<TokenId, float>> biases;
    for (const auto& [name, bias] : given.items()) {
        TokenId token = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), token);
        if (error != std::errc() || end != name.data() + name.size() || token < 0)
            refuse("logit_bias", fmt::format("'{}' is no token id", name.substr(0, 60)));
        if (!bias.is_number() || !range.holds(bias.get<double>()))
            refuse("logit_bias", fmt::format("expected {} for token {}", range.words(), token));
        biases.emplace_back(token, bias.get<float>());
    }
    return biases;
}

void read_sampling(Fields& fields, GenerationOptions& options, std::size_t most_stops) {
    const Range<std::int64_t> tokens{.low = 1, .high = ranges::kMaxTokens.high};
    fields.number("max_tokens", options.max_tokens, tokens);
    fields.number("max_completion_tokens", options.max_tokens, tokens);
    fields.number("temperature", options.temperature, ranges::kTemperature);
    fields.number("top_p", options.top_p, ranges::kTopP);
    fields.number("top_k", options.top_k, ranges::kTopK);
    fields.number("min_p", options.min_p, ranges::kMinP);
    fields.number("repetition_penalty", options.repetition_penalty, ranges::kRepetitionPenalty);
    if (const auto seed = read_seed(fields.take("seed"))) options.seed = seed;
    if (auto stops = read_stops(fields.take("stop"), most_stops); !stops.empty()) options.stop = std::move(stops);
    const Range<double> penalty{.low = -2, .high = 2};  // the API's
    fields.number("presence_penalty", options.presence_penalty, penalty);
    fields.number("frequency_penalty", options.frequency_penalty, penalty);
    if (const Json bias = fields.take("logit_bias"); !bias.is_null()) options.logit_bias = read_bias(bias);
}

/// Chat says whether and how many in two fields, texts in one.
void read_logprobs(Fields& fields, Endpoint endpoint, GenerationOptions& options, std::int64_t most) {
    const Range<std::int64_t> range{.low = 0, .high = most};
    std::int64_t top = -1;
    if (endpoint == Endpoint::text) {
        fields.number("logprobs", top, range);
    } else {
        bool wanted = false;
        fields.boolean("logprobs", wanted);
        fields.number("top_logprobs", top, range);
        if (top >= 0 && !wanted) refuse("top_logprobs", "asks for something only beside \"logprobs\": true");
        if (wanted) top = std::max<std::int64_t>(top, 0);
    }
    if (top >= 0) options.logprobs = top;
}

/// {"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name", "schema", ...}}.
/// Answers keep to a schema whether `strict` says so or not.
std::string read_format(const Json& given) {
    const char* field = "response_format";
    if (given.is_null()) return {};
    if (!given.is_object()) refuse(field, "expected an object with a type: text, json_object or json_schema");
    Fields format(given);
    const Json type = format.take("type");
    if (type == "text" || type == "json_object") {
        format.nothing_left();
        return type == "text" ? "" : R"({"type": "object"})";
    }
    if (type != "json_schema")
        refuse(field, "expected a type: text, json_object or json_schema", "unsupported_parameter");
    const Json outer = format.take("json_schema");
    format.nothing_left();
    if (!outer.is_object()) refuse(field, "expected {\"type\": \"json_schema\", \"json_schema\": {\"schema\": ...}}");
    Fields inner(outer);
    for (const char* note : {"name", "description", "strict"}) (void)inner.take(note);
    const Json schema = inner.take("schema");
    inner.nothing_left();
    if (!schema.is_object()) refuse(field, "expected a schema that is an object");
    return schema.dump();
}

/// What asks for something that is not there is refused by name.
void refuse_the_rest(Fields& fields) {
    const char* without = "leave it out";
    fields.only("tools", {Json::array()}, "describe the tools in a message");
    fields.only("tool_choice", {"none", "auto"}, without);
    fields.only("functions", {}, without);
    fields.only("function_call", {"none"}, without);
    fields.only("modalities", {Json::array({"text"})}, without);
    fields.only("audio", {}, without);
    fields.only("prediction", {}, "drafts need no help");
    fields.only("best_of", {1}, without);
    fields.only("echo", {false}, without);
    fields.only("suffix", {""}, without);
    // What concerns the provider of a service and not the text.
    for (const char* name :
         {"user", "store", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"})
        (void)fields.take(name);
    fields.nothing_left();
}

}  // namespace

ApiRequest parse_request(Endpoint endpoint, std::string_view body, const RequestLimits& limits) {
    Fields fields(read_body(body));
    ApiRequest request{.endpoint = endpoint, .model = {}, .chat = {}, .prompts = {}, .generation = limits.defaults};
    if (const Json model = fields.take("model"); !model.is_null()) request.model = text_of(model, "model");
    if (endpoint == Endpoint::chat)
        read_chat(fields, request);
    else
        read_prompts(fields.take("prompt"), request);
    read_sampling(fields, request.generation, limits.stops);
    read_logprobs(fields, endpoint, request.generation, limits.logprobs);
    request.schema = read_format(fields.take("response_format"));
    fields.number("n", request.n, Range<std::int64_t>{.low = 1, .high = limits.choices});
    if (request.n * static_cast<std::int64_t>(std::max<std::size_t>(request.prompts.size(), 1)) > limits.choices)
        refuse("n", fmt::format("a request may have {} choices, prompts times n", limits.choices));
    fields.boolean("stream", request.stream);
    if (const Json options = fields.take("stream_options"); !options.is_null()) {
        Fields more(options.is_object() ? options : Json{{"stream_options", options}});
        more.boolean("include_usage", request.stream_usage);
        (void)more.take("include_obfuscation");
        more.nothing_left();
    }
    refuse_the_rest(fields);
    return request;
}

}  // namespace outrider::serve
