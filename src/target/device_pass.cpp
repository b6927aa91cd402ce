#include "device_pass.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include "cuda_module.hpp"
#include "device_backend.hpp"
#include "device_kernels.hpp"
#include "device_picks.hpp"
#include "device_rounds.hpp"
#include "graph_replay.hpp"

namespace outrider {
namespace {

/// What a forward makes on the device, padding among it.
struct Made {
    at::Tensor features;  // [N, F]
    at::Tensor logits;    // [N, V]
    at::Tensor tokens;    // [N] of the largest logits, -1 for NaN; where picks are wanted [2, N], these behind them
};

/// What a forward makes beside the rows' features.
struct Wanted {
    bool logits = false;
    Picks picks = Picks::none;
    std::span<const std::int64_t> feature_layers = {};
};

/// What the operations of one shape work on.
struct Bucket {
    struct Recorded {
        GraphReplay graph;
        Made made;
    };
    DeviceBlock block;
    std::map<std::vector<std::int64_t>, Recorded> recorded;  // by what is picked, and feature layers
};

/// A product that the module outrider_cuda makes, so that rows do not depend on how many stand beside them. `rows` [in,
/// out] is a view of a matrix as it is stored.
void multiply(const at::Tensor& y, const at::Tensor& x, const at::Tensor& rows, const at::Tensor& bias, double alpha,
              double beta) {
    OUTRIDER_ASSERT(x.is_contiguous() && y.is_contiguous() && rows.t().is_contiguous());
    const std::string why = cuda_module()->multiply({.x = x.const_data_ptr(),
                                                     .rows = rows.const_data_ptr(),
                                                     .y = y.mutable_data_ptr(),
                                                     .bias = bias.defined() ? bias.const_data_ptr() : nullptr,
                                                     .n = x.size(0),
                                                     .in = x.size(1),
                                                     .out = rows.size(1),
                                                     .bf16 = x.scalar_type() == at::kBFloat16,
                                                     .y_in_f32 = y.scalar_type() == at::kFloat,
                                                     .alpha = static_cast<float>(alpha),
                                                     .beta = static_cast<float>(beta)});
    require(why.empty(), ErrorKind::internal,
            "cuBLASLt has no product of {} x {}: {}; OUTRIDER_KERNELS=0 does without it", x.size(1), rows.size(1), why);
}

PickNumbers pick_numbers(const DeviceBlock& block) {
    return {.key = block.part(DeviceInputs::pick_key),
            .temperature = block.part(DeviceInputs::temperature),
            .top_k = block.part(DeviceInputs::top_k),
            .top_p = block.part(DeviceInputs::top_p),
            .min_p = block.part(DeviceInputs::min_p)};
}

class DevicePass final : public TargetPass {
public:
    explicit DevicePass(std::shared_ptr<const DeviceBackend> model)
        : model_(std::move(model)),
          kernels_(device_kernels_wanted(model_->options.device())),
          products_(kernels_ && model_->options.device().is_cuda() && cuda_module()->has_products()),
          rounds_(model_, kernels_),
          picks_(model_->config.vocabulary, model_->options.device(), kernels_),
          graphs_(make_graph_pool(model_->options.device())) {}

    PassOutput forward(std::span<const RowSegment> segments, PassFor use,
                       std::span<const std::int64_t> feature_layers) override;
    KvCache make_cache() const override { return KvCache(std::make_unique<PooledSlots>(rounds_.pool())); }

private:
    const ModelConfig& config() const { return model_->config; }
    std::int64_t group() const { return config().heads / config().kv_heads; }

    /// What is to be added to the residual stream, once it is normed.
    struct Branch {
        at::Tensor made, norm;  // [N, H], [H]; undefined: nothing
    };

    Made compute(const DeviceShape& shape, const DeviceBlock& block, const Wanted& wanted) const;
    void place(const at::Tensor& heads, const at::Tensor& store, const DeviceLayer& own,
               const RoundTensors& round) const;
    at::Tensor normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const;
    at::Tensor normed_heads(const at::Tensor& heads, const DeviceLayer& own) const;
    void turn(const at::Tensor& heads, const DeviceLayer& own, const RoundTensors& round) const;
    at::Tensor capped(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                      const at::Tensor& bias) const;
    at::Tensor attend(const at::Tensor& qkv, std::int64_t layer, const DeviceShape& shape,
                      const RoundTensors& round) const;
    at::Tensor product(const at::Tensor& x, const DeviceLinear& linear) const;
    Branch add(at::Tensor& x, const at::Tensor& inner, const DeviceLinear& linear, const at::Tensor& norm) const;
    at::Tensor joined(at::Tensor& x, const Branch& branch, const at::Tensor& norm) const;
    at::Tensor gate(const at::Tensor& gate_up) const;
    at::Tensor logits_of(const at::Tensor& features) const;
    at::Tensor largest(const at::Tensor& logits) const;

