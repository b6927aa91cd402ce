// The forms in which a target's matrices can be held.
#pragma once

#include <string_view>

#include <outrider/core/detail/export.hpp>

namespace outrider {

enum class Weights {
    automatic,  ///< as stored where a fast path exists, else bf16
    stored,     ///< the file's own blocks, multiplied by integer products (CPU)
    bf16,
    f32,
    int8,  ///< packed at load to 8 bits in blocks of 32 (CPU)
};

/// "auto" (or "automatic"), "stored", "bf16", "f32", "int8". Throws Error for other names.
[[nodiscard]] OUTRIDER_API Weights weights_by_name(std::string_view name);
[[nodiscard]] OUTRIDER_API std::string_view name_of(Weights weights);

}  // namespace outrider
