// The target pass of the CPU: own kernels over weights as stored, bf16, f32 or 8 bits, one team of threads through the
// whole pass. Every row's bits depend on its own text alone: not on the other rows, on threads, or on which of its
// ancestors are committed.
#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <set>

#include <outrider/core/error.hpp>
#include "kernels/attention.hpp"
#include "kernels/packed_linear.hpp"
#include "kernels/row_ops.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "model_backend.hpp"

namespace outrider {
namespace {

struct KernelLayer {
    std::vector<float> attention_norm, mlp_norm;  // [H]
    PackedLinear qkv, o, gate_up, down;
};

/// How ggml's type is multiplied as it is stored; empty: no fast path.
std::optional<WeightFormat> fast_format(GgmlType type) {
    switch (type) {
        case GgmlType::q4_0: return WeightFormat::q4_0;
        case GgmlType::q4_1: return WeightFormat::q4_1;
        case GgmlType::q5_0: return WeightFormat::q5_0;
        case GgmlType::q5_1: return WeightFormat::q5_1;
        case GgmlType::q8_0: return WeightFormat::q8_0;
        case GgmlType::q4_k: return WeightFormat::q4_k;
        case GgmlType::q5_k: return WeightFormat::q5_k;
        case GgmlType::q6_k: return WeightFormat::q6_k;
        default: return {};
    }
}

class KernelBackend final : public ModelBackend {
public:
    KernelBackend(std::shared_ptr<const WeightSource> weight_source, const LlamaConfig& model, Weights weights,
                  int threads)
        : config(model),
          source(std::move(weight_source)),
          team(std::make_shared<ThreadTeam>(threads)),
          wanted_(weights) {
        require(kernels_fit(config),
                "model \"{}\": heads of {} dimensions do not fit the CPU kernels, expected a "
                "multiple of 16; use Backend::aten",
                config.name, config.head_dim);
        output = group({config.tied_output ? "embed" : "output"});
        norm = source->floats("norm");
        ones.assign(static_cast<std::size_t>(config.hidden), 1.0F);
        for (std::int64_t i = 0; i < config.layers; ++i) {
            const std::string own = fmt::format("{}.", i);
            layers.push_back({.attention_norm = source->floats(own + "attention_norm"),
                              .mlp_norm = source->floats(own + "mlp_norm"),
                              .qkv = group({own + "q", own + "k", own + "v"}),
                              .o = group({own + "o"}),
                              .gate_up = group({own + "gate", own + "up"}),
                              .down = group({own + "down"})});
        }
        frequencies = config.rope_frequencies();
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
            sum += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
        return sum;
    }

    /// Keys and values in half precision but beside f32 weights.
    bool wide_cache() const { return wanted_ == Weights::f32; }

    LlamaConfig config;
    std::shared_ptr<const WeightSource> source;
    std::shared_ptr<ThreadTeam> team;
    PackedLinear output;
    std::vector<float> norm, ones, frequencies;  // ones [H]: the weight of a norm without one
    std::vector<KernelLayer> layers;

private:
    /// Matrices that multiply the same rows. As stored when every one of them has a fast path; a group that has not is
    /// held in f32 when the file does and `stored` was asked for, else in bf16.
    PackedLinear group(const std::vector<std::string>& names) {
        bool all_fast = true, all_f32 = true;
        for (const std::string& name : names) {
            all_fast = all_fast && fast_format(source->type(name)).has_value();
            all_f32 = all_f32 && source->type(name) == GgmlType::f32;
        }
        const bool stored = (wanted_ == Weights::stored || wanted_ == Weights::automatic) && all_fast;
        WeightFormat format = WeightFormat::bf16;
        if (wanted_ == Weights::f32 || (wanted_ == Weights::stored && all_f32)) format = WeightFormat::f32;
        if (wanted_ == Weights::int8) format = WeightFormat::int8;
        std::vector<PackedLinear> parts;
        for (const std::string& name : names) parts.push_back(pack(name, stored, format));
        return parts.size() == 1 ? parts[0] : PackedLinear::stack(parts);
    }

    PackedLinear pack(const std::string& tensor, bool stored, WeightFormat format) {
        const std::int64_t out = source->rows(tensor), in = source->columns(tensor);
        if (stored) {
            format = *fast_format(source->type(tensor));
            any_stored_ = true;
        }
        formats_.insert(std::string(name(format)));
        std::vector<std::byte> scratch;
        PackedLinear packed =
            stored ? PackedLinear::pack_blocks(format, source->blocks(tensor, scratch), out, in, team.get())
                   : PackedLinear::pack(format, source->floats(tensor), out, in, team.get());
        source->drop_pages(tensor);
        return packed;
    }