    std::shared_ptr<const DeviceBackend> model_;
    bool kernels_;
    bool products_;  ///< by the module, for so many rows as it takes
    DeviceRounds rounds_;
    DevicePicks picks_;
    std::unique_ptr<cuda::GraphPool> graphs_;  // null: operations are launched one by one
    std::map<DeviceShape, Bucket> buckets_;
    at::Tensor zero_ = at::zeros({}, model_->options);
};

at::Tensor DevicePass::normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const {
    return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, weight, config().norm_eps));
}

/// Queries and keys [N, heads + kv_heads, head_dim] of all heads [N, heads + 2 kv_heads, head_dim].
at::Tensor DevicePass::normed_heads(const at::Tensor& heads, const DeviceLayer& own) const {
    const ModelConfig& c = config();
    const at::Tensor both = heads.narrow(1, 0, c.heads + c.kv_heads);
    if (!own.head_norms.defined()) return both;
    if (c.head_norm == ModelConfig::HeadNorm::each) return normed(both, std::nullopt).mul_(own.head_norms);
    const auto whole = [&](std::int64_t first, std::int64_t count) {
        return normed(both.narrow(1, first, count).flatten(1), own.head_norms.narrow(0, first, count).flatten())
            .view({-1, count, c.head_dim});
    };
    return at::cat({whole(0, c.heads), whole(c.heads, c.kv_heads)}, 1);
}

/// Norms and turns queries and keys where they stand.
void DevicePass::turn(const at::Tensor& heads, const DeviceLayer& own, const RoundTensors& round) const {
    const ModelConfig& c = config();
    const std::int64_t half = c.rotated / 2;
    at::Tensor both = heads.narrow(1, 0, c.heads + c.kv_heads);
    const at::Tensor from = normed_heads(heads, own);
    if (own.rope >= 0) {
        const at::Tensor& turns = round.turns[static_cast<std::size_t>(own.rope)];
        const at::Tensor straight = from * turns.select(1, 0);
        const at::Tensor swapped =
            at::cat({from.narrow(2, half, half), from.narrow(2, 0, half), from.slice(2, c.rotated)}, 2);
        at::addcmul_out(both, straight, swapped, turns.select(1, 1));
    } else if (!from.is_alias_of(both)) {
        both.copy_(from);
    }
    if (round.query_scale.defined()) heads.narrow(1, 0, c.heads).mul_(round.query_scale);
}

/// Norms and turns queries and keys, and writes keys and values to their slots.
void DevicePass::place(const at::Tensor& heads, const at::Tensor& store, const DeviceLayer& own,
                       const RoundTensors& round) const {
    const ModelConfig& c = config();
    if (kernels_) {
        place_rows(heads, store,
                   {.turns = own.rope < 0 ? at::Tensor() : model_->rotations[static_cast<std::size_t>(own.rope)],
                    .position = round.position,
                    .slot = round.slot,
                    .norm = own.head_norms,
                    .query_scale = model_->query_scales,
                    .rotated = c.rotated,
                    .whole = c.head_norm == ModelConfig::HeadNorm::whole,
                    .eps = c.norm_eps});
        return;
    }
    turn(heads, own, round);
    at::Tensor to = store;
    to.index_copy_(0, round.slot, heads.narrow(1, c.heads, 2 * c.kv_heads));
}

/// Attention whose scores become cap tanh(score / cap): queries [S, K, Q, D], keys and values [S, K, L, D], contiguous;
/// returns [S K Q, D].
at::Tensor DevicePass::capped(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                              const at::Tensor& bias) const {
    const std::int64_t S = queries.size(0), K = queries.size(1), Q = queries.size(2), D = queries.size(3),
                       L = keys.size(2);
    const double cap = config().score_cap;
    at::Tensor scores = at::baddbmm(zero_, queries.view({S * K, Q, D}), keys.view({S * K, L, D}).transpose(1, 2), 0,
                                    config().scale_of_scores() / cap)
                            .to(at::kFloat);
    const at::Tensor shares =
        at::softmax(at::add(bias, scores.tanh_().view({S, K, Q, L}), cap), -1).to(values.scalar_type());
    return at::bmm(shares.view({S * K, Q, L}), values.view({S * K, L, D})).view({-1, D});
}

