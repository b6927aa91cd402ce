// Bodies of merged.hpp.
#pragma once

#include <outrider/draft/merged.hpp>

#include <algorithm>
#include <numeric>

#include <outrider/core/error.hpp>
#include <outrider/draft/detail/draft_checks.hpp>
#include <outrider/target/detail/features.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE MergedDraft::MergedDraft(std::vector<std::unique_ptr<DraftModel>> drafters, Clock clock)
    : clock_(std::move(clock)) {
    require(clock_ != nullptr, "MergedDraft: no clock; leave it out for the steady one");
    require(!drafters.empty() && drafters.size() <= 16, "MergedDraft: {} drafters; expected 1 to 16", drafters.size());
    for (auto& drafter : drafters) {
        require(drafter != nullptr, "MergedDraft: a drafter is null");
        if (!kind_.empty()) kind_ += '+';
        kind_ += drafter->kind();
        order_.push_back(parts_.size());
        auto* extender = dynamic_cast<TreeExtender*>(drafter.get());
        parts_.push_back({.drafter = std::move(drafter), .extender = extender});
    }
    features_ = FeatureRequest::none();
    for (const Part& part : parts_) features_ = both(features_, part.drafter->features());
    const DraftDraws all = draws();
    draws_nodes_ = all == DraftDraws::unknown || all > DraftDraws::certain;
    std::stable_partition(order_.begin(), order_.end(), [&](std::size_t d) { return parts_[d].drafter->cheap(); });
}

OUTRIDER_INLINE std::size_t MergedDraft::weight_bytes() const {
    std::size_t sum = 0;
    for (const Part& part : parts_) sum += part.drafter->weight_bytes();
    return sum;
}

OUTRIDER_INLINE DraftDraws MergedDraft::draws() const {
    DraftDraws sum = DraftDraws::no_nodes;
    for (const Part& part : parts_) {
        const DraftDraws one = part.drafter->draws();
        if (one == DraftDraws::unknown || one > DraftDraws::certain) return one;
        sum = std::max(sum, one);
    }
    return sum;
}

/// A node that was drawn may lose its place to likelier ones. Whether it does depends on the path to it and on other
/// branches, never on what was drawn at it or below, since descendants rank behind it: so the draws may be passed on.
OUTRIDER_INLINE void MergedDraft::keep_draws(const SequenceTree& tree, Draws& draws) {
    if (tree.samples == nullptr) return;
    auto& kept = draws[tree.sequence];
    if (kept == nullptr || (kept->is_chosen() && !tree.samples->is_chosen())) kept = tree.samples;
}

/// Of one chain, whose nodes may stay must not depend on draws: it is the drawn one.
OUTRIDER_INLINE bool MergedDraft::drawn_alone(const DraftBudget& budget) const {
    return budget.chains && budget.draws && draws_nodes_;
}

OUTRIDER_INLINE void MergedDraft::forget(SequenceId sequence) {
    proposed_.erase(sequence);
    for (Part& part : parts_) {
        part.owed.erase(sequence);
        part.drafter->forget(sequence);
    }
}

/// Nothing is drafted, so parts that read no features learn of it when they are asked.
OUTRIDER_INLINE std::vector<SequenceTree> MergedDraft::take_up(std::span<const SequenceFeedback> feedback,
                                                               const DraftBudget& budget) {
    std::vector<SequenceTree> roots;
    for (const SequenceFeedback& f : feedback) {
        Stages& stages = proposed_[f.sequence];
        for (const DraftTrie& trie : stages) trie.learn(f, hit_rates_);
        stages.clear();
        roots.push_back({f.sequence, TokenTree::root_only(f.pending)});
    }
    for (std::size_t d = 0; d < parts_.size(); ++d) {
        std::vector<std::size_t> full;
        for (std::size_t i = 0; i < feedback.size(); ++i)
            if (parts_[d].has_waiting(parts_[d].unseen(feedback[i]), budget)) full.push_back(i);
        const Feedback told = owed(d, feedback, full);
        if (told.empty()) continue;
        check_drafts("MergedDraft", parts_[d].drafter->propose(told, budget), told, 0);
    }
    return roots;
}

