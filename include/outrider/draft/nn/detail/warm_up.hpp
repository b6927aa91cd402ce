// A drafter's first call, made before it counts.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/trained_draft.hpp>

namespace outrider {

/// Drafts for a text that nobody asked for, and forgets it. A first call makes buffers and touches fresh memory, which
/// takes several times as long as any later one; a budget that compares times with what drafts bring would give the
/// drafter up for it. `width`: of the target's features. Some milliseconds.
template <typename Config>
void warm_up(DraftEngine<Config>& engine, std::int64_t width) {
    constexpr SequenceId kNobody = std::numeric_limits<SequenceId>::min();
    constexpr std::int64_t kTokens = 32, kNodes = 8;
    SequenceFeedback text{.sequence = kNobody, .tokens = {}, .features = {}, .pending = 0, .committed = 0};
    for (const std::int64_t fresh : {kTokens, std::int64_t{1}, std::int64_t{1}}) {  // a prompt, then two rounds
        text.tokens.assign(static_cast<std::size_t>(fresh), TokenId{0});
        text.features = aten::zeros({fresh, width});
        text.committed += fresh;
        (void)engine.propose(std::vector<SequenceFeedback>{text}, {.nodes = kNodes});
    }
    engine.forget(kNobody);
}

}  // namespace outrider
