// What a target pass costs on this machine, measured once and remembered in a file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/interface/verifier.hpp>
#include <outrider/model/llama_model.hpp>

namespace outrider {

/// Times forwards of 1, 2, 4, 6, 8, 12, 16, ... rows over a context of 256, smallest first, until `seconds` are spent
/// or the model's context is full. Medians of several sweeps: the decoder will live with the machine's other work too.
[[nodiscard]] std::vector<PassTime> measure_pass_times(const LlamaModel& model, TargetPass& pass, double seconds = 1.0);

/// Tells apart what a pass's time depends on: checkpoint, weights, processor or device, instructions, threads, and the
/// library's version.
[[nodiscard]] std::string pass_times_key(const LlamaModel& model);

/// $XDG_CACHE_HOME/outrider/pass_times.json, else ~/.cache/outrider/pass_times.json; empty where neither is set.
[[nodiscard]] std::filesystem::path default_pass_times_file();

/// What the file has for `key`; nothing when it is missing, damaged, or has no such key.
[[nodiscard]] std::optional<std::vector<PassTime>> read_pass_times(const std::filesystem::path& file,
                                                                   std::string_view key);

/// Adds or replaces `key`, in one step for readers. A file that cannot be written is left alone: false.
bool write_pass_times(const std::filesystem::path& file, std::string_view key, const std::vector<PassTime>& times);

}  // namespace outrider
