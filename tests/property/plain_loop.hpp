// The oracle: plain decoding of a fake target, written without any of the library's loop, trees, policies or warpers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/options.hpp>

#include "fake_target.hpp"

namespace outrider::test {

/// [V] log weights of the next token after every warper; -infinity: dropped.
inline std::vector<double> warped(const FakeLaw& law, const std::vector<TokenId>& text, const SamplingOptions& o) {
    std::vector<float> logits(static_cast<std::size_t>(law.vocabulary));
    fake_logits(law, text, logits.data());
    if (o.logit_hook) o.logit_hook(text, logits);
    if (o.repetition_penalty != 1.0)
        for (const TokenId t : std::set<TokenId>(text.begin(), text.end())) {
            float& x = logits[static_cast<std::size_t>(t)];
            x = x > 0 ? x / static_cast<float>(o.repetition_penalty) : x * static_cast<float>(o.repetition_penalty);
        }
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    const double temperature = o.temperature == 0.0 ? 1e-9 : o.temperature;
    const double top = double(logits[order[0]]) / temperature;
    const auto weight = [&](std::size_t t) { return std::exp(double(logits[t]) / temperature - top); };
    if (o.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(o.top_k)));
    if (o.top_p < 1.0) {
        double total = 0, sum = 0;
        for (const std::size_t t : order) total += weight(t);
        std::size_t n = 0;
        while (n < order.size() && sum < o.top_p * total) sum += weight(order[n++]);
        order.resize(n);
    }
    std::erase_if(order, [&](std::size_t t) { return weight(t) < o.min_p; });
    std::vector<double> result(logits.size(), -std::numeric_limits<double>::infinity());
    for (const std::size_t t : order) result[t] = double(logits[t]) / temperature;
    return result;
}

/// The target's choice after `text`: the largest weight, at temperature > 0 with noise.
inline TokenId plain_pick(const FakeLaw& law, const std::vector<TokenId>& text, const SamplingOptions& o) {
    std::vector<double> score = warped(law, text, o);
    if (o.temperature > 0)
        for (std::size_t t = 0; t < score.size(); ++t)
            score[t] += RandomKey(o.seed, o.stream, static_cast<std::int64_t>(text.size())).gumbel(t);
    return static_cast<TokenId>(std::max_element(score.begin(), score.end()) - score.begin());
}

/// `tokens` tokens after `prompt`, or up to the first of `end_ids`.
inline std::vector<TokenId> plain_loop(const FakeLaw& law, std::vector<TokenId> text, const GenerationOptions& options,
                                       std::int64_t tokens) {
    std::vector<TokenId> out;
    while (static_cast<std::int64_t>(out.size()) < tokens) {
        out.push_back(plain_pick(law, text, options.sampling()));
        text.push_back(out.back());
        if (std::find(options.end_ids.begin(), options.end_ids.end(), out.back()) != options.end_ids.end()) break;
    }
    return out;
}

}  // namespace outrider::test
