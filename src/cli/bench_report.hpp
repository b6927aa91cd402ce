// What `bench` measured, as a page for people and as JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "bench_forecast.hpp"

namespace outrider::cli {

struct MachineFacts {
    std::string processor;
    int cores = 0;                  ///< physical ones that this process may use
    int threads = 0;                ///< of the target pass
    std::string path;               ///< of vector instructions in use
    double bytes_per_second = 0;    ///< the whole team reads from memory
    std::int64_t buffer_bytes = 0;  ///< that were read for it
};

/// One cell of the table of multiply rates. A multiply and its add are two operations.
struct MultiplyRate {
    std::string path, format;
    std::int64_t rows = 0;
    double operations_per_second = 0;
};

/// One way of holding the target's weights.
struct WeightsSeen {
    std::string weights;      ///< as --weights has it
    std::string description;  ///< with the formats, "stored (q4_1, q8_0)"
    std::size_t bytes = 0;
    double plain_seconds = 0;      ///< of a round of plain decoding, the median
    std::vector<PassTime> passes;  ///< rows ascending, at least one
    bool steady = false;           ///< sweeps agreed
};

struct BenchReport {
    std::string model, device;
    MachineFacts machine;
    std::vector<MultiplyRate> rates;  ///< empty: not measured
    std::vector<WeightsSeen> ways;    ///< at least one
    std::vector<std::string> notes;   ///< what was left out, and why
    std::optional<DraftingSeen> drafting;
    std::optional<double> others;  ///< processors' worth of other work meanwhile
    bool crowded = false;          ///< for which there was no room beside ours
    double seconds = 0;            ///< that all of it took

    /// Whether something else disturbed what was measured.
    [[nodiscard]] bool busy() const;
    /// One for each way.
    [[nodiscard]] std::vector<std::vector<CurvePoint>> curves() const;
};

/// The page. `brief`: without the tables.
[[nodiscard]] std::string to_page(const BenchReport& report, bool brief);

/// All numbers; seconds, bytes and operations as they are.
[[nodiscard]] nlohmann::ordered_json to_json(const BenchReport& report);

}  // namespace outrider::cli
