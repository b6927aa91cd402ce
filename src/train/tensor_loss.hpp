// The losses of training as batched tensor operations: on any device, in any number of anchors, and nothing in them
// waits for the device. ctc_loss and label_loss are the same on the CPU, faster there, and what tests hold these to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "train/ctc_loss.hpp"
#include "train/label_loss.hpp"
#include "train/loss_stats.hpp"

namespace outrider {

/// A loss with its gradients, all where the inputs are.
struct TensorLoss {
    at::Tensor value;  ///< [] float64
    at::Tensor stats;  ///< [2 U + 1] float64: sums of -log q by label, labels counted, anchors or rows skipped
    std::vector<at::Tensor> inputs;     ///< what the network computed: automatic differentiation goes on from here
    std::vector<at::Tensor> gradients;  ///< by each of them, of its type
};

/// See ctc_loss. `labels` may be of any integer type and lies with the logits, as all tensors do; `weights` [U] float64
/// are w_k. The recursion is solved by triangular matrices: about 20 operations a label of the longest anchor, none for
/// a frame or an anchor. It runs in float64 as the host's does.
[[nodiscard]] TensorLoss ctc_tensor_loss(const CtcLossBatch& batch, CtcLossKind kind, const at::Tensor& weights);

/// See label_loss; `teacher` is its share.
[[nodiscard]] TensorLoss label_tensor_loss(const LabelLossBatch& batch, const at::Tensor& weights, double teacher);

/// What `stats` of TensorLoss say, or a sum of some; waits for the device.
[[nodiscard]] LossStats read_stats(const at::Tensor& stats);

}  // namespace outrider
