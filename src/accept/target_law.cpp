#include "target_law.hpp"

#include <cmath>

#include <outrider/core/error.hpp>
#include <outrider/tree/tree_layout.hpp>

namespace outrider {

namespace {

const SamplingOptions& options_of(const SequenceContext& context) {
    require(context.sampling != nullptr, "Acceptance: SequenceContext::sampling is missing; it says how to sample");
    return *context.sampling;
}

}  // namespace

TargetLaw::TargetLaw(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context,
                     double greedy_temperature)
    : tree_(tree), context_(context), options_(options_of(context)),
      temperature_(options_.temperature > 0 ? options_.temperature : greedy_temperature),
      vocabulary_(rows.logits.defined() ? rows.logits.size(-1) : 0), rows_(rows) {
    require(rows.logits.defined(), "TreeRows: this policy reads logits; the verifier gave only argmax");
}

std::span<const float> TargetLaw::edited(NodeIndex node) {
    const std::span<const float> row = rows_.row(node);
    if (!options_.logit_hook && options_.repetition_penalty == 1.0) return row;
    text_.assign(context_.text.begin(), context_.text.end());
    for (const NodeIndex step : path_to(tree_, node)) text_.push_back(tree_.token(step));
    logits_.assign(row.begin(), row.end());
    if (options_.logit_hook) options_.logit_hook(text_, logits_);
    if (options_.repetition_penalty != 1.0)
        penalise_repetition(logits_, options_.repetition_penalty, text_, seen_);
    return logits_;
}

std::span<const double> TargetLaw::operator()(NodeIndex node) {
    const std::span<const float> logits = edited(node);
    const RowMaximum top = row_maximum(logits);
    require(!top.has_nan && top.value < INFINITY,
            "The target's logits after node {} are not finite; the model or its input is broken (weights, dtype range, "
            "cache) or the logit hook is, so no token can be chosen",
            node);
    require(top.value > -INFINITY,
            "Every token is forbidden after node {}: all logits are -infinity; a logit hook must leave one at least",
            node);
    p_.assign(logits.size(), 0.0);
    if (temperature_ == 0.0) {
        p_[static_cast<std::size_t>(top.token)] = 1.0;
        return p_;
    }
    double sum = 0;
    const auto keep = [&](std::size_t i) { sum += p_[i] = std::exp((double(logits[i]) - top.value) / temperature_); };
    if (Truncation::is_idle(options_)) {
        for (std::size_t i = 0; i < p_.size(); ++i) keep(i);
    } else {
        SamplingOptions warped = options_;
        warped.temperature = temperature_;
        for (const TokenId token : truncation_.keep(logits, top.value, warped)) keep(static_cast<std::size_t>(token));
    }
    for (double& x : p_) x /= sum;
    return p_;
}

}  // namespace outrider
