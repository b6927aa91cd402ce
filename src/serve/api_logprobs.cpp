#include "serve/api_logprobs.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include <outrider/core/detail/utf8_stream.hpp>

namespace outrider::serve {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no infinity; this is how the API writes what cannot be.
double finite(double logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

/// A string for any token: part of a character as "bytes:\\xe2\\x82".
std::string text_of(const TokenName& token) {
    if (token.bytes.empty()) return token.name;
    if (is_valid_utf8(token.bytes)) return token.bytes;
    std::string text = "bytes:";
    for (const char byte : token.bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    return text;
}

Json one(const TokenName& token, double logprob) {
    Json bytes;  // null: of a special token
    if (!token.bytes.empty() || token.name.empty()) {
        bytes = Json::array();
        for (const char byte : token.bytes) bytes.push_back(static_cast<unsigned char>(byte));
    }
    return {{"token", text_of(token)}, {"logprob", finite(logprob)}, {"bytes", std::move(bytes)}};
}

}  // namespace

void LogprobWriter::push(TokenId token, TokenLogprobs logprobs) {
    TokenName name = names_(token);
    const std::size_t begin = bytes_;
    bytes_ += name.bytes.size();
    waiting_.push_back({std::move(name), std::move(logprobs), begin});
}

Json LogprobWriter::take(std::string_view text) {
    text_ += text;
    Json told;
    if (waiting_.empty() || waiting_.front().begin >= text_.size()) return told;
    told = endpoint_ == Endpoint::chat ? Json{{"content", Json::array()}, {"refusal", nullptr}}
                                       : Json{{"tokens", Json::array()},
                                              {"token_logprobs", Json::array()},
                                              {"top_logprobs", top_ > 0 ? Json::array() : Json()},
                                              {"text_offset", Json::array()}};
    for (; !waiting_.empty() && waiting_.front().begin < text_.size(); waiting_.pop_front()) {
        if (endpoint_ == Endpoint::chat)
            told["content"].push_back(of_chat(waiting_.front()));
        else
            add_of_text(told, waiting_.front());
    }
    return told;
}

Json LogprobWriter::of_chat(const Waiting& token) const {
    Json entry = one(token.name, token.logprobs.logprob);
    entry["top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.logprobs.top)
        entry["top_logprobs"].push_back(one(names_(other.token), other.logprob));
    return entry;
}

void LogprobWriter::add_of_text(Json& object, const Waiting& token) {
    object["tokens"].push_back(text_of(token.name));
    object["token_logprobs"].push_back(finite(token.logprobs.logprob));
    if (top_ > 0) {
        Json best = Json::object();  // the token itself too, where it is not among the best
        for (const TokenLogprob& other : token.logprobs.top) best[text_of(names_(other.token))] = finite(other.logprob);
        best[text_of(token.name)] = finite(token.logprobs.logprob);
        object["top_logprobs"].push_back(std::move(best));
    }
    for (; counted_ < token.begin; ++counted_)
        if ((static_cast<unsigned char>(text_[counted_]) & 0xC0) != 0x80) ++characters_;
    object["text_offset"].push_back(characters_);
}

}  // namespace outrider::serve
