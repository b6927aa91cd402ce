#include "serve/api_response.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

namespace outrider::serve {
namespace {

using Json = nlohmann::ordered_json;

/// An object of the answer with no choices yet.
Json shell(const AnswerHead& head, const char* chat_object) {
    return {{"id", head.id},
            {"object", head.endpoint == Endpoint::chat ? chat_object : "text_completion"},
            {"created", head.created},
            {"model", head.model},
            {"choices", Json::array()}};
}

Json piece_of(const AnswerHead& head, std::size_t choice, Json content, Json finish, Json logprobs = nullptr) {
    Json piece = shell(head, "chat.completion.chunk");
    Json one = {{"index", choice}};
    one[head.endpoint == Endpoint::chat ? "delta" : "text"] = std::move(content);
    one["logprobs"] = std::move(logprobs);
    one["finish_reason"] = std::move(finish);
    piece["choices"].push_back(std::move(one));
    return piece;
}

}  // namespace

AnswerHead answer_head(Endpoint endpoint, std::string model, std::int64_t created) {
    std::random_device bits;
    const std::uint64_t number = std::uint64_t{bits()} << 32 | bits();
    return {endpoint, fmt::format("{}-{:016x}", endpoint == Endpoint::chat ? "chatcmpl" : "cmpl", number), created,
            std::move(model)};
}

std::string finish_word(FinishReason finish) { return std::string(to_string(finish)); }

Json usage_of(const DecodeStats& stats) {
    return {{"prompt_tokens", stats.prompt_tokens},
            {"completion_tokens", stats.tokens},
            {"total_tokens", stats.prompt_tokens + stats.tokens},
            {"prompt_tokens_details", {{"cached_tokens", stats.resumed}}},
            {"completion_tokens_details",
             {{"accepted_prediction_tokens", stats.accepted},
              {"rejected_prediction_tokens", stats.drafted - stats.accepted},
              {"drafted_tokens", stats.drafted},
              {"target_passes", stats.rounds}}}};
}

DecodeStats summed(const std::vector<GenerationResult>& choices, std::int64_t n) {
    DecodeStats sum;
    for (std::size_t i = 0; i < choices.size(); ++i) {
        sum += choices[i].stats;
        if (static_cast<std::int64_t>(i) % n == 0) continue;
        sum.prompt_tokens -= choices[i].stats.prompt_tokens, sum.resumed -= choices[i].stats.resumed;
    }
    return sum;
}

Json whole_answer(const AnswerHead& head, const std::vector<GenerationResult>& choices, std::int64_t n,
                  std::vector<Json> logprobs) {
    logprobs.resize(choices.size());
    Json answer = shell(head, "chat.completion");
    for (std::size_t i = 0; i < choices.size(); ++i) {
        Json one = {{"index", i}};
        if (head.endpoint == Endpoint::chat)
            one["message"] = {{"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
        else
            one["text"] = choices[i].text;
        one["logprobs"] = std::move(logprobs[i]);
        one["finish_reason"] = finish_word(choices[i].finish);
        answer["choices"].push_back(std::move(one));
    }
    answer["usage"] = usage_of(summed(choices, n));
    return answer;
}

Json first_piece(const AnswerHead& head, std::size_t choice) {
    return piece_of(head, choice, {{"role", "assistant"}, {"content", ""}}, nullptr);
}

Json text_piece(const AnswerHead& head, std::size_t choice, std::string_view text, Json logprobs) {
    if (head.endpoint == Endpoint::chat)
        return piece_of(head, choice, {{"content", text}}, nullptr, std::move(logprobs));
    return piece_of(head, choice, text, nullptr, std::move(logprobs));
}

Json last_piece(const AnswerHead& head, std::size_t choice, FinishReason finish) {
    const Json nothing = head.endpoint == Endpoint::chat ? Json::object() : Json("");
    return piece_of(head, choice, nothing, finish_word(finish));
}

Json usage_piece(const AnswerHead& head, const DecodeStats& stats) {
    Json piece = shell(head, "chat.completion.chunk");
    piece["usage"] = usage_of(stats);
    return piece;
}

std::string event(const Json& piece) {
    return "data: " + piece.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n";
}

std::string metrics_text(const AsyncMetrics& m) {
    std::string text;
    const auto add = [&](const char* name, const char* kind, const char* help, auto value, const char* label = "") {
        if (*help) text += fmt::format("# HELP outrider_{0} {1}\n# TYPE outrider_{0} {2}\n", name, help, kind);
        text += fmt::format("outrider_{}{} {}\n", name, label, value);
    };
    add("requests_submitted_total", "counter", "Requests taken.", m.submitted);
    add("requests_refused_total", "counter", "Requests not taken: full queue, too little memory, closed.", m.refused);
    add("requests_ended_total", "counter", "Requests ended, by reason.", m.stopped, "{reason=\"stop\"}");
    add("requests_ended_total", "", "", m.length, "{reason=\"length\"}");
    add("requests_ended_total", "", "", m.cancelled, "{reason=\"cancelled\"}");
    add("requests_ended_total", "", "", m.deadline, "{reason=\"deadline\"}");
    add("requests_ended_total", "", "", m.failed, "{reason=\"failed\"}");
    add("requests_queued", "gauge", "Requests that wait.", m.queued);
    add("requests_active", "gauge", "Requests being decoded.", m.active);
    add("tokens_reserved", "gauge", "Tokens that the requests being decoded may come to hold.", m.tokens_held);
    add("queue_seconds_total", "counter", "Time that requests waited, summed.", m.queue_seconds);
    add("rounds_total", "counter", "Rounds of the decoder.", m.rounds);
    add("errors_total", "counter", "Rounds and callbacks that failed.", m.errors);
    add("prompt_tokens_total", "counter", "Tokens of prompts, of requests ended.", m.decoded.prompt_tokens);
    add("resumed_tokens_total", "counter", "Of these, found in texts that are kept.", m.decoded.resumed);
    add("tokens_total", "counter", "Tokens emitted, of requests ended.", m.decoded.tokens);
    add("passes_total", "counter", "Passes of the target that a request took part in.", m.decoded.rounds);
    add("drafted_tokens_total", "counter", "Tokens drafted.", m.decoded.drafted);
    add("accepted_tokens_total", "counter", "Drafted tokens kept.", m.decoded.accepted);
    add("prefill_seconds_total", "counter", "Time in prompts.", m.decoded.seconds.prefill);
    add("decoding_seconds_total", "counter", "Time in rounds.", m.decoded.seconds.decoding());
    return text;
}

}  // namespace outrider::serve
