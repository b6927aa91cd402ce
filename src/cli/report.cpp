#include "report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>

#include "text.hpp"

namespace outrider::cli {
namespace {

using nlohmann::ordered_json;

/// Seconds per token over a choice of prompts, `prompt(i)` being the i-th chosen one.
template <typename Prompt>
double seconds_per_token(std::span<const Outcome> outcomes, const Prompt& prompt) {
    double seconds = 0;
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        const Outcome& outcome = outcomes[prompt(i)];
        seconds += outcome.stats.seconds.decoding();
        tokens += outcome.stats.tokens;
    }
    return tokens > 0 ? seconds / static_cast<double>(tokens) : 0.0;
}

template <typename Prompt>
double ratio(std::span<const Outcome> plain, std::span<const Outcome> drafted, const Prompt& prompt) {
    const double slow = seconds_per_token(plain, prompt), fast = seconds_per_token(drafted, prompt);
    return slow > 0 && fast > 0 ? slow / fast : 1.0;
}

double tokens_per_second(const DecodeStats& stats) {
    const double seconds = stats.seconds.decoding();
    return seconds > 0 ? static_cast<double>(stats.tokens) / seconds : 0.0;
}

/// "same text", "same law" or "lossy".
const char* to_string(TextPromise promise) {
    switch (promise) {
        case TextPromise::same_text: return "same text";
        case TextPromise::same_law: return "same law";
        case TextPromise::lossy: break;
    }
    return "lossy";
}

/// What the table says of a row's texts.
std::string verdict(const Row& row) {
    const std::size_t differ = row.differences.size();
    if (row.promise == TextPromise::same_law) return "same law";
    if (row.promise == TextPromise::lossy) return fmt::format("lossy, {} differ", differ);
    return differ == 0 ? "yes" : fmt::format("no, {} differ", differ);
}

/// The part of decoding that is neither the target's forward nor the drafter.
double host_share(const StageSeconds& seconds) {
    const double all = seconds.decoding();
    return all > 0 ? (seconds.accept + seconds.commit + seconds.other) / all : 0.0;
}

}  // namespace

std::optional<std::int64_t> first_difference(std::span<const TokenId> a, std::span<const TokenId> b) {
    const auto [at_a, at_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    if (at_a == a.end() && at_b == b.end()) return std::nullopt;
    return at_a - a.begin();
}

Gain gain_over(std::span<const Outcome> plain, std::span<const Outcome> drafted) {
    require(plain.size() == drafted.size(), "gain_over: {} and {} prompts; expected the same ones", plain.size(),
            drafted.size());
    constexpr std::size_t resamples = 2000;
    std::vector<double> ratios(resamples);
    for (std::size_t r = 0; r < resamples; ++r) {
        const RandomKey key(0, 0, static_cast<std::int64_t>(r));
        ratios[r] = ratio(plain, drafted, [&](std::size_t i) { return key.bits(i) % plain.size(); });
    }
    std::sort(ratios.begin(), ratios.end());
    return {ratio(plain, drafted, [](std::size_t i) { return i; }), ratios[resamples / 40],
            ratios[resamples - 1 - resamples / 40]};
}

Row summarise(std::string drafter, std::string kind, std::span<const std::string> ids, std::span<const Outcome> plain,
              std::span<const Outcome> drafted) {
    Row row{std::move(drafter), std::move(kind), {}, gain_over(plain, drafted), {}};
    for (std::size_t i = 0; i < drafted.size(); ++i) {
        row.total += drafted[i].stats;
        if (const auto position = first_difference(plain[i].tokens, drafted[i].tokens))
            row.differences.push_back({.id = ids[i], .position = *position, .prompt = i});
    }
    return row;
}

ordered_json nodes_to_json(const std::optional<std::int64_t>& nodes) {
    return nodes ? ordered_json(*nodes) : ordered_json("auto");
}

ordered_json prompts_to_json(std::span<const std::string> ids, std::span<const Outcome> outcomes) {
    ordered_json list = ordered_json::array();
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        const DecodeStats& stats = outcomes[i].stats;
        list.push_back({{"id", ids[i]},
                        {"tokens", stats.tokens},
                        {"rounds", stats.rounds},
                        {"seconds", stats.seconds.decoding()}});
    }
    return list;
}

ordered_json to_json(const DecodeStats& stats) {
    const StageSeconds& s = stats.seconds;
    return {{"prompt_tokens", stats.prompt_tokens},
            {"tokens", stats.tokens},
            {"rounds", stats.rounds},
            {"beta", stats.beta()},
            {"drafted", stats.drafted},
            {"accepted", stats.accepted},
            {"drafted_per_depth", stats.drafted_per_depth},
            {"accepted_per_depth", stats.accepted_per_depth},
            {"tokens_per_second", tokens_per_second(stats)},
            {"seconds",
             {{"prefill", s.prefill},
              {"draft", s.draft},
              {"verify", s.verify},
              {"accept", s.accept},
              {"commit", s.commit},
              {"other", s.other}}}};
}

ordered_json to_json(const Row& row) {
    ordered_json differences = ordered_json::array();
    for (const Difference& difference : row.differences) {
        differences.push_back({{"id", difference.id}, {"position", difference.position}});
        if (difference.logit_gap) differences.back()["logit_gap"] = *difference.logit_gap;
    }
    ordered_json result = {{"drafter", row.drafter}, {"kind", row.kind}, {"nodes", nodes_to_json(row.nodes)}};
    result.update(to_json(row.total));
    ordered_json seconds = std::move(result["seconds"]);
    result.erase("seconds");
    result["host_share"] = host_share(row.total.seconds);
    result["gamma"] = row.gain.gamma;
    result["gamma_low"] = row.gain.low;
    result["gamma_high"] = row.gain.high;
    result["text"] = to_string(row.promise);
    result["identical"] = nullptr;
    if (row.promise == TextPromise::same_text) result["identical"] = row.differences.empty();
    result["differences"] = std::move(differences);
    result["seconds"] = std::move(seconds);
    return result;
}

std::string to_table(std::span<const Row> rows) {
    std::vector<std::vector<std::string>> cells = {{"drafter", "kind", "tokens", "rounds", "beta", "nodes/round",
                                                    "tokens/s", "gamma", "95 % interval", "host", "same text"}};
    bool sizes = false;  // several of one drafter
    for (std::size_t i = 1; i < rows.size(); ++i) sizes = sizes || rows[i].drafter == rows[i - 1].drafter;
    if (sizes) cells.front().insert(cells.front().begin() + 2, "nodes");
    for (const Row& row : rows) {
        const DecodeStats& total = row.total;
        const double nodes =
            total.rounds > 0 ? static_cast<double>(total.drafted) / static_cast<double>(total.rounds) : 0.0;
        cells.push_back({row.drafter, row.kind, fmt::format("{}", total.tokens), fmt::format("{}", total.rounds),
                         fmt::format("{:.2f}", total.beta()), fmt::format("{:.1f}", nodes),
                         fmt::format("{:.1f}", tokens_per_second(total)), fmt::format("{:.2f}", row.gain.gamma),
                         fmt::format("{:.2f} - {:.2f}", row.gain.low, row.gain.high),
                         fmt::format("{:.1f} %", 100 * host_share(total.seconds)), verdict(row)});
        if (sizes) cells.back().insert(cells.back().begin() + 2, row.nodes ? fmt::format("{}", *row.nodes) : "auto");
    }
    return table(cells);
}

}  // namespace outrider::cli
