// Bodies of logit_rows.hpp.
#pragma once

#include <outrider/accept/detail/logit_rows.hpp>

#include <cmath>

#include <outrider/accept/detail/warp.hpp>
#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

[[noreturn]] OUTRIDER_INLINE void fail_nan(NodeIndex node) {
    fail(ErrorKind::internal,
         "The target's logits after node {} are not a number; the model or its input is broken (weights, dtype range, "
         "cache), so no token can be chosen",
         node);
}

}  // namespace detail

OUTRIDER_INLINE LogitRows::Tokens::Tokens(const at::Tensor& given) : all(given) {
    if (!all.defined()) return;
    if (!all.is_cpu() || all.scalar_type() != at::kLong || !all.is_contiguous())
        all = all.to(at::kCPU, at::kLong).contiguous();
    data = all.const_data_ptr<std::int64_t>();
}

OUTRIDER_INLINE LogitRows::LogitRows(const TreeRows& rows)
    : logits_(rows.logits), argmax_(rows.argmax), picks_(rows.picks) {
    require(logits_.defined() || argmax_.data != nullptr,
            "TreeRows: neither logits nor argmax are there to choose from");
    if (logits_.defined()) {
        require(logits_.dim() == 2 && logits_.size(1) > 0, "TreeRows: logits must be [nodes, vocabulary]");
        width_ = logits_.size(1);
        if (logits_.is_cpu() && logits_.scalar_type() == at::kFloat && logits_.stride(1) == 1) {
            base_ = logits_.const_data_ptr<float>();
            stride_ = logits_.stride(0);
        }
    }
}

OUTRIDER_INLINE std::span<const float> LogitRows::row(NodeIndex node) {
    require(logits_.defined(), "TreeRows: this policy reads logits; the verifier gave only argmax");
    require(node >= 0 && node < logits_.size(0), "TreeRows: no logits for node {}; there are {} rows", node,
            logits_.size(0));
    if (base_ != nullptr) return {base_ + node * stride_, static_cast<std::size_t>(width_)};
    copy_ = logits_.select(0, node).to(at::kCPU, at::kFloat).contiguous();
    return {copy_.const_data_ptr<float>(), static_cast<std::size_t>(width_)};
}

OUTRIDER_INLINE TokenId LogitRows::argmax(NodeIndex node) {
    if (argmax_.data == nullptr) return checked_argmax(row(node), node);
    require(node >= 0 && node < argmax_.all.numel() && (!logits_.defined() || node < logits_.size(0)),
            "TreeRows: no logits or no argmax for node {}; return a row for every node of the tree", node);
    const std::int64_t pick = argmax_.data[node];
    if (pick == -1) detail::fail_nan(node);
    if (logits_.defined()) {
        require(pick >= 0 && pick < width_, "TreeRows: argmax {} of node {} is outside the vocabulary of {}", pick,
                node, width_);
        if (base_ != nullptr && std::isnan(base_[node * stride_ + pick])) detail::fail_nan(node);
    }
    return static_cast<TokenId>(pick);
}

OUTRIDER_INLINE TokenId LogitRows::pick(NodeIndex node) const {
    if (picks_.data == nullptr) return kNoToken;
    require(node >= 0 && node < picks_.all.numel(),
            "TreeRows: no pick for node {} among {}; return one for every node of the tree", node, picks_.all.numel());
    const std::int64_t pick = picks_.data[node];
    require(pick >= -1 && (!logits_.defined() || pick < width_),
            "TreeRows: pick {} of node {} is outside the vocabulary of {}", pick, node, width_);
    return static_cast<TokenId>(pick);
}

OUTRIDER_INLINE TokenId checked_argmax(std::span<const float> logits, NodeIndex node) {
    const RowMaximum top = row_maximum(logits);
    if (top.has_nan) detail::fail_nan(node);
    return top.token;
}

}  // namespace outrider
