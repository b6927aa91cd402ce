// What the CTC layer costs on one core: cutting frames out of dense logits, and every way from frames to a draft. Each
// measurement rotates over 64 random drafts, so that neither cache nor branch predictor knows the answer.
//
//   ctc_search [--benchmark_filter=Tree] [--benchmark_repetitions=5 --benchmark_report_aggregates_only=true]
//
// Posteriors: logits are normal over 4096 or 8192 tokens, with a spread of 0.5 to 1.5 times the one given in each frame
// (1: flat, 2.5: unsure, 5: confident); the blank gate is normal around -0.5.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/ctc/static_tree.hpp>
#include <outrider/tree/token_tree.hpp>

namespace {

using namespace outrider;

constexpr std::size_t kDrafts = 64;

float normal(const RandomKey& key, std::uint64_t index) {
    return static_cast<float>(std::sqrt(-2.0 * std::log(key.uniform(2 * index))) *
                              std::cos(6.283185307179586 * key.uniform(2 * index + 1)));
}

struct Draft {
    std::vector<float> scores, blank;
    std::size_t vocabulary;

    [[nodiscard]] DenseFrames view() const { return {scores, blank, vocabulary}; }
};

std::vector<Draft> make_drafts(std::size_t frames, std::size_t vocabulary, float spread) {
    std::vector<Draft> drafts;
    for (std::size_t i = 0; i < kDrafts; ++i) {
        const RandomKey key(i, frames, static_cast<std::int64_t>(vocabulary), 96);
        Draft draft{std::vector<float>(frames * vocabulary), std::vector<float>(frames), vocabulary};
        for (std::size_t j = 0; j < draft.scores.size(); ++j) draft.scores[j] = spread * normal(key, j);
        for (std::size_t t = 0; t < frames; ++t) draft.blank[t] = normal(key, 10'000'000 + t) - 0.5F;
        for (std::size_t t = 0; t < frames; ++t) {  // frames differ in how much they know
            const auto know = static_cast<float>(0.5 + key.uniform(20'000'000 + t));
            for (std::size_t v = 0; v < vocabulary; ++v) draft.scores[t * vocabulary + v] *= know;
        }
        drafts.push_back(std::move(draft));
    }
    return drafts;
}

std::vector<CtcFrames> make_frames(std::size_t frames, std::size_t top_k, float spread) {
    FrameBuilder builder;
    std::vector<CtcFrames> made;
    for (const Draft& draft : make_drafts(frames, 4096, spread)) made.push_back(builder.build(draft.view(), {top_k}));
    return made;
}

/// A prediction network of the usual size after its first layer: f = exp(M g), M [C, 256], g [256].
class Network {
public:
    explicit Network(std::size_t candidates) : matrix_(candidates * kRank), state_(kRank) {
        const RandomKey key(5, 0, 0, 96);
        for (std::size_t i = 0; i < matrix_.size(); ++i) matrix_[i] = 0.02F * normal(key, i);
    }

