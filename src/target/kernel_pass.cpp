// The target pass of the CPU: own kernels over weights as stored, bf16, f32 or 8 bits, one team of threads through the
// whole pass. Every row's bits depend on its own text alone: not on the other rows, on threads, or on which of its
// ancestors are committed.
#include <array>
#include <cmath>
#include <cstddef>

#include <outrider/core/error.hpp>
#include "kernels/attention.hpp"
#include "kernels/packed_linear.hpp"
#include "kernels/row_ops.hpp"
#include <outrider/core/detail/thread_team.hpp>

#include "kernel_backend.hpp"
#include "model_backend.hpp"
#include "pass_rows.hpp"

namespace outrider {
namespace kernel_target {
namespace {

/// Up to so many rows, each member keeps the stream for itself: it costs less than a barrier.
constexpr std::int64_t kAlone = 4;

/// Panels of the output matrix that a member multiplies before it looks for their largest outputs.
constexpr std::int64_t kFewPanels = 64;

/// Whether whole items make shares that differ little.
bool even(const TeamMember& member, std::int64_t items) {
    constexpr std::int64_t kSlack = 8;  // an eighth
    const std::int64_t largest = (items + member.size() - 1) / member.size();
    return (largest * member.size() - items) * kSlack <= items;
}

class KernelPass final : public TargetPass {
public:
    explicit KernelPass(std::shared_ptr<const KernelBackend> model)
        : model_(std::move(model)),
          shape_{.format = model_->wide_cache() ? CacheFormat::f32 : narrow_format(),
                 .heads = model_->config.heads,
                 .kv_heads = model_->config.kv_heads,
                 .head_dim = model_->config.head_dim,
                 .scale = static_cast<float>(model_->config.scale_of_scores()),
                 .cap = static_cast<float>(model_->config.score_cap)},
          rows_(shape_, model_->config.window),
          own_(static_cast<std::size_t>(model_->team->size())),
          cosines_(model_->rotations.size()),
          sines_(model_->rotations.size()) {}

    [[nodiscard]] bool mixes() const override { return true; }
    PassOutput forward(std::span<const RowSegment> segments, PassFor use,
                       std::span<const std::int64_t> feature_layers) override;

    KvCache make_cache() const override {
        const ModelConfig& c = model_->config;
        const at::ScalarType type = shape_.format == CacheFormat::f32   ? at::kFloat
                                    : shape_.format == CacheFormat::f16 ? at::kHalf
                                                                        : at::kBFloat16;
        return KvCache({.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim, .key_panels = true},
                       at::TensorOptions().dtype(type));
    }

private:
    /// What belongs to one member between two barriers.
    struct alignas(64) Own {
        PackedRows input;  // of the matrix that comes next: all rows, where each packs them for itself
        std::vector<float> x, normed, scratch;  // x [rows, H] likewise
        std::vector<RowPick> picks;             // [rows with logits], of its share of the vocabulary
        ChoiceMemory choice;
        std::vector<float> least;  // [rows with logits], of its share of the vocabulary
        AlignedBytes few_logits;   // floats [rows with logits][kFewPanels of 16], where nobody reads them
    };

    void make_room();
    void run(TeamMember& member, float* features, float* logits);
    void embed(TeamMember& member);
    void capture(TeamMember& member, std::int64_t layer, float* features);
    void attention(TeamMember& member, std::int64_t layer);
    void feed_forward(TeamMember& member, const KernelLayer& weights);
    void read_stream(TeamMember& member, std::int64_t rows, const std::vector<float>& norm, WeightFormat format);
    void multiply_branch(TeamMember& member, const Branch& branch, const PackedRows& rows);
    void multiply_gate_up(TeamMember& member, const KernelLayer& weights);
    TeamMember::Range multiply_heads(TeamMember& member, const KernelLayer& weights);
    void finish_heads(const KernelLayer& weights, TeamMember::Range rows, TeamMember::Range heads);
    void norm_whole(const KernelLayer& weights, float* q) const;
    void rotate(int rope, std::int64_t row, float* head) const;
    void finish(TeamMember& member, float* features, float* logits);
    void multiply_output(TeamMember& member, float* logits);
    void merge_picks(std::int64_t* argmax) const;
    void choose_output(TeamMember& member);
    bool chooses();
    std::int64_t look_at_left();

