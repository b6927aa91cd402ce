// The loop: propose, verify, accept, commit, emit, over any drafter, target and acceptance policy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <iterator>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/decode/limit_depth.hpp>
#include <outrider/decode/owed_feedback.hpp>
#include <outrider/decode/round_checks.hpp>
#include <outrider/decode/session.hpp>
#include <outrider/decode/stage.hpp>
#include <outrider/decode/tree_budget.hpp>
#include <outrider/interface/concepts.hpp>

namespace outrider {

struct DecoderOptions {
    /// Nodes that each sequence may draft in a round; 0: plain; kAutoNodes: as many as pay, see AutoBudget.
    std::int64_t nodes = kAutoNodes;
    std::size_t max_batch = 64;  ///< sequences decoded together; more wait their turn
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
template <typename D, typename V, typename A>
    requires Drafter<HeldType<D>> && TargetVerifier<HeldType<V>> && Acceptor<HeldType<A>> &&
             Fits<HeldType<D>, HeldType<A>>
class SpeculativeDecoder {
public:
    SpeculativeDecoder(D drafter, V verifier, A policy, DecoderOptions options = {})
        : draft_(std::move(drafter)), verify_(std::move(verifier)), policy_(std::move(policy)),
          budget_(options.nodes), max_batch_(options.max_batch) {
        require(max_batch_ > 0, "DecoderOptions: max_batch is 0; expected at least 1");
        if constexpr (requires { policy_.part().check_draws(draft_.part().draws()); })
            policy_.part().check_draws(draft_.part().draws());
    }
    SpeculativeDecoder(SpeculativeDecoder&&) = default;
    SpeculativeDecoder& operator=(SpeculativeDecoder&&) = delete;
    ~SpeculativeDecoder() {
        for (auto& session : active_) session->end(FinishReason::cancelled);
        drop_ended();  // what release throws is noted, and lost
    }

    /// Queues a sequence; it enters at the next step. Throws Error for a prompt or options that cannot be served.
    SequenceId join(Prompt prompt, GenerationOptions options = {}, Sink sink = {}) {
        const std::int64_t context = verify_.part().context();
        check_request(prompt, options, sink, verify_.part().vocabulary(), context);
        const SequenceId id = next_sequence_id();
        waiting_.push_back(std::make_unique<Session>(id, std::move(prompt), options, context, std::move(sink)));
        return id;
    }

    /// One round of every active sequence; those that wait enter first. False when nothing is left to decode.
    bool step() {
        require(!stepping_, "SpeculativeDecoder: step, run and generate must not be called from inside a callback");
        stepping_ = true;
        admit();
        if (!active_.empty()) {
            look_at_costs();
            const double start = now_seconds();
            draft_.lap(), verify_.lap(), policy_.lap();  // what a round that failed may have left
            try {
                round();
                account(now_seconds() - start);
            } catch (...) {
                for (const auto& session : active_) session->fail(std::current_exception());
                note_error();
            }
            drop_ended();
        }
        stepping_ = false;
        if (first_error_) std::rethrow_exception(std::exchange(first_error_, nullptr));
        return !active_.empty() || !waiting_.empty();
    }

    /// Decodes until every sequence has ended.
    void run() {
        while (step()) {}
    }

    /// Decodes one prompt to its end (and whatever else is active beside it).
    GenerationResult generate(Prompt prompt, GenerationOptions options = {}, Sink sink = {}) {
        const SequenceId id = join(std::move(prompt), std::move(options), std::move(sink));
        try {
            while (!finished(id)) step();
        } catch (...) {
            cancel(id);
            finished_.erase(id);
            throw;
        }
        return take(id);
    }

    /// Ends a sequence: at once, or before its next token when called from a callback. False when there is none.
    bool cancel(SequenceId id) {
        const auto is_it = [id](const auto& session) { return session->id() == id; };
        if (const auto it = std::find_if(active_.begin(), active_.end(), is_it); it != active_.end()) {
            (*it)->end(FinishReason::cancelled);
            if (!stepping_) drop_ended();
            return true;
        }
        const auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it);
        if (it == waiting_.end()) return false;
        (*it)->end(FinishReason::cancelled);
        finished_.emplace(id, (*it)->finish());
        waiting_.erase(it);
        return true;
    }

