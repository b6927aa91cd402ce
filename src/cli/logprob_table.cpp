#include "logprob_table.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "text.hpp"

namespace outrider::cli {
namespace {

nlohmann::ordered_json one(TokenId token, double logprob, const Detokenizer& text) {
    return {{"id", token}, {"text", text.bytes(token)}, {"logprob", logprob}};
}

}  // namespace

nlohmann::ordered_json logprobs_json(const GenerationResult& result, const Detokenizer& text) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < result.logprobs.size(); ++i) {
        all.push_back(one(result.tokens[i], result.logprobs[i].logprob, text));
        nlohmann::ordered_json& top = all.back()["top"] = nlohmann::ordered_json::array();
        for (const TokenLogprob& entry : result.logprobs[i].top) top.push_back(one(entry.token, entry.logprob, text));
    }
    return all;
}

std::string logprob_table(const GenerationResult& result, const Detokenizer& text) {
    std::vector<std::vector<std::string>> rows{{"token", "log p", "most probable"}};
    for (std::size_t i = 0; i < result.logprobs.size(); ++i) {
        std::string top;
        for (const TokenLogprob& entry : result.logprobs[i].top)
            top += fmt::format("{}{} {:.4f}", top.empty() ? "" : "  ", quote(text.bytes(entry.token)), entry.logprob);
        rows.push_back({quote(text.bytes(result.tokens[i])), fmt::format("{:.4f}", result.logprobs[i].logprob), top});
    }
    return table(rows);
}

}  // namespace outrider::cli
