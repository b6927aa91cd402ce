// The tile registers of AMX: whether this machine has them and whether this process may use them. Internal.
#pragma once

namespace outrider::kernels {

enum class TileState : unsigned char {
    none,     ///< the processor or the system has none for bf16, or the system refused them
    there,    ///< not asked for yet
    granted,  ///< usable by every thread
};

[[nodiscard]] TileState tile_state();

/// Asks Linux for the registers where they are there: ARCH_REQ_XCOMP_PERM, without which their first use is a fault. It
/// holds for the whole process, cannot be taken back, and is refused where a thread's signal stack is too small for the
/// larger state. Asked once; every later call returns the same answer.
TileState request_tile_state();

}  // namespace outrider::kernels