    Weights wanted_;
    bool any_stored_ = false;
    std::set<std::string> formats_;
};

class KernelPass final : public TargetPass {
public:
    explicit KernelPass(std::shared_ptr<const KernelBackend> model)
        : model_(std::move(model)),
          shape_{.format = model_->wide_cache() ? CacheFormat::f32 : CacheFormat::f16,
                 .heads = model_->config.heads,
                 .kv_heads = model_->config.kv_heads,
                 .head_dim = model_->config.head_dim,
                 .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(model_->config.head_dim)))} {}

    PassOutput forward(std::span<const RowSegment> segments, bool with_logits,
                       std::span<const std::int64_t> feature_layers) override;

    KvCache make_cache() const override {
        const LlamaConfig& c = model_->config;
        return KvCache({.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim, .key_panels = true},
                       at::TensorOptions().dtype(model_->wide_cache() ? at::kFloat : at::kHalf));
    }

private:
    /// Where a row of the forward lives.
    struct Row {
        TokenId token = 0;
        std::int64_t position = 0;
        std::byte* keys = nullptr;              // of KV head 0, slot 0 in the layer at hand
        std::int64_t slot = 0;                  // its own
        std::size_t head_bytes = 0;             // from one KV head to the next
        std::size_t value_bytes = 0;            // from keys to values of a layer, half of a layer
        std::size_t first_slot = 0, slots = 0;  // its part of slots_
    };

    void lay_out(std::span<const RowSegment> segments);
    void add_segment(const RowSegment& segment);
    static void narrow(AttentionRow& seen, std::int64_t first);
    void make_room(bool with_logits);
    void run(TeamMember& member, float* features, float* logits, std::int64_t* argmax);
    void embed(TeamMember& member);
    void capture(TeamMember& member, std::int64_t layer, float* features);
    void layer(TeamMember& member, const KernelLayer& weights);
    void rotate_and_store(TeamMember& member);
    void finish(TeamMember& member, float* features, float* logits, std::int64_t* argmax);

    std::int64_t hidden() const { return model_->config.hidden; }
    std::int64_t q_size() const { return shape_.heads * shape_.head_dim; }
    std::int64_t qkv_size() const { return (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim; }

    std::shared_ptr<const KernelBackend> model_;
    AttentionShape shape_;
    std::int64_t n_ = 0;                      // rows of the current forward
    std::span<const std::int64_t> captured_;  // its feature layers, in the order of their columns
    std::int64_t feature_width_ = 0;          // its F
    std::vector<Row> rows_;
    std::vector<AttentionRow> seen_;
    std::vector<std::int32_t> slots_;
    std::vector<float> x_, qkv_, attended_, gate_up_, scratch_;  // [rows, H], ...; scratch [members, scratch_size_]
    std::vector<float> cosines_, sines_;                         // [rows, head_dim / 2]
    std::int64_t scratch_size_ = 0;
    PackedRows packed_;
    at::Tensor logits_;  // [most rows so far, V], lent out and used again once the caller lets go
};

void KernelPass::lay_out(std::span<const RowSegment> segments) {
    rows_.clear(), seen_.clear(), slots_.clear();
    for (const RowSegment& segment : segments) add_segment(segment);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        seen_[i].slots = std::span(slots_).subspan(rows_[i].first_slot, rows_[i].slots);
        if (model_->config.window > 0) narrow(seen_[i], rows_[i].position - model_->config.window + 1);
    }
    n_ = static_cast<std::int64_t>(rows_.size());
}

// A row sees a run of slots from 0 on and then single ones. A chain is all run; a tree's row continues its parent's run
// when it lies directly behind it.
void KernelPass::add_segment(const RowSegment& segment) {
    KvCache& cache = *segment.cache;
    cache.reserve(static_cast<std::int64_t>(segment.tokens.size()));
    const std::size_t element = static_cast<std::size_t>(element_bytes(shape_.format));
    const std::size_t slot_bytes = static_cast<std::size_t>(shape_.head_dim) * element;
    const std::size_t head_bytes = static_cast<std::size_t>(cache.capacity()) * slot_bytes;
    const std::size_t value_bytes = static_cast<std::size_t>(shape_.kv_heads) * head_bytes;
    auto* base = static_cast<std::byte*>(cache.data());
    const CacheView view{.keys = base,
                         .values = base + value_bytes,
                         .slot_stride = shape_.head_dim,
                         .head_stride = cache.capacity() * shape_.head_dim,
                         .layout = KeyLayout::panels};
    const std::vector<std::int64_t> position = row_positions(segment);
    const std::size_t begin = rows_.size();
    for (std::size_t i = 0; i < segment.tokens.size(); ++i) {
        const std::int64_t slot = cache.committed() + static_cast<std::int64_t>(i);
        Row row{.token = segment.tokens[i],
                .position = position[i],
                .keys = base,
                .slot = slot,
                .head_bytes = head_bytes,
                .value_bytes = value_bytes,
                .first_slot = slots_.size()};
        const NodeIndex parent = segment.parents.empty() ? static_cast<NodeIndex>(i) - 1 : segment.parents[i];
        const std::size_t above = begin + static_cast<std::size_t>(std::max(parent, 0));
        std::int64_t run = parent < 0 ? cache.committed() : seen_[above].committed;
        if (parent >= 0)
            for (std::size_t s = 0; s < rows_[above].slots; ++s) slots_.push_back(slots_[rows_[above].first_slot + s]);
        if (slots_.size() == row.first_slot && run == slot)
            ++run;
        else
            slots_.push_back(static_cast<std::int32_t>(slot));
        row.slots = slots_.size() - row.first_slot;
        rows_.push_back(row);
        seen_.push_back({.cache = view, .committed = run});
    }
}

