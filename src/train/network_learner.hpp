// A Learner from a network: what is the same for all of them once its types and functions are known.
#pragma once

#include <cmath>
#include <optional>

#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/layers.hpp>

#include "learner.hpp"

namespace outrider {

/// Sizes of a drafter under the names that messages give them.
using NamedSizes = std::vector<std::pair<std::string_view, std::string>>;

/// Throws Error for the first size that differs from that of the drafter in `folder`.
void require_same_sizes(const std::filesystem::path& folder, const NamedSizes& wanted, const NamedSizes& found);

/// Sizes of a decoder layer. 0 stands for the usual: heads of 64, a third of them for keys (or the next fewer that
/// divide the heads), and 8/3 of hidden, rounded up to 64, for the MLP.
struct LayerChoice {
    std::int64_t head_dim = 0, heads = 0, kv_heads = 0, intermediate = 0;
};
/// Throws Error for a size that no layer has.
void check_layer(std::int64_t heads, std::int64_t kv_heads, std::int64_t intermediate);
[[nodiscard]] LayerChoice choose_layer(std::int64_t hidden, std::int64_t heads, std::int64_t kv_heads,
                                       std::int64_t intermediate);

/// The groups of a batch with their shares of keys and values.
[[nodiscard]] std::vector<ContextGroup> context_groups(const AnchorBatch& batch, const at::Tensor& keys,
                                                       const at::Tensor& values);

/// `Network`: types Config, Weights, Tables; functions
///     labels(), group_anchors(), needs(), record()
///     sizes(config) -> NamedSizes                          all that decides about shapes
///     config(head) -> Config                               with the sizes of its options
///     set_scales(config, embedding, feature)
///     copy_measured(config, from)                          scales, and what measure() measured
///     read_config(folder), write_config(folder, config), read_weights(folder, config), write_weights(folder, weights)
///     init(config, head, seed) -> Weights,  tables(config, head, compute, device) -> Tables
///     loss(config, weights, tables, batch, label_weights, compute, stats, team) -> at::Tensor
///     tensor_loss(config, weights, tables, batch, label_weights, compute) -> TensorLoss; label_weights [U] are float64
///     measure(config, weights, tables, batches, compute)
///     draft(config, weights, head) -> std::unique_ptr<DraftModel>
/// where the loss may not weigh labels,
///     even_labels() -> bool
/// and, where a drafter may start from one of other sizes,
///     check_start(folder, config, found, fresh)            throws Error; fresh: a run that starts from the drafter in
///                                                          `folder`, else it goes on with that
///     start_from(folder, config, head) -> Weights          those of the drafter, in the sizes of `config`
template <typename Network>
class NetworkLearner final : public Learner {
    using Config = typename Network::Config;
    using Weights = typename Network::Weights;

public:
    NetworkLearner(Network network, const LearnerBasis& basis) : network_(std::move(network)), basis_(basis) {
        config_ = network_.config(basis.head);
        config_.target_fingerprint = basis.head.fingerprint;
        config_.target_name = basis.target_name;
        if (basis.folder.empty()) {
            config_.vocabulary = basis.vocabulary;
            network_.set_scales(config_, basis.embedding_scale, basis.feature_scale);
        } else {
            adopt(basis.folder);
        }
        tables_ = network_.tables(config_, basis.head, basis.compute, basis.device);
        weights_ = basis.take_weights ? start_weights() : network_.init(config_, basis.head, basis.seed);
        for (std::int64_t k = 0; k < network_.labels(); ++k)
            label_weights_.push_back(std::pow(basis.label_decay, static_cast<double>(k)));
        weights_there_ = at::tensor(label_weights_, at::kDouble).to(basis.device);
    }

