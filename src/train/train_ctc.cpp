#include <outrider/train/train.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <outrider/core/error.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/ctc/detail/ctc_padded.hpp>
#include "train/ctc_loss.hpp"

#include <algorithm>
#include <tuple>

#include "head_network.hpp"
#include "network_learner.hpp"
#include "trainer.hpp"

namespace outrider {

namespace {

/// Likeliest tokens that a teacher tells of each label: enough for nearly all of its mass.
constexpr std::int64_t kTeacherTokens = 8;

/// What the target thinks at each label, as tokens [A, U, M] and shares [A, U, M] of `share` together. `ahead`
/// [U, A, H] are final-norm states, so the target's own scores are one product; draft tokens only.
std::pair<at::Tensor, at::Tensor> teacher_tokens(const at::Tensor& ahead, const at::Tensor& output, double share,
                                                 at::ScalarType compute) {
    const at::NoGradGuard no_grad;
    const at::Tensor scores = mixed_linear(ahead.flatten(0, 1), output, compute);
    const auto [top, tokens] = scores.topk(std::min(kTeacherTokens, scores.size(1)), 1);
    const auto by_anchor = [&](const at::Tensor& x, at::ScalarType type) {
        return x.view({ahead.size(0), ahead.size(1), x.size(1)}).transpose(0, 1).to(type).contiguous();
    };
    return {by_anchor(tokens, at::kInt), by_anchor(share * top.to(at::kFloat).softmax(1), at::kFloat)};
}

std::string names_of(const std::vector<std::int64_t>& layers) {
    return layers.empty() ? "none" : fmt::format("{}", fmt::join(layers, ", "));
}

/// `fuse` [H, (2 + k) H] of a drafter with feature layers `from` for one with layers `to`, which hold all of `from`:
/// the same function, with columns of zeros for those that are new.
at::Tensor widen_fuse(const at::Tensor& fuse, const std::vector<std::int64_t>& from,
                      const std::vector<std::int64_t>& to) {
    const std::int64_t H = fuse.size(0);
    std::vector<at::Tensor> parts{fuse.slice(1, 0, 2 * H)};
    for (const std::int64_t layer : to) {
        const auto place = std::find(from.begin(), from.end(), layer);
        const std::int64_t first = (2 + (place - from.begin())) * H;
        parts.push_back(place == from.end() ? at::zeros({H, H}, fuse.options()) : fuse.slice(1, first, first + H));
    }
    return at::cat(parts, 1).contiguous();
}

/// The matrix behind the prediction network in two, with the bottleneck between them. What that loses of all scores is
/// the least that a rank of r can (Eckart and Young 1936): P of scores W P g becomes P Q and Q^T, Q the r leading right
/// singular vectors of W P, which are eigenvectors of P^T (W^T W) P.
void make_bottleneck(CtcWeights& weights, const CtcConfig& config, const TargetHead& head) {
    const at::NoGradGuard no_grad;
    const at::Tensor p = weights.prefix_out.to(at::kDouble);
    at::Tensor rows = p;  // (W^T W) P; rows of its own are W P already
    if (config.prefix_output == HeadOutput::target) {
        const at::Tensor w = head.output_rows(config.vocabulary).to(at::kCPU, at::kFloat);
        rows = at::matmul(at::matmul(w.t(), w).to(at::kDouble), p);
    }
    const at::Tensor vectors = std::get<1>(at::linalg_eigh(at::matmul(p.t(), rows)));  // ascending
    const at::Tensor leading = vectors.slice(1, config.prefix_rank - config.prefix_bottleneck);
    weights.prefix_narrow = leading.t().to(at::kFloat).contiguous();
    weights.prefix_out = at::matmul(p, leading).to(at::kFloat);
}

/// See NetworkLearner.
struct CtcNetwork {
    using Config = CtcConfig;
    using Weights = CtcWeights;
    using Tables = CtcTables;

    CtcTrainOptions options;

    [[nodiscard]] std::int64_t labels() const { return options.labels; }
    [[nodiscard]] bool even_labels() const { return options.loss == CtcLossKind::ctc; }
    [[nodiscard]] std::int64_t group_anchors() const { return 32; }
    [[nodiscard]] AnchorNeeds needs() const {
        return {.labels = options.labels,
                .prefixes = prefix_rows(options.loss, options.labels),
                .ahead = options.teacher > 0};
    }
    [[nodiscard]] nlohmann::ordered_json record() const {
        return {{"loss", options.loss == CtcLossKind::prefix ? "prefix" : "ctc"},
                {"labels", options.labels},
                {"teacher", options.teacher}};
    }