// Position `first` is the oldest that the row sees; slot s of its run holds position s. The run begins there, or there
// is none when the window reaches back into the tree only.
void KernelPass::narrow(AttentionRow& seen, std::int64_t first) {
    if (first <= 0) return;
    if (first >= seen.committed) {
        seen.slots = seen.slots.subspan(static_cast<std::size_t>(first - seen.committed));
        seen.committed = 0;
        return;
    }
    seen.first = first;
    seen.committed -= first;
}

void KernelPass::make_room(bool with_logits) {
    const LlamaConfig& c = model_->config;
    const auto grow = [&](std::vector<float>& buffer, std::int64_t width) {
        const auto size = static_cast<std::size_t>(n_ * width);
        if (buffer.size() < size) buffer.resize(size);
    };
    grow(x_, hidden()), grow(qkv_, qkv_size()), grow(attended_, q_size()), grow(gate_up_, 2 * c.feed_forward);
    grow(cosines_, c.head_dim / 2), grow(sines_, c.head_dim / 2);
    std::int64_t most = 0;
    for (const AttentionRow& row : seen_) most = std::max(most, row.positions());
    // In steps, so that a growing text does not ask for a little more each time.
    scratch_size_ = std::max(scratch_size_, attention_scratch(shape_, (most + 255) / 256 * 256));
    const auto scratch = static_cast<std::size_t>(scratch_size_ * model_->team->size());
    if (scratch_.size() < scratch) scratch_.resize(scratch);
    if (with_logits && (!logits_.defined() || logits_.storage().use_count() > 1 || logits_.size(0) < n_))
        logits_ = at::empty({n_, c.vocabulary}, at::kFloat);
}

PassOutput KernelPass::forward(std::span<const RowSegment> segments, bool with_logits,
                               std::span<const std::int64_t> feature_layers) {
    lay_out(segments);
    make_room(with_logits);
    PassOutput output;
    captured_ = feature_layers;
    feature_width_ = (1 + static_cast<std::int64_t>(captured_.size())) * hidden();
    output.features = at::empty({n_, feature_width_}, at::kFloat);
    if (with_logits) {
        output.logits = logits_.slice(0, 0, n_);
        output.argmax = at::empty({n_}, at::kLong);
    }
    float* features = output.features.data_ptr<float>();
    float* logits = with_logits ? output.logits.data_ptr<float>() : nullptr;
    auto* argmax = with_logits ? output.argmax.data_ptr<std::int64_t>() : nullptr;
    model_->team->run([&](TeamMember& member) { run(member, features, logits, argmax); });
    return output;
}

void KernelPass::run(TeamMember& member, float* features, float* logits, std::int64_t* argmax) {
    embed(member);
    for (std::int64_t i = 0; i < model_->config.layers; ++i) {
        capture(member, i, features);
        layer(member, model_->layers[static_cast<std::size_t>(i)]);
    }
    finish(member, features, logits, argmax);
}

// Reads rows of x_ that other members wrote, so it stands behind the barrier that ends embed() and layer(). What
// follows reads x_ as well, and first writes to it again behind the barriers of attention: no further barrier here.
void KernelPass::capture(TeamMember& member, std::int64_t layer, float* features) {
    const std::int64_t h = hidden();
    for (std::size_t k = 0; k < captured_.size(); ++k) {
        if (captured_[k] != layer) continue;
        const TeamMember::Range share = member.range(n_);
        for (std::int64_t i = share.begin; i < share.end; ++i)
            rms_norm_row(x_.data() + i * h, h, model_->ones.data(), static_cast<float>(model_->config.norm_eps),
                         features + i * feature_width_ + (1 + static_cast<std::int64_t>(k)) * h);
    }
}

