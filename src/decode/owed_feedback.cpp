#include <outrider/decode/owed_feedback.hpp>

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <outrider/core/error.hpp>

namespace outrider {

void OwedFeedback::join(SequenceFeedback first) {
    Owed& owed = owed_.emplace_back();
    owed.features.push_back(std::move(first.features));
    owed.feedback = std::move(first);
}

void OwedFeedback::add(Feedback committed) {
    OUTRIDER_ASSERT(committed.size() == owed_.size());
    for (std::size_t i = 0; i < committed.size(); ++i) {
        SequenceFeedback& all = owed_[i].feedback;
        SequenceFeedback& now = committed[i];
        all.tokens.insert(all.tokens.end(), now.tokens.begin(), now.tokens.end());
        all.pending = now.pending, all.committed = now.committed;
        owed_[i].features.push_back(std::move(now.features));
    }
}

std::vector<std::int64_t> OwedFeedback::tokens() const {
    std::vector<std::int64_t> count;
    count.reserve(owed_.size());
    for (const Owed& owed : owed_) count.push_back(static_cast<std::int64_t>(owed.feedback.tokens.size()));
    return count;
}

Feedback OwedFeedback::take(std::span<const std::size_t> which) {
    const at::NoGradGuard no_grad;
    Feedback taken;
    taken.reserve(which.size());
    for (const std::size_t i : which) {
        Owed& owed = owed_[i];
        SequenceFeedback whole = owed.feedback;
        std::erase_if(owed.features, [](const at::Tensor& piece) { return !piece.defined(); });
        if (owed.features.size() > 1) {
            // An empty prompt's features may have another width than those of its text: none at all.
            std::erase_if(owed.features, [](const at::Tensor& piece) { return piece.size(0) == 0; });
        }
        if (!owed.features.empty())
            whole.features = owed.features.size() == 1 ? std::move(owed.features[0]) : at::cat(owed.features, 0);
        owed.features.clear();
        owed.feedback.tokens.clear();
        taken.push_back(std::move(whole));
    }
    return taken;
}

void OwedFeedback::drop(const std::vector<bool>& marked) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < owed_.size(); ++i) {
        if (i < marked.size() && marked[i]) continue;
        if (kept != i) owed_[kept] = std::move(owed_[i]);
        ++kept;
    }
    owed_.resize(kept);
}

}  // namespace outrider