/// Writes the rows' keys and values, and attends over what each row sees. qkv [N, q + 2 kv], which it turns in place;
/// returns [N, q].
at::Tensor DevicePass::attend(const at::Tensor& qkv, std::int64_t layer, const DeviceShape& shape,
                              const RoundTensors& round) const {
    const ModelConfig& c = config();
    const DeviceLayer& own = model_->layers[static_cast<std::size_t>(layer)];
    const std::int64_t N = qkv.size(0), S = shape.sequences, L = shape.context, K = c.kv_heads, D = c.head_dim,
                       Q = group() * shape.tree_rows;
    const at::Tensor heads = qkv.view({N, c.heads + 2 * K, D});
    const at::Tensor store = rounds_.pool()->store().select(0, layer);  // [slots, 2 K, D]
    place(heads, store, own, round);
    if (rounds_.kernels_attend(shape))
        return tree_attention(heads, store, round.seen[own.window], c.scale_of_scores(), c.score_cap);
    const at::Tensor queries = heads.view({-1, D}).index_select(0, round.query_rows).view({S, K, Q, D});
    const at::Tensor& bias = round.bias[own.window];
    at::Tensor mixed;  // rows of heads
    if (c.score_cap > 0) {
        const at::Tensor seen = store.view({-1, D}).index_select(0, round.gathered_heads).view({2, S, K, L, D});
        mixed = capped(queries, seen.select(0, 0), seen.select(0, 1), bias);
    } else {
        const at::Tensor seen = store.index_select(0, round.gathered).view({S, L, 2, K, D});
        mixed = at::scaled_dot_product_attention(queries, seen.select(2, 0).transpose(1, 2),
                                                 seen.select(2, 1).transpose(1, 2), bias.expand({S, K, Q, L}), 0.0,
                                                 false, c.scale_of_scores())
                    .transpose(1, 2)
                    .reshape({-1, D});
    }
    return mixed.index_select(0, round.output_rows).view({N, c.heads * D});
}

/// Sums in f32 where the device can.
at::Tensor DevicePass::logits_of(const at::Tensor& features) const {
    const ModelConfig& c = config();
    const at::Tensor output = model_->output.t();
    at::Tensor logits;
    if (products_ && features.size(0) <= cuda::kProductRows) {
        logits = at::empty({features.size(0), output.size(1)}, features.options().dtype(at::kFloat));
        multiply(logits, features, output, {}, c.logit_cap > 0 ? 1 : c.logit_scale, 0);
        return c.logit_cap > 0 ? logits.mul_(c.logit_scale / c.logit_cap).tanh_().mul_(c.logit_cap) : logits;
    }
    logits = features.is_cuda() && features.scalar_type() != at::kFloat ? at::mm(features, output, at::kFloat)
                                                                        : at::mm(features, output).to(at::kFloat);
    if (c.logit_cap > 0) return logits.mul_(c.logit_scale / c.logit_cap).tanh_().mul_(c.logit_cap);
    return c.logit_scale == 1 ? logits : logits.mul_(c.logit_scale);
}

at::Tensor DevicePass::product(const at::Tensor& x, const DeviceLinear& linear) const {
    if (!products_ || x.size(0) > cuda::kProductRows) return linear(x);
    at::Tensor y = at::empty({x.size(0), linear.matrix.size(1)}, x.options());
    multiply(y, x, linear.matrix, linear.bias, 1, 0);
    return y;
}

/// scale linear(inner), on its way to x: added in the product, or left to be normed first.
DevicePass::Branch DevicePass::add(at::Tensor& x, const at::Tensor& inner, const DeviceLinear& linear,
                                   const at::Tensor& norm) const {
    if (norm.defined()) return {product(inner, linear), norm};
    if (products_ && x.size(0) <= cuda::kProductRows)
        multiply(x, inner, linear.matrix, {}, config().residual_scale, 1);
    else
        x.addmm_(inner, linear.matrix, 1, config().residual_scale);
    if (linear.bias.defined()) x.add_(linear.bias, config().residual_scale);
    return {};
}

/// x += what is on its way. Returns norm(x), or x where `norm` is undefined.
at::Tensor DevicePass::joined(at::Tensor& x, const Branch& branch, const at::Tensor& norm) const {
    const double scale = config().residual_scale;
    if (kernels_ && (branch.made.defined() || norm.defined()))
        return norm_add(x, branch.made, branch.norm, norm, scale, config().norm_eps);
    if (branch.made.defined()) x.add_(normed(branch.made, branch.norm), scale);
    return norm.defined() ? normed(x, norm) : x;
}