    [[nodiscard]] static NamedSizes sizes(const CtcConfig& config) {
        const bool conditioned = config.conditioning == CtcConditioning::prefix;
        return {{"frames", std::to_string(config.frames)},
                {"layers", std::to_string(config.layers)},
                {"heads", std::to_string(config.heads)},
                {"kv heads", std::to_string(config.kv_heads)},
                {"intermediate size", std::to_string(config.intermediate)},
                {"conditioning", conditioned ? "prefix" : "none"},
                {"prefix rank", conditioned ? std::to_string(config.prefix_rank) : "none"},
                {"output rows", std::string(conditioned ? name_of(config.prefix_output) : "none")}};
    }

    [[nodiscard]] CtcConfig config(const TargetHead& head) const {
        CtcConfig config;
        config.hidden = head.hidden;
        const LayerChoice layer = choose_layer(head.hidden, options.heads, options.kv_heads, options.intermediate);
        config.head_dim = layer.head_dim, config.heads = layer.heads, config.kv_heads = layer.kv_heads;
        config.intermediate = layer.intermediate;
        config.frames = options.frames, config.layers = options.layers;
        config.conditioning = options.conditioning;
        config.prefix_rank = options.prefix_rank;
        const bool narrow =
            options.conditioning == CtcConditioning::prefix && options.prefix_bottleneck < options.prefix_rank;
        config.prefix_bottleneck = narrow ? options.prefix_bottleneck : 0;
        config.prefix_output = options.output;
        config.feature_layers = options.feature_layers;
        config.norm_eps = head.norm_eps;
        return config;
    }
    static void set_scales(CtcConfig& config, double embedding, double feature) {
        config.embedding_scale = embedding, config.feature_scale = feature;
    }
    static void copy_measured(CtcConfig& config, const CtcConfig& from) {
        set_scales(config, from.embedding_scale, from.feature_scale);
    }

    [[nodiscard]] static CtcConfig read_config(const std::filesystem::path& folder) { return read_ctc_config(folder); }
    static void write_config(const std::filesystem::path& folder, const CtcConfig& c) { write_ctc_config(folder, c); }
    [[nodiscard]] static CtcWeights read_weights(const std::filesystem::path& folder, const CtcConfig& config) {
        return read_ctc_weights(folder, config);
    }
    static void write_weights(const std::filesystem::path& folder, const CtcWeights& weights) {
        write_ctc_weights(folder, weights);
    }
    static void check_start(const std::filesystem::path& folder, const CtcConfig& config, const CtcConfig& found,
                            bool fresh) {
        require(
            fresh ? std::ranges::includes(config.feature_layers, found.feature_layers)
                  : config.feature_layers == found.feature_layers,
            "train: these options ask for feature layers {}, the drafter in {} has {}; {}",
            names_of(config.feature_layers), folder.string(), names_of(found.feature_layers),
            fresh ? "a drafter to start from may have fewer of them, but no other" : "go on with the layers it has");
        require(config.prefix_bottleneck == found.prefix_bottleneck || (fresh && found.prefix_bottleneck == 0),
                "train: these options ask for prefix bottleneck {}, the drafter in {} has {}; {}",
                config.prefix_bottleneck, folder.string(), found.prefix_bottleneck,
                fresh ? "one to start from may have the same or none" : "go on with what it has");
    }
    [[nodiscard]] static CtcWeights start_from(const std::filesystem::path& folder, const CtcConfig& config,
                                               const TargetHead& head) {
        const CtcConfig found = read_ctc_config(folder);
        CtcWeights weights = read_ctc_weights(folder, found);
        weights.fuse = widen_fuse(weights.fuse, found.feature_layers, config.feature_layers);
        if (config.prefix_bottleneck > 0 && found.prefix_bottleneck == 0) make_bottleneck(weights, config, head);
        return weights;
    }
    [[nodiscard]] static CtcWeights init(const CtcConfig& config, const TargetHead& head, std::uint64_t seed) {
        return init_ctc_weights(config, head, seed);
    }
    [[nodiscard]] static CtcTables tables(const CtcConfig& config, const TargetHead& head, at::ScalarType compute,
                                          at::Device device) {
        return make_ctc_tables(config, head, compute, device);
    }

