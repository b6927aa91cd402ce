#include "kernels/isa.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include <outrider/core/detail/vector_level.hpp>
#include <outrider/core/error.hpp>

#include "kernel_table.hpp"
#include "tile_state.hpp"

namespace outrider {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512, Isa::vnni, Isa::bf16, Isa::amx};

#if defined(__x86_64__)
/// Bit 5 of EAX in the structured extended features, sub-leaf 1. Not every compiler's __builtin_cpu_supports knows it.
bool has_avx512_bf16() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1U) != 0;
}
#endif

bool runs(Isa isa) {
    if (isa == Isa::scalar) return true;
#if defined(__x86_64__)
    static const bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    static const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    static const bool bf16 = vnni && has_avx512_bf16();
    switch (isa) {
        case Isa::avx2: return avx2;
        case Isa::avx512: return avx512;
        case Isa::vnni: return vnni;
        case Isa::bf16: return bf16;
        case Isa::amx: return bf16 && kernels::tile_state() != kernels::TileState::none;
        default: return false;
    }
#elif defined(__aarch64__)
    return isa == Isa::neon;
#else
    return false;
#endif
}

std::string available_names() {
    std::string names;
    for (const Isa isa : available_isas()) names += (names.empty() ? "" : ", ") + std::string(name(isa));
    return names;
}

// Whether the path may be used now, which `amx` has to ask for.
bool granted(Isa isa) {
    return runs(isa) && (isa != Isa::amx || kernels::request_tile_state() == kernels::TileState::granted);
}

Isa from_environment() {
    const char* wanted = std::getenv("OUTRIDER_ISA");
    if (wanted == nullptr || *wanted == '\0') {
        const Isa fastest = available_isas().back();
        return granted(fastest) ? fastest : available_isas().back();  // a refused path is no longer listed
    }
    for (const Isa isa : available_isas())
        if (name(isa) == wanted && granted(isa)) return isa;
    fail("OUTRIDER_ISA is \"{}\", which this machine cannot run; it has: {}", wanted, available_names());
}

std::atomic<int> forced{-1};

/// What a path means for loops that the compiler makes vectors of.
detail::VectorLevel level_of(Isa isa) {
    switch (isa) {
        case Isa::scalar:
        case Isa::neon: return detail::VectorLevel::portable;
        case Isa::avx2: return detail::VectorLevel::v3;
        default: return detail::VectorLevel::v4;
    }
}

[[maybe_unused]] const bool asked_for_loops = [] {
    detail::vector_level_of_kernels.store([] { return level_of(active_isa()); }, std::memory_order_relaxed);
    return true;
}();

}  // namespace

std::string_view name(Isa isa) {
    switch (isa) {
        case Isa::scalar: return "scalar";
        case Isa::neon: return "neon";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::vnni: return "vnni";
        case Isa::bf16: return "bf16";
        case Isa::amx: return "amx";
    }
    return "unknown";
}

std::vector<Isa> available_isas() {
    std::vector<Isa> result;
    std::copy_if(std::begin(kAll), std::end(kAll), std::back_inserter(result), runs);
    return result;
}

Isa active_isa() {
    if (const int isa = forced.load(std::memory_order_relaxed); isa >= 0) return static_cast<Isa>(isa);
    static const Isa chosen = from_environment();
    return chosen;
}

void force_isa(Isa isa) {
    require(granted(isa), "force_isa: this machine cannot run {}; it has: {}", name(isa), available_names());
    forced.store(static_cast<int>(isa), std::memory_order_relaxed);
    detail::set_vector_level(level_of(isa));
}

namespace kernels {

const Table& table(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::avx2) return avx2_table();
    if (isa == Isa::avx512) return avx512_table();
    if (isa == Isa::vnni) return vnni_table();
    if (isa == Isa::bf16) return bf16_table();
    if (isa == Isa::amx) return amx_table();
#elif defined(__aarch64__)
    if (isa == Isa::neon) return neon_table();
#endif
    OUTRIDER_ASSERT(isa == Isa::scalar);
    return scalar_table();
}

}  // namespace kernels
}  // namespace outrider
