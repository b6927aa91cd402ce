#include "graph_replay.hpp"

#include <cstdlib>
#include <string_view>

#include "cuda_module.hpp"

namespace outrider {

std::unique_ptr<cuda::GraphPool> make_graph_pool(at::Device device) {
    const char* said = std::getenv("OUTRIDER_GRAPHS");
    const cuda::Module* module = device.is_cuda() ? cuda_module() : nullptr;
    return module == nullptr || (said != nullptr && std::string_view(said) == "0") ? nullptr
                                                                                   : module->make_graph_pool();
}

void GraphReplay::run(cuda::GraphPool& pool, const std::function<void()>& body) {
    if (runs_++ == 0) return body();
    if (graph_ == nullptr) {
        std::unique_ptr<cuda::Graph> graph = pool.make();
        graph->record(body);
        graph_ = std::move(graph);
    }
    graph_->play();
}

}  // namespace outrider