    [[nodiscard]] static CtcFrameScores frames(const CtcConfig& config, const CtcWeights& weights,
                                               const CtcTables& tables, const AnchorBatch& batch,
                                               at::ScalarType compute) {
        const CtcContext context =
            ctc_context(config, weights, tables, batch.next, batch.features, batch.positions, compute);
        const at::Tensor fused = context.fused.index_select(0, batch.row);
        if (batch.padded.context.defined())
            return ctc_frames(config, weights, tables, fused, batch.committed, context.layers, batch.padded, compute);
        std::vector<std::vector<CtcAnchors>> groups;
        for (const LayerContext& layer : context.layers)
            groups.push_back(context_groups(batch, layer.keys, layer.values));
        return ctc_frames(config, weights, tables, fused, batch.committed, groups, compute);
    }

    /// What the loss is of.
    [[nodiscard]] CtcLossBatch scores(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                      const AnchorBatch& batch, at::ScalarType compute) const {
        const CtcFrameScores of_frames = frames(config, weights, tables, batch, compute);
        at::Tensor prefix;
        if (config.conditioning == CtcConditioning::prefix)
            prefix = ctc_prefix_scores(config, weights, tables, batch.last, batch.last_but_one,
                                       batch.features.index_select(0, batch.row), compute);
        CtcLossBatch wanted{of_frames.logits, of_frames.gate, prefix, batch.labels};
        if (options.teacher > 0)
            std::tie(wanted.others, wanted.other_shares) =
                teacher_tokens(batch.ahead, tables.output, options.teacher, compute);
        return wanted;
    }

    [[nodiscard]] at::Tensor loss(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                  const AnchorBatch& batch, const std::vector<double>& label_weights,
                                  at::ScalarType compute, LossStats& stats, ThreadTeam& team) const {
        return ctc_loss(scores(config, weights, tables, batch, compute), {options.loss, label_weights}, stats, team);
    }
    [[nodiscard]] TensorLoss tensor_loss(const CtcConfig& config, const CtcWeights& weights, const CtcTables& tables,
                                         const AnchorBatch& batch, const at::Tensor& label_weights,
                                         at::ScalarType compute) const {
        return ctc_tensor_loss(scores(config, weights, tables, batch, compute), options.loss, label_weights);
    }

    static void measure(CtcConfig&, const CtcWeights&, const CtcTables&, std::span<const AnchorBatch>, at::ScalarType) {
    }

    [[nodiscard]] static std::unique_ptr<DraftModel> draft(const CtcConfig& config, const CtcWeights& weights,
                                                           const TargetHead& head) {
        return std::make_unique<CtcDraft>(config, weights, head);
    }
};

}  // namespace

TrainResult train_ctc(const TrainOptions& options, const CtcTrainOptions& ctc, const TrainTarget& target) {
    require_in(ranges::kLabels, ctc.labels, "train", "the number of labels");
    require_in(ranges::kTeacher, ctc.teacher, "train", "the teacher's share");
    require_in(ranges::kFrames, ctc.frames, "train", "the number of frames");
    require_in(ranges::kDecoderLayers, ctc.layers, "train", "the number of decoder layers");
    require_in(ranges::kPrefixRank, ctc.prefix_rank, "train", "prefix_rank");
    require_in(ranges::kPrefixBottleneck, ctc.prefix_bottleneck, "train", "prefix_bottleneck");
    check_layer(ctc.heads, ctc.kv_heads, ctc.intermediate);
    require(ctc.teacher == 0 || ctc.loss == CtcLossKind::prefix, "train: a teacher needs the prefix loss");
    require(ctc.output != HeadOutput::shared,
            "train: CTC's prediction network has output rows of its own or the target's, "
            "not \"shared\" ones");
    for (std::size_t i = 0; i < ctc.feature_layers.size(); ++i)
        require(ctc.feature_layers[i] > (i == 0 ? 0 : ctc.feature_layers[i - 1]),
                "train: feature layers {}, expected whole numbers above 0 in ascending order, each once",
                names_of(ctc.feature_layers));
    return run_training(options, target, learner_maker(CtcNetwork{ctc}), ctc.feature_layers);
}

}  // namespace outrider
