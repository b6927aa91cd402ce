// Hydra on the CPU: all rows of a pass in one run of the thread team, weights in blocks of 4 to 8 bits.
#include <ATen/core/grad_mode.h>

#include <optional>
#include "kernels/row_ops.hpp"
#include <unordered_map>

#include <outrider/draft/hydra/detail/hydra_backend.hpp>
#include "draft/nn/layer_kernels.hpp"

namespace outrider {

namespace {

struct KernelHydraCache final : HydraCache {
    LayerSlots slots;
};

class KernelHydra final : public HydraBackend {
public:
    KernelHydra(const HydraConfig& config, const HydraWeights& weights, const TargetHead& head, ThreadTeam& team,
                bool eight_bits)
        : config_(config),
          head_(head),
          team_(team),
          H_(config.hidden),
          width_(config.residual == HydraResidual::matrix ? 2 * H_ : H_),
          ones_(static_cast<std::size_t>(H_), 1.0F) {
        if (config.prefix_layer) {
            layer_.emplace(layer_sizes(config), weights.prefix, team, layer_format(eight_bits));
            prefix_norm_ = floats_of(weights.prefix_norm);
        }
        for (const auto& blocks : weights.heads) pack_head(blocks);
        for (const at::Tensor& output : weights.output) output_.push_back(pack_as(WeightFormat::int8, output, team));
        for (const at::Tensor& bias : weights.output_bias) output_bias_.push_back(floats_of(bias));
        if (config.output == HeadOutput::target)
            output_.push_back(
                pack_rows(WeightFormat::int8, draft_ids(config.vocabulary, head.vocabulary), head.output_rows, team));
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        return bytes_of(first_, later_, output_, bias_, residual_bias_, output_bias_, prefix_norm_) +
               (layer_ ? layer_->bytes() : 0);
    }

    [[nodiscard]] std::unique_ptr<HydraCache> make_cache() const override {
        return std::make_unique<KernelHydraCache>();
    }

    void take_up(std::span<const HydraRound> rounds, bool draft) override {
        const at::NoGradGuard no_grad;
        const std::int64_t S = std::ssize(rounds);
        std::vector<float> context;
        context_.clear(), newest_.clear(), ground_.clear();
        for (const HydraRound& round : rounds) {
            const std::vector<float> rows = floats_of(round.features);
            const std::int64_t count = round.features.size(0), older = draft ? count - 1 : count;
            context.insert(context.end(), rows.begin(), rows.begin() + older * H_);
            ground_.insert(ground_.end(), rows.begin() + (count - 1) * H_, rows.end());
            auto& slots = static_cast<KernelHydraCache&>(*round.cache).slots;
            for (std::int64_t i = 0; i < older; ++i) context_.push_back({&slots, round.committed - count + i, 0});
            newest_.push_back({&slots, round.committed - 1, round.committed});
        }
        if (!layer_) return;
        const auto scale = static_cast<float>(config_.feature_scale);
        for (std::vector<float>* rows : {&context, &ground_})
            for (float& x : *rows) x *= scale;
        layer_->prepare(context_, draft ? std::span<const LayerRow>(newest_) : std::span<const LayerRow>());
        team_.run([&](TeamMember& member) {
            layer_->take_up(member, context.data());
            if (!draft) return;
            layer_->run(member, ground_.data());
            const auto mine = member.range(S);
            for (std::int64_t i = mine.begin; i < mine.end; ++i) {
                float* g = ground_.data() + i * H_;
                rms_norm_row(g, H_, prefix_norm_.data(), static_cast<float>(config_.norm_eps), g);
            }
        });
    }

    void scores(std::span<const PathRow> rows, float* out, std::int64_t stride) override {
        const at::NoGradGuard no_grad;
        const std::int64_t M = std::ssize(rows);
        gather(rows);
        z_.resize(static_cast<std::size_t>(M * width_)), state_.resize(static_cast<std::size_t>(M * H_));
        team_.run([&](TeamMember& member) {
            by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
                multiply(member, x_.data() + begin * ldx_, end - begin, (head + 2) * H_, ldx_,
                         first_[static_cast<std::size_t>(head)], z_.data() + begin * width_, width_);
            });
            first_block(member, rows);
            for (std::size_t j = 1; j < bias_.front().size(); ++j) later_block(member, rows, j);
            logits(member, rows, out, stride);
        });
    }

private:
    void pack_head(const std::vector<HydraWeights::Block>& blocks) {
        std::vector<PackedLinear> first{pack_as(WeightFormat::int8, blocks[0].weight, team_)};
        if (config_.residual == HydraResidual::matrix) {
            first.push_back(pack_as(WeightFormat::int8, blocks[0].residual, team_));
            residual_bias_.push_back(floats_of(blocks[0].residual_bias));
        }
        first_.push_back(PackedLinear::stack(first));
        later_.emplace_back();
        for (std::size_t j = 1; j < blocks.size(); ++j)
            later_.back().push_back(pack_as(WeightFormat::int8, blocks[j].weight, team_));
        bias_.emplace_back();
        for (const HydraWeights::Block& block : blocks) bias_.back().push_back(floats_of(block.bias));
    }

