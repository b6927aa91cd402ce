// A sequence of device operations that is recorded once and played again: a CUDA graph.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

#include "cuda/module.hpp"

namespace outrider {

/// The memory of the graphs of one pass, whose results are read before its next forward. Null where there are to be no
/// graphs: on other devices than CUDA's, without the module outrider_cuda, and where the environment says
/// OUTRIDER_GRAPHS=0.
[[nodiscard]] std::unique_ptr<cuda::GraphPool> make_graph_pool(at::Device device);

/// One graph. What `body` reads must lie at the same addresses in every run; what it makes is overwritten by the next.
class GraphReplay {
public:
    /// The first time runs `body`, so that libraries make what they need; the second time records it; later plays the
    /// record, and `body` is not called. All on the current stream.
    void run(cuda::GraphPool& pool, const std::function<void()>& body);

private:
    int runs_ = 0;
    std::unique_ptr<cuda::Graph> graph_;
};

}  // namespace outrider
