#include "device_pass.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include "device_inputs.hpp"
#include "device_kernels.hpp"
#include "graph_replay.hpp"
#include "kv_pool.hpp"

namespace outrider {
namespace {

/// A matrix, transposed: an [in, out] view of rows as they are stored.
struct DeviceLinear {
    at::Tensor matrix;  // [in, out]
    at::Tensor bias;    // [out]; undefined: none

    at::Tensor operator()(const at::Tensor& x) const {
        return bias.defined() ? at::addmm(bias, x, matrix) : at::mm(x, matrix);
    }
};

/// Tensors that a model has not are undefined. All of the pass's type.
struct DeviceLayer {
    at::Tensor attention_norm, mlp_norm, post_attention_norm, post_mlp_norm;  // [H]
    at::Tensor head_norms;      // [heads + kv_heads, head_dim] of each head
    at::Tensor q_norm, k_norm;  // [heads head_dim] and [kv_heads head_dim], over all heads
    DeviceLinear qkv, o, gate_up, down;
    std::size_t window = 0;  // which of the pass's windows
    int rope = 0;            // which of the pass's rotary embeddings; below 0: none
};

class DeviceBackend final : public ModelBackend {
public:
    DeviceBackend(const WeightSource& source, const ModelConfig& model, at::Device device, Weights weights,
                  const DeviceCacheLimits& cache_limits)
        : config(model), limits(cache_limits), options(at::TensorOptions().device(device).dtype(dtype_of(weights))) {
        embedding = matrix(source, {"embed"});
        output = config.tied_output ? embedding : matrix(source, {"output"});
        norm = vector(source, "norm");
        for (std::int64_t i = 0; i < config.layers; ++i)
            if (std::ranges::find(windows, config.window_of(i)) == windows.end())
                windows.push_back(config.window_of(i));
        for (std::int64_t i = 0; i < config.layers; ++i) layers.push_back(read_layer(source, i));
        for (const RopeConfig* rope : {&config.rope, config.local_rope ? &*config.local_rope : nullptr})
            if (rope != nullptr) rotations.push_back(rotation_of(*rope));
        if (config.query_growth == 0) return;
        std::vector<float> scales;
        for (std::int64_t p = 0; p < config.context; ++p)
            scales.push_back(static_cast<float>(config.scale_of_queries(p)));
        query_scales = at::tensor(scales).to(options.device(), options.dtype().toScalarType()).view({-1, 1, 1});
    }

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;
    Weights weights() const override { return options.dtype() == at::kFloat ? Weights::f32 : Weights::bf16; }
    std::string description() const override { return std::string(name_of(weights())); }
    at::Tensor table(std::string_view name) const override { return name == "embed" ? embedding : output; }
    std::size_t bytes() const override {
        std::size_t sum = embedding.nbytes() + (config.tied_output ? 0 : output.nbytes());
        for (const DeviceLayer& layer : layers)
            for (const at::Tensor& part : {layer.qkv.matrix, layer.o.matrix, layer.gate_up.matrix, layer.down.matrix,
                                           layer.attention_norm, layer.mlp_norm})
                if (part.defined()) sum += part.nbytes();
        return sum;
    }

    ModelConfig config;
    DeviceCacheLimits limits;
    at::TensorOptions options;
    at::Tensor embedding, output, norm;
    std::vector<at::Tensor> rotations;  // [context, 2, 1, head_dim] cos, and sin with the sign of its half; of all
                                        // layers, or of those without and with a window
    at::Tensor query_scales;            // [context, 1, 1]; undefined: 1
    std::vector<std::int64_t> windows;  // of the layers, each once
    std::vector<DeviceLayer> layers;

private:
    static at::ScalarType dtype_of(Weights weights) {
        require(weights == Weights::f32 || weights == Weights::bf16, ErrorKind::not_supported,
                "weights \"{}\" need the CPU kernels; expected f32 or bf16 on this device", name_of(weights));
        return weights == Weights::f32 ? at::kFloat : at::kBFloat16;
    }

