// The target pass in plain ATen: the reference, and the pass of every device but the CPU.
#include <fmt/format.h>

#include <outrider/core/error.hpp>
#include <outrider/tree/tree_layout.hpp>

#include "model_backend.hpp"

namespace outrider {
namespace {

struct AtenLayer {
    at::Tensor attention_norm;  // [H] f32
    at::Tensor qkv;             // [(heads + 2 kv_heads) head_dim, H]
    at::Tensor o;               // [H, heads head_dim]
    at::Tensor mlp_norm;        // [H] f32
    at::Tensor gate_up;         // [2 feed_forward, H]
    at::Tensor down;            // [H, feed_forward]
};

class AtenBackend final : public ModelBackend {
public:
    AtenBackend(const WeightSource& source, const LlamaConfig& model, at::Device device, Weights weights)
        : config(model), options(at::TensorOptions().device(device).dtype(dtype_of(weights))) {
        embedding = matrix(source, {"embed"});
        output = config.tied_output ? embedding : matrix(source, {"output"});
        norm = vector(source, "norm");
        for (std::int64_t i = 0; i < config.layers; ++i) {
            const std::string own = fmt::format("{}.", i);
            layers.push_back({.attention_norm = vector(source, own + "attention_norm"),
                              .qkv = matrix(source, {own + "q", own + "k", own + "v"}),
                              .o = matrix(source, {own + "o"}),
                              .mlp_norm = vector(source, own + "mlp_norm"),
                              .gate_up = matrix(source, {own + "gate", own + "up"}),
                              .down = matrix(source, {own + "down"})});
        }
        rope = at::tensor(config.rope_frequencies()).to(device);
    }

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;
    Weights weights() const override { return options.dtype() == at::kFloat ? Weights::f32 : Weights::bf16; }
    std::string description() const override { return std::string(name_of(weights())); }
    std::size_t bytes() const override {
        std::size_t sum = embedding.nbytes() + (config.tied_output ? 0 : output.nbytes());
        for (const AtenLayer& layer : layers)
            sum += layer.qkv.nbytes() + layer.o.nbytes() + layer.gate_up.nbytes() + layer.down.nbytes() +
                   layer.attention_norm.nbytes() + layer.mlp_norm.nbytes();
        return sum;
    }

    LlamaConfig config;
    at::TensorOptions options;
    at::Tensor embedding, output, norm, rope;
    std::vector<AtenLayer> layers;

private:
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
    at::Tensor hidden;  // [rows, committed + rows] true where a row does not see a slot
};

class AtenPass final : public TargetPass {
public:
    explicit AtenPass(std::shared_ptr<const AtenBackend> model) : model_(std::move(model)) {}

    PassOutput forward(std::span<const RowSegment> segments, bool with_logits,
                       std::span<const std::int64_t> feature_layers) override;

    KvCache make_cache() const override {
        const LlamaConfig& c = model_->config;
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

    at::Tensor attend(const at::Tensor& qkv, std::int64_t layer, std::span<const Block> blocks) const;

    std::shared_ptr<const AtenBackend> model_;
    at::Tensor cos_, sin_;  // [rows, 1, head_dim] of the current forward
};

/// x [rows, heads, head_dim], pair i = dimensions i and i + head_dim / 2.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    const std::int64_t half = x.size(-1) / 2;
    const at::Tensor turned = at::cat({x.slice(-1, half).neg(), x.slice(-1, 0, half)}, -1);
    return x * cos + turned * sin;
}

/// Writes the rows' keys and values and attends over what each row sees. qkv [rows, q + 2 kv] -> [rows, q].
at::Tensor AtenPass::attend(const at::Tensor& qkv, std::int64_t layer, std::span<const Block> blocks) const {
    const LlamaConfig& c = model_->config;
    const std::int64_t group = c.heads / c.kv_heads;
    const at::Tensor split = qkv.view({qkv.size(0), c.heads + 2 * c.kv_heads, c.head_dim});
    const at::Tensor q = rotate(split.slice(1, 0, c.heads), cos_, sin_);
    const at::Tensor k = rotate(split.slice(1, c.heads, c.heads + c.kv_heads), cos_, sin_);
    const at::Tensor v = split.slice(1, c.heads + c.kv_heads);
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
        scores = (scores / std::sqrt(static_cast<double>(c.head_dim))).view({c.kv_heads, group, block.rows, total});
        const at::Tensor weights = at::softmax(scores.masked_fill(block.hidden, -INFINITY), -1).to(q.scalar_type());
        const at::Tensor mixed =
            at::matmul(weights.view({c.kv_heads, group * block.rows, total}), values.slice(1, 0, total));
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

PassOutput AtenPass::forward(std::span<const RowSegment> segments, bool with_logits,
                             std::span<const std::int64_t> feature_layers) {
    const LlamaConfig& c = model_->config;
    const at::Device device = model_->options.device();
    std::vector<std::int64_t> tokens, at_position;
    std::vector<Block> blocks;
    for (const RowSegment& segment : segments) {
        const auto rows = static_cast<std::int64_t>(segment.tokens.size());
        segment.cache->reserve(rows);
        const std::vector<std::int64_t> own = row_positions(segment);
        blocks.push_back({.cache = segment.cache,
                          .begin = static_cast<std::int64_t>(tokens.size()),
                          .rows = rows,
                          .hidden = hidden_slots(segment, own, c.window).to(device)});
        tokens.insert(tokens.end(), segment.tokens.begin(), segment.tokens.end());
        at_position.insert(at_position.end(), own.begin(), own.end());
    }
    const at::Tensor angles = at::outer(at::tensor(at_position, at::kLong).to(device).to(at::kFloat), model_->rope);
    const at::Tensor both = at::cat({angles, angles}, -1).unsqueeze(1);
    cos_ = both.cos().to(model_->options.dtype());
    sin_ = both.sin().to(model_->options.dtype());

    at::Tensor x = model_->embedding.index_select(0, at::tensor(tokens, at::kLong).to(device));
    std::vector<at::Tensor> columns(1 + feature_layers.size());
    for (std::int64_t i = 0; i < c.layers; ++i) {
        for (std::size_t k = 0; k < feature_layers.size(); ++k)
            if (feature_layers[k] == i) columns[1 + k] = captured(x);
        const AtenLayer& layer = model_->layers[static_cast<std::size_t>(i)];
        const at::Tensor qkv = at::linear(rms_norm(x, layer.attention_norm), layer.qkv);
        x = x + at::linear(attend(qkv, i, blocks), layer.o);
        const at::Tensor gate_up = at::linear(rms_norm(x, layer.mlp_norm), layer.gate_up);
        x = x +
            at::linear(at::silu(gate_up.slice(1, 0, c.feed_forward)) * gate_up.slice(1, c.feed_forward), layer.down);
    }
    const at::Tensor features = rms_norm(x, model_->norm);
    PassOutput output;
    columns[0] = features.to(at::kFloat);
    output.features = columns.size() == 1 ? columns[0] : at::cat(columns, 1);
    if (with_logits) output.logits = at::linear(features, model_->output).to(at::kFloat);
    return output;
}

std::unique_ptr<TargetPass> AtenBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    return std::make_unique<AtenPass>(std::static_pointer_cast<const AtenBackend>(std::move(self)));
}

}  // namespace

std::shared_ptr<const ModelBackend> make_aten_backend(const WeightSource& source, const LlamaConfig& config,
                                                      at::Device device, Weights weights) {
    const at::NoGradGuard no_grad;
    return std::make_shared<AtenBackend>(source, config, device, weights);
}

}  // namespace outrider
