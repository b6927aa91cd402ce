// The network on the CPU: all rows of a round in one run of the thread team, weights in blocks of 4 to 8 bits.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include "kernels/row_ops.hpp"

#include <outrider/draft/ctc/detail/ctc_backend.hpp>
#include "draft/nn/layer_kernels.hpp"
#include "packed_prediction.hpp"

namespace outrider {

namespace {

/// The frames of a draft stand behind the committed slots while it is computed and are overwritten by the next.
struct KernelCache final : CtcCache {
    explicit KernelCache(std::size_t count) : layers(count) {}
    std::vector<LayerSlots> layers;
    std::vector<float> last_fused;  // [H] u_{n-1}; empty while nothing is committed
};

class KernelBackend final : public CtcBackend {
public:
    KernelBackend(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head, PackedLinear output,
                  ThreadTeam& team, bool eight_bits)
        : config_(config),
          head_(head),
          team_(team),
          H_(config.hidden),
          in_(config.hidden + ctc_feature_width(config)),
          final_norm_(floats_of(weights.final_norm)),
          queries_(floats_of(weights.queries)),
          blank_(floats_of(weights.blank)),
          blank_bias_(floats_of(weights.blank_bias)[0]),
          fuse_(pack_as(layer_format(eight_bits), weights.fuse, team)),
          output_(std::move(output)) {
        for (const LayerWeights& layer : weights.layers)
            layers_.push_back({{layer_sizes(config), layer, team, layer_format(eight_bits)}, {}, {}});
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        std::size_t sum = output_.bytes() + bytes_of(fuse_, final_norm_, queries_, blank_);
        for (const Layer& layer : layers_) sum += layer.kernels.bytes();
        return sum;
    }

    [[nodiscard]] std::unique_ptr<CtcCache> make_cache() const override {
        return std::make_unique<KernelCache>(layers_.size());
    }

    void run(std::span<CtcRound> rounds, bool frames, std::span<const float> roots, CtcRoundScores& scores) override {
        const at::NoGradGuard no_grad;
        gather(rounds);
        const auto sequences = static_cast<std::int64_t>(rounds.size()), T = config_.frames,
                   V = static_cast<std::int64_t>(config_.vocabulary.size());
        const std::int64_t A = frames ? sequences * T : 0;
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            Layer& layer = layers_[l];
            layer.frames.clear();
            for (std::int64_t i = 0; i < A; ++i) {
                const CtcRound& round = rounds[static_cast<std::size_t>(i / T)];
                layer.frames.push_back(
                    {&static_cast<KernelCache&>(*round.cache).layers[l], round.committed + i % T, round.committed + T});
            }
            layer.kernels.prepare(layer.context, layer.frames);
        }
        const std::int64_t all = A + (frames ? std::ssize(roots) / H_ : 0);
        fused_.resize(static_cast<std::size_t>(rows_ * H_)), x_.resize(static_cast<std::size_t>(all * H_));
        scores.logits.resize(static_cast<std::size_t>(all * V)), scores.gate.resize(static_cast<std::size_t>(A));
        if (all > A) std::ranges::copy(roots, x_.begin() + static_cast<std::ptrdiff_t>(A * H_));
        team_.run([&](TeamMember& member) {
            take_up(member);
            if (frames) draft(member, rounds, A, all, scores);
        });
    }

private:
    struct Layer {
        LayerKernels kernels;
        std::vector<LayerRow> context, frames;  // of the round
    };

    /// Inputs of the rows that are new, and behind them those of sequences without a committed token: u_{-1}.
    void gather(std::span<CtcRound> rounds) {
        std::vector<TokenId> tokens;
        std::vector<std::pair<const CtcRound*, std::int64_t>> first;  // a round's first row
        last_.clear();
        for (Layer& layer : layers_) layer.context.clear();
        for (CtcRound& round : rounds) {
            auto& cache = static_cast<KernelCache&>(*round.cache);
            const auto rows = static_cast<std::int64_t>(round.next.size());
            if (rows == 0) continue;
            first.emplace_back(&round, static_cast<std::int64_t>(tokens.size()));
            for (std::size_t l = 0; l < layers_.size(); ++l)
                for (std::int64_t i = round.committed - rows; i < round.committed; ++i)
                    layers_[l].context.push_back({&cache.layers[l], i, 0});
            tokens.insert(tokens.end(), round.next.begin(), round.next.end());
            last_.emplace_back(&cache, static_cast<std::int64_t>(tokens.size()) - 1);
        }
        for (CtcRound& round : rounds) {
            if (round.committed > 0) continue;
            last_.emplace_back(&static_cast<KernelCache&>(*round.cache), static_cast<std::int64_t>(tokens.size()));
            tokens.push_back(round.pending);
        }
        rows_ = static_cast<std::int64_t>(tokens.size());
        input_.assign(static_cast<std::size_t>(rows_ * in_), 0.0F);
        if (tokens.empty()) return;
        const at::Tensor embedded = cpu_floats(head_.embed(tokens));
        put(embedded, 0, H_, config_.embedding_scale, 0, 0);
        for (const auto& [round, begin] : first) {
            const at::Tensor features = cpu_floats(round->features);
            put(features, 0, H_, config_.feature_scale, begin, H_);
            put(features, H_, in_ - H_, 1.0, begin, 2 * H_);  // those of inner layers
        }
    }

