#include "bench_forecast.hpp"

#include <algorithm>
#include <numeric>

#include <outrider/budget/detail/curve.hpp>
#include <outrider/core/error.hpp>

namespace outrider::cli {

RankCounts::RankCounts(std::int64_t nodes)
    : sizes_(static_cast<std::size_t>(nodes) + 1), kept_(static_cast<std::size_t>(nodes) + 1) {}

void RankCounts::add(std::size_t drafted, std::span<const NodeIndex> path) {
    require(drafted < sizes_.size(), "RankCounts: a tree of {} nodes, expected at most {}", drafted, nodes());
    ++rounds_;
    ++sizes_[drafted];
    for (const NodeIndex node : path) ++kept_[static_cast<std::size_t>(node)];
}

double RankCounts::beta(std::int64_t n) const {
    if (rounds_ == 0) return 1;
    const auto end = kept_.begin() + std::min(n, nodes()) + 1;
    return 1 + double(std::accumulate(kept_.begin(), end, std::int64_t{0})) / double(rounds_);
}

double RankCounts::pass_seconds(std::int64_t n, std::span<const PassTime> table) const {
    if (rounds_ == 0) return budget::read(table, n + 1);
    double sum = 0;
    for (std::int64_t size = 0; size <= nodes(); ++size)
        if (const std::int64_t rounds = sizes_[static_cast<std::size_t>(size)]; rounds > 0)
            sum += double(rounds) * budget::read(table, std::min(n, size) + 1);
    return sum / double(rounds_);
}

std::optional<double> CurvePoint::gain(double tokens) const {
    if (tokens > double(nodes) + 1) return std::nullopt;
    return tokens / ratio;
}

double DraftingSeen::beside(std::int64_t n) const {
    const std::int64_t few = std::min(kFewNodes, counts.nodes()), many = counts.nodes();
    if (n <= few || few == many) return beside_few;
    return beside_few + (beside_many - beside_few) * double(n - few) / double(many - few);
}

std::vector<CurvePoint> cost_curve(std::span<const PassTime> table, double plain, const DraftingSeen* drafting) {
    require(!table.empty() && plain > 0, ErrorKind::not_supported, "bench: no pass of this model could be measured");
    std::vector<CurvePoint> curve(1);
    curve[0].seconds = plain;
    curve[0].beta = curve[0].gamma = 1;
    for (const std::int64_t nodes : std::span(kCurveNodes).subspan(1)) {
        if (nodes >= table.back().rows) break;  // a line beyond the last size would promise what nobody measured
        CurvePoint point{.nodes = nodes, .seconds = std::max(budget::read(table, nodes + 1), plain)};
        point.ratio = point.seconds / plain;
        if (drafting != nullptr && nodes <= drafting->counts.nodes()) {
            const double round = drafting->counts.pass_seconds(nodes, table) + drafting->beside(nodes);
            point.beta = drafting->counts.beta(nodes);
            point.gamma = *point.beta * plain / round;
        }
        curve.push_back(point);
    }
    return curve;
}

BestChoice best_choice(std::span<const std::vector<CurvePoint>> curves) {
    BestChoice best;
    for (std::size_t way = 0; way < curves.size(); ++way)
        for (const CurvePoint& point : curves[way]) {
            const double gamma = point.gamma.value_or(0), speed = gamma / curves[way].front().seconds;
            if (point.nodes > 0 && gamma < kWorthwhile) continue;
            if (speed > best.tokens_per_second) best = {way, point.nodes, speed, gamma};
        }
    return best;
}

}  // namespace outrider::cli
