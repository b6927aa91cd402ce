// What acceptance costs a round: every policy at a vocabulary of 49,152 and trees of 16 nodes, temperature 1, over
// logits of a language model's shape. The drafter names 64 tokens a node and is right about half the time.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <outrider/accept/policy.hpp>
#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/engine/make_policy.hpp>
#include <outrider/tree/token_tree.hpp>

namespace {

using namespace outrider;

constexpr std::int64_t kVocabulary = 49152;
constexpr std::size_t kNodes = 16, kNamed = 64, kRounds = 16;

/// One verified tree.
struct Round {
    TokenTree tree;
    at::Tensor logits;
    std::shared_ptr<const DraftSamples> samples;
};

/// Scores with a few clear favourites, as after most texts; they depend on the path.
std::vector<float> scores(std::uint64_t seed, std::span<const TokenId> path) {
    for (const TokenId token : path) seed = mix64(seed ^ static_cast<std::uint64_t>(token + 1));
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal(0.0F, 2.0F);
    std::vector<float> row(kVocabulary);
    for (float& x : row) x = normal(engine);
    for (int i = 0; i < 6; ++i) row[engine() % row.size()] += 17.0F - 1.5F * static_cast<float>(i);
    return row;
}

/// The drafter's law: the target's best tokens, with noise on their logits.
std::vector<TokenShare> shares(const std::vector<float>& row, std::uint64_t seed) {
    std::vector<TokenId> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    const auto larger = [&](TokenId a, TokenId b) {
        return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
    };
    std::partial_sort(order.begin(), order.begin() + kNamed, order.end(), larger);
    std::mt19937_64 engine(seed);
    std::normal_distribution<double> noise(0.0, 1.5);
    std::vector<TokenShare> result;
    double sum = 0;
    for (std::size_t i = 0; i < kNamed; ++i) {
        result.push_back({order[i], std::exp(double(row[static_cast<std::size_t>(order[i])]) + noise(engine))});
        sum += result.back().q;
    }
    for (TokenShare& share : result) share.q *= 0.9 / sum;  // 0.1: the draft ends
    return result;
}

Round make_round(std::uint64_t seed, std::size_t chains) {
    auto law = std::make_shared<ListedLaw>();
    std::vector<DraftSamples::Chain> drawn(chains, {{}, true});
    TokenTree::Builder builder(1);
    std::vector<std::vector<TokenId>> known;
    for (std::size_t c = 0; c < chains; ++c) {
        NodeIndex at = 0;
        for (std::size_t depth = 0; depth < kNodes / chains; ++depth) {
            const auto q = shares(scores(seed, drawn[c].tokens), seed + depth);
            if (std::find(known.begin(), known.end(), drawn[c].tokens) == known.end()) {
                known.push_back(drawn[c].tokens);
                law->add(drawn[c].tokens, q);
            }
            double u = 0.9 * RandomKey(seed, c, static_cast<std::int64_t>(depth)).uniform(0);
            std::size_t i = 0;
            while (i + 1 < q.size() && u >= q[i].q) u -= q[i++].q;
            drawn[c].tokens.push_back(q[i].token);
            at = builder.add(at, q[i].token, static_cast<float>(std::log(q[i].q)));
        }
    }
    TokenTree tree = std::move(builder).build();
    at::Tensor logits = at::empty({static_cast<std::int64_t>(tree.size()), kVocabulary}, at::kFloat);
    for (NodeIndex node = 0; static_cast<std::size_t>(node) < tree.size(); ++node) {
        std::vector<TokenId> path;
        for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
        const auto row = scores(seed, path);
        std::copy(row.begin(), row.end(), logits.data_ptr<float>() + node * kVocabulary);
    }
    return {std::move(tree), logits, std::make_shared<DraftSamples>(DraftSamples::from_chains(law, drawn))};
}

const std::vector<Round>& rounds(std::size_t chains) {
    static std::vector<Round> one, two;
    std::vector<Round>& all = chains == 1 ? one : two;
    for (std::uint64_t seed = all.size(); seed < kRounds; ++seed) all.push_back(make_round(seed + 1, chains));
    return all;
}

void accept(benchmark::State& state, const std::string& name, double temperature, double top_p) {
    const auto policy = make_policy(name);
    const auto& all = rounds(policy_info(name).one_chain ? 1 : 2);
    const std::vector<TokenId> text{3, 1};
    SamplingOptions sampling{.temperature = temperature, .top_p = top_p};
    std::size_t i = 0, accepted = 0;
    for (auto _ : state) {
        const Round& round = all[i++ % all.size()];
        sampling.seed = i;
        const Acceptance a = policy->accept(round.tree, {round.logits, {}}, {1, &sampling, text, round.samples.get()});
        accepted += a.path.size();
        benchmark::DoNotOptimize(a.pending);
    }
    state.counters["accepted"] = static_cast<double>(accepted) / static_cast<double>(i);
}

/// A round of n-gram drafting: 3 new tokens of a text of 4,000, then a tree of 16 nodes.
void draft_ngram(benchmark::State& state, NgramMode mode) {
    std::mt19937 engine(4);
    std::vector<TokenId> words(400), text;
    for (TokenId& word : words) word = static_cast<TokenId>(engine() % kVocabulary);
    while (text.size() < 4000) text.push_back(words[(engine() % 20) * (engine() % 20)]);
    NgramDraft draft({.mode = mode});
    SequenceFeedback f{1, text, {}, 7, static_cast<std::int64_t>(text.size())};
    (void)draft.propose(std::span(&f, 1), {16});
    std::size_t nodes = 0;
    for (auto _ : state) {
        f.tokens = {f.pending, words[engine() % 20], words[engine() % 20]};
        f.pending = words[engine() % 20], f.committed += 3;
        nodes += draft.propose(std::span(&f, 1), {16})[0].tree.drafted();
    }
    state.counters["nodes"] = static_cast<double>(nodes) / static_cast<double>(state.iterations());
}

}  // namespace

int main(int argc, char** argv) {
    for (const PolicyInfo& policy : policies()) {
        const std::string name(policy.name);
        benchmark::RegisterBenchmark((name + "/temperature:1").c_str(), accept, name, 1.0, 1.0)
            ->Unit(benchmark::kMicrosecond);
        benchmark::RegisterBenchmark((name + "/top_p:0.9").c_str(), accept, name, 1.0, 0.9)
            ->Unit(benchmark::kMicrosecond);
    }
    for (const auto& [name, mode] : {std::pair{"ngram", NgramMode::lookup},
                                     {"ngram:copy", NgramMode::copy},
                                     {"ngram:maxgram", NgramMode::max_gram}})
        benchmark::RegisterBenchmark((std::string("draft/") + name).c_str(), draft_ngram, mode)
            ->Unit(benchmark::kMicrosecond);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
