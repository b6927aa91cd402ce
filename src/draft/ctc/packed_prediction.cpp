#include "packed_prediction.hpp"

#include <Eigen/Core>

#include <array>
#include <cmath>

#include <outrider/core/error.hpp>
#include "kernels/row_ops.hpp"

#include "draft/nn/layer_kernels.hpp"

namespace outrider {

namespace {

using Matrix = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using Vector = Eigen::Map<const Eigen::VectorXf>;
using Output = Eigen::Map<Eigen::VectorXf>;

}  // namespace

PackedPrediction::PackedPrediction(const CtcConfig& config, CtcWeights weights, const TargetHead& head,
                                   PackedLinear output, ThreadTeam& team)
    : hidden_(config.hidden),
      rank_(config.prefix_rank),
      columns_(static_cast<std::int64_t>(config.vocabulary.size())),
      targets_rows_(config.prefix_output == HeadOutput::target),
      narrow_(config.prefix_bottleneck > 0),
      width_(narrow_         ? config.prefix_bottleneck
             : targets_rows_ ? hidden_
                             : rank_),
      embedding_scale_(config.embedding_scale),
      feature_scale_(config.feature_scale),
      embed_(head.embed),
      output_rows_(head.output_rows),
      team_(&team),
      bias_(floats_of(weights.prefix_bias)),
      ones_(static_cast<std::size_t>(rank_), 1.0F),
      column_(static_cast<std::size_t>(head.vocabulary), -1) {
    const auto columns_of = [&](std::int64_t i) {
        return cpu_floats(weights.prefix_in.detach().slice(1, i * hidden_, (i + 1) * hidden_));
    };
    const WeightFormat packed = output.format();
    last_ = table_of(config, columns_of(0)), second_ = table_of(config, columns_of(1));
    by_last_ = pack_as(packed, columns_of(0), team);
    by_second_ = pack_as(packed, columns_of(1), team);
    by_feature_ = pack_as(packed, columns_of(2), team);
    weights.prefix_in.reset();  // and its file's pages: loading holds the most behind here
    take_output(config, weights, std::move(output));
    for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
        column_[static_cast<std::size_t>(config.vocabulary[i])] = static_cast<std::int32_t>(i);
}

PackedPrediction::Table PackedPrediction::table_of(const CtcConfig& config, const at::Tensor& columns) const {
    Table made;
    made.resize(config.vocabulary.size() * static_cast<std::size_t>(rank_));
    for_parts(config.vocabulary, [&](std::size_t first, std::span<const TokenId> tokens) {
        const at::Tensor rows = cpu_floats(embed_(tokens)) * embedding_scale_;
        const at::Tensor part = at::linear(rows, columns);
        const auto* values = part.const_data_ptr<float>();
        const auto at = static_cast<std::ptrdiff_t>(first) * rank_;
        std::transform(values, values + part.numel(), made.begin() + at, [](float x) { return c10::BFloat16(x); });
    });
    return made;
}

void PackedPrediction::take_output(const CtcConfig& config, const CtcWeights& weights, PackedLinear output) {
    const WeightFormat packed = output.format();
    if (narrow_ || targets_rows_) {
        first_ = floats_of(narrow_ ? weights.prefix_narrow : weights.prefix_out);
        project_ = pack_as(packed, narrow_ ? weights.prefix_narrow : weights.prefix_out, *team_);
    }
    if (narrow_ || !targets_rows_) out_ = floats_of(weights.prefix_out);
    if (narrow_ && targets_rows_) {
        lift_ = pack_as(packed, weights.prefix_out, *team_);
        const at::Tensor narrow = cpu_floats(weights.prefix_out);
        own_ = pack_rows(
            packed, config.vocabulary,
            [&](std::span<const TokenId> tokens) { return at::matmul(cpu_floats(output_rows_(tokens)), narrow); },
            *team_);
    } else if (!targets_rows_) {
        own_ = pack_as(packed, weights.prefix_out, *team_);
    }
    rows_ = targets_rows_ && !narrow_ ? std::move(output) : own_;
}

std::size_t PackedPrediction::bytes() const {
    return bytes_of(by_last_, by_second_, by_feature_, project_, lift_, own_, bias_, first_, out_, column_) +
           bytes_of(last_, second_);
}

void PackedPrediction::multiply(TeamMember& member, const PackedLinear& matrix, std::span<const float> x,
                                std::span<float> y) {
    if (x.empty()) return;
    const std::int64_t in = matrix.in();
    member.barrier();
    rows_in_.assign(member, x.data(), std::ssize(x) / in, in, in, matrix.format());
    member.barrier();
    matrix.multiply(member, rows_in_, y.data(), matrix.out());
    member.barrier();
}

/// Products of one matrix, and where they go.
struct PackedPrediction::Products {
    const PackedLinear& matrix;
    std::vector<float> x = {}, y = {};
    std::vector<TokenId> tokens = {};  ///< outside the draft vocabulary: nothing to look up
    std::vector<std::vector<float>*> parts = {};
};

void PackedPrediction::look_up(const Table& table, TokenId token, std::vector<float>& part, Products& otherwise) const {
    const std::int32_t column = column_[static_cast<std::size_t>(token)];
    part.assign(static_cast<std::size_t>(rank_), 0.0F);
    if (column >= 0)
        add(row(table, column), part.data());
    else
        otherwise.tokens.push_back(token), otherwise.parts.push_back(&part);
}

void PackedPrediction::begin(const Text& text, Start& start, Products& of_feature, Products& of_last,
                             Products& of_second) const {
    const auto R = static_cast<std::size_t>(rank_);
    start.base.assign(R, 0.0F), start.before.assign(R, 0.0F);
    for (const float x : text.feature) of_feature.x.push_back(x * static_cast<float>(feature_scale_));
    if (!text.feature.empty()) of_feature.parts.push_back(&start.base);
    look_up(last_, text.pending, start.pending_last, of_last);
    look_up(second_, text.pending, start.pending_second, of_second);
    if (text.before != kNoToken) look_up(second_, text.before, start.before, of_second);
}

std::vector<float> PackedPrediction::start(std::span<const Text> texts, bool root_states) {
    const auto R = static_cast<std::size_t>(rank_);
    starts_.assign(texts.size(), {});
    Products of_feature{by_feature_}, of_last{by_last_}, of_second{by_second_};
    for (std::size_t i = 0; i < texts.size(); ++i) begin(texts[i], starts_[i], of_feature, of_last, of_second);
    const std::array<Products*, 3> all{&of_feature, &of_last, &of_second};
    for (Products* products : all) {
        if (!products->tokens.empty()) {
            products->x = floats_of(embed_(products->tokens));
            for (float& x : products->x) x *= static_cast<float>(embedding_scale_);
        }
        products->y.resize(products->parts.size() * R);
    }
    std::vector<float> states;
    if (root_states && targets_rows_) {
        root_g_.resize(texts.size() * R), root_narrow_.resize(texts.size() * static_cast<std::size_t>(width_));
        states.resize(texts.size() * static_cast<std::size_t>(hidden_));
    }
    team_->run([&](TeamMember& member) {
        for (Products* products : all) multiply(member, products->matrix, products->x, products->y);
        if (member.index() == 0) {
            for (const Products* products : all)
                for (std::size_t i = 0; i < products->parts.size(); ++i)
                    products->parts[i]->assign(products->y.data() + i * R, products->y.data() + (i + 1) * R);
            for (Start& start : starts_) Output(start.base.data(), rank_) += Vector(bias_.data(), rank_);
        }
        member.barrier();
        if (!states.empty()) this->root_states(member, states);
    });
    return states;
}

void PackedPrediction::root_states(TeamMember& member, std::vector<float>& states) {
    const auto mine = member.range(std::ssize(starts_));
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const Start& start = starts_[static_cast<std::size_t>(i)];
        state_of(start, part(start.pending_last), part(start.before), root_g_.data() + i * rank_);
    }
    multiply(member, project_, root_g_, narrow_ ? std::span(root_narrow_) : std::span(states));
    if (narrow_) multiply(member, lift_, root_narrow_, states);
}

