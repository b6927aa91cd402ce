// Launches of the bodies. Compiled by nvcc alone: cmake/compile_cuda_kernels.sh.
#include "kernels.hpp"

#include <cuda_runtime.h>

namespace outrider::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

/// The block of a kernel. Reductions go by shuffles, then over the warps in their order, the same in every launch.
class ThreadBlock {
public:
    __device__ ThreadBlock(float* shared, unsigned char* parts) : shared_(shared), parts_(parts) {}
    [[nodiscard]] __device__ int thread() const { return static_cast<int>(threadIdx.x); }
    [[nodiscard]] __device__ int threads() const { return kThreads; }
    [[nodiscard]] __device__ float* shared() const { return shared_; }
    __device__ void sync() const { __syncthreads(); }

    [[nodiscard]] __device__ float sum(float x) const {
        for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(~0U, x, o);
        return over_warps(x, [](float a, float b) { return a + b; });
    }
    [[nodiscard]] __device__ float max(float x) const {
        for (int o = 16; o > 0; o >>= 1) x = fmaxf(x, __shfl_xor_sync(~0U, x, o));
        return over_warps(x, [](float a, float b) { return fmaxf(a, b); });
    }
    template <typename T>
    [[nodiscard]] __device__ BestOf<T> best(BestOf<T> x) const {
        auto* const parts = reinterpret_cast<BestOf<T>*>(parts_);
        for (int o = 16; o > 0; o >>= 1) {
            const BestOf<T> other{__shfl_xor_sync(~0U, x.value, o),
                             static_cast<std::int64_t>(__shfl_xor_sync(~0U, static_cast<long long>(x.place), o))};
            if (other.beats(x)) x = other;
        }
        __syncthreads();
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
        __syncthreads();
        for (int w = 0; w < kWarps; ++w)
            if (parts[w].beats(x)) x = parts[w];
        return x;
    }

private:
    template <typename Join>
    [[nodiscard]] __device__ float over_warps(float x, Join join) const {
        auto* const parts = reinterpret_cast<float*>(parts_);
        __syncthreads();
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
        __syncthreads();
        float all = parts[0];
        for (int w = 1; w < kWarps; ++w) all = join(all, parts[w]);
        return all;
    }

    float* shared_;
    unsigned char* parts_;  // a value of each warp
};

template <typename Body>
__global__ void __launch_bounds__(kThreads) run(const Body body) {
    extern __shared__ float shared[];
    __shared__ __align__(16) unsigned char parts[kWarps * sizeof(BestOf<double>)];
    const ThreadBlock block(shared, parts);
    body(block, static_cast<std::int64_t>(blockIdx.x));
}

template <typename Body>
const char* launch_body(const Body& body, std::int64_t blocks, cudaStream_t stream) {
    const std::size_t shared = static_cast<std::size_t>(body.shared_floats()) * sizeof(float);
    if (shared > (std::size_t{48} << 10)) {
        const cudaError_t raised =
            cudaFuncSetAttribute(run<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
        if (raised != cudaSuccess) return cudaGetErrorString(raised);
    }
    run<Body><<<static_cast<unsigned>(blocks), kThreads, shared, stream>>>(body);
    const cudaError_t started = cudaGetLastError();
    return started == cudaSuccess ? "" : cudaGetErrorString(started);
}

template <typename... Bodies>
const char* launch_one(BodyList<Bodies...>, int kernel, const void* body, std::int64_t blocks, cudaStream_t stream) {
    const char* said = "no such kernel";
    int at = 0;
    ((said = at++ == kernel ? launch_body(*static_cast<const Bodies*>(body), blocks, stream) : said), ...);
    return said;
}

}  // namespace

const char* launch(int kernel, const void* body, std::int64_t blocks, void* stream) {
    return launch_one(Kernels{}, kernel, body, blocks, static_cast<cudaStream_t>(stream));
}

}  // namespace outrider::cuda
