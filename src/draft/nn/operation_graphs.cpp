#include <outrider/draft/nn/detail/operation_graphs.hpp>

#include "target/graph_replay.hpp"

namespace outrider::detail {
namespace {

class ReplayedGraph final : public OperationGraph {
public:
    explicit ReplayedGraph(cuda::GraphPool& pool) : pool_(pool) {}
    void run(const std::function<void()>& body) override { graph_.run(pool_, body); }

private:
    cuda::GraphPool& pool_;
    GraphReplay graph_;
};

class ReplayedGraphs final : public OperationGraphs {
public:
    explicit ReplayedGraphs(std::unique_ptr<cuda::GraphPool> pool) : pool_(std::move(pool)) {}
    [[nodiscard]] std::unique_ptr<OperationGraph> make() override { return std::make_unique<ReplayedGraph>(*pool_); }

private:
    std::unique_ptr<cuda::GraphPool> pool_;
};

}  // namespace

std::unique_ptr<OperationGraphs> make_operation_graphs(c10::Device device) {
    std::unique_ptr<cuda::GraphPool> pool = make_graph_pool(device);
    return pool == nullptr ? nullptr : std::make_unique<ReplayedGraphs>(std::move(pool));
}

}  // namespace outrider::detail