    DeviceLayer read_layer(const WeightSource& source, std::int64_t index) const {
        const ModelConfig& c = config;
        const std::string own = fmt::format("{}.", index);
        const auto optional = [&](bool there, const char* name) {
            return there ? vector(source, own + name) : at::Tensor();
        };
        const auto linear = [&](const std::vector<const char*>& names, bool bias) {
            std::vector<std::string> matrices;
            std::vector<at::Tensor> biases;
            for (const char* name : names) {
                matrices.push_back(own + name);
                if (bias) biases.push_back(vector(source, own + name + "_bias"));
            }
            return DeviceLinear{matrix(source, matrices).t(), bias ? at::cat(biases) : at::Tensor()};
        };
        const RopeConfig* rope = c.rope_of(index);
        DeviceLayer layer{.attention_norm = optional(c.pre_norms, "attention_norm"),
                          .mlp_norm = optional(c.pre_norms, "mlp_norm"),
                          .post_attention_norm = optional(c.post_norms, "post_attention_norm"),
                          .post_mlp_norm = optional(c.post_norms, "post_mlp_norm"),
                          .head_norms = {},
                          .q_norm = {},
                          .k_norm = {},
                          .qkv = linear({"q", "k", "v"}, c.qkv_bias),
                          .o = linear({"o"}, c.o_bias),
                          .gate_up = linear({"gate", "up"}, c.mlp_bias),
                          .down = linear({"down"}, c.mlp_bias)};
        if (c.head_norm == ModelConfig::HeadNorm::each)
            layer.head_norms = at::cat({vector(source, own + "q_norm").expand({c.heads, c.head_dim}),
                                        vector(source, own + "k_norm").expand({c.kv_heads, c.head_dim})});
        if (c.head_norm == ModelConfig::HeadNorm::whole)
            layer.q_norm = vector(source, own + "q_norm"), layer.k_norm = vector(source, own + "k_norm");
        layer.window = static_cast<std::size_t>(std::ranges::find(windows, c.window_of(index)) - windows.begin());
        layer.rope = rope == nullptr ? -1 : rope == &c.rope ? 0 : 1;
        return layer;
    }

    /// The matrices one below the other.
    at::Tensor matrix(const WeightSource& source, const std::vector<std::string>& names) const {
        std::int64_t rows = 0;
        for (const std::string& name : names) rows += source.rows(name);
        at::Tensor result = at::empty({rows, source.columns(names[0])}, options);
        std::int64_t begin = 0;
        for (const std::string& name : names) {
            std::vector<float> floats = source.floats(name);
            const at::Tensor view = at::from_blob(floats.data(), {source.rows(name), result.size(1)}, at::kFloat);
            // Rounded on the host: half the bytes on the way.
            result.narrow(0, begin, source.rows(name)).copy_(view.to(result.scalar_type()));
            begin += source.rows(name);
            source.drop_pages(name);
        }
        return result;
    }

    at::Tensor vector(const WeightSource& source, const std::string& name) const {
        return at::tensor(source.floats(name)).to(options.device(), options.dtype().toScalarType());
    }

