// The target pass in plain ATen: the reference, and the pass of every device but the CPU.
#include <fmt/format.h>

#include <outrider/core/error.hpp>
#include <outrider/tree/token_tree.hpp>

#include "model_backend.hpp"

namespace outrider {
namespace {

/// A matrix, and what becomes of its product on the way into the residual stream.
struct AtenBranch {
    at::Tensor matrix;      // [H, inner]
    at::Tensor bias, norm;  // [H]; undefined: none
};

/// Tensors that a model has not are undefined. Norms are f32, the others of the pass's dtype.
struct AtenLayer {
    at::Tensor attention_norm, mlp_norm;  // [H]
    at::Tensor qkv, qkv_bias;             // [(heads + 2 kv_heads) head_dim, H]
    at::Tensor q_norm, k_norm;            // [head_dim], or [heads head_dim] over all
    at::Tensor gate_up, gate_up_bias;     // [2 feed_forward, H]
    AtenBranch o, down;
    int rope = 0;  // which of the pass's rotary embeddings; below 0: none
    bool windowed = false;
};

class AtenBackend final : public ModelBackend {
public:
    AtenBackend(const WeightSource& source, const ModelConfig& model, at::Device device, Weights weights)
        : config(model), options(at::TensorOptions().device(device).dtype(dtype_of(weights))) {
        embedding = matrix(source, {"embed"});
        output = config.tied_output ? embedding : matrix(source, {"output"});
        norm = vector(source, "norm");
        for (std::int64_t i = 0; i < config.layers; ++i) layers.push_back(read_layer(source, i));
        for (const RopeConfig* rope : {&config.rope, config.local_rope ? &*config.local_rope : nullptr}) {
            if (rope == nullptr) continue;
            frequencies.push_back(at::tensor(rope->frequencies(config.rotated)).to(device));
            magnitudes.push_back(rope->magnitude);
        }
    }

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;
    Weights weights() const override { return options.dtype() == at::kFloat ? Weights::f32 : Weights::bf16; }
    std::string description() const override { return std::string(name_of(weights())); }
    std::size_t bytes() const override {
        std::size_t sum = embedding.nbytes() + (config.tied_output ? 0 : output.nbytes());
        for (const AtenLayer& layer : layers)
            for (const at::Tensor& part :
                 {layer.qkv, layer.o.matrix, layer.gate_up, layer.down.matrix, layer.attention_norm, layer.mlp_norm})
                if (part.defined()) sum += part.nbytes();
        return sum;
    }

    ModelConfig config;
    at::TensorOptions options;
    at::Tensor embedding, output, norm;
    std::vector<at::Tensor> frequencies;  // [rotated / 2] of all layers, or of those without and with a window
    std::vector<double> magnitudes;
    std::vector<AtenLayer> layers;

private:
    AtenLayer read_layer(const WeightSource& source, std::int64_t index) const {
        const ModelConfig& c = config;
        const std::string own = fmt::format("{}.", index);
        const auto optional = [&](bool there, const char* name) {
            return there ? vector(source, own + name) : at::Tensor();
        };
        const auto biases = [&](bool there, const std::vector<const char*>& names) {
            std::vector<at::Tensor> parts;
            for (const char* name : names) parts.push_back(optional(there, name));
            return there ? at::cat(parts).to(options.dtype()) : at::Tensor();
        };
        const bool head_norms = c.head_norm != ModelConfig::HeadNorm::none;
        const RopeConfig* rope = c.rope_of(index);
        return {.attention_norm = optional(c.pre_norms, "attention_norm"),
                .mlp_norm = optional(c.pre_norms, "mlp_norm"),
                .qkv = matrix(source, {own + "q", own + "k", own + "v"}),
                .qkv_bias = biases(c.qkv_bias, {"q_bias", "k_bias", "v_bias"}),
                .q_norm = optional(head_norms, "q_norm"),
                .k_norm = optional(head_norms, "k_norm"),
                .gate_up = matrix(source, {own + "gate", own + "up"}),
                .gate_up_bias = biases(c.mlp_bias, {"gate_bias", "up_bias"}),
                .o = {matrix(source, {own + "o"}), biases(c.o_bias, {"o_bias"}),
                      optional(c.post_norms, "post_attention_norm")},
                .down = {matrix(source, {own + "down"}), biases(c.mlp_bias, {"down_bias"}),
                         optional(c.post_norms, "post_mlp_norm")},
                .rope = rope == nullptr   ? -1
                        : rope == &c.rope ? 0
                                          : 1,
                .windowed = c.window_of(index) > 0};
    }

