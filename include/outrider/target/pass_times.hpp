// What a target pass costs on this machine, measured once and remembered in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/llama_model.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

/// Times forwards of 1, 2, 4, 6, 8, 12, 16, ... rows over a context of 256, smallest first, until `seconds` are spent
/// or the model's context is full. Medians of several sweeps: the decoder will live with the machine's other work too.
[[nodiscard]] OUTRIDER_API std::vector<PassTime> measure_pass_times(const LlamaModel& model, TargetPass& pass,
                                                                    double seconds = 1.0);

/// Tells apart what a pass's time depends on: checkpoint, weights, processor or device, instructions, threads, and the
/// library's version.
[[nodiscard]] OUTRIDER_API std::string pass_times_key(const LlamaModel& model);

/// $XDG_CACHE_HOME/outrider/pass_times.json, else ~/.cache/outrider/pass_times.json; empty where neither is set.
[[nodiscard]] OUTRIDER_API std::filesystem::path default_pass_times_file();

/// What the file has for `key`; nothing when it is missing, damaged, or has no such key.
[[nodiscard]] OUTRIDER_API std::optional<std::vector<PassTime>> read_pass_times(const std::filesystem::path& file,
                                                                                std::string_view key);

/// Adds or replaces `key`, in one step for readers. A file that cannot be written is left alone: false.
OUTRIDER_API bool write_pass_times(const std::filesystem::path& file, std::string_view key,
                                   const std::vector<PassTime>& times);

/// Compares a table with what passes really take. A table measured while the machine was busy would mislead every later
/// start: where medians of some size differ from it by more than a quarter for two windows of 256 passes in a row, the
/// table is corrected, sizes between by interpolation.
class OUTRIDER_API PassTimesWatch {
public:
    explicit PassTimesWatch(std::vector<PassTime> table);

    /// Counts a pass; true when the table was corrected just now.
    bool saw(std::int64_t rows, double seconds);

    [[nodiscard]] const std::vector<PassTime>& table() const noexcept { return table_; }

private:
    [[nodiscard]] std::vector<std::optional<double>> differences();
    void correct(const std::vector<std::optional<double>>& differences);

    std::vector<PassTime> table_;
    std::vector<std::vector<double>> seen_;  ///< of this window, by size: log(seconds / table's)
    int passes_ = 0, disagreed_ = 0;
};

}  // namespace outrider
