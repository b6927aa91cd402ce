// The loop: propose, verify, accept, commit, emit, over any drafter, target and acceptance policy.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/accept/policy.hpp>
#include <outrider/budget/detail/self_priced.hpp>
#include <outrider/budget/detail/tree_budget.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/options.hpp>
#include <outrider/decode/detail/ask_drafter.hpp>
#include <outrider/decode/detail/decide.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/decode/detail/round_checks.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/decode/detail/take_prompts.hpp>
#include <outrider/decode/detail/tree_limits.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

/// Decodes any number of sequences with one drafter, one target and one policy, each held by value, by unique_ptr or
/// shared_ptr (choice at run time: SpeculativeDecoder{std::unique_ptr<DraftModel>{...}, ...}), or by reference
/// (std::ref). The text of a sequence depends on target, policy, prompt and options alone: never on the drafter, the
/// budget, or what is decoded beside it (for policies that use a drafter's draws, its law does not).
///
/// Sequences join and leave between rounds. Prompts enter in pieces, beside the rounds of others. Callbacks run inside
/// `step` and may call join, cancel and take.
///
/// Errors. An exception of a sequence's callback or of the policy ends that sequence alone (FinishReason::failed); one
/// of a prompt those that were entering; one of propose, verify or commit all that were decoding. A verifier may refuse
/// one sequence instead (SequenceFeedback::refused). The caches of ended sequences are released, the others are decoded
/// on, and `step` throws the first exception once the round is over: call it again to go on. Not thread-safe.
template <typename D, typename V, typename A = Match>
    requires Drafter<HeldType<D>> && TargetVerifier<HeldType<V>> && Acceptor<HeldType<A>> &&
             Fits<HeldType<D>, HeldType<A>>
class SpeculativeDecoder {
public:
    SpeculativeDecoder(D drafter, V verifier, A policy, DecoderOptions options = {})
        : draft_(std::move(drafter)),
          verify_(std::move(verifier)),
          policy_(std::move(policy)),
          budget_(options.nodes),
          limits_(detail::limits_of(verify_.part())),
          book_(limits_.sequences(options.max_batch)),
          options_(options) {
        require_in(ranges::kPrefillRows, options.prefill_rows, "DecoderOptions", "prefill_rows");
        require_in(ranges::kOwedTokens, options.owed_tokens, "DecoderOptions", "owed_tokens");
        detail::check_draws(policy_.part(), draft_.part());
    }
    /// With the default policy, Match.
    SpeculativeDecoder(D drafter, V verifier, DecoderOptions options = {})
        requires std::same_as<A, Match>
        : SpeculativeDecoder(std::move(drafter), std::move(verifier), Match{}, options) {}
    SpeculativeDecoder(SpeculativeDecoder&&) = default;
    SpeculativeDecoder& operator=(SpeculativeDecoder&&) = delete;
    ~SpeculativeDecoder() {
        book_.cancel_all();
        book_.leave(release());  // what release throws is noted, and lost
    }

    /// Queues a sequence; it enters at the next step. Throws Error for a prompt or options that cannot be served.
    SequenceId join(Prompt prompt, GenerationOptions options = {}, Sink sink = {}) {
        const std::int64_t vocabulary = verify_.part().vocabulary(), context = verify_.part().context();
        check_request(prompt, options, sink, vocabulary, context);
        detail::check_policy(policy_.part(), options.sampling());
        if (!options.seed) options.seed = fresh_seed();
        const SequenceId id = next_sequence_id();
        book_.wait(std::make_unique<Session>(id, std::move(prompt), options, vocabulary, context, std::move(sink)));
        return id;
    }

    /// One round of all active sequences, pieces of entering prompts first. False when nothing is left to decode.
    bool step() {
        advance();
        if (const std::exception_ptr error = book_.first_error()) std::rethrow_exception(error);
        return !book_.empty();
    }

    /// `step` for hosts that serve many: throws nothing. What ended a sequence is in its result; `error` is the first
    /// exception of the round, those included that concern no sequence.
    StepOutcome try_step() noexcept {
        StepOutcome outcome;
        try {
            advance();
        } catch (...) {
            book_.note_error();
        }
        outcome.error = book_.first_error();
        outcome.more = !book_.empty();
        return outcome;
    }