    static at::ScalarType dtype_of(Weights weights) {
        require(weights == Weights::f32 || weights == Weights::bf16,
                "weights \"{}\" need the CPU kernels; expected f32 or bf16 here", name_of(weights));
        return weights == Weights::f32 ? at::kFloat : at::kBFloat16;
    }

    /// The matrices one below the other.
    at::Tensor matrix(const WeightSource& source, const std::vector<std::string>& names) const {
        std::int64_t rows = 0;
        const std::int64_t columns = source.columns(names[0]);
        for (const std::string& name : names) rows += source.rows(name);
        at::Tensor result = at::empty({rows, columns}, options);
        std::int64_t begin = 0;
        for (const std::string& name : names) {
            std::vector<float> floats = source.floats(name);
            const at::Tensor view = at::from_blob(floats.data(), {source.rows(name), columns}, at::kFloat);
            result.slice(0, begin, begin + source.rows(name)).copy_(view);
            begin += source.rows(name);
            source.drop_pages(name);
        }
        return result;
    }

    at::Tensor vector(const WeightSource& source, const std::string& name) const {
        return at::tensor(source.floats(name)).to(options.device());
    }
};

/// One sequence's rows in a forward.
struct Block {
    KvCache* cache = nullptr;
    std::int64_t begin = 0, rows = 0;
    at::Tensor hidden;    // [rows, committed + rows] true where a row does not see a slot
    at::Tensor far = {};  // the same in layers with a window; undefined where there are none
};

class AtenPass final : public TargetPass {
public:
    explicit AtenPass(std::shared_ptr<const AtenBackend> model) : model_(std::move(model)) {}

    PassOutput forward(std::span<const RowSegment> segments, PassFor use,
                       std::span<const std::int64_t> feature_layers) override;

    KvCache make_cache() const override {
        const ModelConfig& c = model_->config;
        return KvCache({.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim}, model_->options);
    }

private:
    /// Llama's order of roundings: normalised in f32, rounded to the pass's dtype, times the weight.
    at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight) const {
        const at::Tensor wide = x.to(at::kFloat);
        const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + model_->config.norm_eps);
        return (wide * scale).to(x.scalar_type()) * weight.to(x.scalar_type());
    }

    /// The residual stream as a feature: of unit size, in f32.
    at::Tensor captured(const at::Tensor& x) const {
        const at::Tensor wide = x.to(at::kFloat);
        return wide * at::rsqrt(wide.square().mean(-1, true) + model_->config.norm_eps);
    }

    at::Tensor stream(const at::Tensor& x, const at::Tensor& norm) const {
        return norm.defined() ? rms_norm(x, norm) : x;
    }
    void lay_out(const std::vector<std::int64_t>& positions);
    at::Tensor attend(const at::Tensor& qkv, std::int64_t layer, std::span<const Block> blocks) const;
    at::Tensor rotate(const at::Tensor& x, int rope) const;
    at::Tensor feed_forward(const at::Tensor& x, const AtenLayer& layer) const;
    at::Tensor add(const at::Tensor& x, const at::Tensor& inner, const AtenBranch& branch) const;
    at::Tensor logits(const at::Tensor& features) const;

    std::shared_ptr<const AtenBackend> model_;
    std::vector<at::Tensor> cos_, sin_;  // [rows, 1, rotated] of the current forward, of each rotary embedding
    at::Tensor query_scale_;             // [rows, 1, 1]; undefined: 1
};

/// x [rows, heads, head_dim], pair i = dimensions i and i + d / 2 of the d that turn.
at::Tensor AtenPass::rotate(const at::Tensor& x, int rope) const {
    if (rope < 0) return x;
    const std::int64_t turning = model_->config.rotated, half = turning / 2;
    const at::Tensor part = x.slice(-1, 0, turning);
    const at::Tensor turned = at::cat({part.slice(-1, half).neg(), part.slice(-1, 0, half)}, -1);
    const auto at = static_cast<std::size_t>(rope);
    const at::Tensor result = part * cos_[at] + turned * sin_[at];
    return turning == x.size(-1) ? result : at::cat({result, x.slice(-1, turning)}, -1);
}