void PackedPrediction::add(Part part, float* g) const {
    if (part.rounded)
        for (std::int64_t i = 0; i < rank_; ++i) g[i] += static_cast<float>(part.rounded[i]);
    else
        for (std::int64_t i = 0; i < rank_; ++i) g[i] += part.exact[i];
}

void PackedPrediction::state_of(const Start& start, Part last, Part second, float* g) const {
    std::copy_n(start.base.data(), rank_, g);
    add(last, g);
    add(second, g);
    silu_gate_row(g, ones_.data(), rank_, g);
}

void PackedPrediction::scores(TeamMember& member, std::size_t text, std::span<const CtcPrefix> prefixes, float* out,
                              std::int64_t stride, Scratch& given) const {
    const Start& start = starts_[text];
    auto& scratch = static_cast<Rows&>(given);
    const std::int64_t rows = std::ssize(prefixes);
    if (member.index() == 0) {
        scratch.g.resize(prefixes.size() * static_cast<std::size_t>(rank_));
        scratch.states.resize(prefixes.size() * static_cast<std::size_t>(width_));
    }
    member.barrier();
    const TeamMember::Range mine = member.range(rows);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const CtcPrefix& prefix = prefixes[static_cast<std::size_t>(i)];
        const Part last = prefix.length == 0 ? part(start.pending_last) : row(last_, prefix.last);
        const Part second = prefix.length == 0   ? part(start.before)
                            : prefix.length == 1 ? part(start.pending_second)
                                                 : row(second_, prefix.last_but_one);
        state_of(start, last, second, scratch.g.data() + i * rank_);
    }
    member.barrier();
    scratch.rows_in.assign(member, scratch.g.data(), rows, rank_, rank_, rows_.format());
    member.barrier();
    if (!first_.empty()) {
        project_.multiply(member, scratch.rows_in, scratch.states.data(), width_);
        member.barrier();
        scratch.rows_in.assign(member, scratch.states.data(), rows, width_, width_, rows_.format());
        member.barrier();
    }
    rows_.multiply(member, scratch.rows_in, out, stride);
}

