// Bodies of logprob_rows.hpp.
#pragma once

#include <outrider/accept/detail/logprob_rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include <outrider/accept/detail/edited_rows.hpp>
#include <outrider/accept/detail/warp.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// The law of one row at a time.
class LogprobRow {
public:
    explicit LogprobRow(const SamplingOptions& warp) : warp_(warp) {
        if (warp_.temperature == 0.0) warp_.temperature = 1.0;
    }

    [[nodiscard]] TokenLogprobs read(const EditedRow& row, TokenId chosen, std::int64_t most) {
        const bool whole = !warp_.truncates();
        std::span<const TokenId> kept;
        double total = 0;
        if (whole) {
            total = softmax_total(row.logits, row.top.value, warp_.temperature);
            if (most > 0) kept = truncation_.keep(row.logits, row.top.value, {.temperature = 1.0, .top_k = most});
        } else {
            kept = truncation_.keep(row.logits, row.top.value, warp_);
            for (const TokenId token : kept) total += std::exp(scaled(row, token));
        }
        const double log_total = std::log(total);
        const bool excluded = !whole && std::find(kept.begin(), kept.end(), chosen) == kept.end();
        TokenLogprobs read{
            .logprob = excluded ? -std::numeric_limits<double>::infinity() : scaled(row, chosen) - log_total,
            .top = {}};
        for (const TokenId token : kept.first(std::min(kept.size(), static_cast<std::size_t>(most))))
            read.top.push_back({token, scaled(row, token) - log_total});
        return read;
    }

private:
    [[nodiscard]] double scaled(const EditedRow& row, TokenId token) const {
        return (double(row.logits[static_cast<std::size_t>(token)]) - double(row.top.value)) / warp_.temperature;
    }

    SamplingOptions warp_;
    Truncation truncation_;
};

}  // namespace detail

OUTRIDER_INLINE std::vector<TokenLogprobs> logprobs_of(const TokenTree& tree, const TreeRows& rows,
                                                       const SequenceContext& context, const Acceptance& chosen,
                                                       LogprobRequest request) {
    const SamplingOptions untouched{.temperature = 1.0};
    SequenceContext of = context;
    if (request.law == LogprobLaw::target) of.sampling = &untouched;
    EditedRows edited(tree, rows, of);
    detail::LogprobRow row(edited.options());
    std::vector<TokenLogprobs> all;
    std::vector<float> memory;
    NodeIndex at = 0;
    for (const NodeIndex node : chosen.path) {
        all.push_back(row.read(edited.row(at, memory), tree.token(node), request.most));
        at = node;
    }
    all.push_back(row.read(edited.row(at, memory), chosen.pending, request.most));
    return all;
}

}  // namespace outrider
