#include "bench_drafting.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/core/detail/clock.hpp>
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
constexpr double kRoundsOfOne = 24;  // that a prompt is worth beginning for

/// Match, and what it kept noted.
class NotingMatch final : public AcceptancePolicy {
public:
    explicit NotingMatch(RankCounts& counts) : counts_(counts) {}

    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override {
        Acceptance accepted = match_.accept(tree, rows, context);
        counts_.add(tree.drafted(), accepted.path);
        return accepted;
    }
    void check_request(const SamplingOptions& options) const override { match_.check_request(options); }
    void check_draws(DraftDraws draws) const override { match_.check_draws(draws); }

private:
    Match match_;
    RankCounts& counts_;
};

/// A drafter with the time of each call.
class TimedDraft final : public DraftModel {
public:
    TimedDraft(std::unique_ptr<DraftModel> drafter, std::vector<double>& seconds)
        : drafter_(std::move(drafter)), seconds_(seconds) {}

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override {
        const double start = now_seconds();
        auto trees = drafter_->propose(feedback, budget);
        seconds_.push_back(now_seconds() - start);
        return trees;
    }
    void forget(SequenceId sequence) override { drafter_->forget(sequence); }
    [[nodiscard]] std::string_view kind() const override { return drafter_->kind(); }
    [[nodiscard]] DraftDraws draws() const override { return drafter_->draws(); }
    [[nodiscard]] FeatureRequest features() const override { return drafter_->features(); }
    [[nodiscard]] bool cheap() const override { return drafter_->cheap(); }
    [[nodiscard]] std::size_t weight_bytes() const override { return drafter_->weight_bytes(); }

private:
    std::unique_ptr<DraftModel> drafter_;
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

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    const auto middle = values.begin() + std::ssize(values) / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// One answer, as far as the time allows, a round of it at least.
DecodeStats answer(AnyDecoder& decoder, Prompt prompt, const RankCounts& counts, double until) {
    GenerationOptions options;
    options.max_tokens = kMaxTokens;
    const std::int64_t before = counts.rounds();
    const SequenceId id = decoder.join(std::move(prompt), options);
    do decoder.step();
    while (!decoder.finished(id) && (now_seconds() < until || counts.rounds() == before));
    decoder.cancel(id);
    return decoder.take(id).stats;
}

}  // namespace

DraftingSeen see_drafting(const LlamaModel& model, std::string name, std::unique_ptr<DraftModel> drafter,
                          double pass_seconds, double seconds) {
    DraftingSeen seen{.name = std::move(name), .kind = std::string(drafter->kind()), .counts = RankCounts(kBenchNodes)};
    std::vector<double> drafts;
    AnyDecoder decoder(std::make_unique<TimedDraft>(std::move(drafter), drafts), std::make_unique<LlamaVerifier>(model),
                       std::make_unique<NotingMatch>(seen.counts),
                       DecoderOptions{.nodes = kBenchNodes, .max_batch = 1});
    const double start = now_seconds(), prompts = seconds / (kRoundsOfOne * pass_seconds);
    const auto count = static_cast<std::size_t>(std::clamp(prompts, 1.0, double(kPrompts.size())));
    DecodeStats total;
    for (std::size_t i = 0; i < count && (i == 0 || now_seconds() < start + seconds); ++i)
        total += answer(decoder, prompt_of(model, kPrompts[i]), seen.counts,
                        start + seconds * double(i + 1) / double(count));
    seen.tokens = total.tokens;
    seen.round_seconds = total.seconds.decoding() / double(std::max<std::int64_t>(total.rounds, 1));
    seen.draft_seconds = median(std::move(drafts));  // a prompt's first call, which reads it, counts as one of many
    return seen;
}

}  // namespace outrider::cli