    [[nodiscard]] bool finished(SequenceId id) const { return finished_.contains(id); }

    /// The result of a sequence that has ended; kept until it is taken.
    [[nodiscard]] GenerationResult take(SequenceId id) {
        auto node = finished_.extract(id);
        require(!node.empty(), "SpeculativeDecoder: no result of sequence {}; it has not ended, or was taken", id);
        return std::move(node.mapped());
    }

    [[nodiscard]] std::size_t max_batch() const noexcept { return max_batch_; }
    [[nodiscard]] std::size_t active() const noexcept { return active_.size(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    [[nodiscard]] HeldType<D>& drafter() { return draft_.part(); }
    [[nodiscard]] HeldType<V>& verifier() { return verify_.part(); }

private:
    using Sessions = std::vector<std::unique_ptr<Session>>;

    void round() {
        const auto trees    = usable(draft(budget_.plan(owed_.tokens())));
        const auto output   = verify_->verify(trees);
        const auto accepted = accept_each(trees, output);
        if (accepted.empty()) return;  // the policy threw for every one
        owe(verify_->commit(accepted));
        emit();
    }

    /// Trees of the sequences that draft, the root alone for the others, all in the order of active_.
    [[nodiscard]] std::vector<SequenceTree> draft(const DraftPlan& plan) {
        std::vector<SequenceTree> trees, drafted;
        for (const auto& session : active_)
            trees.push_back({session->id(), TokenTree::root_only(session->pending())});
        if (plan.drafting.empty()) return trees;
        drafted = draft_->propose(owed_.take(plan.drafting), plan.budget);
        check_trees(drafted, active_, plan.drafting, verify_.part().vocabulary());
        for (std::size_t i = 0; i < drafted.size(); ++i) trees[plan.drafting[i]] = std::move(drafted[i]);
        return trees;
    }

    /// Before the first round that could draft: what passes cost, where the verifier can tell.
    void look_at_costs() {
        if (looked_ || !budget_.automatic()) return;
        looked_ = true;
        if constexpr (requires { draft_.part().kind(); })
            if (draft_.part().kind() == "none") return;
        if constexpr (requires { verify_.part().pass_times(); }) {
            const std::vector<PassTime> times = verify_.part().pass_times();
            budget_.measured(times);
        }
    }

    /// Prefills those that wait, in one ragged batch.
    void admit() {
        Sessions joining, done;
        while (!waiting_.empty() && active_.size() + joining.size() < max_batch_) {
            const bool wants_none = waiting_.front()->ended();  // max_tokens is 0
            (wants_none ? done : joining).push_back(std::move(waiting_.front()));
            waiting_.pop_front();
        }
        retire(done);
        if (joining.empty()) return;
        std::vector<Prefill> prompts;
        for (const auto& session : joining) prompts.push_back(session->prefill());
        try {
            Feedback first = verify_->prefill(prompts);
            check_feedback(first, joining);
            const double share = verify_.lap() / static_cast<double>(joining.size());
            for (const auto& session : joining) session->stats().seconds.prefill += share;
            for (SequenceFeedback& one : first) owed_.join(std::move(one));
            std::move(joining.begin(), joining.end(), std::back_inserter(active_));
        } catch (...) {
            for (const auto& session : joining) session->fail(std::current_exception());
            note_error();
            retire(joining);
        }
    }

    /// The trees without nodes that the texts could not use, and as many of the others as pay.
    [[nodiscard]] std::vector<SequenceTree> usable(std::vector<SequenceTree> trees) {
        for (std::size_t i = 0; i < trees.size(); ++i)
            trees[i].tree = limit_depth(std::move(trees[i].tree), active_[i]->left() - 1);
        return budget_.trim(std::move(trees));
    }

    /// Asks the policy tree by tree. A sequence for which it throws leaves; the others stay in step with the result.
    [[nodiscard]] std::vector<SequenceAcceptance> accept_each(const std::vector<SequenceTree>& trees,
                                                              const TreeOutput& output) {
        times_.verify = verify_.lap();
        check_output(output, trees);
        std::vector<SequenceAcceptance> accepted;
        accepted.reserve(trees.size());
        std::vector<bool> failed(trees.size(), false);
        for (std::size_t i = 0; i < trees.size(); ++i) {
            try {
                SequenceContext context = active_[i]->context();
                context.samples = trees[i].samples.get();
                Acceptance chosen = policy_->accept(trees[i].tree, rows_of(output, i), context);
                active_[i]->accept(trees[i].tree, chosen, verify_.part().vocabulary());
                budget_.saw(trees[i].tree, chosen.path.size());
                accepted.push_back({trees[i].sequence, std::move(chosen)});
            } catch (...) {
                active_[i]->fail(std::current_exception());
                note_error();
                failed[i] = true;
            }
        }
        drop(failed);
        return accepted;
    }

    /// What was committed is owed to the drafter.
    void owe(Feedback committed) {
        check_feedback(committed, active_);
        owed_.add(std::move(committed));
    }

    void emit() {
        times_.commit = verify_.lap();
        for (const auto& session : active_) {
            if (session->ended()) continue;  // cancelled by another's callback
            try {
                session->emit();
            } catch (...) {
                session->fail(std::current_exception());
                note_error();
            }
        }
    }

    /// Shares the round's time among its sequences, and tells the budget what came of it.
    void account(double total) {
        if (active_.empty()) return;
        times_.draft = draft_.lap();
        times_.accept = policy_.lap();
        times_.other = total - times_.draft - times_.verify - times_.accept - times_.commit;
        RoundReport report{active_.size(), 0, 0, times_.draft, times_.verify + times_.commit};
        const double share = 1.0 / static_cast<double>(active_.size());
        for (const auto& session : active_) {
            StageSeconds& sum = session->stats().seconds;
            sum.draft += share * times_.draft, sum.verify += share * times_.verify;
            sum.accept += share * times_.accept, sum.commit += share * times_.commit;
            sum.other += share * times_.other;
            report.drafted += session->drafted(), report.accepted += session->kept();
        }
        budget_.learn(report);
    }

    /// Takes the marked sequences out, and their feedback with them.
    void drop(const std::vector<bool>& marked) {
        if (std::find(marked.begin(), marked.end(), true) == marked.end()) return;
        Sessions leaving, staying;
        for (std::size_t i = 0; i < active_.size(); ++i)
            (marked[i] ? leaving : staying).push_back(std::move(active_[i]));
        active_ = std::move(staying);
        owed_.drop(marked);
        retire(leaving);
    }

    void drop_ended() {
        std::vector<bool> ended(active_.size());
        for (std::size_t i = 0; i < active_.size(); ++i) ended[i] = active_[i]->ended();
        drop(ended);
    }

    /// Keeps the results and frees what drafter and target hold.
    void retire(Sessions& leaving) {
        for (const auto& session : leaving) {
            finished_.emplace(session->id(), session->finish());
            try {
                release(session->id());
            } catch (...) {
                note_error();
            }
        }
    }

    void release(SequenceId id) {
        if constexpr (requires { draft_.part().forget(id); }) draft_.part().forget(id);
        if constexpr (requires { verify_.part().release(id); }) verify_.part().release(id);
    }

    void note_error() {
        if (!first_error_) first_error_ = std::current_exception();
    }

    Stage<D> draft_;
    Stage<V> verify_;
    Stage<A> policy_;
    TreeBudget budget_;
    std::size_t max_batch_;
    Sessions active_;
    OwedFeedback owed_;                             ///< of active_, in its order: what the drafter learns next
    std::deque<std::unique_ptr<Session>> waiting_;  ///< joined, not yet prefilled
    std::unordered_map<SequenceId, GenerationResult> finished_;
    std::exception_ptr first_error_;
    StageSeconds times_;  ///< of the round that is running
    bool stepping_ = false;
    bool looked_ = false;  ///< for the costs of passes
};

}  // namespace outrider