OUTRIDER_INLINE std::vector<SequenceTree> MergedDraft::propose(std::span<const SequenceFeedback> feedback,
                                                               DraftBudget budget) {
    if (budget.nodes == 0) return take_up(feedback, budget);
    std::size_t emitted = 0;
    for (const SequenceFeedback& f : feedback) {
        Stages& stages = proposed_[f.sequence];
        if (!stages.empty()) emitted += f.tokens.size();  // else they are the prompt's
        for (const DraftTrie& trie : stages) trie.learn(f, hit_rates_);
        stages.assign(1, DraftTrie(f.pending));
    }
    const bool priced = budget.second_price > 0 && !draws_nodes_;
    if (!feedback.empty())
        for (Part& part : parts_) part.asking.round(feedback.size(), double(emitted) / double(feedback.size()));
    if (priced) cheapest_first();
    Draws draws;
    for (std::size_t i = 0; i < parts_.size(); ++i) ask(priced ? order_[i] : i, feedback, budget, priced, draws);
    if (priced && budget.draws) ask_certain(feedback, budget, draws);
    DraftBudget room = budget;
    room.chains = budget.chains && !drawn_alone(budget);
    std::vector<SequenceTree> merged;
    merged.reserve(feedback.size());
    for (const SequenceFeedback& f : feedback) {
        DraftTrie& trie = proposed_[f.sequence].back();
        if (!priced) {
            trie.weigh(hit_rates_);
            extend(f.sequence, trie, budget);
        }
        merged.push_back({f.sequence, trie.best(room), std::move(draws[f.sequence])});
        SequenceTree& last = merged.back();
        if (last.samples != nullptr && last.samples->is_chosen())
            last.samples = std::make_shared<const DraftSamples>(DraftSamples::chosen(last.tree));
    }
    return merged;
}

/// Neighbours change places where there is no doubt, so that a noisy clock does not keep changing what is learned.
OUTRIDER_INLINE void MergedDraft::cheapest_first() {
    for (std::size_t i = 1; i < order_.size(); ++i) {
        const budget::DraftCost &first = parts_[order_[i - 1]].asking.cost(), &second = parts_[order_[i]].asking.cost();
        if (second.known() && 1.5 * second.steady(1) < first.steady(1)) std::swap(order_[i - 1], order_[i]);
    }
}

/// Indices of the sequences for which a drafter is worth its time, and of those whose features wait in numbers.
OUTRIDER_INLINE std::vector<std::size_t> MergedDraft::whom_to_draft(std::size_t drafter,
                                                                    std::span<const SequenceFeedback> feedback,
                                                                    const DraftBudget& budget) {
    Part& part = parts_[drafter];
    std::vector<std::size_t> asked;
    for (std::size_t i = 0; i < feedback.size(); ++i) {
        const std::int64_t tokens = part.unseen(feedback[i]);
        const DraftTrie& trie = proposed_[feedback[i].sequence].back();
        const double before = trie.worth(trie.choice(budget), budget);
        const bool wanted = part.asking.ask(before, tokens, budget.second_price);
        if (wanted || part.has_waiting(tokens, budget)) asked.push_back(i);
    }
    return asked;
}

/// What the drafter has not seen of those asked; what the others bring it is kept for later.
OUTRIDER_INLINE Feedback MergedDraft::owed(std::size_t drafter, std::span<const SequenceFeedback> feedback,
                                           const std::vector<std::size_t>& asked) {
    auto& owed = parts_[drafter].owed;
    Feedback whole;
    std::size_t next = 0;
    for (std::size_t i = 0; i < feedback.size(); ++i) {
        const bool drafts = next < asked.size() && asked[next] == i;
        next += drafts ? 1 : 0;
        const auto late = owed.find(feedback[i].sequence);
        SequenceFeedback mine = feedback[i];
        mine.features = take_features(mine.features, features_, parts_[drafter].drafter->features());
        if (drafts && late == owed.end()) {
            whole.push_back(std::move(mine));
            continue;
        }
        OwedSequence& sequence = late == owed.end() ? owed[feedback[i].sequence] : late->second;
        sequence.add(std::move(mine));
        if (!drafts) continue;
        whole.push_back(sequence.take());
        owed.erase(late);
    }
    return whole;
}

