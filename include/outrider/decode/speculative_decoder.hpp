// The loop: propose, verify, accept, commit, emit, over any drafter, target and acceptance policy.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/core/error.hpp>
#include <outrider/decode/concepts.hpp>
#include <outrider/decode/detail/round_checks.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/decode/detail/tree_limits.hpp>
#include <outrider/decode/tree_budget.hpp>

namespace outrider {

struct DecoderOptions {
    /// Nodes that each sequence may draft in a round; 0: plain; kAutoNodes: as many as pay, see AutoBudget.
    std::int64_t nodes = kAutoNodes;
    std::size_t max_batch = 64;  ///< sequences decoded together; more wait their turn
};

/// What a round that does not throw has to say.
struct StepOutcome {
    bool more = false;              ///< something is left to decode
    std::exception_ptr error = {};  ///< the round's first; null: none
};

/// Decodes any number of sequences with one drafter, one target and one policy, each held by value, by unique_ptr or
/// shared_ptr (choice at run time: SpeculativeDecoder{std::unique_ptr<DraftModel>{...}, ...}), or by reference
/// (std::ref). The text of a sequence depends on target, policy, prompt and options alone: never on the drafter, the
/// budget, or what is decoded beside it (for policies that use a drafter's draws, its law does not).
///
/// Sequences join and leave between rounds. Callbacks run inside `step` and may call join, cancel and take.
///
/// Errors. An exception of a sequence's callback or of the policy ends that sequence alone (FinishReason::failed); one
/// of prefill ends the sequences that were joining; one of propose, verify or commit ends all that were decoding. The
/// caches of ended sequences are released, the others are decoded on, and `step` throws the first exception once the
/// round is over: call it again to go on. Not thread-safe; one decoder belongs to one thread.
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
          limits_(limits()),
          book_(limits_.sequences(options.max_batch)) {
        if constexpr (requires { policy_.part().check_draws(draft_.part().draws()); })
            policy_.part().check_draws(draft_.part().draws());
    }
    /// With the default policy, Match.
    SpeculativeDecoder(D drafter, V verifier, DecoderOptions options = {})
        requires std::same_as<A, Match>
        : SpeculativeDecoder(std::move(drafter), std::move(verifier), Match{}, options) {}
    SpeculativeDecoder(SpeculativeDecoder&&) = default;
    SpeculativeDecoder& operator=(SpeculativeDecoder&&) = delete;
    ~SpeculativeDecoder() {
        for (const auto& session : book_.active()) session->end(FinishReason::cancelled);
        book_.leave(release());  // what release throws is noted, and lost
    }

    /// Queues a sequence; it enters at the next step. Throws Error for a prompt or options that cannot be served.
    SequenceId join(Prompt prompt, GenerationOptions options = {}, Sink sink = {}) {
        const std::int64_t context = verify_.part().context();
        check_request(prompt, options, sink, verify_.part().vocabulary(), context);
        if constexpr (requires { policy_.part().check_request(options.sampling()); })
            policy_.part().check_request(options.sampling());
        if (!options.seed) options.seed = fresh_seed();
        const SequenceId id = next_sequence_id();
        book_.wait(std::make_unique<Session>(id, std::move(prompt), options, context, std::move(sink)));
        return id;
    }

    /// One round of every active sequence; those that wait enter first. False when nothing is left to decode.
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
        while (step()) {
        }
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

    /// The result of a sequence that has ended; kept until it is taken.
    [[nodiscard]] GenerationResult take(SequenceId id) { return book_.take(id); }

