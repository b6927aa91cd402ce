// The device kernels: raw pointers of the device, and its stream. Bodies stand in the headers beside, which the CPU can
// run as well.
#pragma once

#include <cstdint>

#include "ctc_beam.hpp"
#include "norm.hpp"
#include "rope_store.hpp"
#include "rows.hpp"
#include "tree_attention.hpp"

namespace outrider::cuda {

/// Runs `blocks` blocks of a body on `stream` (a cudaStream_t) and returns at once. Returns an empty string, or what
/// CUDA says of a launch that failed. T: float or Bf16.
template <typename Body>
[[nodiscard]] const char* launch(const Body& body, std::int64_t blocks, void* stream);

#define OUTRIDER_EACH_KERNEL(X) \
    X(NormAdd<float>)           \
    X(NormAdd<Bf16>)            \
    X(RopeStore<float>)         \
    X(RopeStore<Bf16>)          \
    X(TreeAttend<float>)        \
    X(TreeAttend<Bf16>)         \
    X(TreeJoin<float>)          \
    X(TreeJoin<Bf16>)           \
    X(Gate<float>)              \
    X(Gate<Bf16>)               \
    X(ArgmaxRow<float>)         \
    X(ArgmaxRow<Bf16>)          \
    X(BeamStates)               \
    X(BeamExpand)               \
    X(BeamMerge)

#define OUTRIDER_DECLARED(Body) extern template const char* launch<Body>(const Body&, std::int64_t, void*);
OUTRIDER_EACH_KERNEL(OUTRIDER_DECLARED)
#undef OUTRIDER_DECLARED

}  // namespace outrider::cuda
