// The target pass as the decoder sees it: one sequence's trees of n rows, prompts in a batch, many sequences at once.
//     target_pass MODEL.gguf [WEIGHTS = auto] [THREADS = 0] [CONTEXT = 256] [REPEATS = 30] [ROWS = 1,2,3,...]
// Medians with the smallest time beside them. One thread is timed by its own processor time, which neighbours on a busy
// machine disturb less. Where ROWS are given only trees of these sizes are measured.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <sstream>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include "kernels/isa.hpp"
#include <outrider/core/detail/thread_team.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

struct Clock {
    clockid_t id = CLOCK_MONOTONIC;

    [[nodiscard]] double seconds() const {
        timespec time{};
        clock_gettime(id, &time);
        return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    }
};

/// Times of `repeats` calls, sorted.
template <typename Call>
std::vector<double> times(const Clock& clock, int repeats, Call&& call) {
    std::vector<double> result;
    for (int i = 0; i < repeats; ++i) {
        const double begin = clock.seconds();
        call();
        result.push_back(clock.seconds() - begin);
    }
    std::sort(result.begin(), result.end());
    return result;
}

std::vector<TokenId> some_tokens(std::int64_t count, std::int64_t vocabulary) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<TokenId>((i * 7919 + 13) % static_cast<std::size_t>(vocabulary));
    return tokens;
}

/// A bushy tree of n nodes.
TokenTree some_tree(std::int64_t n) {
    TokenTree::Builder builder(5, static_cast<std::size_t>(n));
    for (NodeIndex i = 1; i < n; ++i) builder.add(i % 3 == 0 ? 0 : i - 1, 100 + i, -1.0F);
    return std::move(builder).build();
}

/// Passes of each size over a sequence of its own, so that all have the same context; sizes take turns, so that noise
/// hits all alike.
void trees(const LlamaModel& model, const Clock& clock, const std::vector<TokenId>& text, int repeats,
           const std::vector<std::int64_t>& sizes) {
    LlamaVerifier verifier(model);
    std::vector<std::vector<double>> taken(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const Prefill prompt{.sequence = static_cast<SequenceId>(i), .tokens = text, .pending = 5};
        (void)verifier.prefill(std::span(&prompt, 1));
    }
    for (int repeat = 0; repeat < repeats; ++repeat)
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            const auto id = static_cast<SequenceId>(i);
            const SequenceTree tree{id, some_tree(sizes[i])};
            const SequenceAcceptance root{id, {{}, 5}, {tree.tree.token(0)}};
            taken[i].push_back(times(clock, 1, [&] {
                (void)verifier.verify(std::span(&tree, 1));
                (void)verifier.commit(std::span(&root, 1));
            })[0]);
        }
    double one = 0;
    fmt::print("  n   median      min   of n = {}\n", sizes[0]);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        std::sort(taken[i].begin(), taken[i].end());
        const double median = taken[i][taken[i].size() / 2];
        if (i == 0) one = median;
        fmt::print("{:3} {:6.2f} ms {:6.2f} ms {:8.2f}\n", sizes[i], 1e3 * median, 1e3 * taken[i][0], median / one);
    }
}

void prompts(const LlamaModel& model, const Clock& clock, const std::vector<TokenId>& text) {
    std::vector<Prefill> batch;
    for (SequenceId i = 0; i < 8; ++i) batch.push_back({.sequence = i, .tokens = text, .pending = 5});
    const std::vector<double> sorted = times(clock, 3, [&] { (void)LlamaVerifier(model).prefill(batch); });
    fmt::print("8 prompts of {} tokens: {:.0f} tokens/s\n", text.size(),
               8 * static_cast<double>(text.size()) / sorted[1]);
}

void batch(const LlamaModel& model, const Clock& clock, const std::vector<TokenId>& text, int repeats) {
    constexpr SequenceId kSequences = 64;
    LlamaVerifier verifier(model);
    std::vector<Prefill> joining;
    std::vector<SequenceTree> roots;
    std::vector<SequenceAcceptance> kept;
    for (SequenceId i = 0; i < kSequences; ++i) {
        joining.push_back({.sequence = i, .tokens = std::span(text).first(text.size() / 2), .pending = 5});
        roots.push_back({i, TokenTree::root_only(static_cast<TokenId>(100 + i))});
        kept.push_back({i, {{}, 5}, {roots.back().tree.token(0)}});
    }
    (void)verifier.prefill(joining);
    const std::vector<double> sorted = times(clock, repeats, [&] {
        (void)verifier.verify(roots);
        (void)verifier.commit(kept);
    });
    fmt::print("{} sequences: {:.0f} tokens/s\n", kSequences, kSequences / sorted[sorted.size() / 2]);
}

int run(int argc, char** argv) {
    require(argc >= 2, "usage: target_pass MODEL.gguf [WEIGHTS] [THREADS] [CONTEXT] [REPEATS] [ROWS,..]");
    const auto number = [&](int index, int otherwise) { return argc > index ? std::atoi(argv[index]) : otherwise; };
    const int threads = number(3, 0), repeats = std::max(1, number(5, 30));
    const Clock wall, clock{threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC};
    const double begin = wall.seconds();
    const LlamaModel model =
        LlamaModel::load(argv[1], {.weights = weights_by_name(argc > 2 ? argv[2] : "auto"), .threads = threads});
    fmt::print("{}, {} MB, {} threads, path {}, loaded in {:.2f} s\n", model.weights_description(),
               model.weight_bytes() / 1000000, threads == 0 ? ThreadTeam::physical_cores() : threads,
               name(active_isa()), wall.seconds() - begin);
    const std::vector<TokenId> text = some_tokens(std::max(2, number(4, 256)), model.config().vocabulary);
    std::vector<std::int64_t> sizes{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64};
    if (argc > 6) {
        sizes.clear();
        std::stringstream list(argv[6]);
        for (std::string size; std::getline(list, size, ',');) sizes.push_back(std::max(1, std::stoi(size)));
        require(!sizes.empty(), "target_pass: ROWS is empty, expected numbers like 1,6,16");
    }
    trees(model, clock, text, repeats, sizes);
    if (argc > 6) return 0;
    prompts(model, clock, text);
    batch(model, clock, text, repeats);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