    [[nodiscard]] std::size_t max_batch() const noexcept { return book_.max_batch(); }
    [[nodiscard]] std::size_t active() const noexcept { return book_.active().size(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return book_.waiting(); }
    [[nodiscard]] HeldType<D>& drafter() { return draft_.part(); }
    [[nodiscard]] HeldType<V>& verifier() { return verify_.part(); }

private:
    void round() {
        const auto trees = usable(draft(budget_.plan(book_.owed().tokens())));
        const auto output = verify_->verify(trees);
        const auto accepted = accept_each(trees, output);
        if (accepted.empty()) return;  // the policy threw for every one
        owe(verify_->commit(accepted));
        emit();
    }

    /// Trees of the sequences that draft, the root alone for the others, all in the order of the active ones.
    [[nodiscard]] std::vector<SequenceTree> draft(const DraftPlan& plan) {
        std::vector<SequenceTree> trees, drafted;
        for (const auto& session : book_.active())
            trees.push_back({session->id(), TokenTree::root_only(session->pending())});
        if (plan.drafting.empty()) return trees;
        drafted = draft_->propose(book_.owed().take(plan.drafting), plan.budget);
        check_trees(drafted, book_.active(), plan.drafting, verify_.part().vocabulary());
        for (std::size_t i = 0; i < drafted.size(); ++i) trees[plan.drafting[i]] = std::move(drafted[i]);
        return trees;
    }

    /// The trees without nodes that the texts could not use, and as many of the others as pay.
    [[nodiscard]] std::vector<SequenceTree> usable(std::vector<SequenceTree> trees) {
        for (std::size_t i = 0; i < trees.size(); ++i)
            trees[i].tree = book_.active()[i]->usable(std::move(trees[i].tree), trees[i].samples != nullptr);
        return limits_.fit(budget_.trim(std::move(trees)));
    }

    /// Asks the policy tree by tree. Sequences for which it throws leave, and those that a logit hook cancelled; the
    /// others stay in step with the result.
    [[nodiscard]] std::vector<SequenceAcceptance> accept_each(const std::vector<SequenceTree>& trees,
                                                              const TreeOutput& output) {
        const std::int64_t vocabulary = verify_.part().vocabulary();
        times_.verify = verify_.lap();
        check_output(output, trees, vocabulary);
        std::vector<Acceptance> chosen(trees.size());
        for (std::size_t i = 0; i < trees.size(); ++i) {
            Session& session = *book_.active()[i];
            try {
                chosen[i] = decide(session, trees[i], rows_of(output, i));
                session.accept(trees[i].tree, chosen[i], vocabulary);
                budget_.saw(trees[i].tree, chosen[i].path.size());
            } catch (...) {
                book_.fail(session);
            }
        }
        std::vector<SequenceAcceptance> accepted;
        for (std::size_t i = 0; i < trees.size(); ++i)
            if (const Session& session = *book_.active()[i]; !session.ended())
                accepted.push_back({trees[i].sequence, std::move(chosen[i]), session.committed()});
        book_.leave(release());
        return accepted;
    }

    /// Where a hook of the request fails somewhere below the root, or the target's logits are broken there, the draft
    /// has led there: the root alone is decided, so that the text before the failure is the same as without drafts.
    /// What the policy has against the draft itself is not covered up.
    [[nodiscard]] Acceptance decide(Session& session, const SequenceTree& draft, const TreeRows& rows) {
        SequenceContext context = session.context();
        context.samples = draft.samples.get();
        try {
            return policy_->accept(draft.tree, rows, context);
        } catch (const Error& error) {
            const bool of_the_draft = error.kind() == ErrorKind::bad_request && !context.sampling->logit_hook;
            if (draft.tree.drafted() == 0 || of_the_draft) throw;
        } catch (...) {
            if (draft.tree.drafted() == 0) throw;
        }
        context.samples = nullptr;
        const TreeRows first{rows.logits.defined() ? rows.logits.slice(0, 0, 1) : rows.logits,
                             rows.argmax.defined() ? rows.argmax.slice(0, 0, 1) : rows.argmax};
        return policy_->accept(TokenTree::root_only(draft.tree.token(0)), first, context);
    }

    /// What was committed is owed to the drafter.
    void owe(Feedback committed) {
        check_feedback(committed, book_.active());
        book_.owed().add(std::move(committed));
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
        admit();
        if (book_.active().empty()) return;
        look_at_costs();
        const double start = now_seconds();
        draft_.lap(), verify_.lap(), policy_.lap();  // what a round that failed may have left
        try {
            round();
            account(now_seconds() - start);
        } catch (...) {
            book_.fail(book_.active());
        }
        book_.leave(release());
    }

    /// What the target can take, where it says so.
    [[nodiscard]] VerifierLimits limits() {
        if constexpr (requires { verify_.part().limits(); }) return verify_.part().limits();
        return {};
    }

    /// What the drafter reads, where it says so.
    [[nodiscard]] FeatureRequest features() {
        if constexpr (requires { draft_.part().features(); }) return draft_.part().features();
        return {};
    }

    /// Prefills those that wait, in one ragged batch.
    void admit() {
        SequenceBook::Sessions joining = book_.next(release());
        if (joining.empty()) return;
        std::vector<Prefill> prompts;
        for (const auto& session : joining) prompts.push_back(session->prefill(features()));
        try {
            Feedback first = verify_->prefill(prompts);
            const double share = verify_.lap() / static_cast<double>(joining.size());
            for (const auto& session : joining) session->stats().seconds.prefill += share;
            book_.enter(joining, std::move(first));
        } catch (...) {
            book_.fail(joining);
            book_.retire(joining, release());
        }
    }

    /// Before the first round that could draft: what passes cost, where the verifier can tell.
    void look_at_costs() {
        if (looked_ || !budget_.automatic()) return;
        looked_ = true;
        if constexpr (requires { draft_.part().kind(); })
            if (draft_.part().kind() == "none") return;
        if constexpr (requires { verify_.part().pass_times(); }) {
            try {
                const std::vector<PassTime> times = verify_.part().pass_times();
                budget_.measured(times);
            } catch (...) {
                book_.note_error();
            }
        }
    }

    /// Shares the round's time among its sequences, and tells the budget what came of it.
    void account(double total) {
        if (book_.active().empty()) return;
        times_.draft = draft_.lap();
        times_.accept = policy_.lap();
        times_.other = total - times_.draft - times_.verify - times_.accept - times_.commit;
        budget_.learn(book_.account(times_));
    }

    /// Frees what drafter and target hold of a sequence.
    [[nodiscard]] auto release() {
        return [this](SequenceId id) {
            if constexpr (requires { draft_.part().forget(id); }) draft_.part().forget(id);
            if constexpr (requires { verify_.part().release(id); }) verify_.part().release(id);
        };
    }

    void check_not_stepping() const {
        require(!stepping_, "SpeculativeDecoder: step, run and generate must not be called from inside a callback");
    }

    Stage<D> draft_;
    Stage<V> verify_;
    Stage<A> policy_;
    TreeBudget budget_;
    TreeLimits limits_;
    SequenceBook book_;
    StageSeconds times_;  ///< of the round that is running
    bool stepping_ = false;
    bool looked_ = false;  ///< for the costs of passes
};

template <typename D, typename V>
SpeculativeDecoder(D, V, DecoderOptions = {}) -> SpeculativeDecoder<D, V, Match>;

}  // namespace outrider
