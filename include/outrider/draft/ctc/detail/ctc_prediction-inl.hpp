// The prediction network in tensor operations, on any device: the reference for the kernels.
#pragma once

#include <outrider/draft/ctc/detail/ctc_prediction.hpp>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <utility>

#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/floats.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider::detail {

/// Matrices and tables are float32 on the device of the weights. Rows of candidates are fetched from there once a
/// draft.
class TensorPrediction final : public CtcPrediction {
public:
    /// `output`: the target's rows of the draft vocabulary [V, H], on the device of the weights.
    TensorPrediction(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head,
                     const at::Tensor& output)
        : config_(config),
          embed_(head.embed),
          device_(weights.prefix_in.device()),
          column_(static_cast<std::size_t>(head.vocabulary), -1) {
        const at::NoGradGuard no_grad;
        const auto floats = [](const at::Tensor& weight) { return weight.detach().to(at::kFloat); };
        const std::int64_t H = config.hidden;
        const at::Tensor in = floats(weights.prefix_in), out = floats(weights.prefix_out);
        by_last_ = in.slice(1, 0, H), by_second_ = in.slice(1, H, 2 * H), by_feature_ = in.slice(1, 2 * H);
        bias_ = floats(weights.prefix_bias);
        const at::Tensor embedded = embed(config.vocabulary);
        last_ = aten::linear(embedded, by_last_), second_ = aten::linear(embedded, by_second_);
        const bool of_target = config.prefix_output == HeadOutput::target;
        if (config.prefix_bottleneck > 0) {
            first_ = floats(weights.prefix_narrow);
            rows_ = of_target ? aten::matmul(output, out) : out;
            if (of_target) lift_ = out;
        } else if (of_target) {
            first_ = out, rows_ = output;
        } else {
            rows_ = out;
        }
        for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
            column_[static_cast<std::size_t>(config.vocabulary[i])] = static_cast<std::int64_t>(i);
    }

    [[nodiscard]] std::size_t bytes() const override {
        std::size_t sum = column_.size() * sizeof(column_[0]);
        for (const at::Tensor& held : {by_last_, bias_, last_, second_, first_, rows_})
            if (held.defined()) sum += held.storage().nbytes();
        return sum;
    }
    [[nodiscard]] std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<Chosen>(); }

    [[nodiscard]] std::vector<float> start(std::span<const Text> texts, bool root_states) override {
        const at::NoGradGuard no_grad;
        std::vector<TokenId> pending, before;
        std::vector<float> known;
        at::Tensor features = aten::zeros({std::ssize(texts), config_.hidden}, at::kFloat);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            pending.push_back(texts[i].pending), before.push_back(std::max<TokenId>(texts[i].before, 0));
            known.push_back(texts[i].before == kNoToken ? 0.0F : 1.0F);
            std::ranges::copy(texts[i].feature,
                              features.mutable_data_ptr<float>() + static_cast<std::int64_t>(i) * config_.hidden);
        }
        const at::Tensor embedded = embed(pending), there = at::tensor(known).to(device_).unsqueeze(1);
        base_ = aten::linear(features.to(device_) * config_.feature_scale, by_feature_) + bias_;
        pending_last_ = aten::linear(embedded, by_last_), pending_second_ = aten::linear(embedded, by_second_);
        before_ = aten::linear(embed(before), by_second_) * there;
        if (!root_states || config_.prefix_output != HeadOutput::target) return {};
        at::Tensor state = aten::linear(aten::silu(base_ + pending_last_ + before_), first_);
        if (lift_.defined()) state = aten::linear(state, lift_);
        return floats_of(state);
    }

    void scores(TeamMember& member, std::size_t text, std::span<const CtcPrefix> prefixes, float* out,
                std::int64_t stride, Scratch&) const override {
        if (member.index() != 0) return;  // one call of the tensor library, which has threads of its own
        const at::NoGradGuard no_grad;
        at::Tensor state = states(text, prefixes);
        if (first_.defined()) state = aten::linear(state, first_);
        const at::Tensor result = aten::linear(state, rows_);
        at::from_blob(out, {std::ssize(prefixes), stride}).slice(1, 0, result.size(1)).copy_(result);
    }

    void fold_root(std::size_t text, std::span<float> logits, Scratch& given) const override {
        const at::NoGradGuard no_grad;
        auto& scratch = static_cast<Chosen&>(given);
        const auto i = static_cast<std::int64_t>(text);
        scratch.parts = floats_of(aten::stack({base_[i], pending_last_[i], pending_second_[i], before_[i]}));
        scratch.root = state(scratch.part(kBase, config_.prefix_rank), scratch.part(kPendingLast, config_.prefix_rank),
                             scratch.part(kBefore, config_.prefix_rank));
        const std::size_t columns = config_.vocabulary.size();
        std::vector<float> row(columns);
        TeamMember alone;
        const CtcPrefix empty;
        scores(alone, text, std::span(&empty, 1), row.data(), static_cast<std::int64_t>(columns), given);
        for (std::size_t begin = 0; begin < logits.size(); begin += columns)
            for (std::size_t c = 0; c < columns; ++c) logits[begin + c] += row[c];
    }

    void choose(std::span<const TokenId> candidates, Scratch& given) const override {
        const at::NoGradGuard no_grad;
        auto& scratch = static_cast<Chosen&>(given);
        std::vector<std::int64_t> columns;
        for (const TokenId token : candidates) columns.push_back(column_[static_cast<std::size_t>(token)]);
        const at::Tensor index = at::tensor(columns, at::kLong).to(device_);
        const at::Tensor rows = rows_.index_select(0, index);
        scratch.rows = floats_of(first_.defined() ? aten::matmul(rows, first_) : rows);
        scratch.last = floats_of(last_.index_select(0, index)),
        scratch.second = floats_of(second_.index_select(0, index));
    }

    void factors(std::size_t, const PrefixContext& prefix, std::span<float> out, Scratch& given) const override {
        const auto& scratch = static_cast<const Chosen&>(given);
        const std::int64_t R = config_.prefix_rank;
        const std::size_t depth = prefix.candidates.size();
        const auto looked_up = [&](const std::vector<float>& table, std::size_t back) {
            return table.data() + static_cast<std::ptrdiff_t>(prefix.candidates[depth - back]) * R;
        };
        const float* last = depth == 0 ? scratch.part(kPendingLast, R) : looked_up(scratch.last, 1);
        const float* second = depth == 0   ? scratch.part(kBefore, R)
                              : depth == 1 ? scratch.part(kPendingSecond, R)
                                           : looked_up(scratch.second, 2);
        std::vector<float> g = state(scratch.part(kBase, R), last, second);
        for (std::size_t i = 0; i < g.size(); ++i) g[i] -= scratch.root[i];
        using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
        const auto count = static_cast<Eigen::Index>(out.size());
        Eigen::Map<Eigen::VectorXf> scores(out.data(), count);
        scores.noalias() =
            Eigen::Map<const Matrix>(scratch.rows.data(), count, R) * Eigen::Map<const Eigen::VectorXf>(g.data(), R);
        scores = scores.array().min(60.0F).exp().matrix();
    }

