// The weights of a model as the CPU's target pass multiplies them.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include "kernels/attention.hpp"
#include "kernels/packed_linear.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "model_backend.hpp"
#include "weight_forms.hpp"

namespace outrider::kernel_target {

/// A matrix, and what becomes of its product on the way into the residual stream. Vectors that a model has not are
/// empty.
struct Branch {
    PackedLinear matrix;
    std::vector<float> bias, norm;  // [H]
};

struct KernelLayer {
    std::vector<float> attention_norm, mlp_norm;  // [H]
    PackedLinear qkv, gate_up;
    std::vector<float> qkv_bias, gate_up_bias;  // [q + 2 kv], [2 feed_forward]
    std::vector<float> q_norm, k_norm;          // [head_dim], or over all heads
    Branch o, down;
    int rope = 0;  // which of the pass's rotary embeddings; below 0: none
    bool windowed = false;
};

/// Cosines and sines of one rotary embedding.
struct RopeTable {
    std::vector<float> frequencies;  // [rotated / 2]
    float magnitude = 1;
};

class KernelBackend final : public ModelBackend {
public:
    KernelBackend(std::shared_ptr<const WeightSource> weight_source, const ModelConfig& model, Weights weights,
                  int threads)
        : config(model),
          source(std::move(weight_source)),
          team(std::make_shared<ThreadTeam>(threads)),
          wanted_(weights) {
        require(kernels_fit(config),
                "model \"{}\": heads of {} dimensions do not fit the CPU kernels, expected a "
                "multiple of 16; use Backend::aten",
                config.name, config.head_dim);
        norm = source->floats("norm");
        ones.assign(static_cast<std::size_t>(config.hidden), 1.0F);
        for (const RopeConfig* rope : {&config.rope, config.local_rope ? &*config.local_rope : nullptr})
            if (rope != nullptr)
                rotations.push_back({rope->frequencies(config.rotated), static_cast<float>(rope->magnitude)});
        for (std::int64_t i = 0; i < config.layers; ++i) layers.push_back(read_layer(i));
        output = group({output_name(config)}, bytes());
        // A team that has waited for the file takes that for other work on its cores, and would begin with fewer
        // threads.
        team = std::make_shared<ThreadTeam>(threads);
    }

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;

    Weights weights() const override {
        if (wanted_ != Weights::automatic) return wanted_;
        return any_stored_ ? Weights::stored : Weights::bf16;
    }

    std::string description() const override {
        std::string list;
        for (const std::string& format : formats_) list += (list.empty() ? "" : ", ") + format;
        return fmt::format("{} ({})", name_of(weights()), list);
    }

    std::shared_ptr<ThreadTeam> shared_team() const override { return team; }

    std::size_t bytes() const override {
        std::size_t sum = output.bytes();
        for (const KernelLayer& layer : layers)
            sum += layer.qkv.bytes() + layer.o.matrix.bytes() + layer.gate_up.bytes() + layer.down.matrix.bytes();
        return sum;
    }

    /// Keys and values in half precision but beside f32 weights.
    bool wide_cache() const { return wanted_ == Weights::f32; }

    ModelConfig config;
    std::shared_ptr<const WeightSource> source;
    std::shared_ptr<ThreadTeam> team;
    PackedLinear output;
    std::vector<float> norm, ones;     // ones [H]: the weight of a norm without one
    std::vector<RopeTable> rotations;  // of all layers, or of those without and with a window
    std::vector<KernelLayer> layers;

private:
    static constexpr std::size_t kNoOutput = static_cast<std::size_t>(-1);

    KernelLayer read_layer(std::int64_t index) {
        const ModelConfig& c = config;
        const std::string own = fmt::format("{}.", index);
        const auto vector = [&](bool there, std::vector<const char*> names) {
            std::vector<float> joined;
            for (const char* name : there ? names : std::vector<const char*>{}) {
                const std::vector<float> part = source->floats(own + name);
                joined.insert(joined.end(), part.begin(), part.end());
            }
            return joined;
        };
        const bool head_norms = c.head_norm != ModelConfig::HeadNorm::none;
        const RopeConfig* rope = c.rope_of(index);
        return {
            .attention_norm = vector(c.pre_norms, {"attention_norm"}),
            .mlp_norm = vector(c.pre_norms, {"mlp_norm"}),
            .qkv = group({own + "q", own + "k", own + "v"}),
            .gate_up = group({own + "gate", own + "up"}),
            .qkv_bias = vector(c.qkv_bias, {"q_bias", "k_bias", "v_bias"}),
            .gate_up_bias = vector(c.mlp_bias, {"gate_bias", "up_bias"}),
            .q_norm = vector(head_norms, {"q_norm"}),
            .k_norm = vector(head_norms, {"k_norm"}),
            .o = {group({own + "o"}), vector(c.o_bias, {"o_bias"}), vector(c.post_norms, {"post_attention_norm"})},
            .down = {group({own + "down"}), vector(c.mlp_bias, {"down_bias"}), vector(c.post_norms, {"post_mlp_norm"})},
            .rope = rope == nullptr   ? -1
                    : rope == &c.rope ? 0
                                      : 1,
            .windowed = c.window_of(index) > 0};
    }

    /// Matrices that multiply the same rows.
    PackedLinear group(const std::vector<std::string>& names, std::size_t layer_bytes = kNoOutput) {
        const GroupForm form = form_of(*source, names, wanted_);
        std::vector<PackedLinear> parts;
        for (const std::string& name : names) parts.push_back(pack(name, form, layer_bytes));
        return parts.size() == 1 ? parts[0] : PackedLinear::stack(parts);
    }

    PackedLinear pack(const std::string& tensor, const GroupForm& form, std::size_t layer_bytes) {
        const std::int64_t out = source->rows(tensor), in = source->columns(tensor);
        WeightFormat format = form.of(source->type(tensor));
        any_stored_ = any_stored_ || form.stored;
        formats_.insert(std::string(name(format)));
        if (chosen_from(config, format, out * in, layer_bytes)) format = WeightFormat::q8_planes;
        std::vector<std::byte> scratch;
        PackedLinear packed =
            form.stored ? PackedLinear::pack_blocks(format, source->blocks(tensor, scratch), out, in, team.get())
                        : PackedLinear::pack(format, source->floats(tensor), out, in, team.get());
        source->drop_pages(tensor);
        return packed;
    }

    Weights wanted_;
    bool any_stored_ = false;
    std::set<std::string> formats_;
};

}  // namespace outrider::kernel_target
