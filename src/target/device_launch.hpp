// Where bodies of kernels run: serially on the host, or on the current stream of a CUDA device.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <outrider/core/error.hpp>

#include "cuda/kernels.hpp"
#include "target/cuda_module.hpp"

namespace outrider::detail {

struct Serially {
    template <typename Body>
    void operator()(const Body& body, std::int64_t blocks) const {
        std::vector<float> shared(static_cast<std::size_t>(body.shared_floats()));
        const cuda::SerialBlock block(shared.data());
        for (std::int64_t b = 0; b < blocks; ++b) body(block, b);
    }
};

struct OnStream {
    template <typename Body>
    void operator()(const Body& body, std::int64_t blocks) const {
        constexpr int place = cuda::Kernels::place<Body>();
        static_assert(place >= 0);
        const cuda::Module* module = cuda_module();
        const char* why = module == nullptr ? "the module is not open" : module->launch(place, &body, blocks);
        require(*why == 0, ErrorKind::internal, "a kernel of the device path was not launched: {}", why);
    }
};

/// Whether kernels run on the device: not on CUDA without a module that holds them.
[[nodiscard]] inline bool kernels_open(at::Device device) {
    const cuda::Module* module = cuda_module();
    return !device.is_cuda() || (module != nullptr && module->has_kernels());
}

}  // namespace outrider::detail
