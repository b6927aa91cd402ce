// The small form of a trained drafter: its matrices as the CPU's kernels hold them.
#pragma once

#include <filesystem>

#include <outrider/core/detail/export.hpp>

namespace outrider {

/// Reads the folder of a trained drafter and writes it to `to` in its small form, at about a third of the bytes for CTC
/// and half of them for Medusa and Hydra: matrices in blocks of 4, 5 or 8 bits, the formats that loading with kernels
/// makes of them, vectors as they were, the draft vocabulary as a tensor, config.json a page long. Training from it and
/// decoding on a device read the rounded numbers, so keep the first form for these. `from` is not changed. Throws Error
/// for folders that no `outrider train` wrote, for one that has this form already, and where `to` has a drafter.
OUTRIDER_API void compact_drafter(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/compact_drafter-inl.hpp>
#endif
