#include <outrider/train/train.hpp>

#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/hydra/detail/hydra_padded.hpp>

#include "head_network.hpp"
#include "trainer.hpp"

namespace outrider {

namespace {

/// See NetworkLearner.
struct HydraNetwork {
    using Config = HydraConfig;
    using Weights = HydraWeights;
    using Tables = TargetTables;

    HydraTrainOptions options;

    [[nodiscard]] std::int64_t labels() const { return options.heads; }
    [[nodiscard]] std::int64_t group_anchors() const { return 32; }
    [[nodiscard]] AnchorNeeds needs() const {
        return {.labels = options.heads, .prefixes = options.heads, .ahead = options.teacher > 0};
    }
    [[nodiscard]] nlohmann::ordered_json record() const {
        return {{"labels", options.heads}, {"teacher", options.teacher}};
    }

    [[nodiscard]] static NamedSizes sizes(const HydraConfig& config) {
        const auto of_layer = [&config](std::int64_t size) {
            return config.prefix_layer ? std::to_string(size) : std::string("none");
        };
        return {{"draft heads", std::to_string(config.heads)},
                {"blocks", std::to_string(config.blocks)},
                {"residual", config.residual == HydraResidual::feature ? "feature" : "matrix"},
                {"output", std::string(name_of(config.output))},
                {"output bias", config.output_bias ? "yes" : "no"},
                {"prefix layer", config.prefix_layer ? "on" : "off"},
                {"attention heads", of_layer(config.attention_heads)},
                {"kv heads", of_layer(config.kv_heads)},
                {"intermediate size", of_layer(config.intermediate)}};
    }

    [[nodiscard]] HydraConfig config(const TargetHead& head) const {
        HydraConfig config;
        config.hidden = head.hidden;
        config.heads = options.heads, config.blocks = options.blocks, config.residual = options.residual;
        config.output = options.output, config.output_bias = options.output_bias;
        config.prefix_layer = options.prefix_layer;
        config.norm_eps = head.norm_eps;
        if (!options.prefix_layer) return config;
        const LayerChoice layer =
            choose_layer(head.hidden, options.attention_heads, options.kv_heads, options.intermediate);
        config.attention_heads = layer.heads, config.kv_heads = layer.kv_heads, config.head_dim = layer.head_dim;
        config.intermediate = layer.intermediate;
        return config;
    }
    static void set_scales(HydraConfig& config, double embedding, double feature) {
        config.embedding_scale = embedding, config.feature_scale = feature;
    }
    static void copy_measured(HydraConfig& config, const HydraConfig& from) {
        set_scales(config, from.embedding_scale, from.feature_scale);
        config.accuracies = from.accuracies;
    }

    [[nodiscard]] static HydraConfig read_config(const std::filesystem::path& folder) {
        return read_hydra_config(folder);
    }
    static void write_config(const std::filesystem::path& folder, const HydraConfig& config) {
        write_hydra_config(folder, config);
    }
    [[nodiscard]] static HydraWeights read_weights(const std::filesystem::path& folder, const HydraConfig& config) {
        return read_hydra_weights(folder, config);
    }
    static void write_weights(const std::filesystem::path& folder, const HydraWeights& weights) {
        write_hydra_weights(folder, weights);
    }
    [[nodiscard]] static HydraWeights init(const HydraConfig& config, const TargetHead& head, std::uint64_t seed) {
        return init_hydra_weights(config, head, seed);
    }
    [[nodiscard]] static TargetTables tables(const HydraConfig& config, const TargetHead& head, at::ScalarType compute,
                                             at::Device device) {
        return make_target_tables(head, config.vocabulary, config.embedding_scale, compute, device);
    }

    /// g_{n-1} of the anchors, on a device all groups at once.
    [[nodiscard]] static at::Tensor states(const HydraConfig& config, const HydraWeights& weights,
                                           const AnchorBatch& batch, at::ScalarType compute) {
        const at::Tensor features = batch.features.index_select(0, batch.row);
        if (!config.prefix_layer) return hydra_ground(config, weights, features, batch.committed, {}, compute);
        const LayerContext context = hydra_context(config, weights, batch.features, batch.positions, compute);
        if (batch.padded.context.defined())
            return hydra_ground(config, weights, features, batch.committed, context, batch.padded, compute);
        return hydra_ground(config, weights, features, batch.committed,
                            context_groups(batch, context.keys, context.values), compute);
    }

    [[nodiscard]] static at::Tensor logits(const HydraConfig& config, const HydraWeights& weights,
                                           const TargetTables& tables, const AnchorBatch& batch,
                                           at::ScalarType compute) {
        const at::Tensor ground = states(config, weights, batch, compute);
        return hydra_logits(config, weights, tables, ground, batch.last, compute);
    }

    [[nodiscard]] at::Tensor loss(const HydraConfig& config, const HydraWeights& weights, const TargetTables& tables,
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

    static void measure(HydraConfig& config, const HydraWeights& weights, const TargetTables& tables,
                        std::span<const AnchorBatch> batches, at::ScalarType compute) {
        RankTally tally(config.heads);
        for (const AnchorBatch& batch : batches)
            tally.add(logits(config, weights, tables, batch, compute), batch.labels);
        config.accuracies = tally.shares();
    }

    [[nodiscard]] static std::unique_ptr<DraftModel> draft(const HydraConfig& config, const HydraWeights& weights,
                                                           const TargetHead& head) {
        return std::make_unique<HydraDraft>(config, weights, head);
    }
};

}  // namespace

TrainResult train_hydra(const TrainOptions& options, const HydraTrainOptions& hydra, const TrainTarget& target) {
    check_heads(hydra.heads, hydra.blocks, hydra.teacher);
    check_layer(hydra.attention_heads, hydra.kv_heads, hydra.intermediate);
    return run_training(options, target, learner_maker(HydraNetwork{hydra}));
}

}  // namespace outrider