    /// Angles in f32, their cosines rounded to the pass's type, as the models were trained. Dimensions that do not turn
    /// have the cosine 1.
    at::Tensor rotation_of(const RopeConfig& rope) const {
        const at::Tensor rates = at::tensor(rope.frequencies(config.rotated)).to(options.device());
        const at::Tensor angles = at::outer(at::arange(config.context, rates.options()), rates);
        const at::Tensor cos = angles.cos() * rope.magnitude, sin = angles.sin() * rope.magnitude;
        const at::Tensor still = at::zeros({config.context, config.head_dim - config.rotated}, rates.options());
        return at::stack({at::cat({cos, cos, still + 1}, 1), at::cat({sin.neg(), sin, still}, 1)}, 1)
            .to(options.dtype().toScalarType())
            .unsqueeze(2);
    }
};

/// What a forward makes on the device, padding among it.
struct Made {
    at::Tensor features;  // [N, F]
    at::Tensor logits;    // [N, V]
    at::Tensor tokens;    // [N] of the largest logits, -1 for NaN
};

/// What the operations of one shape work on.
struct Bucket {
    struct Recorded {
        GraphReplay graph;
        Made made;
    };
    DeviceInputs inputs;
    at::Tensor block;                                        // [inputs.size()] int64 on the device
    std::map<std::vector<std::int64_t>, Recorded> recorded;  // by feature layers
};

/// What the layers of one forward share. Where kernels attend, `seen` is there in place of what stands below it.
struct RoundTensors {
    std::vector<AttendedRows> seen;  // of each window
    at::Tensor position;             // [N]
    std::vector<at::Tensor> turns;   // [N, 2, 1, head_dim] of each rotary embedding
    at::Tensor query_scale;          // [N, 1, 1]; undefined: 1
    at::Tensor slot;                 // [N] where keys and values go
    at::Tensor gathered;             // [S L] slots that are looked at
    std::vector<at::Tensor> bias;    // [S, 1, group R, L] of each window: 0, or -infinity where a row does not see a
                                     // position
    at::Tensor
        gathered_heads;      // [2 S kv_heads L] the same as rows of heads, keys first, for attention of capped scores
    at::Tensor query_rows;   // [S kv_heads group R] of q's heads
    at::Tensor output_rows;  // [N heads] of what attention returns
};

/// Trees of more rows go through the tensor library's attention: a kernel's block reads keys for one row alone.
constexpr std::int64_t kKernelRows = 64;

class DevicePass final : public TargetPass {
public:
    explicit DevicePass(std::shared_ptr<const DeviceBackend> model);

    PassOutput forward(std::span<const RowSegment> segments, bool with_logits,
                       std::span<const std::int64_t> feature_layers) override;
    KvCache make_cache() const override { return KvCache(std::make_unique<PooledSlots>(pool_)); }

private:
    const ModelConfig& config() const { return model_->config; }
    std::int64_t group() const { return config().heads / config().kv_heads; }

    Bucket& bucket(const DeviceShape& shape);
    Made compute(const DeviceShape& shape, const Bucket& bucket, bool with_logits,
                 std::span<const std::int64_t> feature_layers) const;
    void layer(std::int64_t index, at::Tensor& x, const DeviceShape& shape, const RoundTensors& round) const;
    void send(Bucket& bucket, std::span<const RowSegment> segments) const;
    RoundTensors prepare(const DeviceShape& shape, const Bucket& bucket) const;
    void prepare_operations(const DeviceShape& shape, const Bucket& bucket, RoundTensors& round) const;
    at::Tensor of_window(const Bucket& bucket, DeviceInputs::Part part, std::size_t window) const;
    /// Every layer turns its heads, and nothing else happens to them on the way to the cache.
    bool kernels_place() const {
        return kernels_ && config().head_norm == ModelConfig::HeadNorm::none && config().query_growth == 0 &&
               config().unrotated.empty();
    }
    bool kernels_attend(const DeviceShape& shape) const { return kernels_ && shape.tree_rows <= kKernelRows; }
    void place(const at::Tensor& heads, const at::Tensor& store, const DeviceLayer& own,
               const RoundTensors& round) const;
    at::Tensor bias_of(const DeviceShape& shape, const Bucket& bucket, std::size_t window, const at::Tensor& behind,
                       const at::Tensor& live) const;
    at::Tensor normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const;
    at::Tensor stream(const at::Tensor& x, const at::Tensor& norm) const {
        return norm.defined() ? normed(x, norm) : x;
    }
    at::Tensor normed_heads(const at::Tensor& heads, const DeviceLayer& own) const;
    void turn(const at::Tensor& heads, const DeviceLayer& own, const RoundTensors& round) const;
    at::Tensor capped(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                      const at::Tensor& bias) const;
    at::Tensor attend(const at::Tensor& qkv, std::int64_t layer, const DeviceShape& shape,
                      const RoundTensors& round) const;
    void add(at::Tensor& x, const at::Tensor& inner, const DeviceLinear& linear, const at::Tensor& norm) const;
    at::Tensor logits_of(const at::Tensor& features) const;

