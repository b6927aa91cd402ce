#include <outrider/train/train.hpp>

#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>

#include "head_network.hpp"
#include "trainer.hpp"

namespace outrider {

namespace {

/// See NetworkLearner.
struct MedusaNetwork {
    using Config = MedusaConfig;
    using Weights = MedusaWeights;
    using Tables = TargetTables;

    MedusaTrainOptions options;

    [[nodiscard]] std::int64_t labels() const { return options.heads; }
    [[nodiscard]] std::int64_t group_anchors() const { return 32; }
    [[nodiscard]] AnchorNeeds needs() const {
        return {.labels = options.heads, .label_ends = false, .ahead = options.teacher > 0};
    }
    [[nodiscard]] nlohmann::ordered_json record() const {
        return {{"labels", options.heads}, {"teacher", options.teacher}};
    }

    [[nodiscard]] static NamedSizes sizes(const MedusaConfig& config) {
        return {{"draft heads", std::to_string(config.heads)},
                {"blocks", std::to_string(config.blocks)},
                {"output", std::string(name_of(config.output))}};
    }

    [[nodiscard]] MedusaConfig config(const TargetHead& head) const {
        MedusaConfig config;
        config.hidden = head.hidden;
        config.heads = options.heads, config.blocks = options.blocks, config.output = options.output;
        return config;
    }
    static void set_scales(MedusaConfig&, double, double) {}
    static void copy_measured(MedusaConfig& config, const MedusaConfig& from) { config.accuracies = from.accuracies; }

    [[nodiscard]] static MedusaConfig read_config(const std::filesystem::path& folder) {
        return read_medusa_config(folder);
    }
    static void write_config(const std::filesystem::path& folder, const MedusaConfig& config) {
        write_medusa_config(folder, config);
    }
    [[nodiscard]] static MedusaWeights read_weights(const std::filesystem::path& folder, const MedusaConfig& config) {
        return read_medusa_weights(folder, config);
    }
    static void write_weights(const std::filesystem::path& folder, const MedusaWeights& weights) {
        write_medusa_weights(folder, weights);
    }
    [[nodiscard]] static MedusaWeights init(const MedusaConfig& config, const TargetHead& head, std::uint64_t seed) {
        return init_medusa_weights(config, head, seed);
    }
    [[nodiscard]] static TargetTables tables(const MedusaConfig& config, const TargetHead& head, at::ScalarType compute,
                                             at::Device device) {
        return make_target_tables(head, config.vocabulary, 1.0, compute, device);
    }

    [[nodiscard]] static at::Tensor logits(const MedusaConfig& config, const MedusaWeights& weights,
                                           const TargetTables& tables, const AnchorBatch& batch,
                                           at::ScalarType compute) {
        return medusa_logits(config, weights, tables, batch.features.index_select(0, batch.row), compute);
    }

    [[nodiscard]] at::Tensor loss(const MedusaConfig& config, const MedusaWeights& weights, const TargetTables& tables,
                                  const AnchorBatch& batch, const std::vector<double>& label_weights,
                                  at::ScalarType compute, LossStats& stats, ThreadTeam& team) const {
        return heads_loss(logits(config, weights, tables, batch, compute), batch, tables, label_weights,
                          options.teacher, compute, stats, team);
    }

    [[nodiscard]] TensorLoss tensor_loss(const Config& config, const Weights& weights, const TargetTables& tables,
                                         const AnchorBatch& batch, const at::Tensor& label_weights,
                                         at::ScalarType compute) const {
        return heads_tensor_loss(logits(config, weights, tables, batch, compute), batch, tables, label_weights,
                                 options.teacher, compute);
    }

    static void measure(MedusaConfig& config, const MedusaWeights& weights, const TargetTables& tables,
                        std::span<const AnchorBatch> batches, at::ScalarType compute) {
        RankTally tally(config.heads);
        for (const AnchorBatch& batch : batches)
            tally.add(logits(config, weights, tables, batch, compute), batch.labels);
        config.accuracies = tally.shares();
    }

    [[nodiscard]] static std::unique_ptr<DraftModel> draft(const MedusaConfig& config, const MedusaWeights& weights,
                                                           const TargetHead& head) {
        return std::make_unique<MedusaDraft>(config, weights, head);
    }
};

}  // namespace

TrainResult train_medusa(const TrainOptions& options, const MedusaTrainOptions& medusa, const TrainTarget& target) {
    check_heads(medusa.heads, medusa.blocks, medusa.teacher);
    return run_training(options, target, learner_maker(MedusaNetwork{medusa}));
}

}  // namespace outrider
