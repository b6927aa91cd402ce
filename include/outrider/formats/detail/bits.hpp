// Little-endian loads and bfloat16, for the readers of files.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <outrider/core/detail/half.hpp>

namespace outrider::detail {

static_assert(std::endian::native == std::endian::little, "the file readers expect a little-endian machine");

/// Loads a T from unaligned memory.
template <typename T>
[[nodiscard]] inline T load(const void* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

/// The half-precision number there.
[[nodiscard]] inline float half_at(const void* from) noexcept { return half_to_float(load<std::uint16_t>(from)); }

[[nodiscard]] inline float bfloat_to_float(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace outrider::detail