OUTRIDER_INLINE void MergedDraft::ask(std::size_t drafter, std::span<const SequenceFeedback> feedback,
                                      const DraftBudget& budget, bool priced, Draws& draws) {
    Feedback late;
    if (priced || !parts_[drafter].owed.empty() || parts_[drafter].drafter->features() != features_) {
        std::vector<std::size_t> asked(feedback.size());
        std::iota(asked.begin(), asked.end(), std::size_t{0});
        if (priced) asked = whom_to_draft(drafter, feedback, budget);
        late = owed(drafter, feedback, asked);
        feedback = late;
    }
    if (!feedback.empty()) draft(drafter, feedback, budget, priced, draws);
}

/// Policies that need draws count on a drafter that is certain of a path wherever there are nodes: one that rests is
/// asked for the sequences that others drafted for.
OUTRIDER_INLINE void MergedDraft::ask_certain(std::span<const SequenceFeedback> feedback, const DraftBudget& budget,
                                              Draws& draws) {
    for (std::size_t d = 0; d < parts_.size(); ++d) {
        if (parts_[d].drafter->draws() != DraftDraws::certain) continue;
        Feedback missing;
        for (const SequenceFeedback& f : feedback) {
            const Drafters asked = proposed_[f.sequence].back().asked();
            if (asked == 0 || (asked & (1U << d)) != 0) continue;
            missing.push_back(parts_[d].owed.at(f.sequence).take());
            parts_[d].owed.erase(f.sequence);
        }
        if (!missing.empty()) draft(d, missing, budget, true, draws);
    }
}

/// Lets a drafter propose, and joins what it says to what the others said.
OUTRIDER_INLINE void MergedDraft::draft(std::size_t drafter, std::span<const SequenceFeedback> feedback,
                                        const DraftBudget& budget, bool priced, Draws& draws) {
    Part& part = parts_[drafter];
    std::int64_t tokens = 0;
    for (const SequenceFeedback& f : feedback) tokens += static_cast<std::int64_t>(f.tokens.size());
    const double start = clock_();
    const std::vector<SequenceTree> trees = part.drafter->propose(feedback, budget);
    check_drafts(kind_, trees, feedback, budget.nodes);
    part.asking.took(std::ssize(trees), tokens, clock_() - start, budget.second_price);
    const auto who = static_cast<Drafters>(1U << drafter);
    for (const SequenceTree& t : trees) {
        keep_draws(t, draws);
        if (drawn_alone(budget) && (t.samples == nullptr || t.samples->is_chosen() || draws[t.sequence] != t.samples))
            continue;
        Stages& stages = proposed_[t.sequence];
        if (priced && stages.back().asked() != 0) stages.push_back(stages.back());
        DraftTrie& trie = stages.back();
        std::vector<NodeIndex> chosen;
        if (priced) chosen = trie.choice(budget);
        const double before = trie.worth(chosen, budget);
        trie.join(t.tree, who);
        if (!priced) continue;
        trie.weigh(hit_rates_);
        extend(t.sequence, trie, budget);
        // Beside what would have been verified without it, as that looks now: to contradict a promise loses nothing.
        part.asking.added(before, trie.worth(trie.choice(budget), budget) - trie.worth(chosen, budget));
    }
}

/// Lets those that can do it go on from what the others drafted. The trie has to be weighed, and is afterwards.
OUTRIDER_INLINE void MergedDraft::extend(SequenceId sequence, DraftTrie& trie, const DraftBudget& budget) {
    if (draws_nodes_) return;
    for (std::size_t d = 0; d < parts_.size(); ++d) {
        const auto who = static_cast<Drafters>(1U << d);
        if (parts_[d].extender == nullptr || (trie.asked() & who) == 0 || trie.asked() == who) continue;
        trie.join(parts_[d].extender->extend(sequence, trie.whole(), budget), who);
        trie.weigh(hit_rates_);
    }
}

}  // namespace outrider
