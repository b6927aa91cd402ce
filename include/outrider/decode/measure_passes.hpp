// What passes of several sizes cost, by a verifier's own calls: a host's `Verifier::pass_times` may return it.
//
//     std::vector<PassTime> pass_times() override { return measure_passes(*this); }
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/sweeps.hpp>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/check_lossless.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

struct MeasureOptions {
    std::vector<std::int64_t> rows = {1, 2, 3, 4, 6, 8, 12, 16};  ///< of a pass, ascending; fewer where passes are slow
    std::int64_t context = 128;                                   ///< tokens before them
    double seconds = 0.5;                                         ///< or twenty times the smallest pass
};

namespace detail {

/// Seconds of one pass over a chain of `rows` rows, the first of which is kept.
template <TargetVerifier V>
[[nodiscard]] double time_pass(V& verifier, SequenceId sequence, std::int64_t rows) {
    TokenTree::Builder chain(0);
    NodeIndex last = 0;
    for (std::int64_t row = 1; row < rows; ++row)
        last = chain.add(last, static_cast<TokenId>(row % verifier.vocabulary()), 0.0F);
    const SequenceTree tree{sequence, std::move(chain).build()};
    const double start = now_seconds();
    const TreeOutput output = none_refused(verifier.verify(std::span(&tree, 1)));
    if (!output.logits.device().is_cpu()) (void)output.logits.sum().template item<float>();  // waits for the device
    const double seconds = now_seconds() - start;
    const SequenceAcceptance kept = kept_of(sequence, tree.tree, {{}, 0});
    (void)none_refused(verifier.commit(std::span(&kept, 1)));
    return seconds;
}

}  // namespace detail

/// Sweeps over the sizes, three to fifteen, of a sequence of its own that is released. Other sequences may be known to
/// the verifier, between their rounds. Empty where the context is too short, or where the target refuses the sequence.
template <TargetVerifier V>
[[nodiscard]] std::vector<PassTime> measure_passes(V& verifier, const MeasureOptions& options = {}) {
    const VerifierLimits limits = detail::limits_of(verifier);
    std::vector<std::int64_t> rows;
    for (const std::int64_t size : options.rows)
        if (size >= 1 && (limits.rows == 0 || size <= limits.rows)) rows.push_back(size);
    budget::SweepTime time{.until = 0, .passes = 20};
    const std::int64_t passes = (2 + time.most) * std::ssize(rows);
    if (rows.empty() || options.context + passes + rows.back() > verifier.context()) return {};
    try {
        const std::vector<TokenId> prompt(static_cast<std::size_t>(std::max<std::int64_t>(options.context, 1)), 0);
        const detail::TestedSequence<V> sequence(verifier, prompt);
        time.until = now_seconds() + options.seconds;
        const auto seconds = [&](std::int64_t n) { return detail::time_pass(verifier, sequence.id(), n); };
        return budget::run_sweeps(rows, time, now_seconds, seconds).table();
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::out_of_memory) throw;
    }
    return {};
}

}  // namespace outrider