    std::shared_ptr<const DeviceBackend> model_;
    std::shared_ptr<KvPool> pool_;
    at::Tensor positions_;      // [columns] 0, 1, 2, ...
    at::Tensor shifts_;         // [64] 0 .. 63
    at::Tensor cache_heads_;    // [2, 1, kv_heads, 1] 0 .. 2 kv_heads - 1
    at::Tensor seen_, unseen_;  // 0 and -infinity, of the pass's type
    bool graphs_ = false, kernels_ = false;
    std::map<DeviceShape, Bucket> buckets_;
    std::map<std::int64_t, std::pair<at::Tensor, at::Tensor>> head_places_;  // by R: of q, of the output
};

DevicePass::DevicePass(std::shared_ptr<const DeviceBackend> model) : model_(std::move(model)) {
    const ModelConfig& c = config();
    const std::size_t token_bytes =
        static_cast<std::size_t>(c.layers * 2 * c.kv_heads * c.head_dim) * model_->options.dtype().itemsize();
    const std::int64_t tokens = model_->limits.tokens > 0 ? model_->limits.tokens : device_cache_tokens(c, token_bytes);
    pool_ = std::make_shared<KvPool>(
        KvCache::Shape{.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim},
        KvPool::Limits{.tokens = tokens, .sequences = model_->limits.sequences, .context = c.context}, model_->options);
    const auto longs = model_->options.dtype(at::kLong);
    positions_ = at::arange(pool_->columns(), longs);
    shifts_ = at::arange(64, longs);
    cache_heads_ = at::arange(2 * c.kv_heads, longs).view({2, 1, c.kv_heads, 1});
    seen_ = at::zeros({}, model_->options);
    unseen_ = at::full({}, -INFINITY, model_->options);
    graphs_ = graphs_wanted(model_->options.device());
    kernels_ = device_kernels_wanted(model_->options.device());
}

Bucket& DevicePass::bucket(const DeviceShape& shape) {
    const auto found = buckets_.find(shape);
    if (found != buckets_.end()) return found->second;
    const bool by_head =
        config().score_cap > 0;  // how attention leaves its rows: heads outermost, or key heads innermost
    const DeviceInputs inputs(shape, by_head ? 1 : config().kv_heads, by_head ? config().heads : group(),
                              model_->windows);
    const at::Tensor block = at::empty({inputs.size()}, model_->options.dtype(at::kLong));
    if (!head_places_.contains(shape.tree_rows)) {
        const std::int64_t K = config().kv_heads, G = group(), R = shape.tree_rows;
        const at::Tensor head = at::arange(K * G, block.options()), kv = head.floor_divide(G);
        const at::Tensor place = by_head ? head * R : (head - kv * G) * (R * K) + kv;
        head_places_[R] = {head.view({1, K, G, 1}), place.view({1, K * G})};
    }
    return buckets_.emplace(shape, Bucket{inputs, block, {}}).first->second;
}

/// The one copy to the device.
void DevicePass::send(Bucket& bucket, std::span<const RowSegment> segments) const {
    const bool pinned = !model_->options.device().is_cpu();
    const at::Tensor staged =
        at::empty({bucket.inputs.size()}, at::TensorOptions().dtype(at::kLong).pinned_memory(pinned));
    bucket.inputs.fill(segments, pool_->columns(), staged.data_ptr<std::int64_t>());
    bucket.block.copy_(staged, true);
}

// A position p of lane s is a token of the text where p < committed, else row p - committed of this forward.
RoundTensors DevicePass::prepare(const DeviceShape& shape, const Bucket& bucket) const {
    using In = DeviceInputs;
    const auto part = [&](In::Part which) { return bucket.inputs.part(bucket.block, which); };
    pool_->table().view({-1}).index_copy_(0, part(In::update_at), part(In::update_to));
    RoundTensors round;
    round.slot = part(In::slot), round.position = part(In::position);
    if (kernels_attend(shape))
        for (std::size_t w = 0; w < model_->windows.size(); ++w)
            round.seen.push_back({.place = part(In::padded_place),
                                  .lane = part(In::lane),
                                  .committed = part(In::committed),
                                  .count = part(In::count),
                                  .first = of_window(bucket, In::first, w),
                                  .bits = of_window(bucket, In::bits, w),
                                  .table = pool_->table(),
                                  .tree_rows = shape.tree_rows,
                                  .words = shape.words(),
                                  .positions = shape.context});
    else
        prepare_operations(shape, bucket, round);
    for (const at::Tensor& rotation : model_->rotations)
        if (!kernels_place()) round.turns.push_back(rotation.index_select(0, round.position));
    if (model_->query_scales.defined()) round.query_scale = model_->query_scales.index_select(0, round.position);
    return round;
}

/// What attention by operations needs.
void DevicePass::prepare_operations(const DeviceShape& shape, const Bucket& bucket, RoundTensors& round) const {
    using In = DeviceInputs;
    const auto part = [&](In::Part which) { return bucket.inputs.part(bucket.block, which); };
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, heads = config().heads;
    const at::Tensor behind = positions_.narrow(0, 0, L).unsqueeze(0) - part(In::committed).unsqueeze(1);  // [S, L]
    const at::Tensor live = behind.lt(part(In::count).unsqueeze(1));
    round.gathered = (pool_->table().narrow(1, 0, L).index_select(0, part(In::lane)) * live).view({S * L});
    if (config().score_cap > 0)
        round.gathered_heads = (round.gathered.view({1, S, 1, L}) * (2 * config().kv_heads) + cache_heads_).view({-1});
    for (std::size_t w = 0; w < model_->windows.size(); ++w)
        round.bias.push_back(bias_of(shape, bucket, w, behind, live));
    const auto& [of_query, of_output] = head_places_.at(R);
    const at::Tensor row = part(In::padded_row).view({S, 1, 1, R}) * (heads + 2 * config().kv_heads);
    round.query_rows = (row + of_query).view({-1});
    round.output_rows = (part(In::attended_row).unsqueeze(1) + of_output).view({-1});
}

/// A part that there is of each window.
at::Tensor DevicePass::of_window(const Bucket& bucket, DeviceInputs::Part part, std::size_t window) const {
    const at::Tensor all = bucket.inputs.part(bucket.block, part);
    const std::int64_t each = all.size(0) / std::ssize(model_->windows);
    return all.narrow(0, static_cast<std::int64_t>(window) * each, each);
}

/// From the bits of the rows' ancestors. `behind` [S, L]: positions counted from the first row; `live`: those that are
/// there.
at::Tensor DevicePass::bias_of(const DeviceShape& shape, const Bucket& bucket, std::size_t window,
                               const at::Tensor& behind, const at::Tensor& live) const {
    using In = DeviceInputs;
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, B = shape.words() * 64;
    const at::Tensor words = of_window(bucket, In::bits, window).view({S, R, shape.words(), 1});
    const at::Tensor bits = words.bitwise_right_shift(shifts_).bitwise_and(1).view({S, R, B});
    const at::Tensor row = behind.clamp(0, B - 1).unsqueeze(1).expand({S, R, L});
    const at::Tensor of_tree = bits.gather(2, row).ne(0).logical_and_(live.unsqueeze(1));
    const at::Tensor of_text = positions_.narrow(0, 0, L).ge(of_window(bucket, In::first, window).view({S, R, 1}));
    const at::Tensor sees = at::where(behind.lt(0).unsqueeze(1), of_text, of_tree);
    return at::where(sees, seen_, unseen_).unsqueeze(1).expand({S, group(), R, L}).reshape({S, 1, group() * R, L});
}

at::Tensor DevicePass::normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const {
    return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, weight, config().norm_eps));
}

