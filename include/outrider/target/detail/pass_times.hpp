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

/// A table, rows ascending, and whether the machine was quiet enough for it to be remembered.
struct MeasuredPasses {
    std::vector<PassTime> times;
    bool steady = false;
};

/// Sweeps over 1, 2, 3, 4, 5, 6, 8, 12 and 16 rows, then over larger ones, with a context of 256, until they agree or
/// `seconds` are spent; see budget::Sweeps. Where passes are slow, over fewer sizes after fewer tokens, in twenty
/// times the seconds of a row.
[[nodiscard]] OUTRIDER_API MeasuredPasses measure_pass_times(const LlamaModel& model, TargetPass& pass,
                                                             double seconds = 1.0);

/// A short sweep: whether passes cost what a table says, but for the machine's speed as a whole. A table that was
/// measured while the machine was busy, or in another mode, would mislead a whole run. True where the machine is too
/// busy to tell.
[[nodiscard]] OUTRIDER_API bool agrees_with_passes(const std::vector<PassTime>& table, const LlamaModel& model,
                                                   TargetPass& pass);

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

}  // namespace outrider
