// Log-probabilities: those of the law, and the same bits with any drafter and in any batch.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "plain_loop.hpp"
#include "random_trial.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// What the law says after `text`, by sums in double.
TokenLogprobs expected(const FakeLaw& law, const std::vector<TokenId>& text, TokenId token,
                       const GenerationOptions& options) {
    SamplingOptions sampling = options.logprob_law == LogprobLaw::warped ? options.sampling() : SamplingOptions{};
    if (sampling.temperature == 0.0) sampling.temperature = 1.0;
    std::vector<double> log_p = warped(law, text, sampling);
    const double top = *std::ranges::max_element(log_p);
    double total = 0;
    for (const double x : log_p) total += std::exp(x - top);
    for (double& x : log_p) x -= top + std::log(total);
    TokenLogprobs all{.logprob = log_p[static_cast<std::size_t>(token)], .top = {}};
    for (std::size_t t = 0; t < log_p.size(); ++t)
        if (log_p[t] > kMinusInfinity) all.top.push_back({static_cast<TokenId>(t), log_p[t]});
    std::ranges::stable_sort(all.top, std::greater<>{}, &TokenLogprob::logprob);
    all.top.resize(std::min(all.top.size(), static_cast<std::size_t>(*options.logprobs)));
    return all;
}

bool near(double a, double b) { return a == b || std::abs(a - b) < 2e-6; }

void check_against_law(const FakeLaw& law, const Request& request, const GenerationResult& result) {
    std::vector<TokenId> text = request.prompt;
    for (std::size_t i = 0; i < result.tokens.size(); ++i) {
        const TokenLogprobs truth = expected(law, text, result.tokens[i], request.options);
        const TokenLogprobs& got = result.logprobs[i];
        REQUIRE(near(got.logprob, truth.logprob));
        REQUIRE(got.top.size() == truth.top.size());
        for (std::size_t k = 0; k < truth.top.size(); ++k) {
            REQUIRE(got.top[k].token == truth.top[k].token);
            REQUIRE(near(got.top[k].logprob, truth.top[k].logprob));
        }
        text.push_back(result.tokens[i]);
    }
}

Request logprob_request(Trial& trial) {
    Request request = trial.request();
    request.options.logprobs = trial.pick(0, trial.law().vocabulary + 2);
    if (trial.pick(0, 1) == 0) request.options.logprob_law = LogprobLaw::warped;
    return request;
}

}  // namespace

TEST_CASE("log-probabilities are the law's, and the same bits with any drafter and batch", "[property][logprobs]") {
    std::int64_t accepted = 0, tokens = 0;
    for (std::uint64_t seed = 0; seed < 600; ++seed) {
        CAPTURE(seed);
        Trial trial(seed);
        std::vector<Request> requests;
        for (std::int64_t i = trial.pick(1, 8); i > 0; --i) requests.push_back(logprob_request(trial));
        std::vector<GenerationResult> plain;
        for (const Request& r : requests) {
            SpeculativeDecoder alone{NoDraft{}, FakeTarget{trial.law()}, {.nodes = 0}};
            plain.push_back(alone.generate({r.prompt}, r.options));
            REQUIRE(plain.back().logprobs.size() == plain.back().tokens.size());
            check_against_law(trial.law(), r, plain.back());
        }
        OracleDraft* oracle = nullptr;
        SpeculativeDecoder together{trial.drafter(static_cast<std::int64_t>(seed) % Trial::kKinds, &oracle),
                                    std::make_unique<FakeTarget>(trial.law()),
                                    Match{},
                                    {.nodes = trial.pick(0, 12), .max_batch = 8}};
        std::map<SequenceId, std::size_t> joined;
        std::map<SequenceId, std::vector<TokenLogprobs>> seen;
        for (std::size_t i = 0; i < requests.size(); ++i) {
            const SequenceId id = together.join(
                {requests[i].prompt}, requests[i].options,
                [&seen](const EmittedToken& emission) { seen[emission.sequence].push_back(*emission.logprobs); });
            joined[id] = i;
            if (oracle != nullptr) oracle->asked[id] = requests[i].options.sampling();
        }
        together.run();
        for (const auto& [id, i] : joined) {
            const GenerationResult result = together.take(id);
            REQUIRE(result.tokens == plain[i].tokens);
            REQUIRE((result.logprobs == plain[i].logprobs));
            REQUIRE((seen[id] == result.logprobs));
            accepted += result.stats.accepted, tokens += result.stats.tokens;
        }
    }
    CHECK(accepted > tokens / 5);  // many of them were read below the root
}

TEST_CASE("log-probabilities of a row that is broken below the root end the text where plain decoding does",
          "[property][logprobs]") {
    for (TokenId broken = 0; broken < 12; ++broken) {
        const FakeLaw law{.seed = 5};
        const auto decode = [&](std::unique_ptr<DraftModel> draft, std::int64_t nodes) {
            FakeTarget target(law);
            target.nan_after = broken;
            SpeculativeDecoder decoder{std::move(draft), std::move(target), Match{}, {.nodes = nodes}};
            const SequenceId id = decoder.join({{1}}, {.max_tokens = 40, .logprobs = 2});
            try {
                decoder.run();
            } catch (const Error&) {
            }
            return decoder.take(id);
        };
        const GenerationResult plain = decode(std::make_unique<NoDraft>(), 0);
        const GenerationResult drafted = decode(std::make_unique<OracleDraft>(law, 1, 1.0, true), 9);
        CHECK(drafted.tokens == plain.tokens);
        CHECK((drafted.logprobs == plain.logprobs));
        CHECK(drafted.finish == plain.finish);
        CHECK(drafted.error == plain.error);
    }
}

TEST_CASE("log-probabilities are not there unless asked for", "[property][logprobs]") {
    SpeculativeDecoder decoder{NoDraft{}, FakeTarget{}, {.nodes = 0}};
    const GenerationResult result = decoder.generate(
        {{1, 2}}, {.max_tokens = 3}, [](const EmittedToken& emission) { CHECK(emission.logprobs == nullptr); });
    CHECK(result.logprobs.empty());
    CHECK_THROWS_AS(decoder.join({{1}}, {.logprobs = -1}), Error);
}
