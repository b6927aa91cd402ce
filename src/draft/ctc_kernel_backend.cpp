// The network on the CPU: all rows of a round in one run of the thread team, weights as 8-bit blocks.
#include <ATen/core/grad_mode.h>

#include <cmath>

#include <outrider/core/error.hpp>
#include <outrider/tensor/attention.hpp>
#include <outrider/tensor/packed_linear.hpp>
#include <outrider/tensor/row_ops.hpp>

#include "ctc_backend.hpp"

namespace outrider {

namespace {

std::vector<float> floats(const at::Tensor& tensor) {
    const at::Tensor flat = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

/// Slots [capacity][kv_heads * head_dim] of keys and of values. The frames of a draft stand behind the committed slots
/// while it is computed and are overwritten by the next.
struct KernelCache final : CtcCache {
    std::vector<float> keys, values;
    std::vector<float> last_fused;  // [H] u_{n-1}; empty while nothing is committed

    void reserve(std::int64_t slots, std::int64_t width) {
        const auto wanted = static_cast<std::size_t>(slots * width);
        if (wanted <= keys.size()) return;
        keys.resize(2 * wanted), values.resize(2 * wanted);
    }
};

class KernelBackend final : public CtcBackend {
public:
    KernelBackend(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head, ThreadTeam& team)
        : config_(config),
          head_(head),
          team_(team),
          H_(config.hidden),
          N_(config.heads * config.head_dim),
          K_(config.kv_heads * config.head_dim),
          attn_norm_(floats(weights.attn_norm)),
          mlp_norm_(floats(weights.mlp_norm)),
          final_norm_(floats(weights.final_norm)),
          queries_(floats(weights.queries)),
          blank_(floats(weights.blank)),
          blank_bias_(floats(weights.blank_bias)[0]),
          shape_{CacheFormat::f32, config.heads, config.kv_heads, config.head_dim,
                 1.0F / std::sqrt(static_cast<float>(config.head_dim))} {
        const auto pack = [&](const at::Tensor& w) {
            return PackedLinear::pack(WeightFormat::int8, floats(w), w.size(0), w.size(1), &team_);
        };
        fuse_ = pack(weights.fuse), qkv_ = pack(weights.qkv), kv_ = pack(weights.qkv.slice(0, N_));
        attn_out_ = pack(weights.attn_out), gate_up_ = pack(weights.gate_up), down_ = pack(weights.down);
        output_ = pack(head.output_rows(config.vocabulary));
    }

    [[nodiscard]] std::unique_ptr<CtcCache> make_cache() const override { return std::make_unique<KernelCache>(); }

    void run(std::span<CtcRound> rounds, bool frames, CtcRoundScores& scores) override {
        const at::NoGradGuard no_grad;
        gather(rounds);
        const auto sequences = static_cast<std::int64_t>(rounds.size()), T = config_.frames,
                   V = static_cast<std::int64_t>(config_.vocabulary.size());
        const std::int64_t A = frames ? sequences * T : 0;
        reserve(rounds, A, frames);
        scores.logits.resize(static_cast<std::size_t>(A * V)), scores.gate.resize(static_cast<std::size_t>(A));
        team_.run([&](TeamMember& member) {
            take_up(member, rounds);
            if (frames) draft(member, rounds, A, scores);
        });
    }

private:
    /// Inputs of the rows that are new, and behind them those of sequences without a committed token: u_{-1}.
    void gather(std::span<CtcRound> rounds) {
        std::vector<TokenId> tokens;
        std::vector<std::pair<const CtcRound*, std::int64_t>> first;  // a round's first row
        positions_.clear(), kept_.clear(), owner_.clear();
        for (std::size_t r = 0; r < rounds.size(); ++r) {
            const auto rows = static_cast<std::int64_t>(rounds[r].next.size());
            if (rows > 0) first.emplace_back(&rounds[r], static_cast<std::int64_t>(tokens.size()));
            for (std::int64_t i = 0; i < rows; ++i)
                positions_.push_back(rounds[r].committed - rows + i), owner_.push_back(r), kept_.push_back(1);
            tokens.insert(tokens.end(), rounds[r].next.begin(), rounds[r].next.end());
            if (rounds[r].committed == 0)
                positions_.push_back(0), owner_.push_back(r), kept_.push_back(0), tokens.push_back(rounds[r].pending);
        }
        rows_ = static_cast<std::int64_t>(tokens.size());
        input_.assign(static_cast<std::size_t>(rows_ * 2 * H_), 0.0F);
        if (tokens.empty()) return;
        const std::vector<float> embedded = floats(head_.embed(tokens));
        for (std::int64_t i = 0; i < rows_; ++i)
            for (std::int64_t k = 0; k < H_; ++k)
                input_[static_cast<std::size_t>(i * 2 * H_ + k)] =
                    embedded[static_cast<std::size_t>(i * H_ + k)] * static_cast<float>(config_.embedding_scale);
        for (const auto& [round, begin] : first) {
            const std::vector<float> features = floats(round->features);
            for (std::size_t i = 0; i < features.size(); ++i) {
                const std::int64_t row = begin + static_cast<std::int64_t>(i) / H_,
                                   k = static_cast<std::int64_t>(i) % H_;
                input_[static_cast<std::size_t>((2 * row + 1) * H_ + k)] =
                    features[i] * static_cast<float>(config_.feature_scale);
            }
        }
    }

    void reserve(std::span<CtcRound> rounds, std::int64_t A, bool frames) {
        const auto grow = [](std::vector<float>& v, std::int64_t n) {
            if (v.size() < static_cast<std::size_t>(n)) v.resize(static_cast<std::size_t>(n));
        };
        const std::int64_t most = std::max(rows_, A);
        grow(fused_, rows_ * H_), grow(new_kv_, rows_ * 2 * K_), grow(x_, A * H_), grow(qkv_out_, A * (N_ + 2 * K_)),
            grow(mixed_, A * N_), grow(inner_, A * 2 * config_.intermediate);
        grow(angles_, (most + 1) * config_.head_dim);
        std::int64_t longest = 0;
        attention_.clear();
        for (CtcRound& round : rounds) {
            auto& cache = static_cast<KernelCache&>(*round.cache);
            cache.reserve(round.committed + config_.frames, K_);
            longest = std::max(longest, round.committed + config_.frames);
            if (!frames) continue;
            const AttentionRow row{
                {cache.keys.data(), cache.values.data(), K_, config_.head_dim}, round.committed + config_.frames, {}};
            attention_.insert(attention_.end(), static_cast<std::size_t>(config_.frames), row);
        }
        scratch_.resize(static_cast<std::size_t>(team_.size()));
        for (std::vector<float>& scratch : scratch_) grow(scratch, attention_scratch(shape_, longest));
    }

    /// cos and sin [head_dim / 2] of a position into the member's own place.
    void turn(float* heads, std::int64_t count, std::int64_t position, float* angles) const {
        const std::int64_t half = config_.head_dim / 2;
        for (std::int64_t i = 0; i < half; ++i) {
            const double angle =
                static_cast<double>(position) *
                std::exp(-std::log(config_.rope_theta) * static_cast<double>(i) / static_cast<double>(half));
            angles[i] = static_cast<float>(std::cos(angle)), angles[half + i] = static_cast<float>(std::sin(angle));
        }
        rotate_heads(heads, count, config_.head_dim, angles, angles + half);
    }

    void take_up(TeamMember& member, std::span<CtcRound> rounds) {
        if (rows_ == 0) return;
        rows_in_.assign(member, input_.data(), rows_, 2 * H_, 2 * H_, WeightFormat::int8);
        member.barrier();
        fuse_.multiply(member, rows_in_, fused_.data(), H_);
        member.barrier();
        rows_in_.assign_rms_norm(member, fused_.data(), rows_, H_, H_, attn_norm_.data(),
                                 static_cast<float>(config_.norm_eps), WeightFormat::int8);
        member.barrier();
        kv_.multiply(member, rows_in_, new_kv_.data(), 2 * K_);
        member.barrier();
        const auto mine = member.range(rows_);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            auto& cache = static_cast<KernelCache&>(*rounds[owner_[static_cast<std::size_t>(i)]].cache);
            const bool last =
                i + 1 == rows_ || owner_[static_cast<std::size_t>(i + 1)] != owner_[static_cast<std::size_t>(i)];
            if (last) cache.last_fused.assign(fused_.data() + i * H_, fused_.data() + (i + 1) * H_);
            if (kept_[static_cast<std::size_t>(i)] == 0) continue;
            const std::int64_t position = positions_[static_cast<std::size_t>(i)];
            float* kv = new_kv_.data() + i * 2 * K_;
            turn(kv, config_.kv_heads, position, angles_.data() + i * config_.head_dim);
            std::copy_n(kv, K_, cache.keys.data() + position * K_);
            std::copy_n(kv + K_, K_, cache.values.data() + position * K_);
        }
        member.barrier();
    }

    void draft(TeamMember& member, std::span<CtcRound> rounds, std::int64_t A, CtcRoundScores& scores) {
        const std::int64_t T = config_.frames, I = config_.intermediate, W = N_ + 2 * K_;
        const auto eps = static_cast<float>(config_.norm_eps);
        const auto mine = member.range(A);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const auto& cache = static_cast<const KernelCache&>(*rounds[static_cast<std::size_t>(i / T)].cache);
            std::copy_n(cache.last_fused.data(), H_, x_.data() + i * H_);
            add_row(x_.data() + i * H_, queries_.data() + i % T * H_, H_);
        }
        member.barrier();
        rows_in_.assign_rms_norm(member, x_.data(), A, H_, H_, attn_norm_.data(), eps, WeightFormat::int8);
        member.barrier();
        qkv_.multiply(member, rows_in_, qkv_out_.data(), W);
        member.barrier();
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            CtcRound& round = rounds[static_cast<std::size_t>(i / T)];
            auto& cache = static_cast<KernelCache&>(*round.cache);
            const std::int64_t position = round.committed + i % T;
            float* row = qkv_out_.data() + i * W;
            turn(row, config_.heads + config_.kv_heads, position, angles_.data() + i * config_.head_dim);
            std::copy_n(row + N_, K_, cache.keys.data() + position * K_);
            std::copy_n(row + N_ + K_, K_, cache.values.data() + position * K_);
        }
        member.barrier();
        attend(member, shape_, attention_, qkv_out_.data(), W, mixed_.data(), N_,
               scratch_[static_cast<std::size_t>(member.index())].data());
        member.barrier();
        rows_in_.assign(member, mixed_.data(), A, N_, N_, WeightFormat::int8);
        member.barrier();
        attn_out_.multiply(member, rows_in_, x_.data(), H_, Store::add);
        member.barrier();
        rows_in_.assign_rms_norm(member, x_.data(), A, H_, H_, mlp_norm_.data(), eps, WeightFormat::int8);
        member.barrier();
        gate_up_.multiply(member, rows_in_, inner_.data(), 2 * I);
        member.barrier();
        rows_in_.assign_silu_gate(member, inner_.data(), A, I, 2 * I, WeightFormat::int8);
        member.barrier();
        down_.multiply(member, rows_in_, x_.data(), H_, Store::add);
        member.barrier();
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            float* row = x_.data() + i * H_;
            rms_norm_row(row, H_, final_norm_.data(), eps, row);
            float g = blank_bias_;
            for (std::int64_t k = 0; k < H_; ++k) g += row[k] * blank_[static_cast<std::size_t>(k)];
            scores.gate[static_cast<std::size_t>(i)] = g;
        }
        member.barrier();
        rows_in_.assign(member, x_.data(), A, H_, H_, WeightFormat::int8);
        member.barrier();
        output_.multiply(member, rows_in_, scores.logits.data(), static_cast<std::int64_t>(config_.vocabulary.size()));
    }

    CtcConfig config_;
    TargetHead head_;
    ThreadTeam& team_;
    std::int64_t H_, N_, K_;
    std::vector<float> attn_norm_, mlp_norm_, final_norm_, queries_, blank_;
    float blank_bias_;
    AttentionShape shape_;
    PackedLinear fuse_, qkv_, kv_, attn_out_, gate_up_, down_, output_;
    PackedRows rows_in_;

    std::int64_t rows_ = 0;
    std::vector<std::int64_t> positions_;
    std::vector<std::size_t> owner_;   // round of a row
    std::vector<unsigned char> kept_;  // whether it goes to the cache
    std::vector<AttentionRow> attention_;
    std::vector<float> input_, fused_, new_kv_, x_, qkv_out_, mixed_, inner_, angles_;
    std::vector<std::vector<float>> scratch_;
};

}  // namespace

bool kernels_fit(const CtcConfig& config) { return config.head_dim % 16 == 0; }

std::unique_ptr<CtcBackend> make_kernel_backend(const CtcConfig& config, const CtcWeights& weights,
                                                const TargetHead& head, ThreadTeam& team) {
    return std::make_unique<KernelBackend>(config, weights, head, team);
}

}  // namespace outrider