    Own& own(const TeamMember& member) { return own_[static_cast<std::size_t>(member.index())]; }
    float* stream(const TeamMember& member) { return each_alone_ ? own(member).x.data() : x_.data(); }
    const PackedRows& input(const TeamMember& member) { return each_alone_ ? own(member).input : own_[0].input; }
    TeamMember::Range own_rows(const TeamMember& member) const {
        return each_alone_ ? TeamMember::Range{0, n_} : member.range(n_);
    }
    bool whole_norm() const { return model_->config.head_norm == ModelConfig::HeadNorm::whole; }
    std::int64_t hidden() const { return model_->config.hidden; }
    std::int64_t q_size() const { return shape_.heads * shape_.head_dim; }
    std::int64_t qkv_size() const { return (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim; }
    float eps() const { return static_cast<float>(model_->config.norm_eps); }

    std::shared_ptr<const KernelBackend> model_;
    AttentionShape shape_;
    std::int64_t n_ = 0;                      // rows of the current forward
    std::int64_t logit_rows_ = 0;             // of these, those that get logits: the first ones
    PassFor use_ = PassFor::logits;           // of those
    bool bounds_ = false;                     // choices are made without computing all logits
    std::span<const std::int64_t> captured_;  // its feature layers, in the order of their columns
    std::int64_t feature_width_ = 0;          // its F
    bool each_alone_ = false;                 // each member keeps the whole stream for itself
    int shares_ = 1, bounded_shares_ = 1;     // of the vocabulary, each taken by a member
    std::int64_t undecided_ = 0;              // forwards that compute all logits, though few rows' choice is asked for
    PassRows rows_;
    std::vector<float> uppers_;                                 // [panels of the output matrix][rows with logits]
    std::vector<float> x_, qkv_, attended_, gate_up_, branch_;  // [rows, H], ...
    std::vector<Own> own_;                                      // of each member
    std::vector<std::vector<float>> cosines_, sines_;           // of each rotation, [rows, rotated / 2]
    std::int64_t scratch_size_ = 0;
    PackedRows packed_heads_, packed_gated_;
    at::Tensor logits_;  // [most rows so far, V], lent out and used again once the caller lets go
};

void KernelPass::make_room() {
    const ModelConfig& c = model_->config;
    const auto grow = [&](std::vector<float>& buffer, std::int64_t width) {
        const auto size = static_cast<std::size_t>(n_ * width);
        if (buffer.size() < size) buffer.resize(size);
    };
    grow(x_, hidden()), grow(qkv_, qkv_size()), grow(attended_, q_size()), grow(gate_up_, 2 * c.feed_forward);
    grow(branch_, hidden());
    for (std::size_t k = 0; k < cosines_.size(); ++k) grow(cosines_[k], c.rotated / 2), grow(sines_[k], c.rotated / 2);
    std::int64_t most = 0;
    for (const AttentionRow& row : rows_.seen(false)) most = std::max(most, row.positions());
    // In steps, so that a growing text does not ask for a little more each time.
    scratch_size_ = std::max(scratch_size_, attention_scratch(shape_, (most + 255) / 256 * 256));
    for (Own& each : own_) {
        if (std::ssize(each.scratch) < scratch_size_) each.scratch.resize(static_cast<std::size_t>(scratch_size_));
        each.normed.resize(static_cast<std::size_t>(hidden()));
        if (each_alone_) grow(each.x, hidden());
    }
    if (use_ == PassFor::choices && !bounds_)
        for (Own& each : own_)
            each.few_logits.reserve(static_cast<std::size_t>(logit_rows_ * kFewPanels * PackedLinear::kPanel) * 4);
    if (bounds_) {
        uppers_.resize(static_cast<std::size_t>(model_->output.panels() * logit_rows_));
        for (Own& each : own_) each.least.resize(static_cast<std::size_t>(logit_rows_));
    }
    if (use_ == PassFor::logits &&
        (!logits_.defined() || logits_.storage().use_count() > 1 || logits_.size(0) < logit_rows_))
        logits_ = at::empty({logit_rows_, c.vocabulary}, at::kFloat);
}

PassOutput KernelPass::forward(std::span<const RowSegment> segments, PassFor use,
                               std::span<const std::int64_t> feature_layers) {
    n_ = rows_.lay_out(segments);
    logit_rows_ = 0;
    for (const RowSegment& segment : segments)
        if (segment.logits) logit_rows_ += std::ssize(segment.tokens);
    each_alone_ = n_ <= kAlone;
    use_ = use;
    bounds_ = use == PassFor::choices && chooses();
    make_room();
    PassOutput output;
    captured_ = feature_layers;
    feature_width_ = (1 + static_cast<std::int64_t>(captured_.size())) * hidden();
    output.features = at::empty({n_, feature_width_}, at::kFloat);
    if (use_ == PassFor::logits) output.logits = logits_.slice(0, 0, logit_rows_);
    if (use_ != PassFor::features) output.argmax = at::empty({logit_rows_}, at::kLong);
    float* features = output.features.data_ptr<float>();
    float* logits = use_ == PassFor::logits ? output.logits.data_ptr<float>() : nullptr;
    model_->team->run([&](TeamMember& member) { run(member, features, logits); });
    if (bounds_) output.panels_left = look_at_left();
    if (use_ != PassFor::features) merge_picks(output.argmax.data_ptr<std::int64_t>());
    return output;
}

void KernelPass::run(TeamMember& member, float* features, float* logits) {
    embed(member);
    for (std::int64_t i = 0; i < model_->config.layers; ++i) {
        capture(member, i, features);
        attention(member, i);
        feed_forward(member, model_->layers[static_cast<std::size_t>(i)]);
    }
    finish(member, features, logits);
}

// Reads rows that the member itself wrote, or that are its own from here on.
void KernelPass::capture(TeamMember& member, std::int64_t layer, float* features) {
    const std::int64_t h = hidden();
    for (std::size_t k = 0; k < captured_.size(); ++k) {
        if (captured_[k] != layer) continue;
        const TeamMember::Range share = member.range(n_);
        for (std::int64_t i = share.begin; i < share.end; ++i)
            rms_norm_row(stream(member) + i * h, h, model_->ones.data(), eps(),
                         features + i * feature_width_ + (1 + static_cast<std::int64_t>(k)) * h);
    }
}

void KernelPass::embed(TeamMember& member) {
    const ModelConfig& c = model_->config;
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        PassRow& row = rows_[i];
        float* x = x_.data() + i * hidden();
        model_->source->read_rows("embed", std::span(&row.token, 1), x);
        if (c.embedding_scale != 1) scale_row(x, hidden(), static_cast<float>(c.embedding_scale));
        row.query_scale = static_cast<float>(c.scale_of_queries(row.position));
        for (std::size_t k = 0; k < model_->rotations.size(); ++k) {
            const RopeTable& rotation = model_->rotations[k];
            const std::size_t pairs = rotation.frequencies.size();
            for (std::size_t d = 0; d < pairs; ++d) {
                const float angle = static_cast<float>(row.position) * rotation.frequencies[d];
                const std::size_t at = static_cast<std::size_t>(i) * pairs + d;
                cosines_[k][at] = std::cos(angle) * rotation.magnitude;
                sines_[k][at] = std::sin(angle) * rotation.magnitude;
            }
        }
    }
    member.barrier();
    if (each_alone_) std::copy_n(x_.data(), n_ * hidden(), stream(member));
}

void KernelPass::attention(TeamMember& member, std::int64_t layer) {
    const KernelLayer& weights = model_->layers[static_cast<std::size_t>(layer)];
    read_stream(member, n_, weights.attention_norm, weights.qkv.format());
    const TeamMember::Range heads = multiply_heads(member, weights);
    finish_heads(weights, whole_norm() ? member.range(n_) : TeamMember::Range{0, n_}, heads);
    const WeightFormat format = weights.o.matrix.format();
    const bool by_heads = shape_.head_dim % 32 == 0;
    PackedRows::Parts parts;
    if (by_heads) parts = packed_heads_.prepare(member, n_, q_size(), format);
    member.barrier();
    attend(member, shape_, rows_.seen(weights.windowed), qkv_.data(), qkv_size(), attended_.data(), q_size(),
           own(member).scratch.data(), by_heads ? &parts : nullptr);
    member.barrier();
    if (!by_heads) {
        packed_heads_.assign(member, attended_.data(), n_, q_size(), q_size(), format);
        member.barrier();
    }
    if (layer + 1 < model_->config.layers) rows_.enter(member, layer + 1);
    multiply_branch(member, weights.o, packed_heads_);
}

void KernelPass::feed_forward(TeamMember& member, const KernelLayer& weights) {
    read_stream(member, n_, weights.mlp_norm, weights.gate_up.format());
    multiply_gate_up(member, weights);
    multiply_branch(member, weights.down, packed_gated_);
}

// Queries, keys and values of all rows, not finished yet. Returns the heads, of all three, that the member finishes: it
// has computed them itself where they can be shared out evenly, else behind a barrier.
TeamMember::Range KernelPass::multiply_heads(TeamMember& member, const KernelLayer& weights) {
    const std::int64_t heads = shape_.heads + 2 * shape_.kv_heads, panels = shape_.head_dim / PackedLinear::kPanel;
    if (!whole_norm() && even(member, heads)) {
        const TeamMember::Range share = member.range(heads);
        weights.qkv.multiply({share.begin * panels, share.end * panels}, input(member), qkv_.data(), qkv_size());
        return share;
    }
    weights.qkv.multiply(member, input(member), qkv_.data(), qkv_size());
    member.barrier();
    return whole_norm() ? TeamMember::Range{0, heads} : member.range(heads);
}

// Gate and up of all rows, and the gated rows from them, in blocks of 32 columns. Ends with a barrier.
void KernelPass::multiply_gate_up(TeamMember& member, const KernelLayer& weights) {
    const std::int64_t inner = model_->config.feed_forward, blocks = (inner + 31) / 32;
    const std::int64_t panels = weights.gate_up.panels() / 2;
    const PackedRows::Parts parts = packed_gated_.prepare(member, n_, inner, weights.down.matrix.format());
    TeamMember::Range share = member.range(blocks);
    if (even(member, blocks)) {
        const TeamMember::Range gate{2 * share.begin, std::min(2 * share.end, panels)};
        weights.gate_up.multiply(gate, input(member), gate_up_.data(), 2 * inner);
        weights.gate_up.multiply({panels + gate.begin, panels + gate.end}, input(member), gate_up_.data(), 2 * inner);
    } else {
        weights.gate_up.multiply(member, input(member), gate_up_.data(), 2 * inner);
        member.barrier();
        share = member.range(blocks);
    }
    const std::int64_t begin = 32 * share.begin, size = std::min(32 * share.end, inner) - begin;
    const auto gated = model_->config.activation == ModelConfig::Activation::silu ? silu_gate_row : gelu_gate_row;
    for (std::int64_t i = 0; i < n_ && size > 0; ++i) {
        float* gate = gate_up_.data() + i * 2 * inner + begin;
        if (!weights.gate_up_bias.empty()) {
            add_row(gate, weights.gate_up_bias.data() + begin, size);
            add_row(gate + inner, weights.gate_up_bias.data() + inner + begin, size);
        }
        gated(gate, gate + inner, size, gate);
        parts.pack(i, begin, size, gate);
    }
    member.barrier();
}

// The stream's first rows for a matrix, normalised where the model has a norm there. Where members share the rows, all
// of a member's own were its own before, and it ends with a barrier.
void KernelPass::read_stream(TeamMember& member, std::int64_t rows, const std::vector<float>& norm,
                             WeightFormat format) {
    const std::int64_t h = hidden();
    TeamMember alone;
    TeamMember& sharer = each_alone_ ? alone : member;
    PackedRows& input = each_alone_ ? own(member).input : own_[0].input;
    const PackedRows::Parts parts = input.prepare(sharer, rows, h, format);
    const TeamMember::Range share = sharer.range(rows);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        const float* row = stream(member) + i * h;
        if (!norm.empty()) {
            float* normed = own(member).normed.data();
            rms_norm_row(row, h, norm.data(), eps(), normed);
            row = normed;
        }
        parts.pack(i, 0, h, row);
    }
    sharer.barrier();
}

// x += scale norm(W y + bias), of y the packed rows.
void KernelPass::multiply_branch(TeamMember& member, const Branch& branch, const PackedRows& rows) {
    const auto scale = static_cast<float>(model_->config.residual_scale);
    const std::int64_t h = hidden();
    branch.matrix.multiply(member, rows, branch_.data(), h);
    member.barrier();
    const TeamMember::Range share = own_rows(member);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        const float* y = branch_.data() + i * h;
        if (!branch.bias.empty() || !branch.norm.empty() || scale != 1) {
            float* own_y = own(member).normed.data();
            std::copy_n(y, h, own_y);
            if (!branch.bias.empty()) add_row(own_y, branch.bias.data(), h);
            if (!branch.norm.empty()) rms_norm_row(own_y, h, branch.norm.data(), eps(), own_y);
            if (scale != 1) scale_row(own_y, h, scale);
            y = own_y;
        }
        add_row(stream(member) + i * h, y, h);
    }
}

// Bias, norm, rotation and scale of some heads of some rows; keys and values go to the cache. Heads are counted through
// queries, keys and values.
void KernelPass::finish_heads(const KernelLayer& weights, TeamMember::Range rows, TeamMember::Range heads) {
    const std::int64_t d = shape_.head_dim, first_key = shape_.heads, first_value = first_key + shape_.kv_heads;
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        const PassRow& row = rows_[i];
        float* q = qkv_.data() + i * qkv_size();
        if (!weights.qkv_bias.empty())
            add_row(q + heads.begin * d, weights.qkv_bias.data() + heads.begin * d, heads.size() * d);
        if (whole_norm()) norm_whole(weights, q);
        for (std::int64_t head = heads.begin; head < heads.end; ++head) {
            float* x = q + head * d;
            const bool value = head >= first_value, key = !value && head >= first_key;
            if (!value) {
                const std::vector<float>& norm = key ? weights.k_norm : weights.q_norm;
                if (!norm.empty() && !whole_norm()) rms_norm_row(x, d, norm.data(), eps(), x);
                if (weights.rope >= 0) rotate(weights.rope, i, x);
            }
            if (!value && !key) {
                if (row.query_scale != 1) scale_row(x, d, row.query_scale);
                continue;
            }
            std::byte* keys =
                row.keys + static_cast<std::size_t>(head - (key ? first_key : first_value)) * row.head_bytes;
            if (key)
                to_key_panels(shape_.format, x, d, row.slot, keys);
            else
                to_cache(shape_.format, x, d, keys + row.value_bytes + row.slot * d * element_bytes(shape_.format));
        }
    }
}

