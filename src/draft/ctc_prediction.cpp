#include "ctc_prediction.hpp"

#include <Eigen/Core>

#include <cmath>

#include <outrider/core/error.hpp>

#include "layer_kernels.hpp"

namespace outrider {

namespace {

using Matrix = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using Vector = Eigen::Map<const Eigen::VectorXf>;
using Output = Eigen::Map<Eigen::VectorXf>;

}  // namespace

CtcPrediction::CtcPrediction(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head,
                             WeightFormat format, ThreadTeam& team)
    : hidden_(config.hidden),
      rank_(config.prefix_rank),
      embedding_scale_(config.embedding_scale),
      feature_scale_(config.feature_scale),
      embed_(head.embed),
      team_(&team),
      bias_(floats_of(weights.prefix_bias)),
      out_(floats_of(weights.prefix_out)),
      column_(static_cast<std::size_t>(head.vocabulary), -1),
      g_(static_cast<std::size_t>(rank_)) {
    const at::Tensor w = weights.prefix_in.detach().to(at::kCPU, at::kFloat);
    const at::Tensor rows = head.embed(config.vocabulary).to(at::kCPU, at::kFloat) * embedding_scale_;
    const auto part = [&](std::int64_t i) { return w.slice(1, i * hidden_, (i + 1) * hidden_); };
    last_ = floats_of(at::linear(rows, part(0)));
    second_ = floats_of(at::linear(rows, part(1)));
    by_last_ = PackedLinear::pack(WeightFormat::f32, floats_of(part(0)), rank_, hidden_, team_);
    by_second_ = PackedLinear::pack(WeightFormat::f32, floats_of(part(1)), rank_, hidden_, team_);
    by_feature_ = PackedLinear::pack(WeightFormat::f32, floats_of(part(2)), rank_, hidden_, team_);
    out_packed_ = PackedLinear::pack(format, out_, static_cast<std::int64_t>(config.vocabulary.size()), rank_, team_);
    for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
        column_[static_cast<std::size_t>(config.vocabulary[i])] = static_cast<std::int32_t>(i);
}

void CtcPrediction::multiply(const PackedLinear& matrix, const float* x, std::int64_t rows, float* y,
                             std::int64_t stride) const {
    team_->run([&](TeamMember& member) {
        rows_in_.assign(member, x, rows, matrix.in(), matrix.in(), matrix.format());
        member.barrier();
        matrix.multiply(member, rows_in_, y, stride);
    });
}

std::vector<float> CtcPrediction::product(const PackedLinear& matrix, std::span<const float> x) const {
    std::vector<float> y(static_cast<std::size_t>(rank_), 0.0F);
    if (!x.empty()) multiply(matrix, x.data(), 1, y.data(), rank_);
    return y;
}

CtcPrediction::Start CtcPrediction::start(std::span<const float> feature, TokenId before, TokenId pending) const {
    const auto embedding = [&](TokenId token) { return floats_of(embed_(std::span(&token, 1)) * embedding_scale_); };
    const auto part = [&](const PackedLinear& matrix, const std::vector<float>& table, TokenId token) {
        const std::int32_t column = column_[static_cast<std::size_t>(token)];
        if (column >= 0) return std::vector<float>(row(table, column), row(table, column) + rank_);
        return product(matrix, embedding(token));
    };
    Start result;
    std::vector<float> scaled(feature.begin(), feature.end());
    for (float& x : scaled) x *= static_cast<float>(feature_scale_);
    result.base = product(by_feature_, scaled);
    Output(result.base.data(), rank_) += Vector(bias_.data(), rank_);
    result.pending_last = part(by_last_, last_, pending);
    result.pending_second = part(by_second_, second_, pending);
    result.before = before == kNoToken ? std::vector<float>(static_cast<std::size_t>(rank_), 0.0F)
                                       : part(by_second_, second_, before);
    return result;
}

void CtcPrediction::state_of(const float* base, const float* last, const float* second, float* g) const {
    for (std::int64_t i = 0; i < rank_; ++i) {
        const float x = base[i] + last[i] + second[i];
        g[i] = x / (1.0F + std::exp(-x));
    }
}

void CtcPrediction::scores(const Start& start, std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
    g_.resize(prefixes.size() * static_cast<std::size_t>(rank_));
    for (std::size_t i = 0; i < prefixes.size(); ++i) {
        const CtcPrefix& prefix = prefixes[i];
        const float* last = prefix.length == 0 ? start.pending_last.data() : row(last_, prefix.last);
        const float* second = prefix.length == 0   ? start.before.data()
                              : prefix.length == 1 ? start.pending_second.data()
                                                   : row(second_, prefix.last_but_one);
        state_of(start.base.data(), last, second, g_.data() + i * static_cast<std::size_t>(rank_));
    }
    multiply(out_packed_, g_.data(), static_cast<std::int64_t>(prefixes.size()), out, stride);
}

void CtcPrediction::fold_root(const Start& start, std::span<float> logits) {
    const std::size_t count = out_.size() / static_cast<std::size_t>(rank_);
    root_.resize(count);
    const CtcPrefix empty;
    scores(start, std::span(&empty, 1), root_.data(), static_cast<std::int64_t>(count));
    root_g_.assign(g_.begin(), g_.begin() + rank_);
    for (std::size_t begin = 0; begin < logits.size(); begin += count)
        Output(logits.data() + begin, static_cast<Eigen::Index>(count)) +=
            Vector(root_.data(), static_cast<Eigen::Index>(count));
}

void CtcPrediction::choose(std::span<const TokenId> candidates) {
    chosen_.clear();
    rows_.resize(candidates.size() * static_cast<std::size_t>(rank_));
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        chosen_.push_back(column_[static_cast<std::size_t>(candidates[i])]);
        std::copy_n(row(out_, chosen_.back()), rank_, rows_.begin() + static_cast<std::ptrdiff_t>(i) * rank_);
    }
}

void CtcPrediction::factors(const Start& start, const PrefixContext& prefix, std::span<float> out) {
    const std::size_t depth = prefix.candidates.size();
    const auto column = [&](std::size_t back) {
        return chosen_[static_cast<std::size_t>(prefix.candidates[depth - back])];
    };
    const float* last = depth == 0 ? start.pending_last.data() : row(last_, column(1));
    const float* second = depth == 0   ? start.before.data()
                          : depth == 1 ? start.pending_second.data()
                                       : row(second_, column(2));
    g_.resize(static_cast<std::size_t>(rank_));
    state_of(start.base.data(), last, second, g_.data());
    for (std::size_t i = 0; i < g_.size(); ++i) g_[i] -= root_g_[i];
    const auto count = static_cast<Eigen::Index>(out.size());
    Output scores(out.data(), count);
    scores.noalias() = Matrix(rows_.data(), count, rank_) * Vector(g_.data(), rank_);
    scores = scores.array().min(60.0F).exp().matrix();
}

}  // namespace outrider
