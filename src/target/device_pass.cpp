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
#include "graph_replay.hpp"
#include "kv_pool.hpp"

namespace outrider {
namespace {

/// Matrices transposed, [in, out] views of rows as they are stored.
struct DeviceLayer {
    at::Tensor attention_norm, mlp_norm;  // [H] of the pass's type
    at::Tensor qkv, o, gate_up, down;
};

class DeviceBackend final : public ModelBackend {
public:
    DeviceBackend(const WeightSource& source, const ModelConfig& model, at::Device device, Weights weights,
                  const DeviceCacheLimits& cache_limits)
        : config(model), limits(cache_limits), options(at::TensorOptions().device(device).dtype(dtype_of(weights))) {
        embedding = matrix(source, {"embed"});
        output = config.tied_output ? embedding : matrix(source, {"output"});
        norm = vector(source, "norm");
        for (std::int64_t i = 0; i < config.layers; ++i) {
            const std::string own = fmt::format("{}.", i);
            layers.push_back({.attention_norm = vector(source, own + "attention_norm"),
                              .mlp_norm = vector(source, own + "mlp_norm"),
                              .qkv = matrix(source, {own + "q", own + "k", own + "v"}).t(),
                              .o = matrix(source, {own + "o"}).t(),
                              .gate_up = matrix(source, {own + "gate", own + "up"}).t(),
                              .down = matrix(source, {own + "down"}).t()});
        }
        make_rotation();
    }

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;
    Weights weights() const override { return options.dtype() == at::kFloat ? Weights::f32 : Weights::bf16; }
    std::string description() const override { return std::string(name_of(weights())); }
    at::Tensor table(std::string_view name) const override { return name == "embed" ? embedding : output; }
    std::size_t bytes() const override {
        std::size_t sum = embedding.nbytes() + (config.tied_output ? 0 : output.nbytes());
        for (const DeviceLayer& layer : layers)
            sum += layer.qkv.nbytes() + layer.o.nbytes() + layer.gate_up.nbytes() + layer.down.nbytes() +
                   layer.attention_norm.nbytes() + layer.mlp_norm.nbytes();
        return sum;
    }

