// Which vector instructions the kernels use, and with them every other loop of the compiled part (core's
// vector_level.hpp), chosen at run time.
#pragma once

#include <string_view>
#include <vector>

namespace outrider {

/// The paths, from portable to fastest. `avx512` has 512-bit floats, `vnni` its integer dot products as well, `bf16`
/// dot products of bf16 too: there rows that meet bf16 weights are rounded to bf16 themselves (sums are floats on every
/// path). `amx` multiplies those in tiles of 16 rows.
enum class Isa : unsigned char { scalar, neon, avx2, avx512, vnni, bf16, amx };

[[nodiscard]] std::string_view name(Isa isa);

/// The paths this machine can run, scalar first, the fastest last.
[[nodiscard]] std::vector<Isa> available_isas();

/// The path in use: what force_isa chose, else the environment variable OUTRIDER_ISA (a name above), else the fastest
/// one. Throws Error when the variable names no path of this machine.
///
/// The first choice of `amx` asks Linux for its registers (arch_prctl), once and for every thread of the process: their
/// saved state grows by 8 KB where they are used. Where that is refused the fastest path is `bf16`.
[[nodiscard]] Isa active_isa();

/// Makes every later call take this path; for tests and measurements. Throws Error when the machine lacks it, or Linux
/// refuses it.
/// Data that was packed before stays valid: layouts do not depend on the path.
void force_isa(Isa isa);

/// While it lives, paths may be forced: it puts back the one that was active.
class IsaGuard {
public:
    IsaGuard() : before_(active_isa()) {}
    ~IsaGuard() { force_isa(before_); }
    IsaGuard(const IsaGuard&) = delete;
    IsaGuard& operator=(const IsaGuard&) = delete;

private:
    Isa before_;
};

}  // namespace outrider
