// The text never depends on the drafter: random rounds over drafters, policies, batches and trees against the plain
// loop.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cmath>
#include <map>
#include <memory>
#include <random>

#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"
#include "random_trial.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

struct Tally {
    std::int64_t rounds = 0, tokens = 0, accepted = 0, differences = 0, sequences = 0;
};

/// What the request's text must be, and why it ends.
std::pair<std::vector<TokenId>, FinishReason> truth(const FakeLaw& law, const Request& r) {
    const std::int64_t room = law.context - static_cast<std::int64_t>(r.prompt.size());
    std::int64_t limit = std::min(r.options.max_tokens, room);
    const std::vector<TokenId> text = plain_loop(law, r.prompt, r.options, limit);
    if (!text.empty() &&
        std::find(r.options.end_ids.begin(), r.options.end_ids.end(), text.back()) != r.options.end_ids.end() &&
        (r.stop_after < 0 || static_cast<std::int64_t>(text.size()) <= r.stop_after))
        return {text, FinishReason::stop};
    if (r.stop_after >= 0 && r.stop_after < static_cast<std::int64_t>(text.size()))
        return {{text.begin(), text.begin() + r.stop_after}, FinishReason::cancelled};
    return {text, FinishReason::length};
}

/// The counts of a result must follow from its rounds.
void check_stats(const GenerationResult& result, const Request& r, std::int64_t nodes) {
    const DecodeStats& s = result.stats;
    const auto sum = [](const std::vector<std::int64_t>& v) {
        return std::accumulate(v.begin(), v.end(), std::int64_t{0});
    };
    REQUIRE(s.tokens == static_cast<std::int64_t>(result.tokens.size()));
    REQUIRE(s.prompt_tokens == static_cast<std::int64_t>(r.prompt.size()));
    REQUIRE(sum(s.accepted_per_depth) == s.accepted);
    REQUIRE(std::is_sorted(s.accepted_per_depth.rbegin(), s.accepted_per_depth.rend()));
    REQUIRE(s.accepted <= s.drafted);
    REQUIRE(s.drafted <= nodes * s.rounds);
    const std::int64_t cut = s.rounds + s.accepted - s.tokens;  // 1: the text ended inside an accepted path
    REQUIRE((cut == 0 || (cut == 1 && result.finish != FinishReason::running)));
}

void run_trial(std::uint64_t seed, Tally& tally) {
    Trial trial(seed);
    OracleDraft* oracle = nullptr;
    const std::int64_t nodes =
        std::vector<std::int64_t>{0, 1, 3, 8, 16, 40, kAutoNodes}[static_cast<std::size_t>(trial.pick(0, 6))];
    auto target = std::make_shared<FakeTarget>(trial.law());
    target->gives_argmax = trial.pick(0, 1) == 0;
    target->takes_pieces = trial.pick(0, 2) > 0;
    target->mixes_prompts = seed % 2 == 0;
    std::unique_ptr<AcceptancePolicy> policy;
    if (trial.greedy() && trial.pick(0, 1) == 0)
        policy = std::make_unique<Match>();
    else
        policy = std::make_unique<Match>();
    SpeculativeDecoder decoder{trial.drafter(static_cast<std::int64_t>(seed) % Trial::kKinds, &oracle),
                               target,
                               std::move(policy),
                               {.nodes = nodes,
                                .max_batch = static_cast<std::size_t>(trial.pick(1, 7)),
                                .prefill_rows = trial.pick(1, 9),
                                .owed_tokens = trial.pick(1, 20)}};
    std::map<SequenceId, Request> requests;
    const std::int64_t total = trial.pick(1, 9);
    for (std::int64_t step = 0;; ++step) {
        while (static_cast<std::int64_t>(requests.size()) < total && (step == 0 || trial.pick(0, 2) == 0)) {
            Request r = trial.request();
            auto seen = std::make_shared<std::vector<TokenId>>();
            const std::int64_t stop_after = r.stop_after;
            const SequenceId id = decoder.join({r.prompt}, r.options, [seen, stop_after](std::span<const TokenId> ids) {
                seen->insert(seen->end(), ids.begin(), ids.end());
                return static_cast<std::int64_t>(seen->size()) != stop_after;
            });
            if (oracle != nullptr) oracle->asked[id] = r.options.sampling();
            requests.emplace(id, std::move(r));
        }
        for (const auto& [id, r] : requests)
            if (r.cancel_at == step) decoder.cancel(id);
        if (!decoder.step() && static_cast<std::int64_t>(requests.size()) == total) break;
    }
    REQUIRE(target->held() == 0);  // every cache was released
    for (const auto& [id, r] : requests) {
        const GenerationResult result = decoder.take(id);
        auto [expected, finish] = truth(trial.law(), r);
        if (result.finish == FinishReason::cancelled && finish != FinishReason::cancelled) {  // cancelled from outside
            REQUIRE(r.cancel_at >= 0);
            REQUIRE(result.tokens.size() <= expected.size());
            expected.resize(result.tokens.size());
        } else if (r.cancel_at < 0) {
            REQUIRE(result.finish == finish);
        } else {
            expected.resize(std::min(expected.size(), result.tokens.size()));
        }
        if (result.tokens != expected) ++tally.differences;
        check_stats(result, r, nodes == kAutoNodes ? 32 : nodes);
        tally.rounds += result.stats.rounds, tally.tokens += result.stats.tokens;
        tally.accepted += result.stats.accepted, ++tally.sequences;
    }
}

}  // namespace

TEST_CASE("two hundred thousand random rounds: every text is the plain loop's", "[property][lossless]") {
    Tally tally;
    std::uint64_t seed = 0;
    for (; tally.rounds < 200'000; ++seed) {
        CAPTURE(seed);
        run_trial(seed, tally);
        REQUIRE(tally.differences == 0);
    }
    CHECK(tally.accepted > tally.rounds / 4);  // drafts were accepted too, not only rejected
    WARN(tally.sequences << " sequences, " << tally.rounds << " rounds, " << tally.tokens << " tokens, "
                         << tally.accepted << " drafted nodes accepted, " << tally.differences << " differences");
}

TEST_CASE("a drafter that is always right is accepted to the last node", "[property]") {
    const FakeLaw law{.vocabulary = 20};
    for (const std::int64_t nodes : {1, 4, 9}) {
        SpeculativeDecoder decoder{OracleDraft{law, 1, 1.0, false}, FakeTarget{law}, Match{}, {.nodes = nodes}};
        const GenerationResult result = decoder.generate({{1, 2}}, {.max_tokens = 10 * (nodes + 1)});
        CHECK(result.stats.rounds == 10);
        CHECK(result.stats.beta() == Catch::Approx(nodes + 1));
        CHECK(result.stats.drafted_per_depth == std::vector<std::int64_t>(static_cast<std::size_t>(nodes), 10));
        CHECK(result.stats.accepted_per_depth == std::vector<std::int64_t>(static_cast<std::size_t>(nodes), 10));
    }
    SpeculativeDecoder wrong{OracleDraft{law, 1, 0.0, false}, FakeTarget{law}, Match{}, {.nodes = 4}};
    const DecodeStats stats = wrong.generate({{1, 2}}, {.max_tokens = 50}).stats;
    CHECK(stats.rounds == 50);
    CHECK(stats.accepted == 0);
}
