#include "ctc_prediction.hpp"

#include <Eigen/Core>

#include <cmath>

#include <outrider/core/error.hpp>
#include <outrider/tensor/row_ops.hpp>

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
      ones_(static_cast<std::size_t>(rank_), 1.0F),
      column_(static_cast<std::size_t>(head.vocabulary), -1) {
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

/// [rows, R] of x [rows, H].
std::vector<float> CtcPrediction::products(const PackedLinear& matrix, std::span<const float> x) const {
    const std::int64_t rows = std::ssize(x) / hidden_;
    std::vector<float> y(static_cast<std::size_t>(rows * rank_), 0.0F);
    if (rows == 0) return y;
    PackedRows rows_in;
    team_->run([&](TeamMember& member) {
        rows_in.assign(member, x.data(), rows, hidden_, hidden_, matrix.format());
        member.barrier();
        matrix.multiply(member, rows_in, y.data(), rank_);
    });
    return y;
}

std::vector<CtcPrediction::Start> CtcPrediction::starts(std::span<const Text> texts) const {
    const auto R = static_cast<std::size_t>(rank_);
    std::vector<Start> starts(texts.size());
    std::vector<float> features;
    std::vector<TokenId> last, second;  // outside the draft vocabulary: nothing to look up
    const auto looked_up = [&](const std::vector<float>& table, TokenId token, std::vector<float>& part) {
        const std::int32_t column = column_[static_cast<std::size_t>(token)];
        if (column >= 0) part.assign(row(table, column), row(table, column) + rank_);
        return column >= 0;
    };
    std::vector<std::vector<float>*> of_last, of_second, of_feature;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const Text& text = texts[i];
        Start& start = starts[i];
        start.base.assign(R, 0.0F), start.before.assign(R, 0.0F);
        for (const float x : text.feature) features.push_back(x * static_cast<float>(feature_scale_));
        if (!text.feature.empty()) of_feature.push_back(&start.base);
        if (!looked_up(last_, text.pending, start.pending_last))
            last.push_back(text.pending), of_last.push_back(&start.pending_last);
        if (!looked_up(second_, text.pending, start.pending_second))
            second.push_back(text.pending), of_second.push_back(&start.pending_second);
        if (text.before != kNoToken && !looked_up(second_, text.before, start.before))
            second.push_back(text.before), of_second.push_back(&start.before);
    }
    const auto compute = [&](const PackedLinear& matrix, std::span<const float> x,
                             const std::vector<std::vector<float>*>& parts) {
        const std::vector<float> y = products(matrix, x);
        for (std::size_t i = 0; i < parts.size(); ++i)
            parts[i]->assign(y.data() + i * R, y.data() + (i + 1) * R);
    };
    const auto embedded = [&](std::span<const TokenId> tokens) {
        return tokens.empty() ? std::vector<float>{} : floats_of(embed_(tokens) * embedding_scale_);
    };
    compute(by_feature_, features, of_feature);
    compute(by_last_, embedded(last), of_last);
    compute(by_second_, embedded(second), of_second);
    for (Start& start : starts) Output(start.base.data(), rank_) += Vector(bias_.data(), rank_);
    return starts;
}

void CtcPrediction::state_of(const float* base, const float* last, const float* second, float* g) const {
    for (std::int64_t i = 0; i < rank_; ++i) g[i] = base[i] + last[i] + second[i];
    silu_gate_row(g, ones_.data(), rank_, g);
}

void CtcPrediction::scores(TeamMember& member, const Start& start, std::span<const CtcPrefix> prefixes, float* out,
                           std::int64_t stride, Scratch& scratch) const {
    const std::int64_t rows = std::ssize(prefixes);
    if (member.index() == 0) scratch.g.resize(prefixes.size() * static_cast<std::size_t>(rank_));
    member.barrier();
    const TeamMember::Range mine = member.range(rows);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const CtcPrefix& prefix = prefixes[static_cast<std::size_t>(i)];
        const float* last = prefix.length == 0 ? start.pending_last.data() : row(last_, prefix.last);
        const float* second = prefix.length == 0   ? start.before.data()
                              : prefix.length == 1 ? start.pending_second.data()
                                                   : row(second_, prefix.last_but_one);
        state_of(start.base.data(), last, second, scratch.g.data() + i * rank_);
    }
    member.barrier();
    scratch.rows_in.assign(member, scratch.g.data(), rows, rank_, rank_, out_packed_.format());
    member.barrier();
    out_packed_.multiply(member, scratch.rows_in, out, stride);
}

void CtcPrediction::fold_root(const Start& start, std::span<float> logits, Scratch& scratch) const {
    const std::size_t count = out_.size() / static_cast<std::size_t>(rank_);
    scratch.root.resize(count);
    const CtcPrefix empty;
    TeamMember alone;
    scores(alone, start, std::span(&empty, 1), scratch.root.data(), static_cast<std::int64_t>(count), scratch);
    scratch.root_g.assign(scratch.g.begin(), scratch.g.begin() + rank_);
    for (std::size_t begin = 0; begin < logits.size(); begin += count)
        Output(logits.data() + begin, static_cast<Eigen::Index>(count)) +=
            Vector(scratch.root.data(), static_cast<Eigen::Index>(count));
}

void CtcPrediction::choose(std::span<const TokenId> candidates, Scratch& scratch) const {
    scratch.chosen.clear();
    scratch.rows.resize(candidates.size() * static_cast<std::size_t>(rank_));
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        scratch.chosen.push_back(column_[static_cast<std::size_t>(candidates[i])]);
        std::copy_n(row(out_, scratch.chosen.back()), rank_,
                    scratch.rows.begin() + static_cast<std::ptrdiff_t>(i) * rank_);
    }
}

void CtcPrediction::factors(const Start& start, const PrefixContext& prefix, std::span<float> out,
                            Scratch& scratch) const {
    const std::size_t depth = prefix.candidates.size();
    const auto column = [&](std::size_t back) {
        return scratch.chosen[static_cast<std::size_t>(prefix.candidates[depth - back])];
    };
    const float* last = depth == 0 ? start.pending_last.data() : row(last_, column(1));
    const float* second = depth == 0   ? start.before.data()
                          : depth == 1 ? start.pending_second.data()
                                       : row(second_, column(2));
    scratch.g.resize(static_cast<std::size_t>(rank_));
    state_of(start.base.data(), last, second, scratch.g.data());
    for (std::size_t i = 0; i < scratch.g.size(); ++i) scratch.g[i] -= scratch.root_g[i];
    const auto count = static_cast<Eigen::Index>(out.size());
    Output scores(out.data(), count);
    scores.noalias() = Matrix(scratch.rows.data(), count, rank_) * Vector(scratch.g.data(), rank_);
    scores = scores.array().min(60.0F).exp().matrix();
}

}  // namespace outrider
