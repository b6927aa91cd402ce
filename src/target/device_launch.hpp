// Where bodies of kernels run: serially on the host, or on the current stream of a build with CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/block.hpp"

#ifdef OUTRIDER_CUDA
#include <c10/cuda/CUDAStream.h>

#include <outrider/core/error.hpp>

#include "cuda/kernels.hpp"
#endif

namespace outrider::detail {

struct Serially {
    template <typename Body>
    void operator()(const Body& body, std::int64_t blocks) const {
        std::vector<float> shared(static_cast<std::size_t>(body.shared_floats()));
        const cuda::SerialBlock block(shared.data());
        for (std::int64_t b = 0; b < blocks; ++b) body(block, b);
    }
};

#ifdef OUTRIDER_CUDA
struct OnStream {
    template <typename Body>
    void operator()(const Body& body, std::int64_t blocks) const {
        const char* why = cuda::launch(body, blocks, c10::cuda::getCurrentCUDAStream().stream());
        require(*why == 0, ErrorKind::internal, "a kernel of the device path was not launched: {}", why);
    }
};
#endif

}  // namespace outrider::detail
