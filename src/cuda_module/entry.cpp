// The shared library outrider_cuda: kernels, CUDA graphs, products. See cuda/module.hpp.
#include "cuda/module.hpp"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>
#include <string>
#include <string_view>

#include "cuda/kernels.hpp"
#ifdef OUTRIDER_CUBLASLT
#include "products.hpp"
#endif

namespace outrider::cuda {
namespace {

class RecordedGraph final : public Graph {
public:
    explicit RecordedGraph(c10::MempoolId_t pool) : pool_(pool) {}

    void record(const std::function<void()>& body) override {
        c10::cuda::getCurrentCUDAStream().synchronize();
        const c10::cuda::CUDAStreamGuard apart(c10::cuda::getStreamFromPool());  // the default one cannot record
        graph_.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
        try {
            body();
        } catch (...) {
            abandon();
            throw;
        }
        graph_.capture_end();
    }
    void play() override { graph_.replay(); }

private:
    /// What `body` threw is the error that counts; the capture may have ended by it.
    void abandon() noexcept {
        try {
            graph_.capture_end();
        } catch (const std::exception&) {
        }
    }

    c10::MempoolId_t pool_;
    at::cuda::CUDAGraph graph_;
};

class RecordedPool final : public GraphPool {
public:
    [[nodiscard]] std::unique_ptr<Graph> make() override { return std::make_unique<RecordedGraph>(pool_); }

private:
    c10::MempoolId_t pool_ = at::cuda::graph_pool_handle();
};

class OpenModule final : public Module {
public:
    [[nodiscard]] std::string why_none() const override {
        try {
            (void)c10::cuda::device_count_ensure_non_zero();
            return {};
        } catch (const c10::Error& error) {
            return error.what_without_backtrace();
        }
    }
    [[nodiscard]] std::string card(int device) const override {
        const cudaDeviceProp& is = *at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device));
        return std::string(is.name) + ", " + std::to_string(is.multiProcessorCount) + " multiprocessors, " +
               std::to_string(is.totalGlobalMem >> 20) + " MiB";
    }
    [[nodiscard]] std::unique_ptr<GraphPool> make_graph_pool() const override {
        return std::make_unique<RecordedPool>();
    }
#ifdef OUTRIDER_CUBLASLT
    [[nodiscard]] bool has_products() const override { return true; }
    [[nodiscard]] std::string multiply(const Product& product) const override { return products_.multiply(product); }
#else
    [[nodiscard]] bool has_products() const override { return false; }
    [[nodiscard]] std::string multiply(const Product&) const override { return "this build has no cuBLASLt"; }
#endif
#ifdef OUTRIDER_NVCC
    [[nodiscard]] bool has_kernels() const override { return true; }
    [[nodiscard]] const char* launch(int kernel, const void* body, std::int64_t blocks) const override {
        return cuda::launch(kernel, body, blocks, c10::cuda::getCurrentCUDAStream().stream());
    }
#else
    [[nodiscard]] bool has_kernels() const override { return false; }
    [[nodiscard]] const char* launch(int, const void*, std::int64_t) const override {
        return "this build of outrider_cuda holds no kernels";
    }
#endif

#ifdef OUTRIDER_CUBLASLT
private:
    mutable Products products_;
#endif
};

}  // namespace
}  // namespace outrider::cuda

extern "C" __attribute__((visibility("default"))) const outrider::cuda::Module* outrider_cuda_module(
    const char* interface) {
    static const outrider::cuda::OpenModule module;
    return std::string_view(interface) == outrider::cuda::kModuleInterface ? &module : nullptr;
}