// q: all queries of one row, its keys behind them.
void KernelPass::norm_whole(const KernelLayer& weights, float* q) const {
    const std::int64_t keys = shape_.kv_heads * shape_.head_dim;
    rms_norm_row(q, q_size(), weights.q_norm.data(), eps(), q);
    rms_norm_row(q + q_size(), keys, weights.k_norm.data(), eps(), q + q_size());
}

// The first dimensions of a head of the row.
void KernelPass::rotate(int rope, std::int64_t row, float* head) const {
    const std::int64_t turned = model_->config.rotated;
    const float* cosines = cosines_[static_cast<std::size_t>(rope)].data() + row * (turned / 2);
    const float* sines = sines_[static_cast<std::size_t>(rope)].data() + row * (turned / 2);
    rotate_heads(head, 1, turned, cosines, sines);
}

void KernelPass::finish(TeamMember& member, float* features, float* logits) {
    const std::int64_t h = hidden();
    const TeamMember::Range share = member.range(n_);
    for (std::int64_t i = share.begin; i < share.end; ++i)
        rms_norm_row(stream(member) + i * h, h, model_->norm.data(), eps(), features + i * feature_width_);
    if (use_ == PassFor::features || logit_rows_ == 0) return;
    if (!each_alone_) member.barrier();  // other rows are a member's own among those with logits only
    read_stream(member, logit_rows_, model_->norm, model_->output.format());
    multiply_output(member, logits);
}

