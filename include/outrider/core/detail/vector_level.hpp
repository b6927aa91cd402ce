// Which vector instructions the loops of vector_loops.hpp take. The kernels choose among more paths (kernels/isa.hpp)
// and say here what their choice means for the loops, so that a program makes it once.
#pragma once

#include <algorithm>
#include <atomic>

namespace outrider::detail {

/// What the compiler calls them: portable instructions, x86-64-v3 (AVX2), x86-64-v4 (AVX-512).
enum class VectorLevel : int { portable, v3, v4 };

/// The highest one of this machine.
[[nodiscard]] inline VectorLevel best_vector_level() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    static const VectorLevel best = __builtin_cpu_supports("x86-64-v4")   ? VectorLevel::v4
                                    : __builtin_cpu_supports("x86-64-v3") ? VectorLevel::v3
                                                                          : VectorLevel::portable;
    return best;
#else
    return VectorLevel::portable;
#endif
}

inline std::atomic<int> chosen_vector_level{-1};
/// Where the kernels are linked: asked once, when the first loop runs before anybody chose.
inline std::atomic<VectorLevel (*)()> vector_level_of_kernels{nullptr};

/// Makes every later loop take this level, or the highest one of this machine below it.
inline void set_vector_level(VectorLevel level) {
    chosen_vector_level.store(static_cast<int>(std::min(level, best_vector_level())), std::memory_order_relaxed);
}

[[nodiscard, gnu::noinline, gnu::cold]] inline VectorLevel first_vector_level() {
    const auto ask = vector_level_of_kernels.load(std::memory_order_relaxed);
    set_vector_level(ask != nullptr ? ask() : best_vector_level());
    return static_cast<VectorLevel>(chosen_vector_level.load(std::memory_order_relaxed));
}

/// The level in use. Throws Error where OUTRIDER_ISA names no path of this machine.
[[nodiscard]] inline VectorLevel vector_level() {
    const int level = chosen_vector_level.load(std::memory_order_relaxed);
    return level >= 0 ? static_cast<VectorLevel>(level) : first_vector_level();
}

}  // namespace outrider::detail