void PackedPrediction::fold_root(std::size_t text, std::span<float> logits, Scratch& given) const {
    auto& scratch = static_cast<Rows&>(given);
    const auto count = static_cast<std::size_t>(columns_);
    scratch.root.resize(count);
    const CtcPrefix empty;
    TeamMember alone;
    scores(alone, text, std::span(&empty, 1), scratch.root.data(), static_cast<std::int64_t>(count), scratch);
    scratch.root_g.assign(scratch.g.begin(), scratch.g.begin() + rank_);
    for (std::size_t begin = 0; begin < logits.size(); begin += count)
        Output(logits.data() + begin, static_cast<Eigen::Index>(count)) +=
            Vector(scratch.root.data(), static_cast<Eigen::Index>(count));
}

void PackedPrediction::choose(std::span<const TokenId> candidates, Scratch& given) const {
    auto& scratch = static_cast<Rows&>(given);
    scratch.chosen.clear();
    for (const TokenId token : candidates) scratch.chosen.push_back(column_[static_cast<std::size_t>(token)]);
    if (targets_rows_) {
        scratch.rows = floats_of(output_rows_(candidates));
        return;
    }
    scratch.rows.clear();
    for (const std::int32_t column : scratch.chosen) {
        const auto first = out_.begin() + static_cast<std::ptrdiff_t>(column) * width_;
        scratch.rows.insert(scratch.rows.end(), first, first + width_);
    }
}

void PackedPrediction::factors(std::size_t text, const PrefixContext& prefix, std::span<float> out,
                               Scratch& given) const {
    const Start& start = starts_[text];
    auto& scratch = static_cast<Rows&>(given);
    const std::size_t depth = prefix.candidates.size();
    const auto column = [&](std::size_t back) {
        return scratch.chosen[static_cast<std::size_t>(prefix.candidates[depth - back])];
    };
    const Part last = depth == 0 ? part(start.pending_last) : row(last_, column(1));
    const Part second = depth == 0   ? part(start.before)
                        : depth == 1 ? part(start.pending_second)
                                     : row(second_, column(2));
    scratch.g.resize(static_cast<std::size_t>(rank_));
    state_of(start, last, second, scratch.g.data());
    for (std::size_t i = 0; i < scratch.g.size(); ++i) scratch.g[i] -= scratch.root_g[i];
    const auto through = [](const std::vector<float>& matrix, std::vector<float>& in, std::vector<float>& result) {
        const std::int64_t columns = std::ssize(in), rows = std::ssize(matrix) / columns;
        result.resize(static_cast<std::size_t>(rows));
        Output(result.data(), rows).noalias() = Matrix(matrix.data(), rows, columns) * Vector(in.data(), columns);
    };
    std::vector<float>*state = &scratch.g, *next = &scratch.states;
    if (!first_.empty()) through(first_, *state, *next), std::swap(state, next);
    if (narrow_ && targets_rows_) through(out_, *state, *next), std::swap(state, next);
    const auto count = static_cast<Eigen::Index>(out.size()), width = static_cast<Eigen::Index>(state->size());
    Output scores(out.data(), count);
    scores.noalias() = Matrix(scratch.rows.data(), count, width) * Vector(state->data(), width);
    scores = scores.array().min(60.0F).exp().matrix();
}

}  // namespace outrider