// The member's share of the vocabulary, some panels at a time: the best of them is looked for while the core has them,
// and where nobody reads logits they go no further. All that is told is by shares: who computed them may be elsewhere
// by now.
void KernelPass::multiply_output(TeamMember& member, float* logits) {
    const ModelConfig& c = model_->config;
    std::vector<RowPick>& picks = own(member).picks;
    picks.assign(static_cast<std::size_t>(logit_rows_), {});
    if (bounds_) return choose_output(member);
    if (member.index() == 0) shares_ = member.size();
    auto* few = reinterpret_cast<float*>(own(member).few_logits.data());
    const std::int64_t stride = logits != nullptr ? c.vocabulary : kFewPanels * PackedLinear::kPanel;
    const TeamMember::Range share = member.range(model_->output.panels());
    for (std::int64_t panel = share.begin; panel < share.end; panel += kFewPanels) {
        const std::int64_t end = std::min(panel + kFewPanels, share.end), first = panel * PackedLinear::kPanel;
        const std::int64_t size = std::min(end * PackedLinear::kPanel, c.vocabulary) - first;
        float* row = logits != nullptr ? logits + first : few;
        model_->output.multiply_alone({panel, end}, input(member), row, stride);
        for (std::int64_t i = 0; i < logit_rows_; ++i, row += stride) {
            if (c.logit_scale != 1) scale_row(row, size, static_cast<float>(c.logit_scale));
            if (c.logit_cap > 0) soft_cap_row(row, size, static_cast<float>(c.logit_cap));
            picks[static_cast<std::size_t>(i)].take(row, size, first);
        }
    }
}