    /// Decodes until every sequence has ended.
    void run() {
        while (step()) continue;
    }

    /// Decodes one prompt to its end, and whatever else is active beside it. Throws what ended this sequence; errors of
    /// others wait for the next `step`.
    GenerationResult generate(Prompt prompt, GenerationOptions options = {}, Sink sink = {}) {
        check_not_stepping();
        const SequenceId id = join(std::move(prompt), std::move(options), std::move(sink));
        const std::exception_ptr before = book_.first_error();
        while (!finished(id)) advance();
        const std::exception_ptr error = book_.first_error();
        book_.note(before);
        GenerationResult result = take(id);
        if (result.finish == FinishReason::failed && error) std::rethrow_exception(error);
        book_.note(error);
        return result;
    }

    /// Ends a sequence: at once, or before its next token when called from a callback. False when there is none.
    bool cancel(SequenceId id) {
        const bool known = book_.cancel(id);
        if (!stepping_) book_.leave(release());
        return known;
    }

    [[nodiscard]] bool finished(SequenceId id) const { return book_.finished(id); }

    /// Sequences that have ended and whose results nobody has taken yet, in no order.
    [[nodiscard]] std::vector<SequenceId> ended() const { return book_.ended(); }

    /// Queues a sequence that goes on after another one's prompt and text so far, with the tokens of `more`, if any.
    /// The other may be decoded or have ended, and not been taken. Where the verifier keeps texts (Verifier::resumes),
    /// nothing of it is read again.
    SequenceId fork(SequenceId from, Prompt more, GenerationOptions options = {}, Sink sink = {}) {
        const std::vector<TokenId> text = book_.text_of(from);
        more.tokens.insert(more.tokens.begin(), text.begin(), text.end());
        return join(std::move(more), std::move(options), std::move(sink));
    }

    /// The result of a sequence that has ended; kept until it is taken.
    [[nodiscard]] GenerationResult take(SequenceId id) { return book_.take(id); }