    std::vector<std::string> names() const override {
        std::vector<std::string> names;
        for (const auto& [name, weight] : weights_.named()) names.push_back(name);
        return names;
    }
    std::vector<at::Tensor> weights() const override {
        std::vector<at::Tensor> weights;
        for (const auto& [name, weight] : weights_.named()) weights.push_back(*weight);
        return weights;
    }
    std::vector<TokenId> vocabulary() const override { return draft_ids(config_.vocabulary, basis_.head.vocabulary); }
    const std::vector<double>& label_weights() const override { return label_weights_; }
    double divisor(const LossStats& stats) const override {
        bool even = false;
        if constexpr (requires { network_.even_labels(); }) even = network_.even_labels();
        double sum = 0.0;
        for (std::size_t k = 0; k < stats.count.size(); ++k)
            sum += (even ? 1.0 : label_weights_[k]) * static_cast<double>(stats.count[k]);
        return sum;
    }
    AnchorNeeds needs() const override { return network_.needs(); }
    std::int64_t group_anchors() const override { return network_.group_anchors(); }

    at::Tensor loss(std::span<const at::Tensor> weights, const AnchorBatch& batch, LossStats& stats,
                    ThreadTeam& team) const override {
        return network_.loss(config_, with(weights), tables_, batch, label_weights_, basis_.compute, stats, team);
    }
    TensorLoss tensor_loss(std::span<const at::Tensor> weights, const AnchorBatch& batch) const override {
        return network_.tensor_loss(config_, with(weights), tables_, batch, weights_there_, basis_.compute);
    }
    std::unique_ptr<DraftModel> draft(std::span<const at::Tensor> weights) const override {
        return network_.draft(config_, with(weights), basis_.head);
    }
    void measure(std::span<const at::Tensor> weights, std::span<const AnchorBatch> held_out) override {
        network_.measure(config_, with(weights), tables_, held_out, basis_.compute);
    }

    nlohmann::ordered_json record() const override {
        nlohmann::ordered_json record = network_.record();
        if (from_) record["from"] = *from_;
        return record;
    }
    void write(const std::filesystem::path& folder, std::span<const at::Tensor> weights,
               const std::string& training) override {
        config_.training = training;
        network_.write_weights(folder, with(weights));
        network_.write_config(folder, config_);
    }

private:
    /// Columns and scales are the first run's, also where the text has grown since.
    void adopt(const std::filesystem::path& folder) {
        const Config first = network_.read_config(folder);
        require(first.target_fingerprint == basis_.head.fingerprint,
                "train: {} belongs to target {}, this target is {}", folder.string(), first.target_fingerprint,
                basis_.head.fingerprint);
        require_same_sizes(folder, network_.sizes(config_), network_.sizes(first));
        if constexpr (requires { network_.check_start(folder, config_, first, true); })
            network_.check_start(folder, config_, first, basis_.take_weights);
        config_.vocabulary = first.vocabulary;
        network_.copy_measured(config_, first);
        const auto record = nlohmann::ordered_json::parse(first.training);
        if (basis_.take_weights)
            from_ = record;
        else if (record.contains("from"))
            from_ = record.at("from");
    }

    [[nodiscard]] Weights start_weights() const {
        if constexpr (requires { network_.start_from(basis_.folder, config_, basis_.head); })
            return network_.start_from(basis_.folder, config_, basis_.head);
        else
            return network_.read_weights(basis_.folder, config_);
    }

    [[nodiscard]] Weights with(std::span<const at::Tensor> tensors) const {
        Weights weights = weights_;
        std::size_t i = 0;
        for (auto& [name, weight] : weights.named()) *weight = tensors[i++];
        return weights;
    }

    Network network_;
    LearnerBasis basis_;
    Config config_;
    typename Network::Tables tables_;
    Weights weights_;
    std::vector<double> label_weights_;
    at::Tensor weights_there_;  // the same where steps are computed
    std::optional<nlohmann::ordered_json> from_;
};

/// The maker that run_training takes.
template <typename Network>
[[nodiscard]] LearnerMaker learner_maker(Network network) {
    return [network](const LearnerBasis& basis) { return std::make_unique<NetworkLearner<Network>>(network, basis); };
}

}  // namespace outrider
