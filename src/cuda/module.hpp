// What the library asks of CUDA itself. It lies in a shared library apart (outrider_cuda), which is opened when a CUDA
// device is asked for: so one program runs on machines with and without CUDA, and nothing else includes its headers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace outrider::cuda {

/// A sequence of device operations that is recorded once and played again.
class Graph {
public:
    virtual ~Graph() = default;
    /// Calls `body`, whose operations are recorded and not run. On a stream of its own: nothing may be under way.
    virtual void record(const std::function<void()>& body) = 0;
    /// On the current stream.
    virtual void play() = 0;
};

/// The memory of graphs of which only one plays at a time, and whose results are read before the next one plays.
class GraphPool {
public:
    virtual ~GraphPool() = default;
    [[nodiscard]] virtual std::unique_ptr<Graph> make() = 0;
};

/// Most rows of a Product.
inline constexpr std::int64_t kProductRows = 64;

/// y [n, out] = alpha x [n, in] rows^T [out, in] + beta y + bias, sums in f32. The same algorithm with the same order
/// of sums for every n up to kProductRows, so that no row depends on how many stand beside it.
struct Product {
    const void *x, *rows;
    void* y;
    const void* bias;  ///< [out] of y's type; null: none
    std::int64_t n, in, out;
    bool bf16;      ///< x and rows, else f32
    bool y_in_f32;  ///< whatever they are
    float alpha, beta;
};

class Module {
public:
    virtual ~Module() = default;
    /// Why there is no device, in CUDA's words; empty: there is one.
    [[nodiscard]] virtual std::string why_none() const = 0;
    /// What the card is: its name, multiprocessors and memory in MiB.
    [[nodiscard]] virtual std::string card(int device) const = 0;
    /// Whether nvcc compiled the kernels.
    [[nodiscard]] virtual bool has_kernels() const = 0;
    /// See launch in kernels.hpp; on the current stream.
    [[nodiscard]] virtual const char* launch(int kernel, const void* body, std::int64_t blocks) const = 0;
    [[nodiscard]] virtual std::unique_ptr<GraphPool> make_graph_pool() const = 0;
    /// Whether it was built with cuBLASLt.
    [[nodiscard]] virtual bool has_products() const = 0;
    /// On the current stream. Empty, or why cuBLASLt has no such product.
    [[nodiscard]] virtual std::string multiply(const Product& product) const = 0;
};

/// The module's one function: outrider_cuda_module(kModuleInterface). Null where it was built for another interface.
inline constexpr const char* kModuleEntry = "outrider_cuda_module";
using ModuleEntry = const Module* (*)(const char* interface);
inline constexpr const char* kModuleInterface = "0.1.0 3";

}  // namespace outrider::cuda