/// Writes the rows' keys and values and attends over what each row sees. qkv [rows, q + 2 kv] -> [rows, q].
at::Tensor AtenPass::attend(const at::Tensor& qkv, std::int64_t layer, std::span<const Block> blocks) const {
    const ModelConfig& c = model_->config;
    const AtenLayer& weights = model_->layers[static_cast<std::size_t>(layer)];
    const std::int64_t group = c.heads / c.kv_heads, rows = qkv.size(0);
    const auto heads = [&](std::int64_t first, std::int64_t count, const at::Tensor& norm) {
        at::Tensor x = qkv.slice(1, first * c.head_dim, (first + count) * c.head_dim);
        if (c.head_norm == ModelConfig::HeadNorm::whole) x = rms_norm(x, norm);
        x = x.reshape({rows, count, c.head_dim});
        if (c.head_norm == ModelConfig::HeadNorm::each) x = rms_norm(x, norm);
        return rotate(x, weights.rope);
    };
    at::Tensor q = heads(0, c.heads, weights.q_norm);
    if (query_scale_.defined()) q = q * query_scale_;
    const at::Tensor k = heads(c.heads, c.kv_heads, weights.k_norm);
    const at::Tensor v = qkv.slice(1, (c.heads + c.kv_heads) * c.head_dim).view({rows, c.kv_heads, c.head_dim});
    std::vector<at::Tensor> outputs;
    outputs.reserve(blocks.size());
    for (const Block& block : blocks) {
        const std::int64_t end = block.begin + block.rows, committed = block.cache->committed(),
                           total = committed + block.rows;
        const at::Tensor keys = block.cache->keys(layer), values = block.cache->values(layer);
        keys.slice(1, committed, total).copy_(k.slice(0, block.begin, end).transpose(0, 1));
        values.slice(1, committed, total).copy_(v.slice(0, block.begin, end).transpose(0, 1));
        const at::Tensor queries = q.slice(0, block.begin, end)
                                       .view({block.rows, c.kv_heads, group, c.head_dim})
                                       .permute({1, 2, 0, 3})
                                       .reshape({c.kv_heads, group * block.rows, c.head_dim});
        at::Tensor scores = at::matmul(queries, keys.slice(1, 0, total).transpose(1, 2)).to(at::kFloat);
        scores = (scores * c.scale_of_scores()).view({c.kv_heads, group, block.rows, total});
        if (c.score_cap > 0) scores = at::tanh(scores / c.score_cap) * c.score_cap;
        const at::Tensor& unseen = weights.windowed ? block.far : block.hidden;
        const at::Tensor shares = at::softmax(scores.masked_fill(unseen, -INFINITY), -1).to(q.scalar_type());
        const at::Tensor mixed =
            at::matmul(shares.view({c.kv_heads, group * block.rows, total}), values.slice(1, 0, total));
        outputs.push_back(mixed.view({c.kv_heads, group, block.rows, c.head_dim})
                              .permute({2, 0, 1, 3})
                              .reshape({block.rows, c.heads * c.head_dim}));
    }
    return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

/// Which slots each row does not see: those of no ancestor, and with a window > 0 those `window` or more positions
/// back.
at::Tensor hidden_slots(const RowSegment& segment, const std::vector<std::int64_t>& position, std::int64_t window) {
    const auto rows = static_cast<std::int64_t>(segment.tokens.size());
    const std::int64_t committed = segment.cache->committed();
    at::Tensor hidden = at::zeros({rows, committed + rows}, at::kBool);
    if (window > 0) {
        const at::Tensor own = at::tensor(position, at::kLong);
        const at::Tensor all = at::cat({at::arange(committed, at::kLong), own});
        hidden.copy_(all.unsqueeze(0).le((own - window).unsqueeze(1)));
    }
    if (segment.parents.empty()) {
        hidden.slice(1, committed).logical_or_(at::ones({rows, rows}, at::kBool).triu(1));
        return hidden;
    }
    const Visibility visible(segment.parents);
    auto cells = hidden.accessor<bool, 2>();
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < rows; ++j)
            cells[i][committed + j] |= !visible.sees(static_cast<NodeIndex>(i), static_cast<NodeIndex>(j));
    return hidden;
}

at::Tensor AtenPass::feed_forward(const at::Tensor& x, const AtenLayer& layer) const {
    const at::Tensor gate_up = at::linear(stream(x, layer.mlp_norm), layer.gate_up, layer.gate_up_bias);
    const std::int64_t inner = model_->config.feed_forward;
    const at::Tensor gate = gate_up.slice(1, 0, inner);
    const bool silu = model_->config.activation == ModelConfig::Activation::silu;
    return (silu ? at::silu(gate) : at::gelu(gate, "tanh")) * gate_up.slice(1, inner);
}