    [[nodiscard]] std::size_t max_batch() const noexcept { return book_.max_batch(); }
    [[nodiscard]] std::size_t active() const noexcept { return book_.active().size(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return book_.waiting(); }
    [[nodiscard]] HeldType<D>& drafter() { return draft_.part(); }
    [[nodiscard]] HeldType<V>& verifier() { return verify_.part(); }

private:
    /// `beside`: pieces of prompts that the forward takes along.
    void round(std::span<const Prefill> beside) {
        const auto trees = usable(drafted());
        const auto output = run_forward(verify_, book_, trees, beside, times_);
        const auto accepted = accept_each(trees, output);
        if (accepted.empty()) return;  // the policy threw for every one
        owe(verify_->commit(accepted));
        emit();
    }

    /// Trees of the sequences that draft, the root alone for the others, all in the order of the active ones.
    [[nodiscard]] std::vector<SequenceTree> drafted() {
        const std::int64_t most = taken_up(draft_, book_.active().size() > 1, options_.owed_tokens);
        auto plan = limits_.within(budget_.plan(book_.owed().tokens(), most), book_.active().size());
        plan.budget.draws = detail::reads_draws(policy_.part()), plan.budget.owed_tokens = options_.owed_tokens;
        auto trees = ask_drafter(draft_, book_, plan, verify_.part().vocabulary());
        times_.draft = draft_.lap();
        if (features().wanted) plan.late = book_.owed().beyond(options_.owed_tokens);
        take_up(draft_, book_.owed().take(plan.late, share_of(most, std::ssize(plan.late))), options_.owed_tokens);
        caught_up_ = draft_.lap();
        return trees;
    }

    /// The trees without nodes that the texts could not use, as many of the others as pay, and what constraints expect.
    [[nodiscard]] std::vector<SequenceTree> usable(std::vector<SequenceTree> trees) {
        trees = budget_.trim(without_useless(std::move(trees), book_));
        if (options_.nodes != 0) trees = with_expected(std::move(trees), book_);
        return told_what_is_read(limits_.fit(std::move(trees)), book_, policy_.part());
    }

    /// Sequences that fail, are refused or cancelled here leave; the others stay in step with the result.
    [[nodiscard]] std::vector<SequenceAcceptance> accept_each(const std::vector<SequenceTree>& trees,
                                                              const TreeOutput& output) {
        const std::int64_t vocabulary = verify_.part().vocabulary();
        check_output(output, trees, vocabulary);
        auto accepted = decide_each(policy_, book_, trees, output, vocabulary,
                                    [&](const auto& tree, const auto& chosen) { budget_.saw(tree, chosen); });
        book_.leave(release());
        return accepted;
    }

    /// What was committed is owed to the drafter.
    void owe(Feedback committed) {
        check_feedback(committed, book_.active());
        book_.refuse(committed);
        book_.owed().add(std::move(committed));
        book_.leave(release());
    }

    void emit() {
        times_.commit = verify_.lap();
        for (const auto& session : book_.active()) {
            if (session->ended()) continue;  // cancelled by another's callback
            try {
                session->emit();
            } catch (...) {
                book_.fail(*session);
            }
        }
    }

    /// What `step` does, its exceptions noted.
    void advance() {
        check_not_stepping();
        const Marked mark(stepping_);
        std::vector<Prefill> beside;
        if (book_.waiting() > 0 && features().wanted) take_up_prompts(draft_, book_, options_.owed_tokens);
        if (book_.waiting() > 0) beside = take_prompts(verify_, book_, features(), options_.prefill_rows, release());
        if (book_.active().empty()) return;
        look_at_costs();
        const double start = now_seconds();
        draft_.lap(), verify_.lap(), policy_.lap();  // what others may have left
        try {
            round(beside);
            account(now_seconds() - start, beside.empty());
        } catch (...) {
            book_.fail_round();
        }
        book_.leave(release());
        book_.activate();
    }

    /// What is gathered of the target; nothing where nobody drafts.
    [[nodiscard]] FeatureRequest features() {
        return options_.nodes == 0 ? FeatureRequest::none() : detail::features_of(draft_.part());
    }

    /// Before the first round that could draft: what passes cost, where the verifier can tell.
    void look_at_costs() {
        if (looked_ || !budget_.automatic()) return;
        looked_ = true;
        if (detail::never_drafts(draft_.part())) return;
        std::vector<PassTime> times;
        try {
            times = detail::pass_times_of(verify_.part());
        } catch (...) {
            book_.note_error();
        }
        budget_.measured(times, rests_by_itself(draft_.part()));
    }

    /// Shares the round's time among its sequences, and tells the budget what came of it, unless prompts were in it.
    void account(double total, bool pure) {
        if (book_.active().empty()) return;
        times_.draft += caught_up_;
        times_.accept = policy_.lap();
        times_.other = total - times_.prefill - times_.draft - times_.verify - times_.accept - times_.commit;
        budget::RoundReport report = book_.account(times_);
        report.draft_seconds -= caught_up_;  // what is seldom says nothing of drafts
        if (pure) budget_.learn(report);
    }

    /// Frees what drafter and target hold of a sequence, or keeps its text.
    [[nodiscard]] auto release() {
        return [this](SequenceId id, bool well) {
            try {
                detail::forget(draft_.part(), id);
            } catch (...) {
                book_.note_stage_error();  // the target is told all the same
            }
            detail::release(verify_.part(), id, well);
        };
    }

    void check_not_stepping() const {
        require(!stepping_, "SpeculativeDecoder: step, run and generate must not be called from inside a callback");
    }

    Stage<D> draft_;
    Stage<V> verify_;
    Stage<A> policy_;
    budget::TreeBudget budget_;
    TreeLimits limits_;
    SequenceBook book_;
    DecoderOptions options_;
    StageSeconds times_;    ///< of the round that is running
    double caught_up_ = 0;  ///< of its draft, seconds for sequences that did not draft
    bool stepping_ = false;
    bool looked_ = false;  ///< for the costs of passes
};

template <typename D, typename V>
SpeculativeDecoder(D, V, DecoderOptions = {}) -> SpeculativeDecoder<D, V, Match>;

}  // namespace outrider
