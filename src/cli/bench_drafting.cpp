#include "bench_drafting.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/budget/detail/curve.hpp>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/median.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/target/llama_verifier.hpp>

namespace outrider::cli {
namespace {

/// Kinds of text that repeat much and little.
constexpr std::array kPrompts{
    "Explain in simple words why the sky is blue and why sunsets are red.",
    "Correct the mistakes and write the whole text again: Yesterday we was going to the market and buyed three apple. "
    "The market were full, so we waits in a long line, and than we goes home by train.",
    "Write a Python function that returns the two largest numbers of a list, and explain each line of it.",
    "Write a short email that asks a colleague to move our meeting from Tuesday to Friday.",
    "A train leaves at 9:40, stops for 12 minutes and arrives at 13:05. How long does it move? Show each step.",
    "List six things to check before a long bicycle tour, with one sentence on each.",
    "Tell a short story about a lighthouse keeper who finds an empty boat.",
    "Summarise in two sentences: The old mill stood empty for thirty years. Then a baker bought it, mended the wheel, "
    "and now grinds flour for the whole valley. On Sundays children come to watch the wheel turn."};
constexpr std::int64_t kMaxTokens = 256;
constexpr double kRoundsOfOne = 24;      // that a prompt is worth beginning for
constexpr std::size_t kLeastRounds = 4;  // of plain decoding
constexpr double kMany = 0.8;            // of the time goes into large trees

/// Of a decoder: what its rounds kept.
struct Notes {
    RankCounts counts;
    std::size_t drafted = 0;  ///< nodes of the newest tree
};

/// Match, and what it kept noted.
class NotingMatch final : public AcceptancePolicy {
public:
    explicit NotingMatch(Notes& notes) : notes_(notes) {}

    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override {
        Acceptance accepted = match_.accept(tree, rows, context);
        notes_.drafted = tree.drafted();
        notes_.counts.add(tree.drafted(), accepted.path);
        return accepted;
    }
    void check_request(const SamplingOptions& options) const override { match_.check_request(options); }
    void check_draws(DraftDraws draws) const override { match_.check_draws(draws); }

private:
    Match match_;
    Notes& notes_;
};

/// Somebody else's drafter, with the time of each call.
class TimedDraft final : public DraftModel {
public:
    TimedDraft(DraftModel& drafter, std::vector<double>& seconds) : drafter_(drafter), seconds_(seconds) {}

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override {
        const double start = now_seconds();
        auto trees = drafter_.propose(feedback, budget);
        seconds_.push_back(now_seconds() - start);
        return trees;
    }
    void forget(SequenceId sequence) override { drafter_.forget(sequence); }
    [[nodiscard]] std::string_view kind() const override { return drafter_.kind(); }
    [[nodiscard]] DraftDraws draws() const override { return drafter_.draws(); }
    [[nodiscard]] FeatureRequest features() const override { return drafter_.features(); }
    [[nodiscard]] bool cheap() const override { return drafter_.cheap(); }
    [[nodiscard]] std::size_t weight_bytes() const override { return drafter_.weight_bytes(); }

private:
    DraftModel& drafter_;
    std::vector<double>& seconds_;
};

/// As a chat message where the model has a template that can be run.
Prompt prompt_of(const LlamaModel& model, std::string_view text) {
    try {
        return model.chat(text);
    } catch (const Error&) {
        return model.raw(text);
    }
}

/// A decoder of one sequence whose rounds are timed.
class NotedDecoder {
public:
    NotedDecoder(const LlamaModel& model, std::unique_ptr<DraftModel> drafter, std::int64_t nodes)
        : notes_{RankCounts(nodes)},
          decoder_(std::move(drafter), std::make_unique<LlamaVerifier>(model), std::make_unique<NotingMatch>(notes_),
                   DecoderOptions{.nodes = nodes, .max_batch = 1}) {}
    NotedDecoder(const NotedDecoder&) = delete;
    NotedDecoder& operator=(const NotedDecoder&) = delete;

    /// One answer, as far as the time allows, but so many timed rounds at least if it is that long. Returns its tokens.
    std::int64_t answer(Prompt prompt, double until, std::size_t least = 1) {
        GenerationOptions options;
        options.max_tokens = kMaxTokens;
        const SequenceId id = decoder_.join(std::move(prompt), options);
        const std::int64_t before = notes_.counts.rounds();
        least += rounds_.size();
        do {
            const std::int64_t rounds = notes_.counts.rounds();
            const double start = now_seconds();
            decoder_.step();
            if (rounds > before && notes_.counts.rounds() > rounds)  // the first one reads the prompt as well
                rounds_.push_back({static_cast<std::int64_t>(notes_.drafted) + 1, now_seconds() - start});
        } while (!decoder_.finished(id) && (now_seconds() < until || rounds_.size() < least));
        decoder_.cancel(id);
        return decoder_.take(id).stats.tokens;
    }

    [[nodiscard]] const RankCounts& counts() const { return notes_.counts; }

    /// Median of what rounds took beside passes of their rows; without `passes` of what they took at all.
    [[nodiscard]] double beside(std::span<const PassTime> passes) const {
        std::vector<double> seconds;
        for (const PassTime& round : rounds_)
            seconds.push_back(round.seconds - (passes.empty() ? 0.0 : budget::read(passes, round.rows)));
        return outrider::detail::median(std::move(seconds));
    }

private:
    Notes notes_;
    AnyDecoder decoder_;
    std::vector<PassTime> rounds_;  ///< as they came
};

}  // namespace

DraftingSeen see_drafting(const LlamaModel& model, std::string name, DraftModel& drafter,
                          std::span<const PassTime> passes, double seconds) {
    std::vector<double> of_many, of_few;  // seconds of drafts
    NotedDecoder many(model, std::make_unique<TimedDraft>(drafter, of_many), kBenchNodes);
    NotedDecoder few(model, std::make_unique<TimedDraft>(drafter, of_few), kFewNodes);
    const double start = now_seconds(), pass = budget::read(passes, kBenchNodes + 1);
    const auto count =
        static_cast<std::size_t>(std::clamp(kMany * seconds / (kRoundsOfOne * pass), 1.0, double(kPrompts.size())));
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < count && (i == 0 || now_seconds() < start + seconds); ++i) {
        const double begin = start + seconds * double(i) / double(count), share = seconds / double(count);
        tokens += many.answer(prompt_of(model, kPrompts[i]), begin + kMany * share);
        few.answer(prompt_of(model, kPrompts[i]), begin + share);
    }
    // A slower moment of the machine while sweeps ran must not make drafts look free.
    const double draft = outrider::detail::median(of_many), small_draft = outrider::detail::median(of_few);
    return {.name = std::move(name),
            .kind = std::string(drafter.kind()),
            .counts = many.counts(),
            .tokens = tokens,
            .draft_seconds = draft,
            .beside_few = std::max(few.beside(passes), small_draft),
            .beside_many = std::max(many.beside(passes), draft)};
}

double plain_round(const LlamaModel& model, double seconds) {
    NotedDecoder plain(model, std::make_unique<NoDraft>(), 0);
    const double until = now_seconds() + seconds;
    for (std::size_t i = 0; i < kPrompts.size() && (i == 0 || now_seconds() < until); ++i)
        plain.answer(prompt_of(model, kPrompts[i]), until, kLeastRounds);
    return plain.beside({});
}

}  // namespace outrider::cli