    void operator()(const PrefixContext& prefix, std::span<float> factors) {
        for (std::size_t r = 0; r < kRank; ++r) state_[r] = static_cast<float>((r + prefix.tokens.size()) % 7) - 3.0F;
        using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
        const Eigen::Map<const Matrix> m(matrix_.data(), static_cast<Eigen::Index>(factors.size()), kRank);
        const Eigen::Map<const Eigen::VectorXf> g(state_.data(), kRank);
        Eigen::Map<Eigen::ArrayXf>(factors.data(), static_cast<Eigen::Index>(factors.size())) = (m * g).array().exp();
    }

private:
    static constexpr int kRank = 256;
    std::vector<float> matrix_, state_;
};

/// Sum of the drafter's true Psi over the 16 nodes that a search on `frames` picks; `truth` holds true probabilities.
double true_mass(const CtcFrames& frames, const CtcFrames& truth) {
    PrefixTreeSearch search;
    const TokenTree tree = search.tree(0, frames, 16);
    double mass = 0;
    for (NodeIndex node = 1; node < static_cast<NodeIndex>(tree.size()); ++node) {
        std::vector<TokenId> path;
        for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
        mass += std::exp(prefix_probability(truth, std::span<const TokenId>(path)).log_psi);
    }
    return mass;
}

void frames_from_logits(benchmark::State& state) {
    const auto frames = static_cast<std::size_t>(state.range(0)), vocabulary = static_cast<std::size_t>(state.range(1));
    const FrameOptions options{static_cast<std::size_t>(state.range(2)), state.range(3) != 0};
    const auto drafts = make_drafts(frames, vocabulary, 2.5F);
    FrameBuilder builder;
    CtcFrames out;
    std::size_t i = 0;
    for (auto _ : state) {
        builder.build(drafts[i++ % kDrafts].view(), options, out);
        benchmark::DoNotOptimize(out.row(0));
    }
    double mass = 0;
    for (const Draft& draft : drafts)
        mass += true_mass(builder.build(draft.view(), options), builder.build(draft.view(), {options.top_k, false})) /
                kDrafts;
    state.counters["true_mass"] = mass;
}

enum class Frames { plain, conditioned, network };

/// The search, and what it found: nodes expanded and the sum of Psi.
template <Frames kind>
void best_first_tree(benchmark::State& state) {
    const auto drafts = make_frames(static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)),
                                    static_cast<float>(state.range(3)) / 10.0F);
    const std::int64_t nodes = state.range(2);
    PrefixTreeSearch search;
    Network network(drafts[0].stride() + 64);
    const auto even = [](const PrefixContext& prefix, std::span<float> factors) {
        const float factor = 1.0F + 0.1F * static_cast<float>(prefix.tokens.size());
        for (float& f : factors) f = factor;
    };
    std::size_t i = 0;
    double mass = 0, expanded = 0;
    for (auto _ : state) {
        const CtcFrames& frames = drafts[i++ % kDrafts];
        if constexpr (kind == Frames::plain) benchmark::DoNotOptimize(search.tree(0, frames, nodes).size());
        if constexpr (kind == Frames::conditioned) benchmark::DoNotOptimize(search.tree(0, frames, nodes, even).size());
        if constexpr (kind == Frames::network) benchmark::DoNotOptimize(search.tree(0, frames, nodes, network).size());
        expanded += static_cast<double>(search.expanded());
    }
    for (const CtcFrames& frames : drafts)
        for (const auto& node : search.search(frames, nodes)) mass += node.psi / kDrafts;
    state.counters["expanded"] = benchmark::Counter(expanded, benchmark::Counter::kAvgIterations);
    state.counters["plain_mass"] = mass;
}

void static_tree(benchmark::State& state) {
    const auto drafts = make_frames(static_cast<std::size_t>(state.range(0)), 16, 2.5F);
    StaticPrefixTree builder;
    std::size_t i = 0;
    for (auto _ : state) benchmark::DoNotOptimize(builder.tree(0, drafts[i++ % kDrafts], medusa63(), 63).size());
}

void sampled_chains(benchmark::State& state) {
    const auto drafts = make_frames(static_cast<std::size_t>(state.range(0)), 16, 2.5F);
    AlignmentSampler sampler;
    std::size_t i = 0;
    for (auto _ : state) {
        const RandomKey key(1, 2, static_cast<std::int64_t>(i), 3);
        benchmark::DoNotOptimize(
            sampler.draw(0, drafts[i++ % kDrafts], static_cast<std::size_t>(state.range(1)), 16, key).tree.size());
    }
}

void axes(benchmark::internal::Benchmark* it) {
    it->ArgNames({"T", "k", "N", "spread_x10"})->Unit(benchmark::kMicrosecond);
    for (const int frames : {6, 8, 16})
        for (const int top_k : {4, 16})
            for (const int nodes : {16, 64, 256}) it->Args({frames, top_k, nodes, 25});
    it->Args({8, 16, 64, 10})->Args({8, 16, 64, 50});
}

BENCHMARK(frames_from_logits)
    ->ArgNames({"T", "V", "k", "renormalise"})
    ->Unit(benchmark::kMicrosecond)
    ->Args({8, 4096, 16, 1})
    ->Args({8, 4096, 16, 0})
    ->Args({8, 8192, 16, 1})
    ->Args({8, 8192, 16, 0})
    ->Args({8, 8192, 4, 1})
    ->Args({16, 8192, 16, 1});
BENCHMARK(best_first_tree<Frames::plain>)->Apply(axes);
BENCHMARK(best_first_tree<Frames::conditioned>)->Apply(axes);
BENCHMARK(best_first_tree<Frames::network>)
    ->ArgNames({"T", "k", "N", "spread_x10"})
    ->Unit(benchmark::kMicrosecond)
    ->Args({8, 16, 16, 25})
    ->Args({8, 16, 64, 25})
    ->Args({8, 4, 16, 25});
BENCHMARK(static_tree)->ArgNames({"T"})->Unit(benchmark::kMicrosecond)->Arg(4)->Arg(8);
BENCHMARK(sampled_chains)->ArgNames({"T", "chains"})->Unit(benchmark::kMicrosecond)->Args({8, 1})->Args({8, 4});

}  // namespace

BENCHMARK_MAIN();
