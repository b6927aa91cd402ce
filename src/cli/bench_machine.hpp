// What `bench` measures of the machine itself: memory, multiply rates, other work.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <outrider/core/detail/thread_team.hpp>

#include "bench_report.hpp"

namespace outrider::cli {

/// The largest of several runs of the team over a buffer beyond the last-level cache: 256 MiB to 1 GiB, less where
/// memory is short. Nothing is measured where not even 64 MiB can be spared.
void measure_bandwidth(ThreadTeam& team, MachineFacts& facts);

/// Products of a random matrix [2048, 2048] with 1 and 16 rows, rounding of the rows included: every vector path of the
/// machine (`scalar` where there is no other), and the formats that --weights can lead to here. `held`: the model's own
/// formats ("q4_1, q8_0"). Takes about `seconds`, one product a cell at least. Leaves the path in use as it was.
[[nodiscard]] std::vector<MultiplyRate> multiply_rates(ThreadTeam& team, std::string_view held, double seconds);

/// Bytes that can be had without swapping, within the limits of control groups; empty where the system does not tell.
[[nodiscard]] std::optional<std::int64_t> available_memory();

/// How much of the processors others use while it lives.
class OtherWork {
public:
    OtherWork();

    /// Processors' worth of time that other processes took so far, of those that this process may use. Empty where the
    /// system does not tell.
    [[nodiscard]] std::optional<double> processors() const;

    /// Whether `others` (see above) and `threads` of our own do not fit beside each other.
    [[nodiscard]] static bool crowds(std::optional<double> others, int threads);

private:
    double start_, busy_, own_;  ///< seconds
};

}  // namespace outrider::cli
