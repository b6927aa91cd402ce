// Bodies of target_law.hpp.
#pragma once

#include <outrider/accept/detail/target_law.hpp>

#include <algorithm>
#include <cmath>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE double TargetRow::operator[](std::size_t token) const {
    if (temperature_ == 0.0) return token == static_cast<std::size_t>(best_) ? 1.0 : 0.0;
    if (!truncated_) return std::exp((double(logits_[token]) - double(top_)) / temperature_) / sum_;
    const auto id = static_cast<TokenId>(token);
    const auto at = std::lower_bound(kept_.begin(), kept_.end(), id,
                                     [](const Kept& kept, TokenId wanted) { return kept.token < wanted; });
    return at != kept_.end() && at->token == id ? at->p : 0.0;
}

OUTRIDER_INLINE std::size_t TargetRow::rank(std::size_t token) const {
    const float logit = logits_[token];
    if (temperature_ == 0.0 && token != static_cast<std::size_t>(best_))
        return token < static_cast<std::size_t>(best_) ? token + 1 : token;  // all but one are equal
    if (truncated_ && (*this)[token] == 0.0) return kept_.size();
    std::size_t before = 0;
    for (std::size_t i = 0; i < token; ++i) before += logits_[i] >= logit ? 1 : 0;
    for (std::size_t i = token + 1; i < logits_.size(); ++i) before += logits_[i] > logit ? 1 : 0;
    return before;
}

OUTRIDER_INLINE double TargetRow::entropy() const {
    if (temperature_ > 0.0 && !truncated_) return softmax_entropy(logits_, top_, temperature_, sum_, 1e-5);
    if (temperature_ == 0.0) return -std::log(1.0 + 1e-5);
    double entropy = 0;
    for (const Kept& kept : kept_) entropy -= kept.p * std::log(kept.p + 1e-5);
    return entropy;
}

OUTRIDER_INLINE void TargetRow::write(std::span<double> p) const {
    if (temperature_ > 0.0 && !truncated_) {
        softmax_weights(logits_, top_, temperature_, 1.0 / sum_, p);
        return;
    }
    std::fill(p.begin(), p.end(), 0.0);
    if (temperature_ == 0.0) p[static_cast<std::size_t>(best_)] = 1.0;
    for (const Kept& kept : kept_) p[static_cast<std::size_t>(kept.token)] = kept.p;
}

OUTRIDER_INLINE TargetLaw::TargetLaw(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context,
                                     double greedy_temperature)
    : rows_(tree, rows, context),
      temperature_(rows_.options().temperature > 0 ? rows_.options().temperature : greedy_temperature),
      vocabulary_(rows.logits.defined() ? rows.logits.size(-1) : 0),
      held_(tree.size()) {
    require(rows.logits.defined(), "TreeRows: this policy reads logits; the verifier gave only argmax");
}

OUTRIDER_INLINE void TargetLaw::truncate(Held& held) {
    TargetRow& row = held.row;
    SamplingOptions warped = rows_.options();
    warped.temperature = temperature_;
    double sum = 0;
    for (const TokenId token : truncation_.keep(row.logits_, row.top_, warped)) {
        const double logit = row.logits_[static_cast<std::size_t>(token)];
        held.kept.push_back({token, std::exp((logit - double(row.top_)) / temperature_)});
        sum += held.kept.back().p;
    }
    for (TargetRow::Kept& kept : held.kept) kept.p /= sum;
    std::sort(held.kept.begin(), held.kept.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
    row.truncated_ = true;
    row.kept_ = held.kept;
}

OUTRIDER_INLINE TargetRow TargetLaw::operator()(NodeIndex node) {
    Held& held = held_[static_cast<std::size_t>(node)];
    if (held.made) return held.row;
    TargetRow& row = held.row;
    const EditedRow edited = rows_.row(node, held.logits);
    row.logits_ = edited.logits;
    row.best_ = edited.top.token;
    row.top_ = edited.top.value;
    row.temperature_ = temperature_;
    if (temperature_ > 0.0 && !rows_.options().truncates())
        row.sum_ = softmax_total(row.logits_, row.top_, temperature_);
    else if (temperature_ > 0.0)
        truncate(held);
    held.made = true;
    return row;
}

}  // namespace outrider