/// Queries and keys [N, heads + kv_heads, head_dim] of all heads [N, heads + 2 kv_heads, head_dim].
at::Tensor DevicePass::normed_heads(const at::Tensor& heads, const DeviceLayer& own) const {
    const ModelConfig& c = config();
    const at::Tensor both = heads.narrow(1, 0, c.heads + c.kv_heads);
    if (own.head_norms.defined()) return normed(both, std::nullopt).mul_(own.head_norms);
    if (!own.q_norm.defined()) return both;
    const auto whole = [&](std::int64_t first, std::int64_t count, const at::Tensor& weight) {
        return normed(both.narrow(1, first, count).flatten(1), weight).view({-1, count, c.head_dim});
    };
    return at::cat({whole(0, c.heads, own.q_norm), whole(c.heads, c.kv_heads, own.k_norm)}, 1);
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

/// Turns queries and keys, and writes keys and values to their slots.
void DevicePass::place(const at::Tensor& heads, const at::Tensor& store, const DeviceLayer& own,
                       const RoundTensors& round) const {
    if (kernels_place()) {
        rope_store(heads, store, model_->rotations[static_cast<std::size_t>(own.rope)], round.position, round.slot,
                   config().rotated);
        return;
    }
    turn(heads, own, round);
    at::Tensor to = store;
    to.index_copy_(0, round.slot, heads.narrow(1, config().heads, 2 * config().kv_heads));
}

/// Attention whose scores become cap tanh(score / cap): queries [S, K, Q, D], keys and values [S, K, L, D], contiguous;
/// returns [S K Q, D].
at::Tensor DevicePass::capped(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                              const at::Tensor& bias) const {
    const std::int64_t S = queries.size(0), K = queries.size(1), Q = queries.size(2), D = queries.size(3),
                       L = keys.size(2);
    const double cap = config().score_cap;
    at::Tensor scores = at::baddbmm(seen_, queries.view({S * K, Q, D}), keys.view({S * K, L, D}).transpose(1, 2), 0,
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
    const at::Tensor store = pool_->store().select(0, layer);  // [slots, 2 K, D]
    place(heads, store, own, round);
    if (kernels_attend(shape))
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
    at::Tensor logits = features.is_cuda() && features.scalar_type() != at::kFloat
                            ? at::mm(features, output, at::kFloat)
                            : at::mm(features, output).to(at::kFloat);
    if (c.logit_cap > 0) return logits.mul_(c.logit_scale / c.logit_cap).tanh_().mul_(c.logit_cap);
    return c.logit_scale == 1 ? logits : logits.mul_(c.logit_scale);
}

/// x += scale norm(linear(inner)), of x's own memory.
void DevicePass::add(at::Tensor& x, const at::Tensor& inner, const DeviceLinear& linear, const at::Tensor& norm) const {
    const double scale = config().residual_scale;
    if (norm.defined()) {
        x.add_(normed(linear(inner), norm), scale);
        return;
    }
    x.addmm_(inner, linear.matrix, 1, scale);
    if (linear.bias.defined()) x.add_(linear.bias, scale);
}

void DevicePass::layer(std::int64_t index, at::Tensor& x, const DeviceShape& shape, const RoundTensors& round) const {
    const DeviceLayer& own = model_->layers[static_cast<std::size_t>(index)];
    const std::int64_t F = config().feed_forward;
    add(x, attend(own.qkv(stream(x, own.attention_norm)), index, shape, round), own.o, own.post_attention_norm);
    const at::Tensor gate_up = own.gate_up(stream(x, own.mlp_norm));
    const bool silu = config().activation == ModelConfig::Activation::silu;
    at::Tensor gate;
    if (kernels_) {
        gate = gated(gate_up, !silu);
    } else {
        const at::Tensor narrow = gate_up.narrow(1, 0, F);
        gate = (silu ? at::silu(narrow) : at::gelu(narrow, "tanh")).mul_(gate_up.narrow(1, F, F));
    }
    add(x, gate, own.down, own.post_mlp_norm);
}

/// All that happens between the copy to the device and the copy back: what a graph holds.
Made DevicePass::compute(const DeviceShape& shape, const Bucket& bucket, bool with_logits,
                         std::span<const std::int64_t> feature_layers) const {
    const RoundTensors round = prepare(shape, bucket);
    at::Tensor x = model_->embedding.index_select(0, bucket.inputs.part(bucket.block, DeviceInputs::token));
    if (config().embedding_scale != 1) x.mul_(config().embedding_scale);
    std::vector<at::Tensor> columns(1 + feature_layers.size());
    for (std::int64_t i = 0; i < config().layers; ++i) {
        for (std::size_t k = 0; k < feature_layers.size(); ++k)
            if (feature_layers[k] == i) columns[1 + k] = normed(x.to(at::kFloat), std::nullopt);
        layer(i, x, shape, round);
    }
    const at::Tensor features = normed(x, model_->norm);
    columns[0] = features.to(at::kFloat);
    Made made{.features = columns.size() == 1 ? columns[0] : at::cat(columns, 1), .logits = {}, .tokens = {}};
    if (!with_logits) return made;
    made.logits = logits_of(features);
    const auto [top, token] = made.logits.max(-1);
    made.tokens = token.masked_fill(top.ne(top), -1);  // NaN differs from itself
    return made;
}

PassOutput DevicePass::forward(std::span<const RowSegment> segments, bool with_logits,
                               std::span<const std::int64_t> feature_layers) {
    std::int64_t rows = 0;
    for (const RowSegment& segment : segments) {
        segment.cache->reserve(static_cast<std::int64_t>(segment.tokens.size()));
        rows += static_cast<std::int64_t>(segment.tokens.size());
    }
    const DeviceShape shape = device_shape(segments, pool_->columns());
    Bucket& own = bucket(shape);
    send(own, segments);
    Made made;
    if (graphs_ && with_logits) {
        Bucket::Recorded& recorded = own.recorded[{feature_layers.begin(), feature_layers.end()}];
        recorded.graph.run([&] { recorded.made = compute(shape, own, true, feature_layers); });
        made = recorded.made;
    } else {
        made = compute(shape, own, with_logits, feature_layers);
    }
    PassOutput output{.features = made.features.narrow(0, 0, rows), .logits = {}, .argmax = {}};
    if (!with_logits) return output;
    output.logits = made.logits.narrow(0, 0, rows);
    // The copy waits for the pass, so that whoever times a forward times all of it.
    output.argmax = made.tokens.to(at::kCPU).narrow(0, 0, rows);
    return output;
}

std::unique_ptr<TargetPass> DeviceBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    const at::NoGradGuard no_grad;
    return std::make_unique<DevicePass>(std::static_pointer_cast<const DeviceBackend>(std::move(self)));
}

}  // namespace

std::int64_t device_cache_tokens(const ModelConfig& config, std::size_t token_bytes) {
    constexpr std::size_t kMostBytes = std::size_t{4} << 30;
    return std::min(8 * config.context, static_cast<std::int64_t>(kMostBytes / token_bytes));
}

std::shared_ptr<const ModelBackend> make_device_backend(const WeightSource& source, const ModelConfig& config,
                                                        at::Device device, Weights weights,
                                                        const DeviceCacheLimits& limits) {
    const at::NoGradGuard no_grad;
    return std::make_shared<DeviceBackend>(source, config, device, weights, limits);
}

}  // namespace outrider