// As multiply_output, but of most outputs a bound alone. What is largest in one share bounds all of them. Behind the
// barrier the member may have another's place.
void KernelPass::choose_output(TeamMember& member) {
    const std::int64_t panels = model_->output.panels();
    Own& first = own(member);
    if (member.index() == 0) bounded_shares_ = member.size();
    model_->output.bound(member.range(panels), input(member), first.choice, uppers_.data(), first.least.data());
    member.barrier();
    Own& mine = own(member);
    std::vector<float> least = own_[0].least;
    for (std::size_t share = 1; share < static_cast<std::size_t>(bounded_shares_); ++share)
        for (std::size_t r = 0; r < least.size(); ++r) least[r] = std::max(least[r], own_[share].least[r]);
    if (member.index() == 0) shares_ = member.size();
    model_->output.choose(member.range(panels), input(member), mine.choice, uppers_.data(), least.data(),
                          mine.picks.data());
}

// Where no token stands out, too many outputs are left to be computed one panel at a time: for some forwards all are
// computed then. Picks are the same either way.
bool KernelPass::chooses() { return model_->output.chooses(logit_rows_) && --undecided_ < 0; }

std::int64_t KernelPass::look_at_left() {
    constexpr std::int64_t kMostLeft = 5, kPause = 7;  // a fifth of the panels
    std::int64_t left = 0;
    for (int share = 0; share < shares_; ++share) left += std::ssize(own_[static_cast<std::size_t>(share)].choice.left);
    undecided_ = left * kMostLeft > model_->output.panels() ? kPause : 0;
    return left;
}

void KernelPass::merge_picks(std::int64_t* argmax) const {
    for (std::size_t i = 0; i < static_cast<std::size_t>(logit_rows_); ++i) {
        RowPick pick;
        for (std::size_t share = 0; share < static_cast<std::size_t>(shares_); ++share) pick.take(own_[share].picks[i]);
        argmax[i] = std::isnan(pick.value) ? -1 : pick.index;
    }
}

}  // namespace

std::unique_ptr<TargetPass> KernelBackend::make_pass(std::shared_ptr<const ModelBackend> self) const {
    return std::make_unique<KernelPass>(std::static_pointer_cast<const KernelBackend>(std::move(self)));
}

}  // namespace kernel_target

std::shared_ptr<const ModelBackend> make_kernel_backend(std::shared_ptr<const WeightSource> source,
                                                        const ModelConfig& config, Weights weights, int threads) {
    return std::make_shared<kernel_target::KernelBackend>(std::move(source), config, weights, threads);
}

}  // namespace outrider
