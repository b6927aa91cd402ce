#include "graph_replay.hpp"

#include <cstdlib>
#include <string_view>

#ifdef OUTRIDER_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#endif

namespace outrider {

bool graphs_wanted(at::Device device) {
#ifdef OUTRIDER_CUDA
    const char* said = std::getenv("OUTRIDER_GRAPHS");
    return device.is_cuda() && (said == nullptr || std::string_view(said) != "0");
#else
    (void)device;
    return false;
#endif
}

#ifdef OUTRIDER_CUDA

struct GraphReplay::Record {
    int runs = 0;
    at::cuda::CUDAGraph graph;
};

// All graphs share one pool of memory: none of them reads what another one made.
void GraphReplay::run(const std::function<void()>& body) {
    static const auto pool = at::cuda::graph_pool_handle();
    switch (record_->runs++) {
        case 0: body(); return;
        case 1: {
            at::cuda::getCurrentCUDAStream().synchronize();
            const c10::cuda::CUDAStreamGuard apart(at::cuda::getStreamFromPool());  // the default one cannot record
            record_->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
            body();
            record_->graph.capture_end();
            break;
        }
        default: break;
    }
    record_->graph.replay();
}

#else

struct GraphReplay::Record {};

void GraphReplay::run(const std::function<void()>& body) { body(); }

#endif

GraphReplay::GraphReplay() : record_(std::make_unique<Record>()) {}
GraphReplay::GraphReplay(GraphReplay&&) noexcept = default;
GraphReplay& GraphReplay::operator=(GraphReplay&&) noexcept = default;
GraphReplay::~GraphReplay() = default;

}  // namespace outrider