    /// x_ [M, (K + 1) H]: g and the path's embeddings, both scaled. Every token is looked up once a pass.
    void gather(std::span<const PathRow> rows) {
        std::unordered_map<TokenId, std::size_t> place;
        std::vector<TokenId> tokens;
        for (const PathRow& row : rows)
            for (const TokenId token : row.path)
                if (place.emplace(token, tokens.size()).second) tokens.push_back(token);
        const std::vector<float> embedded = floats_of(head_.embed(tokens) * config_.embedding_scale);
        ldx_ = (config_.heads + 1) * H_;
        x_.resize(rows.size() * static_cast<std::size_t>(ldx_));
        float* x = x_.data();
        for (const PathRow& row : rows) {
            const float* g = ground_.data() + static_cast<std::int64_t>(row.sequence) * H_;
            for (std::int64_t i = 0; i < H_; ++i) x[i] = g[i] * static_cast<float>(config_.feature_scale);
            for (std::size_t t = 0; t < row.path.size(); ++t)
                std::copy_n(embedded.data() + place.at(row.path[t]) * static_cast<std::size_t>(H_), H_,
                            x + static_cast<std::int64_t>(t + 1) * H_);
            x += ldx_;
        }
    }

    /// y = W x. A barrier is behind.
    void multiply(TeamMember& member, const float* x, std::int64_t rows, std::int64_t in, std::int64_t ldx,
                  const PackedLinear& matrix, float* y, std::int64_t ldy) {
        packed_.assign(member, x, rows, in, ldx, WeightFormat::int8);
        member.barrier();
        matrix.multiply(member, packed_, y, ldy);
        member.barrier();
    }

    /// z = silu(z + b), added to the state.
    void add_block(float* z, const std::vector<float>& bias, float* state) const {
        add_row(z, bias.data(), H_);
        silu_gate_row(z, ones_.data(), H_, z);
        add_row(state, z, H_);
    }

    void first_block(TeamMember& member, std::span<const PathRow> rows) {
        const auto mine = member.range(std::ssize(rows));
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const PathRow& row = rows[static_cast<std::size_t>(i)];
            const std::size_t head = row.path.size() - 1;
            float *z = z_.data() + i * width_, *state = state_.data() + i * H_;
            const bool matrix = config_.residual == HydraResidual::matrix;
            std::copy_n(matrix ? z + H_ : ground_.data() + static_cast<std::int64_t>(row.sequence) * H_, H_, state);
            if (matrix) add_row(state, residual_bias_[head].data(), H_);
            add_block(z, bias_[head][0], state);
        }
        member.barrier();
    }

    void later_block(TeamMember& member, std::span<const PathRow> rows, std::size_t j) {
        by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
            multiply(member, state_.data() + begin * H_, end - begin, H_, H_,
                     later_[static_cast<std::size_t>(head)][j - 1], z_.data() + begin * width_, width_);
        });
        const auto mine = member.range(std::ssize(rows));
        for (std::int64_t i = mine.begin; i < mine.end; ++i)
            add_block(z_.data() + i * width_, bias_[rows[static_cast<std::size_t>(i)].path.size() - 1][j],
                      state_.data() + i * H_);
        member.barrier();
    }

    void logits(TeamMember& member, std::span<const PathRow> rows, float* out, std::int64_t stride) {
        const std::int64_t M = std::ssize(rows);
        if (config_.output == HeadOutput::own)
            by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
                multiply(member, state_.data() + begin * H_, end - begin, H_, H_,
                         output_[static_cast<std::size_t>(head)], out + begin * stride, stride);
            });
        else
            multiply(member, state_.data(), M, H_, H_, output_[0], out, stride);
        if (output_bias_.empty()) return;
        const auto mine = member.range(M);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const std::size_t which =
                config_.output == HeadOutput::own ? rows[static_cast<std::size_t>(i)].path.size() - 1 : 0;
            add_row(out + i * stride, output_bias_[which].data(), std::ssize(output_bias_[which]));
        }
    }

    HydraConfig config_;
    TargetHead head_;
    ThreadTeam& team_;
    std::int64_t H_, width_, ldx_ = 0;  // width of a first block's products: H, or 2 H with R beside W
    std::optional<LayerKernels> layer_;
    std::vector<float> prefix_norm_;
    std::vector<PackedLinear> first_;                    // [K]
    std::vector<std::vector<PackedLinear>> later_;       // [K][blocks - 1]
    std::vector<std::vector<std::vector<float>>> bias_;  // [K][blocks][H]
    std::vector<std::vector<float>> residual_bias_, output_bias_;
    std::vector<PackedLinear> output_;  // one, or one per head
    PackedRows packed_;

    std::vector<LayerRow> context_, newest_;
    std::vector<float> ground_, x_, z_, state_, ones_;
};

}  // namespace

bool kernels_fit(const HydraConfig& config) { return !config.prefix_layer || LayerKernels::fit(layer_sizes(config)); }

std::unique_ptr<HydraBackend> make_hydra_kernels(const HydraConfig& config, const HydraWeights& weights,
                                                 const TargetHead& head, ThreadTeam& team, bool eight_bits) {
    return std::make_unique<KernelHydra>(config, weights, head, team, eight_bits);
}

}  // namespace outrider