void KernelPass::embed(TeamMember& member) {
    const std::vector<float>& frequencies = model_->frequencies;
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        const Row& row = rows_[static_cast<std::size_t>(i)];
        model_->source->read_rows("embed", std::span(&row.token, 1), x_.data() + i * hidden());
        for (std::size_t d = 0; d < frequencies.size(); ++d) {
            const float angle = static_cast<float>(row.position) * frequencies[d];
            const std::size_t at = static_cast<std::size_t>(i) * frequencies.size() + d;
            cosines_[at] = std::cos(angle), sines_[at] = std::sin(angle);
        }
    }
    member.barrier();
}

void KernelPass::layer(TeamMember& member, const KernelLayer& weights) {
    const auto eps = static_cast<float>(model_->config.norm_eps);
    const std::int64_t h = hidden(), feed_forward = model_->config.feed_forward;
    packed_.assign_rms_norm(member, x_.data(), n_, h, h, weights.attention_norm.data(), eps, weights.qkv.format());
    member.barrier();
    weights.qkv.multiply(member, packed_, qkv_.data(), qkv_size());
    member.barrier();
    rotate_and_store(member);
    member.barrier();
    attend(member, shape_, std::span(seen_), qkv_.data(), qkv_size(), attended_.data(), q_size(),
           scratch_.data() + member.index() * scratch_size_);
    member.barrier();
    packed_.assign(member, attended_.data(), n_, q_size(), q_size(), weights.o.format());
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i) {  // on to the next layer's part of the caches
        Row& row = rows_[static_cast<std::size_t>(i)];
        CacheView& view = seen_[static_cast<std::size_t>(i)].cache;
        row.keys += 2 * row.value_bytes;
        view.keys = static_cast<const std::byte*>(view.keys) + 2 * row.value_bytes;
        view.values = static_cast<const std::byte*>(view.values) + 2 * row.value_bytes;
    }
    member.barrier();
    weights.o.multiply(member, packed_, x_.data(), h, Store::add);
    member.barrier();
    packed_.assign_rms_norm(member, x_.data(), n_, h, h, weights.mlp_norm.data(), eps, weights.gate_up.format());
    member.barrier();
    weights.gate_up.multiply(member, packed_, gate_up_.data(), 2 * feed_forward);
    member.barrier();
    packed_.assign_silu_gate(member, gate_up_.data(), n_, feed_forward, 2 * feed_forward, weights.down.format());
    member.barrier();
    weights.down.multiply(member, packed_, x_.data(), h, Store::add);
    member.barrier();
}

void KernelPass::rotate_and_store(TeamMember& member) {
    const std::int64_t d = shape_.head_dim;
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        const Row& row = rows_[static_cast<std::size_t>(i)];
        float* q = qkv_.data() + i * qkv_size();
        const float* k = q + q_size();
        const float* v = k + shape_.kv_heads * d;
        rotate_heads(q, shape_.heads + shape_.kv_heads, d, cosines_.data() + i * (d / 2), sines_.data() + i * (d / 2));
        for (std::int64_t head = 0; head < shape_.kv_heads; ++head) {
            std::byte* keys = row.keys + static_cast<std::size_t>(head) * row.head_bytes;
            to_key_panels(shape_.format, k + head * d, d, row.slot, keys);
            to_cache(shape_.format, v + head * d, d,
                     keys + row.value_bytes + row.slot * d * element_bytes(shape_.format));
        }
    }
}

void KernelPass::finish(TeamMember& member, float* features, float* logits, std::int64_t* argmax) {
    const std::int64_t h = hidden(), vocabulary = model_->config.vocabulary;
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i)
        rms_norm_row(x_.data() + i * h, h, model_->norm.data(), static_cast<float>(model_->config.norm_eps),
                     features + i * feature_width_);
    if (logits == nullptr) return;
    member.barrier();
    packed_.assign(member, features, n_, h, feature_width_, model_->output.format());
    member.barrier();
    model_->output.multiply(member, packed_, logits, vocabulary);
    member.barrier();
    for (std::int64_t i = share.begin; i < share.end; ++i) argmax[i] = argmax_row(logits + i * vocabulary, vocabulary);
}

std::unique_ptr<TargetPass> KernelBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    return std::make_unique<KernelPass>(std::static_pointer_cast<const KernelBackend>(std::move(self)));
}

}  // namespace

std::shared_ptr<const ModelBackend> make_kernel_backend(std::shared_ptr<const WeightSource> source,
                                                        const LlamaConfig& config, Weights weights, int threads) {
    return std::make_shared<KernelBackend>(std::move(source), config, weights, threads);
}

}  // namespace outrider
