// A sequence of device operations that is recorded once and played again: a CUDA graph.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace outrider {

/// Whether graphs are to be used on the device: in builds with OUTRIDER_CUDA, on CUDA, unless the environment says
/// OUTRIDER_GRAPHS=0.
[[nodiscard]] bool graphs_wanted(at::Device device);

/// One graph. What `body` reads must lie at the same addresses in every run; what it makes is overwritten by the next.
class GraphReplay {
public:
    GraphReplay();
    GraphReplay(GraphReplay&&) noexcept;
    GraphReplay& operator=(GraphReplay&&) noexcept;
    ~GraphReplay();

    /// The first time runs `body`, so that libraries make what they need; the second time records it; later plays the
    /// record, and `body` is not called. All on the current stream. Without CUDA `body` is called every time.
    void run(const std::function<void()>& body);

private:
    struct Record;
    std::unique_ptr<Record> record_;
};

}  // namespace outrider