at::Tensor DevicePass::gate(const at::Tensor& gate_up) const {
    const std::int64_t F = config().feed_forward;
    const bool silu = config().activation == ModelConfig::Activation::silu;
    if (kernels_) return gated(gate_up, !silu);
    const at::Tensor narrow = gate_up.narrow(1, 0, F);
    return (silu ? at::silu(narrow) : at::gelu(narrow, "tanh")).mul_(gate_up.narrow(1, F, F));
}

/// The columns of the largest logits, -1 for a row that holds NaN.
at::Tensor DevicePass::largest(const at::Tensor& logits) const {
    if (kernels_) return largest_columns(logits);
    const auto [top, token] = logits.max(-1);
    return token.masked_fill(top.ne(top), -1);  // NaN differs from itself
}

/// All that happens between the copy to the device and the copy back: what a graph holds.
Made DevicePass::compute(const DeviceShape& shape, const DeviceBlock& block, const Wanted& wanted) const {
    const std::span<const std::int64_t> feature_layers = wanted.feature_layers;
    const RoundTensors round = rounds_.prepare(shape, block);
    at::Tensor x = model_->embedding.index_select(0, block.part(DeviceInputs::token));
    if (config().embedding_scale != 1) x.mul_(config().embedding_scale);
    std::vector<at::Tensor> columns(1 + feature_layers.size());
    Branch branch;
    for (std::int64_t i = 0; i < config().layers; ++i) {
        const DeviceLayer& own = model_->layers[static_cast<std::size_t>(i)];
        const at::Tensor in = joined(x, branch, own.attention_norm);
        for (std::size_t k = 0; k < feature_layers.size(); ++k)
            if (feature_layers[k] == i) columns[1 + k] = normed(x.to(at::kFloat), std::nullopt);
        branch = add(x, attend(product(in, own.qkv), i, shape, round), own.o, own.post_attention_norm);
        branch = add(x, gate(product(joined(x, branch, own.mlp_norm), own.gate_up)), own.down, own.post_mlp_norm);
    }
    const at::Tensor features = joined(x, branch, model_->norm);
    columns[0] = features.to(at::kFloat);
    Made made{.features = columns.size() == 1 ? columns[0] : at::cat(columns, 1), .logits = {}, .tokens = {}};
    if (!wanted.logits) return made;
    made.logits = logits_of(features);
    made.tokens = largest(made.logits);
    if (wanted.picks != Picks::none)
        made.tokens = at::stack({made.tokens, picks_(made.logits, pick_numbers(block), wanted.picks)});
    return made;
}

PassOutput DevicePass::forward(std::span<const RowSegment> segments, PassFor use,
                               std::span<const std::int64_t> feature_layers) {
    const Wanted wanted{.logits = use != PassFor::features,
                        .picks = use == PassFor::logits ? picks_wanted(segments) : Picks::none,
                        .feature_layers = feature_layers};
    std::int64_t rows = 0;
    for (const RowSegment& segment : segments) {
        segment.cache->reserve(static_cast<std::int64_t>(segment.tokens.size()));
        rows += static_cast<std::int64_t>(segment.tokens.size());
    }
    const DeviceShape shape = device_shape(segments, rounds_.pool()->columns());
    const auto found = buckets_.find(shape);
    Bucket& own = found != buckets_.end()
                      ? found->second
                      : buckets_.emplace(shape, Bucket{rounds_.make_block(shape), {}}).first->second;
    rounds_.send(own.block, segments);
    Made made;
    if (graphs_ && wanted.logits) {
        std::vector<std::int64_t> kind{static_cast<std::int64_t>(wanted.picks)};
        kind.insert(kind.end(), feature_layers.begin(), feature_layers.end());
        Bucket::Recorded& recorded = own.recorded[std::move(kind)];
        recorded.graph.run(*graphs_, [&] { recorded.made = compute(shape, own.block, wanted); });
        made = recorded.made;
    } else {
        made = compute(shape, own.block, wanted);
    }
    PassOutput output{.features = made.features.narrow(0, 0, rows), .logits = {}, .argmax = {}, .picks = {}};
    if (!wanted.logits) return output;
    output.logits = made.logits.narrow(0, 0, rows);
    // The copy waits for the pass, so that whoever times a forward times all of it.
    const at::Tensor tokens = made.tokens.to(at::kCPU).narrow(-1, 0, rows);
    output.argmax = wanted.picks == Picks::none ? tokens : tokens[0];
    if (wanted.picks != Picks::none) output.picks = tokens[1];
    return output;
}

}  // namespace

std::unique_ptr<TargetPass> DeviceBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    const at::NoGradGuard no_grad;
    return std::make_unique<DevicePass>(std::static_pointer_cast<const DeviceBackend>(std::move(self)));
}

}  // namespace outrider