private:
    enum Part : std::int64_t { kBase, kPendingLast, kPendingSecond, kBefore };
    struct Chosen final : Scratch {
        std::vector<float> parts;         ///< [4, R] of the text, see Part
        std::vector<float> root;          ///< [R] g of the empty prefix
        std::vector<float> last, second;  ///< [candidates, R] their rows of the tables
        std::vector<float> rows;          ///< [candidates, R] their output rows, all matrices between in them

        [[nodiscard]] const float* part(Part which, std::int64_t rank) const { return parts.data() + which * rank; }
    };

    /// [tokens, H] as the network takes them.
    [[nodiscard]] at::Tensor embed(std::span<const TokenId> tokens) const {
        return (embed_(tokens) * config_.embedding_scale).to(device_, at::kFloat);
    }

    /// g of a sum of three parts [R].
    [[nodiscard]] std::vector<float> state(const float* base, const float* last, const float* second) const {
        std::vector<float> g(static_cast<std::size_t>(config_.prefix_rank));
        for (std::size_t i = 0; i < g.size(); ++i) {
            const float x = base[i] + last[i] + second[i];
            g[i] = x / (1.0F + std::exp(-x));
        }
        return g;
    }

    /// g of each prefix [prefixes, R].
    [[nodiscard]] at::Tensor states(std::size_t text, std::span<const CtcPrefix> prefixes) const {
        std::vector<std::int64_t> length, last, second;
        for (const CtcPrefix& prefix : prefixes) {
            length.push_back(prefix.length);
            last.push_back(std::max(prefix.last, 0)), second.push_back(std::max(prefix.last_but_one, 0));
        }
        const auto on_device = [&](const std::vector<std::int64_t>& numbers) {
            return at::tensor(numbers, at::kLong).to(device_);
        };
        const auto of_text = [&](const at::Tensor& part) { return part[static_cast<std::int64_t>(text)].unsqueeze(0); };
        const at::Tensor lengths = on_device(length).unsqueeze(1);
        const at::Tensor newest =
            aten::where(lengths.eq(0), of_text(pending_last_), last_.index_select(0, on_device(last)));
        const at::Tensor older = aten::where(
            lengths.eq(0), of_text(before_),
            aten::where(lengths.eq(1), of_text(pending_second_), second_.index_select(0, on_device(second))));
        return aten::silu(of_text(base_) + newest + older);
    }

    CtcConfig config_;
    std::function<at::Tensor(std::span<const TokenId>)> embed_;
    at::Device device_;
    at::Tensor by_last_, by_second_, by_feature_;  // [R, H] views of one matrix
    at::Tensor bias_;                              // [R]
    at::Tensor last_, second_;                     // [V, R] the draft vocabulary's parts
    at::Tensor first_;                             // [width, R] where there is a matrix before the output rows
    at::Tensor lift_;                              // [H, r] with a bottleneck and the target's rows
    at::Tensor rows_;                              // [V, width] output rows
    std::vector<std::int64_t> column_;             // [target vocabulary] column or -1
    at::Tensor base_, pending_last_, pending_second_, before_;  // [texts, R] of the round
};

}  // namespace outrider::detail
