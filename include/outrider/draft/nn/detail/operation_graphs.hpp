// A drafter's operations on a device, by their shape: recorded once and played again where the device can, as CUDA
// graphs.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include <outrider/core/detail/export.hpp>

namespace outrider::detail {

/// One sequence of operations. What `body` reads must lie at the same addresses in every run; what it makes is
/// overwritten by the next.
class OperationGraph {
public:
    virtual ~OperationGraph() = default;
    /// The first time calls `body`, the second time records it; later plays the record.
    virtual void run(const std::function<void()>& body) = 0;
};

/// Graphs of one drafter, of which one plays at a time.
class OperationGraphs {
public:
    virtual ~OperationGraphs() = default;
    [[nodiscard]] virtual std::unique_ptr<OperationGraph> make() = 0;
};

/// Null where operations are launched one by one: everywhere but on CUDA with the compiled library.
[[nodiscard]] OUTRIDER_API std::unique_ptr<OperationGraphs> make_operation_graphs(c10::Device device);

#ifndef OUTRIDER_COMPILED
inline std::unique_ptr<OperationGraphs> make_operation_graphs(c10::Device) { return nullptr; }
#endif

/// What rounds of one shape work on: `Inputs`, filled before each run, and the graph that reads them and makes `Made`.
template <typename Shape, typename Inputs, typename Made>
class ShapedRuns {
public:
    explicit ShapedRuns(c10::Device device) : graphs_(make_operation_graphs(device)) {}

    [[nodiscard]] Inputs& inputs(const Shape& shape) { return runs_[shape].inputs; }

    template <typename Body>
    [[nodiscard]] Made run(const Shape& shape, Body&& body) {
        if (!graphs_) return body();
        Run& own = runs_[shape];
        if (!own.graph) own.graph = graphs_->make();
        own.graph->run([&] { own.made = body(); });
        return own.made;
    }

    /// Addresses that are not inputs have changed, or a shape is not to be kept.
    void clear() { runs_.clear(); }
    void forget(const Shape& shape) { runs_.erase(shape); }

private:
    struct Run {
        Inputs inputs = {};
        std::unique_ptr<OperationGraph> graph = nullptr;
        Made made = {};
    };
    std::unique_ptr<OperationGraphs> graphs_;
    std::map<Shape, Run> runs_;
};

}  // namespace outrider::detail
