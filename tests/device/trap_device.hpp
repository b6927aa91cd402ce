// A device over host memory that no host code may touch: ATen's PrivateUse1, for counting and for trapping. It shows
// without a GPU what a GPU would be asked to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace outrider::trap {

/// What one stage did to the device.
struct Counts {
    std::int64_t operations = 0;  ///< ATen operations that reach a backend, copies on the device among them: launches
    std::int64_t views = 0;       ///< host work alone
    std::int64_t to_device = 0, to_device_bytes = 0;
    std::int64_t to_host = 0, to_host_bytes = 0;  ///< item() among them
    std::int64_t blocking_to_device = 0;          ///< of to_device: from memory that is not pinned, or not asked to
    std::int64_t allocations = 0;                 ///< blocks asked for
    std::int64_t fresh = 0;                       ///< of these, not served by a block that was freed before: cudaMalloc
    std::map<std::string, std::int64_t> names;    ///< operations by name

    Counts& operator+=(const Counts& other);
};

/// Registers the device, once a program; at::Device(at::kPrivateUse1, 0) is it from then on.
void start();

/// While one lives, device memory can be read and written inside device operations alone. A touch by the host ends the
/// process with kFaultStatus, after a line on stderr that names the stage, and a stack trace.
class Trapping {
public:
    Trapping();
    ~Trapping();
    Trapping(const Trapping&) = delete;
    Trapping& operator=(const Trapping&) = delete;
};
inline constexpr int kFaultStatus = 77;

/// Names what happens while it lives.
class Stage {
public:
    explicit Stage(std::string name);
    ~Stage();
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

private:
    std::string before_;
};

/// Counts by stage since the last clear.
[[nodiscard]] const std::map<std::string, Counts>& counts();
[[nodiscard]] Counts counts_of(const std::string& stage);
void clear_counts();

/// Bytes of live blocks.
[[nodiscard]] std::size_t in_use();

/// While one lives, a device of so many bytes: blocks beyond them are refused as a card refuses them.
class MemoryLimit {
public:
    explicit MemoryLimit(std::size_t bytes);
    ~MemoryLimit();
    MemoryLimit(const MemoryLimit&) = delete;
    MemoryLimit& operator=(const MemoryLimit&) = delete;
};

/// While one lives, notes what a CUDA graph could not capture: copies from memory that is not pinned, copies to the
/// host, item(), and blocks that had to be made. `trace` is each operation with its sizes, strides and addresses, those
/// of what was made meanwhile by the order in which it was asked for: two rounds with equal traces are one graph.
class CaptureLint {
public:
    CaptureLint();
    ~CaptureLint();
    CaptureLint(const CaptureLint&) = delete;
    CaptureLint& operator=(const CaptureLint&) = delete;

    std::vector<std::string> faults, trace;
};

}  // namespace outrider::trap
