// Memory for packed weights. Internal.
#pragma once

#include <cstddef>
#include <memory>

namespace outrider::kernels {

/// Uninitialised memory aligned to 64 bytes. Requests that follow one another lie one behind the other in large pages
/// (where the system grants them), so a pass over a model's matrices reads memory in sequence. Freed with the last of
/// its neighbours. Safe to call from several threads.
[[nodiscard]] std::shared_ptr<std::byte> weight_memory(std::size_t bytes);

}  // namespace outrider::kernels
