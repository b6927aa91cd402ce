// Sequences whose prompts are on their way into the target, piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/draft/detail/owed_sequence.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// `begin` where the verifier keeps texts, then `pieces`, the verifier's prefill of them, and `took`. Entries stand in
/// the order of joining.
class OUTRIDER_API PromptIntake {
public:
    /// Takes the session over, unless it throws.
    void add(std::unique_ptr<Session>& session) {
        entries_.emplace_back();
        entries_.back().session = std::move(session);
    }

    /// Asks `resume` (a Prefill to the SequenceFeedback of what the target has of it) for each prompt that has not
    /// begun. One whose beginning another prompt is about to bring waits for it: requests of one prompt read it once.
    /// Sessions for which it throws fail, through `fail`.
    template <typename Resume, typename Fail>
    void begin(const FeatureRequest& features, Resume&& resume, Fail&& fail) {
        for (Entry& entry : entries_) {
            entry.held = !entry.begun && awaits_another(entry);
            if (entry.begun || entry.held || entry.session->ended()) continue;
            entry.begun = true;
            try {
                SequenceFeedback told = resume(entry.session->prefill(features, 0, entry.session->to_prefill()));
                if (told.refused) std::rethrow_exception(told.refused);
                if (told.committed > 0) had(entry, std::move(told));
            } catch (...) {
                fail(*entry.session);
            }
        }
    }

    /// The next pieces of all prompts, `rows` tokens together: shared equally, and what one does not need goes to the
    /// others. A prompt of one token, which has nothing to commit, takes none.
    [[nodiscard]] std::vector<Prefill> pieces(std::int64_t rows, const FeatureRequest& features);

    /// What the verifier says of the pieces, one for each in order; `seconds` are shared by rows. Sessions that it
    /// refuses have ended. Throws Error where it does not fit them.
    void took(Feedback told, double seconds);

    /// What the target told of the prompts of which it told more than `bound` tokens, for a drafter to take up: the
    /// first ones, about `most` of all together.
    [[nodiscard]] Feedback beyond(std::int64_t bound, std::int64_t most);

    /// The sequences whose prompts are through leave by `ready(session, feedback)`, each with the feedback that nobody
    /// took yet. Where it throws, the session stays and fails, through `fail`; `ready` has then not taken it.
    template <typename Ready, typename Fail>
    void through(Ready&& ready, Fail&& fail) {
        for (Entry& entry : entries_) {
            if (!entry.taken || entry.session->ended()) continue;
            try {
                ready(entry.session, entry.told.take());
            } catch (...) {
                fail(*entry.session);
            }
        }
        std::erase_if(entries_, [](const Entry& entry) { return entry.session == nullptr; });
    }
    /// Those that have ended leave.
    template <typename Retire>
    void leave(Retire&& retire) noexcept {
        for (std::size_t i = 0; i < entries_.size();) {
            if (!entries_[i].session->ended()) {
                ++i;
                continue;
            }
            retire(*entries_[i].session);
            entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }

    /// Visits the sessions that the last pieces belong to.
    template <typename Visit>
    void each_in_step(Visit&& visit) {
        for (Entry& entry : entries_)
            if (entry.stepping) visit(*entry.session);
    }
    /// Null: none of this id.
    [[nodiscard]] Session* find(SequenceId id);

    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
    template <typename Visit>
    void each(Visit&& visit) {
        for (Entry& entry : entries_) visit(*entry.session);
    }

private:
    struct Entry {
        std::unique_ptr<Session> session;
        OwedSequence told = {};   ///< what the target committed and nobody took yet
        std::int64_t done = 0;    ///< tokens committed
        std::int64_t taking = 0;  ///< of the piece at hand
        bool taken = false;       ///< it has been in a step, and nothing is left
        bool stepping = false;    ///< it has a piece at hand
        bool begun = false;       ///< kept texts have been asked
        bool held = false;        ///< it waits for the beginning that another prompt brings

        [[nodiscard]] std::int64_t left() const { return held ? 0 : session->to_prefill() - done - taking; }
    };

    void share(std::int64_t rows);
    [[nodiscard]] bool awaits_another(const Entry& entry) const;
    static void had(Entry& entry, SequenceFeedback told);

    std::vector<Entry> entries_;
    std::size_t first_ = 0;  ///< who is served first where there are fewer rows than prompts; goes round
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/prompt_intake-inl.hpp>
#endif
