// The device kernels: raw pointers of the device, and its stream. Bodies stand in the headers beside, which the CPU can
// run as well.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ctc_beam.hpp"
#include "norm.hpp"
#include "rope_store.hpp"
#include "rows.hpp"
#include "tree_attention.hpp"

namespace outrider::cuda {

template <typename... Bodies>
struct BodyList {
    /// The place of a body in the list; -1: it is not there.
    template <typename Body>
    [[nodiscard]] static constexpr int place() {
        int found = -1, at = 0;
        ((found = std::is_same_v<Body, Bodies> ? at : found, ++at), ...);
        return found;
    }
};

using Kernels = BodyList<NormAdd<float>, NormAdd<Bf16>, RopeStore<float>, RopeStore<Bf16>, TreeAttend<float>,
                         TreeAttend<Bf16>, TreeJoin<float>, TreeJoin<Bf16>, Gate<float>, Gate<Bf16>, ArgmaxRow<float>,
                         ArgmaxRow<Bf16>, PickRow, BeamStates, BeamExpand, BeamMerge>;

/// Runs `blocks` blocks of a body, the one at this place in Kernels, on `stream` (a cudaStream_t), and returns at once.
/// Returns an empty string, or what CUDA says of a launch that failed.
[[nodiscard]] const char* launch(int kernel, const void* body, std::int64_t blocks, void* stream);

}  // namespace outrider::cuda
