// What the trainer asks of a network that learns. It knows nothing else of CTC, Medusa or Hydra.
#pragma once

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/draft/drafter.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/core/detail/thread_team.hpp>
#include "train/loss_stats.hpp"
#include "train/tensor_loss.hpp"

#include "anchor_batches.hpp"

namespace outrider {

/// What every kind takes from target, text and options.
struct LearnerBasis {
    TargetHead head;
    std::string target_name;
    std::uint64_t seed = 0;
    at::ScalarType compute = at::kFloat;  ///< type of matrix products
    double label_decay = 1.0;
    at::Device device = at::kCPU;  ///< where steps are computed

    /// Where a drafter is that gives vocabulary and scales: that of the run to go on with, or the one to start from,
    /// whose weights are taken as well. Empty: the fields below count.
    std::filesystem::path folder = {};
    bool take_weights = false;
    std::vector<TokenId> vocabulary = {};
    double embedding_scale = 1.0, feature_scale = 1.0;  ///< to unit size
};

/// One object lives through a run. Weights are passed in the order of names(): a batch is cut in parts that have leaves
/// of their own, and drafters are made from averages.
class Learner {
public:
    virtual ~Learner() = default;

    /// Of the weights, as in model.safetensors.
    [[nodiscard]] virtual std::vector<std::string> names() const = 0;
    /// The weights that training starts with: float32, contiguous, on the CPU. To be changed in place.
    [[nodiscard]] virtual std::vector<at::Tensor> weights() const = 0;
    /// Target ids of the columns.
    [[nodiscard]] virtual std::vector<TokenId> vocabulary() const = 0;
    /// w_k of each label.
    [[nodiscard]] virtual const std::vector<double>& label_weights() const = 0;
    /// What the mean loss of a batch was divided by, which is how parts of one are weighed.
    [[nodiscard]] virtual double divisor(const LossStats& stats) const = 0;
    [[nodiscard]] virtual AnchorNeeds needs() const = 0;
    /// Anchors of one conversation in a batch, where the options leave that to the kind.
    [[nodiscard]] virtual std::int64_t group_anchors() const = 0;

    /// Mean loss of a batch, differentiable by `weights`. Safe to call from several threads; `team` serves the loss.
    [[nodiscard]] virtual at::Tensor loss(std::span<const at::Tensor> weights, const AnchorBatch& batch,
                                          LossStats& stats, ThreadTeam& team) const = 0;
    /// The same in tensor operations where weights and batch lie, whatever that is; for devices.
    [[nodiscard]] virtual TensorLoss tensor_loss(std::span<const at::Tensor> weights,
                                                 const AnchorBatch& batch) const = 0;
    [[nodiscard]] virtual std::unique_ptr<DraftModel> draft(std::span<const at::Tensor> weights) const = 0;
    /// Measures on held-out anchors what the kind's config keeps beside its sizes.
    virtual void measure(std::span<const at::Tensor> weights, std::span<const AnchorBatch> held_out) = 0;

    /// What this kind adds to the training record, and the record of the drafter that the run started from, if any.
    [[nodiscard]] virtual nlohmann::ordered_json record() const = 0;
    /// The drafter's folder with these weights and that record.
    virtual void write(const std::filesystem::path& folder, std::span<const at::Tensor> weights,
                       const std::string& training) = 0;
};

using LearnerMaker = std::function<std::unique_ptr<Learner>(const LearnerBasis&)>;

}  // namespace outrider
