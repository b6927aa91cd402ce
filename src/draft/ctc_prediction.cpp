#include "ctc_prediction.hpp"

#include <Eigen/Core>

#include <cmath>

#include <outrider/core/error.hpp>

namespace outrider {

namespace {

std::vector<float> floats(const at::Tensor& tensor) {
    const at::Tensor flat = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

using Matrix = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using Vector = Eigen::Map<const Eigen::VectorXf>;
using Output = Eigen::Map<Eigen::VectorXf>;

}  // namespace

CtcPrediction::CtcPrediction(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head)
    : hidden_(config.hidden), rank_(config.prefix_rank), embedding_scale_(config.embedding_scale), feature_scale_(config.feature_scale),
      embed_(head.embed), in_(floats(weights.prefix_in)), bias_(floats(weights.prefix_bias)), out_(floats(weights.prefix_out)),
      column_(static_cast<std::size_t>(head.vocabulary), -1), g_(static_cast<std::size_t>(rank_)) {
    const at::Tensor w = weights.prefix_in.detach().to(at::kCPU, at::kFloat);
    const at::Tensor rows = head.embed(config.vocabulary).to(at::kCPU, at::kFloat) * embedding_scale_;
    last_ = floats(at::linear(rows, w.slice(1, 0, hidden_)));
    second_ = floats(at::linear(rows, w.slice(1, hidden_, 2 * hidden_)));
    for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
        column_[static_cast<std::size_t>(config.vocabulary[i])] = static_cast<std::int32_t>(i);
}

std::vector<float> CtcPrediction::product(std::int64_t part, std::span<const float> x) const {
    std::vector<float> y(static_cast<std::size_t>(rank_), 0.0F);
    if (x.empty()) return y;
    const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0, Eigen::OuterStride<>> w(
        in_.data() + part * hidden_, rank_, hidden_, Eigen::OuterStride<>(3 * hidden_));
    Output(y.data(), rank_).noalias() = w * Vector(x.data(), hidden_);
    return y;
}

CtcPrediction::Start CtcPrediction::start(std::span<const float> feature, TokenId before, TokenId pending) const {
    const auto embedding = [&](TokenId token) { return floats(embed_(std::span(&token, 1)) * embedding_scale_); };
    const auto part = [&](std::int64_t which, const std::vector<float>& table, TokenId token) {
        const std::int32_t column = column_[static_cast<std::size_t>(token)];
        if (column >= 0) return std::vector<float>(row(table, column), row(table, column) + rank_);
        return product(which, embedding(token));
    };
    Start result;
    std::vector<float> scaled(feature.begin(), feature.end());
    for (float& x : scaled) x *= static_cast<float>(feature_scale_);
    result.base = product(2, scaled);
    Output(result.base.data(), rank_) += Vector(bias_.data(), rank_);
    result.pending_last = part(0, last_, pending);
    result.pending_second = part(1, second_, pending);
    result.before = before == kNoToken ? std::vector<float>(static_cast<std::size_t>(rank_), 0.0F) : part(1, second_, before);
    return result;
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
    const auto column = [&](std::size_t back) { return chosen_[static_cast<std::size_t>(prefix.candidates[depth - back])]; };
    const float* last = depth == 0 ? start.pending_last.data() : row(last_, column(1));
    const float* second = depth == 0 ? start.before.data() : depth == 1 ? start.pending_second.data() : row(second_, column(2));
    for (std::size_t i = 0; i < g_.size(); ++i) {
        const float x = start.base[i] + last[i] + second[i];
        g_[i] = x / (1.0F + std::exp(-x));
    }
    const auto count = static_cast<Eigen::Index>(out.size());
    Output scores(out.data(), count);
    scores.noalias() = Matrix(rows_.data(), count, rank_) * Vector(g_.data(), rank_);
    scores = scores.array().min(60.0F).exp().matrix();
}

}  // namespace outrider
