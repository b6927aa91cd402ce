// Rows of logits as a policy reads them: float32 on the CPU, one visited row at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Reads the rows of one tree, from any device and dtype; rows that lie ready are not copied. Lives for one accept.
class OUTRIDER_API LogitRows {
public:
    /// Throws Error unless the logits are [nodes, V], or undefined beside a defined argmax.
    explicit LogitRows(const TreeRows& rows);

    /// [V] the row of `node`; valid until the next call, or where rows lie ready as long as the logits.
    [[nodiscard]] std::span<const float> row(NodeIndex node);
    [[nodiscard]] bool lies_ready() const { return base_ != nullptr; }

    /// The largest logit's token: the verifier's own where it gave one, else the lowest id among the largest. Throws
    /// Error when the row holds NaN (a given argmax says so by -1, or names a logit on the CPU that is NaN).
    [[nodiscard]] TokenId argmax(NodeIndex node);

    /// What the verifier says that Match picks (TreeRows::picks); kNoToken where it does not say. Throws Error for a
    /// token outside the vocabulary.
    [[nodiscard]] TokenId pick(NodeIndex node) const;

private:
    /// A token a row, on the CPU.
    struct Tokens {
        at::Tensor all;
        const std::int64_t* data = nullptr;  ///< null: the verifier gave none
        explicit Tokens(const at::Tensor& given);
    };

    at::Tensor logits_;
    const float* base_ = nullptr;  ///< first row when the rows lie ready on the CPU
    std::int64_t stride_ = 0, width_ = 0;
    Tokens argmax_, picks_;
    at::Tensor copy_;
};

/// Index of the largest entry, the lowest among equals. Throws Error for NaN, naming the node whose row this is.
[[nodiscard]] OUTRIDER_API TokenId checked_argmax(std::span<const float> logits, NodeIndex node);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/logit_rows-inl.hpp>
#endif