/// x + scale norm(W inner + bias).
at::Tensor AtenPass::add(const at::Tensor& x, const at::Tensor& inner, const AtenBranch& branch) const {
    const at::Tensor y = stream(at::linear(inner, branch.matrix, branch.bias), branch.norm);
    const double scale = model_->config.residual_scale;
    return scale == 1 ? x + y : x + y * scale;
}

at::Tensor AtenPass::logits(const at::Tensor& features) const {
    const ModelConfig& c = model_->config;
    at::Tensor result = at::linear(features, model_->output).to(at::kFloat);
    if (c.logit_scale != 1) result = result * c.logit_scale;
    return c.logit_cap > 0 ? at::tanh(result / c.logit_cap) * c.logit_cap : result;
}

/// Cosines, sines and scales of the rows' positions.
void AtenPass::lay_out(const std::vector<std::int64_t>& positions) {
    const at::Device device = model_->options.device();
    const at::Tensor at_position = at::tensor(positions, at::kLong).to(device).to(at::kFloat);
    cos_.clear(), sin_.clear();
    for (std::size_t k = 0; k < model_->frequencies.size(); ++k) {
        const at::Tensor angles = at::outer(at_position, model_->frequencies[k]);
        const at::Tensor both = at::cat({angles, angles}, -1).unsqueeze(1);
        cos_.push_back((both.cos() * model_->magnitudes[k]).to(model_->options.dtype()));
        sin_.push_back((both.sin() * model_->magnitudes[k]).to(model_->options.dtype()));
    }
    if (model_->config.query_growth == 0) return;
    std::vector<float> scales;
    for (const std::int64_t position : positions)
        scales.push_back(static_cast<float>(model_->config.scale_of_queries(position)));
    query_scale_ = at::tensor(scales).view({-1, 1, 1}).to(model_->options);
}

PassOutput AtenPass::forward(std::span<const RowSegment> segments, PassFor use,
                             std::span<const std::int64_t> feature_layers) {
    const ModelConfig& c = model_->config;
    const at::Device device = model_->options.device();
    std::vector<std::int64_t> tokens, positions;
    std::vector<Block> blocks;
    for (const RowSegment& segment : segments) {
        const auto rows = static_cast<std::int64_t>(segment.tokens.size());
        segment.cache->reserve(rows);
        const std::vector<std::int64_t> own = row_positions(segment);
        blocks.push_back({.cache = segment.cache,
                          .begin = static_cast<std::int64_t>(tokens.size()),
                          .rows = rows,
                          .hidden = hidden_slots(segment, own, 0).to(device)});
        if (c.window > 0) blocks.back().far = hidden_slots(segment, own, c.window).to(device);
        tokens.insert(tokens.end(), segment.tokens.begin(), segment.tokens.end());
        positions.insert(positions.end(), own.begin(), own.end());
    }
    lay_out(positions);
    at::Tensor x = model_->embedding.index_select(0, at::tensor(tokens, at::kLong).to(device));
    if (c.embedding_scale != 1) x = x * c.embedding_scale;
    std::vector<at::Tensor> columns(1 + feature_layers.size());
    for (std::int64_t i = 0; i < c.layers; ++i) {
        for (std::size_t k = 0; k < feature_layers.size(); ++k)
            if (feature_layers[k] == i) columns[1 + k] = captured(x);
        const AtenLayer& layer = model_->layers[static_cast<std::size_t>(i)];
        const at::Tensor qkv = at::linear(stream(x, layer.attention_norm), layer.qkv, layer.qkv_bias);
        x = add(x, attend(qkv, i, blocks), layer.o);
        x = add(x, feed_forward(x, layer), layer.down);
    }
    const at::Tensor features = rms_norm(x, model_->norm);
    PassOutput output;
    columns[0] = features.to(at::kFloat);
    output.features = columns.size() == 1 ? columns[0] : at::cat(columns, 1);
    if (use != PassFor::features) output.logits = logits(features);
    return output;
}

std::unique_ptr<TargetPass> AtenBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    return std::make_unique<AtenPass>(std::static_pointer_cast<const AtenBackend>(std::move(self)));
}

}  // namespace

std::shared_ptr<const ModelBackend> make_aten_backend(const WeightSource& source, const ModelConfig& config,
                                                      at::Device device, Weights weights) {
    const at::NoGradGuard no_grad;
    return std::make_shared<AtenBackend>(source, config, device, weights);
}

}  // namespace outrider
