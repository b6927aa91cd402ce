#include "device_backend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include <outrider/core/error.hpp>

namespace outrider {
namespace {

at::ScalarType device_dtype_of(Weights weights) {
    require(weights == Weights::f32 || weights == Weights::bf16, ErrorKind::not_supported,
            "weights \"{}\" need the CPU kernels; expected f32 or bf16 on this device", name_of(weights));
    return weights == Weights::f32 ? at::kFloat : at::kBFloat16;
}

}  // namespace

at::Tensor DeviceLinear::operator()(const at::Tensor& x) const {
    return bias.defined() ? at::addmm(bias, x, matrix) : at::mm(x, matrix);
}

DeviceBackend::DeviceBackend(const WeightSource& source, const ModelConfig& model, at::Device device, Weights weights,
                             const DeviceCacheLimits& cache_limits)
    : config(model), limits(cache_limits), options(at::TensorOptions().device(device).dtype(device_dtype_of(weights))) {
    embedding = matrix(source, {"embed"});
    output = config.tied_output ? embedding : matrix(source, {"output"});
    norm = vector(source, "norm");
    for (std::int64_t i = 0; i < config.layers; ++i)
        if (std::ranges::find(windows, config.window_of(i)) == windows.end()) windows.push_back(config.window_of(i));
    for (std::int64_t i = 0; i < config.layers; ++i) layers.push_back(read_layer(source, i));
    for (const RopeConfig* rope : {&config.rope, config.local_rope ? &*config.local_rope : nullptr})
        if (rope != nullptr) rotations.push_back(rotation_of(*rope));
    if (config.query_growth == 0) return;
    std::vector<float> scales;
    for (std::int64_t p = 0; p < config.context; ++p) scales.push_back(static_cast<float>(config.scale_of_queries(p)));
    query_scales = at::tensor(scales).to(options.device(), options.dtype().toScalarType()).view({-1, 1, 1});
}

std::size_t DeviceBackend::bytes() const {
    std::size_t sum = embedding.nbytes() + (config.tied_output ? 0 : output.nbytes());
    for (const DeviceLayer& layer : layers)
        for (const at::Tensor& part : {layer.qkv.matrix, layer.o.matrix, layer.gate_up.matrix, layer.down.matrix,
                                       layer.attention_norm, layer.mlp_norm})
            if (part.defined()) sum += part.nbytes();
    return sum;
}

DeviceLayer DeviceBackend::read_layer(const WeightSource& source, std::int64_t index) const {
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
                      .qkv = linear({"q", "k", "v"}, c.qkv_bias),
                      .o = linear({"o"}, c.o_bias),
                      .gate_up = linear({"gate", "up"}, c.mlp_bias),
                      .down = linear({"down"}, c.mlp_bias)};
    if (c.head_norm == ModelConfig::HeadNorm::each)
        layer.head_norms = at::cat({vector(source, own + "q_norm").expand({c.heads, c.head_dim}),
                                    vector(source, own + "k_norm").expand({c.kv_heads, c.head_dim})});
    if (c.head_norm == ModelConfig::HeadNorm::whole)
        layer.head_norms =
            at::cat({vector(source, own + "q_norm"), vector(source, own + "k_norm")}).view({-1, c.head_dim});
    layer.window = static_cast<std::size_t>(std::ranges::find(windows, c.window_of(index)) - windows.begin());
    layer.rope = rope == nullptr ? -1 : rope == &c.rope ? 0 : 1;
    return layer;
}

/// The matrices one below the other.
at::Tensor DeviceBackend::matrix(const WeightSource& source, const std::vector<std::string>& names) const {
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

at::Tensor DeviceBackend::vector(const WeightSource& source, const std::string& name) const {
    return at::tensor(source.floats(name)).to(options.device(), options.dtype().toScalarType());
}

/// Angles in f32, their cosines rounded to the pass's type, as the models were trained. Dimensions that do not turn
/// have the cosine 1.
at::Tensor DeviceBackend::rotation_of(const RopeConfig& rope) const {
    const at::Tensor rates = at::tensor(rope.frequencies(config.rotated)).to(options.device());
    const at::Tensor angles = at::outer(at::arange(config.context, rates.options()), rates);
    const at::Tensor cos = angles.cos() * rope.magnitude, sin = angles.sin() * rope.magnitude;
    const at::Tensor still = at::zeros({config.context, config.head_dim - config.rotated}, rates.options());
    return at::stack({at::cat({cos, cos, still + 1}, 1), at::cat({sin.neg(), sin, still}, 1)}, 1)
        .to(options.dtype().toScalarType())
        .unsqueeze(2);
}

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
