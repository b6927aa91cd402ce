// Log-probabilities that come with a text's tokens, where a request asks for them.
#pragma once

#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

/// Of which law.
enum class LogprobLaw {
    target,  ///< the target's own logits at temperature 1, before hooks, penalties and warpers
    warped   ///< what the token was chosen from, after all of them; temperature 0, which has no law, counts as 1
};

struct TokenLogprob {
    TokenId token = kNoToken;
    double logprob = 0;  ///< natural logarithm; -infinity: the law excludes the token

    [[nodiscard]] bool operator==(const TokenLogprob&) const = default;
};

/// Of one emitted token.
struct TokenLogprobs {
    double logprob = 0;             ///< of the token itself
    std::vector<TokenLogprob> top;  ///< the most probable ones, best first, equal ones by id; none that is excluded

    [[nodiscard]] bool operator==(const TokenLogprobs&) const = default;
};

}  // namespace outrider
