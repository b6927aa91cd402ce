// Random laws, requests and drafters, from one number each.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <outrider/core/options.hpp>
#include <outrider/draft/lm.hpp>

#include "fake_causal_model.hpp"
#include "fake_target.hpp"
#include "hostile_drafters.hpp"

namespace outrider::test {

struct Request {
    std::vector<TokenId> prompt;
    GenerationOptions options;
    std::int64_t stop_after = -1;   ///< the callback says stop at this many tokens
    std::int64_t cancel_at = -1;    ///< cancelled before this step
    std::vector<TokenId> streamed;  ///< what the callback saw
};

/// Everything random about one trial.
class Trial {
public:
    explicit Trial(std::uint64_t seed) : engine_(seed) {
        law_.vocabulary = pick(2, 30);
        law_.order = pick(0, 1) == 0 ? pick(1, 3) : 1000;  // half of the texts repeat themselves
        law_.levels = pick(0, 3) == 0 ? pick(1, 4) : 41;   // some laws are full of ties
        law_.seed = seed;
        law_.context = pick(0, 3) == 0 ? pick(8, 40) : 4096;
        greedy_ = pick(0, 1) == 0;
    }

    std::int64_t pick(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
    }

    [[nodiscard]] const FakeLaw& law() const { return law_; }
    [[nodiscard]] bool greedy() const { return greedy_; }

    Request request() {
        Request r;
        r.prompt.resize(static_cast<std::size_t>(pick(1, 7)));
        for (TokenId& t : r.prompt) t = static_cast<TokenId>(pick(0, law_.vocabulary - 1));
        GenerationOptions& o = r.options;
        o.max_tokens = pick(0, 9) == 0 ? pick(0, 2) : pick(5, 60);
        if (pick(0, 3) == 0) o.end_ids = {static_cast<TokenId>(pick(0, law_.vocabulary - 1))};
        if (pick(0, 5) == 0) r.stop_after = pick(1, 20);
        if (pick(0, 5) == 0) r.cancel_at = pick(0, 20);
        if (greedy_) return r;
        o.seed = static_cast<std::uint64_t>(pick(0, 1000));
        o.stream = static_cast<std::uint64_t>(pick(0, 3));
        o.temperature = std::vector<double>{0.0, 0.3, 1.0, 1.7}[static_cast<std::size_t>(pick(0, 3))];
        if (pick(0, 2) == 0) o.top_k = pick(1, law_.vocabulary);
        if (pick(0, 2) == 0) o.top_p = 0.87;
        if (pick(0, 3) == 0) o.min_p = 0.083;
        if (pick(0, 3) == 0) o.repetition_penalty = 1.31;
        if (pick(0, 4) == 0)
            o.logit_hook = [](std::span<const TokenId> text, std::span<float> logits) {
                logits[(text.size() + static_cast<std::size_t>(text.back())) % logits.size()] -= 3.0F;
            };
        return r;
    }

    std::unique_ptr<DraftModel> drafter(std::int64_t kind, OracleDraft** oracle = nullptr) {
        const auto seed = static_cast<std::uint64_t>(pick(0, 1 << 30));
        const auto oracle_draft = [&](double right, bool siblings) {
            auto made = std::make_unique<OracleDraft>(law_, seed, right, siblings);
            if (oracle != nullptr) *oracle = made.get();
            return made;
        };
        switch (kind) {
            case 0: return std::make_unique<NoDraft>();
            case 1: return std::make_unique<NgramDraft>(NgramOptions{.mode = static_cast<NgramMode>(pick(0, 2))});
            case 2: return std::make_unique<RandomDraft>(law_, seed, 0.3);
            case 3: return std::make_unique<RandomDraft>(law_, seed, 1.0);  // the deepest chain
            case 4: return oracle_draft(0.0, false);
            case 5: return oracle_draft(1.0, false);
            case 6: return oracle_draft(0.8, true);
            case 7: {
                FakeLaw own = law_;
                own.seed += static_cast<std::uint64_t>(pick(0, 1));
                LmDraftOptions options{.tree = static_cast<LmTree>(pick(0, 2)), .max_depth = pick(1, 6)};
                options.width = pick(1, 5), options.top_k = pick(1, 40), options.chains = pick(1, 3),
                options.seed = seed;
                return std::make_unique<LmDraft>(std::make_unique<FakeCausalModel>(own), fake_head(law_), options);
            }
            default: {
                std::vector<std::unique_ptr<DraftModel>> parts;
                parts.push_back(drafter(pick(0, 3)));
                parts.push_back(drafter(pick(4, 7), oracle));
                if (pick(0, 1) == 0) parts.push_back(std::make_unique<NgramDraft>());
                return std::make_unique<MergedDraft>(std::move(parts));
            }
        }
    }
    static constexpr std::int64_t kKinds = 9;

private:
    std::mt19937_64 engine_;
    FakeLaw law_;
    bool greedy_;
};

}  // namespace outrider::test