    /// Columns [from, to) of x times `scale` into the inputs of the rows from `row` on, from `column` on.
    void put(const at::Tensor& x, std::int64_t from, std::int64_t to, double scale, std::int64_t row,
             std::int64_t column) {
        const auto factor = static_cast<float>(scale);
        for (std::int64_t i = 0; i < x.size(0); ++i) {
            const float* values = x.const_data_ptr<float>() + i * x.size(1);
            float* place = input_.data() + (row + i) * in_ + column;
            for (std::int64_t k = from; k < to; ++k) place[k - from] = values[k] * factor;
        }
    }

    void take_up(TeamMember& member) {
        if (rows_ == 0) return;
        rows_in_.assign(member, input_.data(), rows_, in_, in_, fuse_.format());
        member.barrier();
        fuse_.multiply(member, rows_in_, fused_.data(), H_);
        for (Layer& layer : layers_) layer.kernels.take_up(member, fused_.data());
        member.barrier();
        const auto mine = member.range(static_cast<std::int64_t>(last_.size()));
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const auto& [cache, row] = last_[static_cast<std::size_t>(i)];
            cache->last_fused.assign(fused_.data() + row * H_, fused_.data() + (row + 1) * H_);
        }
        member.barrier();
    }

    void draft(TeamMember& member, std::span<CtcRound> rounds, std::int64_t A, std::int64_t all,
               CtcRoundScores& scores) {
        const std::int64_t T = config_.frames;
        const auto first = member.range(A);
        for (std::int64_t i = first.begin; i < first.end; ++i) {
            const auto& cache = static_cast<const KernelCache&>(*rounds[static_cast<std::size_t>(i / T)].cache);
            std::copy_n(cache.last_fused.data(), H_, x_.data() + i * H_);
            add_row(x_.data() + i * H_, queries_.data() + i % T * H_, H_);
        }
        for (Layer& layer : layers_) layer.kernels.run(member, x_.data());
        const auto mine = member.range(A);  // others than at first, where a member left
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            float* row = x_.data() + i * H_;
            rms_norm_row(row, H_, final_norm_.data(), static_cast<float>(config_.norm_eps), row);
            float g = blank_bias_;
            for (std::int64_t k = 0; k < H_; ++k) g += row[k] * blank_[static_cast<std::size_t>(k)];
            scores.gate[static_cast<std::size_t>(i)] = g;
        }
        member.barrier();
        rows_in_.assign(member, x_.data(), all, H_, H_, output_.format());
        member.barrier();
        output_.multiply(member, rows_in_, scores.logits.data(), static_cast<std::int64_t>(config_.vocabulary.size()));
    }

    CtcConfig config_;
    TargetHead head_;
    ThreadTeam& team_;
    std::int64_t H_, in_;  // in_: columns of fuse
    std::vector<float> final_norm_, queries_, blank_;
    float blank_bias_;
    PackedLinear fuse_;
    std::vector<Layer> layers_;
    PackedLinear output_;  // the target's rows of the draft vocabulary
    PackedRows rows_in_;

    std::int64_t rows_ = 0;
    std::vector<std::pair<KernelCache*, std::int64_t>> last_;  // row of a sequence's u_{n-1}
    std::vector<float> input_, fused_, x_;
};

}  // namespace

bool kernels_fit(const CtcConfig& config) { return LayerKernels::fit(layer_sizes(config)); }

CtcBodies make_ctc_kernels(const CtcConfig& config, CtcWeights weights, const TargetHead& head, ThreadTeam& team,
                           bool eight_bits) {
    const PackedLinear output =
        pack_rows(eight_bits ? WeightFormat::int8 : WeightFormat::q5_1, config.vocabulary, head.output_rows, team);
    CtcBodies made;
    made.backend = std::make_unique<KernelBackend>(config, weights, head, output, team, eight_bits);
    // Packed: nothing reads them again, and the look-up tables that come now are the most that loading holds.
    weights.fuse.reset(), weights.layers.clear(), weights.queries.reset();
    if (config.conditioning == CtcConditioning::prefix)
        made.prediction = std::make_unique<PackedPrediction>(config, std::move(weights), head, output, team);
    return made;
}

}  // namespace outrider
