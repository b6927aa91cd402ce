// Medusa's heads on the CPU: all rows of a pass in one run of the thread team, weights in 8 bits.
#include <outrider/draft/medusa/detail/medusa_backend.hpp>

#include "kernels/packed_linear.hpp"
#include "kernels/row_ops.hpp"

#include "draft/nn/layer_kernels.hpp"

namespace outrider {

namespace {

class KernelHeads final : public MedusaBackend {
public:
    KernelHeads(const MedusaConfig& config, const MedusaWeights& weights, const TargetHead& head, ThreadTeam& team)
        : config_(config), team_(team), H_(config.hidden), K_(config.heads), ones_(static_cast<std::size_t>(H_), 1.0F) {
        std::vector<PackedLinear> first;
        for (const auto& blocks : weights.heads) {
            first.push_back(pack_as(WeightFormat::int8, blocks[0].weight, team));
            later_.emplace_back();
            for (std::size_t j = 1; j < blocks.size(); ++j)
                later_.back().push_back(pack_as(WeightFormat::int8, blocks[j].weight, team));
            bias_.emplace_back();
            for (const MedusaWeights::Block& block : blocks) bias_.back().push_back(floats_of(block.bias));
        }
        first_ = PackedLinear::stack(first);
        for (const at::Tensor& output : weights.output) output_.push_back(pack_as(WeightFormat::int8, output, team));
        if (config.output == HeadOutput::target)
            output_.push_back(
                pack_rows(WeightFormat::int8, draft_ids(config.vocabulary, head.vocabulary), head.output_rows, team));
    }

    [[nodiscard]] std::size_t weight_bytes() const override { return bytes_of(first_, later_, output_, bias_); }

    void run(const at::Tensor& features, std::int64_t stride, std::vector<float>& scores) override {
        const std::vector<float> x = floats_of(features);
        const std::int64_t S = features.size(0);
        scores.resize(static_cast<std::size_t>(S * K_ * stride));
        z_.resize(static_cast<std::size_t>(S * K_ * H_)), state_.resize(z_.size());
        for (std::int64_t i = 0; i < S * K_; ++i) std::copy_n(x.data() + i / K_ * H_, H_, state_.data() + i * H_);
        team_.run([&](TeamMember& member) {
            blocks(member, x.data(), S);
            if (output_.size() == 1) {
                rows_.assign(member, state_.data(), S * K_, H_, H_, WeightFormat::int8);
                member.barrier();
                output_[0].multiply(member, rows_, scores.data(), stride);
            } else
                for (std::int64_t k = 0; k < K_; ++k)
                    of_head(member, k, S, output_[static_cast<std::size_t>(k)], scores.data() + k * stride,
                            K_ * stride);
        });
    }

private:
    /// All heads' residual blocks: state_ [S, K, H]. A barrier is behind.
    void blocks(TeamMember& member, const float* x, std::int64_t S) {
        rows_.assign(member, x, S, H_, H_, WeightFormat::int8);
        member.barrier();
        first_.multiply(member, rows_, z_.data(), K_ * H_);
        member.barrier();
        add(member, S, 0);
        for (std::size_t j = 1; j < bias_.front().size(); ++j) {
            for (std::int64_t k = 0; k < K_; ++k)
                of_head(member, k, S, later_[static_cast<std::size_t>(k)][j - 1], z_.data() + k * H_, K_ * H_);
            add(member, S, j);
        }
    }

    /// y = W state of head k, a row per sequence. A barrier is behind.
    void of_head(TeamMember& member, std::int64_t k, std::int64_t S, const PackedLinear& matrix, float* y,
                 std::int64_t ldy) {
        rows_.assign(member, state_.data() + k * H_, S, H_, K_ * H_, WeightFormat::int8);
        member.barrier();
        matrix.multiply(member, rows_, y, ldy);
        member.barrier();
    }

    /// state += silu(z + b). A barrier is behind.
    void add(TeamMember& member, std::int64_t S, std::size_t j) {
        const auto mine = member.range(S * K_);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            float* z = z_.data() + i * H_;
            add_row(z, bias_[static_cast<std::size_t>(i % K_)][j].data(), H_);
            silu_gate_row(z, ones_.data(), H_, z);
            add_row(state_.data() + i * H_, z, H_);
        }
        member.barrier();
    }

    MedusaConfig config_;
    ThreadTeam& team_;
    std::int64_t H_, K_;
    PackedLinear first_;                                 // all heads' first blocks: they have one input
    std::vector<std::vector<PackedLinear>> later_;       // [K][blocks - 1]
    std::vector<std::vector<std::vector<float>>> bias_;  // [K][blocks][H]
    std::vector<PackedLinear> output_;                   // one, or one per head
    PackedRows rows_;
    std::vector<float> z_, state_, ones_;  // [S, K, H], [H]
};

}  // namespace

bool kernels_fit(const MedusaConfig&) { return true; }

std::unique_ptr<MedusaBackend> make_medusa_kernels(const MedusaConfig& config, const MedusaWeights& weights,
                                                   const TargetHead& head, ThreadTeam& team) {
    return std::make_unique<KernelHeads>(config, weights, head, team);
}

}  // namespace outrider
