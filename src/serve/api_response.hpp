// What the API answers: whole texts, pieces of a stream, figures. No tensors, no network.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/result.hpp>
#include <outrider/decode/request.hpp>

#include "serve/api_request.hpp"

namespace outrider::serve {

/// What all parts of one answer share.
struct AnswerHead {
    Endpoint endpoint = Endpoint::chat;
    std::string id;            ///< "chatcmpl-..." or "cmpl-..."
    std::int64_t created = 0;  ///< seconds since 1970
    std::string model;
};

/// A fresh id.
[[nodiscard]] AnswerHead answer_head(Endpoint endpoint, std::string model, std::int64_t created);

/// "stop", "length"; a text that something else ended says what.
[[nodiscard]] std::string finish_word(FinishReason finish);

/// `accepted_prediction_tokens` and `rejected_prediction_tokens` are the API's names for what drafts brought.
[[nodiscard]] nlohmann::ordered_json usage_of(const DecodeStats& stats);

/// Of all choices together; every `n` of them share a prompt, which counts once.
[[nodiscard]] DecodeStats summed(const std::vector<GenerationResult>& choices, std::int64_t n);

/// One finished answer; `choices` in the order of their index.
/// `logprobs`: of each in the API's form, null where they were not asked for; empty: of none.
[[nodiscard]] nlohmann::ordered_json whole_answer(const AnswerHead& head, const std::vector<GenerationResult>& choices,
                                                  std::int64_t n, std::vector<nlohmann::ordered_json> logprobs = {});

/// Pieces of a stream, each one object: the first of a choice (chat alone), one with text, the last of a choice, and
/// the one with the usage.
[[nodiscard]] nlohmann::ordered_json first_piece(const AnswerHead& head, std::size_t choice);
[[nodiscard]] nlohmann::ordered_json text_piece(const AnswerHead& head, std::size_t choice, std::string_view text,
                                                nlohmann::ordered_json logprobs = nullptr);
[[nodiscard]] nlohmann::ordered_json last_piece(const AnswerHead& head, std::size_t choice, FinishReason finish);
[[nodiscard]] nlohmann::ordered_json usage_piece(const AnswerHead& head, const DecodeStats& stats);

/// As an event of a stream; text that is no UTF-8 is replaced.
[[nodiscard]] std::string event(const nlohmann::ordered_json& piece);

/// In the text format of Prometheus.
[[nodiscard]] std::string metrics_text(const AsyncMetrics& metrics);

}  // namespace outrider::serve
