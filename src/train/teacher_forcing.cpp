#include <outrider/train/detail/teacher_forcing.hpp>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

namespace {

constexpr SequenceId kFirstSequence = std::int64_t{1} << 41;

struct Running {
    const TeacherText* text = nullptr;
    SequenceId sequence = 0;
    std::int64_t known = 0;    ///< tokens the drafter has seen
    std::int64_t pending = 0;  ///< index of the pending token
};

SequenceFeedback feedback_of(const Running& run, bool features) {
    const auto begin = static_cast<std::size_t>(run.known), count = static_cast<std::size_t>(run.pending - run.known);
    const auto tokens = run.text->tokens.subspan(begin, count);
    return {run.sequence,
            {tokens.begin(), tokens.end()},
            features ? run.text->features.slice(0, run.known, run.pending).to(at::kFloat) : at::Tensor{},
            run.text->tokens[static_cast<std::size_t>(run.pending)],
            run.pending};
}

/// Nodes of the tree that the text goes through.
std::int64_t accepted_by(const TokenTree& tree, const Running& run, DecodeStats& stats) {
    const auto next = run.text->tokens.subspan(static_cast<std::size_t>(run.pending) + 1);
    std::size_t place = 0;
    const Acceptance walked =
        accept_walk(tree, [&](NodeIndex) { return place < next.size() ? next[place++] : kNoToken; });
    const auto depth = static_cast<std::size_t>(tree.height());
    if (stats.drafted_per_depth.size() < depth) stats.drafted_per_depth.resize(depth, 0);
    if (stats.accepted_per_depth.size() < depth) stats.accepted_per_depth.resize(depth, 0);
    for (std::size_t d = 0; d < depth; ++d) ++stats.drafted_per_depth[d];
    for (std::size_t d = 0; d < walked.path.size(); ++d) ++stats.accepted_per_depth[d];
    return static_cast<std::int64_t>(walked.path.size());
}

}  // namespace

DecodeStats teacher_forced_rounds(DraftModel& draft, std::span<const TeacherText> texts, std::int64_t nodes) {
    std::vector<Running> running;
    for (const TeacherText& text : texts) {
        require(text.answer >= 1 && text.answer < static_cast<std::int64_t>(text.tokens.size()),
                "teacher_forced_rounds: the answer begins at token {} of {}, expected 1 to one before the last",
                text.answer, text.tokens.size());
        running.push_back({&text, kFirstSequence + static_cast<SequenceId>(running.size()), 0, text.answer - 1});
    }
    DecodeStats stats;
    while (!running.empty()) {
        Feedback feedback;
        for (const Running& run : running) feedback.push_back(feedback_of(run, draft.features().wanted));
        const std::vector<SequenceTree> trees = draft.propose(feedback, {nodes});
        std::vector<Running> left;
        for (std::size_t i = 0; i < running.size(); ++i) {
            Running run = running[i];
            const std::int64_t accepted = accepted_by(trees[i].tree, run, stats);
            const std::int64_t rest = static_cast<std::int64_t>(run.text->tokens.size()) - 1 - run.pending;
            ++stats.rounds;
            stats.drafted += static_cast<std::int64_t>(trees[i].tree.drafted());
            stats.accepted += accepted;
            stats.tokens += std::min(accepted + 1, rest);
            run.known = run.pending;
            run.pending += accepted + 1;
            if (run.pending + 1 < static_cast<std::int64_t>(run.text->tokens.size())) {
                left.push_back(run);
            } else {
                draft.forget(run.sequence);
            }
        }
        running = std::move(left);
    }
    return stats;
}

}  // namespace outrider