    ModelConfig config;
    DeviceCacheLimits limits;
    at::TensorOptions options;
    at::Tensor embedding, output, norm;
    at::Tensor rotation;  // [context, 2, 1, head_dim] cos, and sin with the sign of its half
    std::vector<DeviceLayer> layers;

private:
    static at::ScalarType dtype_of(Weights weights) {
        require(weights == Weights::f32 || weights == Weights::bf16, ErrorKind::not_supported,
                "weights \"{}\" need the CPU kernels; expected f32 or bf16 on this device", name_of(weights));
        return weights == Weights::f32 ? at::kFloat : at::kBFloat16;
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

    /// Angles in f32, their cosines rounded to the pass's type, as the models were trained.
    void make_rotation() {
        const at::Tensor rates = at::tensor(config.rope.frequencies(config.head_dim)).to(options.device());
        const at::Tensor positions = at::arange(config.context, rates.options());
        const at::Tensor angles = at::outer(positions, rates), sin = angles.sin();
        const at::Tensor cos = angles.cos();
        rotation = at::stack({at::cat({cos, cos}, 1), at::cat({sin.neg(), sin}, 1)}, 1)
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

/// What the layers of one forward share.
struct RoundTensors {
    at::Tensor cos, sin;     // [N, 1, head_dim]
    at::Tensor slot;         // [N] where keys and values go
    at::Tensor gathered;     // [S L] slots that are looked at
    at::Tensor bias;         // [S, 1, group R, L] 0, or -infinity where a row does not see a position
    at::Tensor query_rows;   // [S kv_heads group R] of q's heads
    at::Tensor output_rows;  // [N heads] of what attention returns
};

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
    at::Tensor bias_of(const DeviceShape& shape, const Bucket& bucket, const at::Tensor& behind,
                       const at::Tensor& live) const;
    at::Tensor normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const;
    at::Tensor attend(const at::Tensor& qkv, std::int64_t layer, const DeviceShape& shape,
                      const RoundTensors& round) const;
    at::Tensor logits_of(const at::Tensor& features) const;

    std::shared_ptr<const DeviceBackend> model_;
    std::shared_ptr<KvPool> pool_;
    at::Tensor positions_;      // [columns] 0, 1, 2, ...
    at::Tensor shifts_;         // [64] 0 .. 63
    at::Tensor seen_, unseen_;  // 0 and -infinity, of the pass's type
    bool graphs_ = false;
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
    seen_ = at::zeros({}, model_->options);
    unseen_ = at::full({}, -INFINITY, model_->options);
    graphs_ = graphs_wanted(model_->options.device());
}

Bucket& DevicePass::bucket(const DeviceShape& shape) {
    const auto found = buckets_.find(shape);
    if (found != buckets_.end()) return found->second;
    const DeviceInputs inputs(shape, config().kv_heads, group());
    const at::Tensor block = at::empty({inputs.size()}, model_->options.dtype(at::kLong));
    if (!head_places_.contains(shape.tree_rows)) {
        const std::int64_t K = config().kv_heads, G = group(), R = shape.tree_rows;
        const at::Tensor head = at::arange(K * G, block.options()), kv = head.floor_divide(G);
        head_places_[R] = {head.view({1, K, G, 1}), ((head - kv * G) * (R * K) + kv).view({1, K * G})};
    }
    return buckets_.emplace(shape, Bucket{inputs, block, {}}).first->second;
}

/// The one copy to the device.
void DevicePass::send(Bucket& bucket, std::span<const RowSegment> segments) const {
    const bool pinned = !model_->options.device().is_cpu();
    const at::Tensor staged =
        at::empty({bucket.inputs.size()}, at::TensorOptions().dtype(at::kLong).pinned_memory(pinned));
    bucket.inputs.fill(segments, config().window, pool_->columns(), staged.data_ptr<std::int64_t>());
    bucket.block.copy_(staged, true);
}

// A position p of lane s is a token of the text where p < committed, else row p - committed of this forward.
RoundTensors DevicePass::prepare(const DeviceShape& shape, const Bucket& bucket) const {
    using In = DeviceInputs;
    const auto part = [&](In::Part which) { return bucket.inputs.part(bucket.block, which); };
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, heads = config().heads;
    pool_->table().view({-1}).index_copy_(0, part(In::update_at), part(In::update_to));

    const at::Tensor behind = positions_.narrow(0, 0, L).unsqueeze(0) - part(In::committed).unsqueeze(1);  // [S, L]
    const at::Tensor live = behind.lt(part(In::count).unsqueeze(1));
    RoundTensors round;
    round.gathered = (pool_->table().narrow(1, 0, L).index_select(0, part(In::lane)) * live).view({S * L});
    round.slot = part(In::slot);
    round.bias = bias_of(shape, bucket, behind, live);

    const auto& [of_query, of_output] = head_places_.at(R);
    const at::Tensor row = part(In::padded_row).view({S, 1, 1, R}) * (heads + 2 * config().kv_heads);
    round.query_rows = (row + of_query).view({-1});
    round.output_rows = (part(In::attended_row).unsqueeze(1) + of_output).view({-1});
    const at::Tensor turns = model_->rotation.index_select(0, part(In::position));
    round.cos = turns.select(1, 0), round.sin = turns.select(1, 1);
    return round;
}

/// From the bits of the rows' ancestors. `behind` [S, L]: positions counted from the first row; `live`: those that are
/// there.
at::Tensor DevicePass::bias_of(const DeviceShape& shape, const Bucket& bucket, const at::Tensor& behind,
                               const at::Tensor& live) const {
    using In = DeviceInputs;
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, B = shape.words() * 64;
    const at::Tensor words = bucket.inputs.part(bucket.block, In::bits).view({S, R, shape.words(), 1});
    const at::Tensor bits = words.bitwise_right_shift(shifts_).bitwise_and(1).view({S, R, B});
    const at::Tensor row = behind.clamp(0, B - 1).unsqueeze(1).expand({S, R, L});
    const at::Tensor of_tree = bits.gather(2, row).ne(0).logical_and_(live.unsqueeze(1));
    const at::Tensor of_text =
        positions_.narrow(0, 0, L).ge(bucket.inputs.part(bucket.block, In::first).view({S, R, 1}));
    const at::Tensor sees = at::where(behind.lt(0).unsqueeze(1), of_text, of_tree);
    return at::where(sees, seen_, unseen_).unsqueeze(1).expand({S, group(), R, L}).reshape({S, 1, group() * R, L});
}

at::Tensor DevicePass::normed(const at::Tensor& x, const std::optional<at::Tensor>& weight) const {
    return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, weight, config().norm_eps));
}

/// Writes the rows' keys and values, and attends over what each row sees. qkv [N, q + 2 kv], which it turns in place;
/// returns [N, q].
at::Tensor DevicePass::attend(const at::Tensor& qkv, std::int64_t layer, const DeviceShape& shape,
                              const RoundTensors& round) const {
    const ModelConfig& c = config();
    const std::int64_t N = qkv.size(0), S = shape.sequences, L = shape.context, K = c.kv_heads, D = c.head_dim,
                       half = D / 2, Q = group() * shape.tree_rows;
    const at::Tensor heads = qkv.view({N, c.heads + 2 * K, D});
    at::Tensor turned = heads.narrow(1, 0, c.heads + K);
    const at::Tensor straight = turned * round.cos;
    const at::Tensor swapped = at::cat({turned.narrow(2, half, half), turned.narrow(2, 0, half)}, 2);
    at::addcmul_out(turned, straight, swapped, round.sin);

    at::Tensor store = pool_->store().select(0, layer);  // [slots, 2 K, D]
    store.index_copy_(0, round.slot, heads.narrow(1, c.heads, 2 * K));
    const at::Tensor seen = store.index_select(0, round.gathered).view({S, L, 2, K, D});
    const at::Tensor queries = heads.view({-1, D}).index_select(0, round.query_rows).view({S, K, Q, D});
    const at::Tensor mixed = at::scaled_dot_product_attention(
        queries, seen.select(2, 0).transpose(1, 2), seen.select(2, 1).transpose(1, 2), round.bias.expand({S, K, Q, L}));
    return mixed.transpose(1, 2).reshape({-1, D}).index_select(0, round.output_rows).view({N, c.heads * D});
}

/// Sums in f32 where the device can.
at::Tensor DevicePass::logits_of(const at::Tensor& features) const {
    const at::Tensor output = model_->output.t();
    if (features.is_cuda() && features.scalar_type() != at::kFloat) return at::mm(features, output, at::kFloat);
    return at::mm(features, output).to(at::kFloat);
}

void DevicePass::layer(std::int64_t index, at::Tensor& x, const DeviceShape& shape, const RoundTensors& round) const {
    const DeviceLayer& own = model_->layers[static_cast<std::size_t>(index)];
    const std::int64_t F = config().feed_forward;
    x.addmm_(attend(at::mm(normed(x, own.attention_norm), own.qkv), index, shape, round), own.o);
    const at::Tensor gate_up = at::mm(normed(x, own.mlp_norm), own.gate_up);
    at::Tensor gate = at::silu(gate_up.narrow(1, 0, F));
    x.addmm_(gate.mul_(gate_up.narrow(1, F, F)), own.down);
}

/// All that happens between the copy to the device and the copy back: what a graph holds.
Made DevicePass::compute(const DeviceShape& shape, const Bucket& bucket, bool with_logits,
                         std::span<const std::int64_t> feature_layers) const {
    const RoundTensors round = prepare(shape, bucket);
    at::Tensor x = model_->embedding.index_select(0, bucket.inputs.part(bucket.block, DeviceInputs::token));
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

bool device_pass_fits(const ModelConfig& c) {
    const bool attention = c.rotated == c.head_dim && c.windowed.empty() && c.unrotated.empty() && !c.local_rope &&
                           c.rope.magnitude == 1 && c.score_scale == 0 && c.score_cap == 0 && c.query_growth == 0 &&
                           c.head_norm == ModelConfig::HeadNorm::none && !c.qkv_bias && !c.o_bias;
    const bool blocks = c.pre_norms && !c.post_norms && !c.mlp_bias && c.activation == ModelConfig::Activation::silu &&
                        c.residual_scale == 1;
    return attention && blocks && c.embedding_scale == 1 && c.logit_scale == 1 && c.logit_cap == 0;
}

std::int64_t device_cache_tokens(const ModelConfig& config, std::size_t token_bytes) {
    constexpr std::size_t kMostBytes = std::size_t{4} << 30;
    return std::min(8 * config.context, static_cast<std::int64_t>(kMostBytes / token_bytes));
}

std::shared_ptr<const ModelBackend> make_device_backend(const WeightSource& source, const ModelConfig& config,
                                                        at::Device device, Weights weights,
                                                        const DeviceCacheLimits& limits) {
    require(device_pass_fits(config), ErrorKind::not_supported,
            "the device pass has Llama's blocks alone, and this model's family is {}; take the backend `aten`",
            config.family);
    const at::NoGradGuard no_grad;
    return std::make_shared<DeviceBackend>(source, config, device, weights, limits);
}

}  // namespace outrider
