// Operators of our own in the tensor library's dispatcher, which finds the body for a tensor's device.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Device.h>
#include <c10/core/DispatchKey.h>
#include <c10/core/TensorOptions.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace outrider::detail {

/// The namespace of this copy's operators. A process may hold several copies of the library (a plugin, the C
/// interface beside a program), and the dispatcher takes a name once: so each copy has a name of its own.
inline std::string operator_space() {
    static const char anchor = 0;
    return fmt::format("outrider_{:x}", reinterpret_cast<std::uintptr_t>(&anchor));
}

/// Fills what an operator library is to hold.
using FillOperators = void (*)(torch::Library&);

/// Registers operators: their schemas, and their bodies for the CPU and for CUDA. Once for each set.
inline void register_operators(FillOperators define, FillOperators on_cpu, FillOperators on_cuda) {
    static std::mutex mutex;
    // Never ended: a library that ends takes its operators along, and the dispatcher may end before it.
    static auto* const kept = new std::vector<std::unique_ptr<torch::Library>>;
    const std::lock_guard lock(mutex);
    const auto open = [](torch::Library::Kind kind, std::optional<c10::DispatchKey> key, FillOperators fill) {
        kept->push_back(std::make_unique<torch::Library>(kind, operator_space(), key, __FILE__, __LINE__));
        fill(*kept->back());
    };
    open(torch::Library::FRAGMENT, std::nullopt, define);
    open(torch::Library::IMPL, c10::DispatchKey::CPU, on_cpu);
    open(torch::Library::IMPL, c10::DispatchKey::CUDA, on_cuda);
}

/// A registered operator by its name.
template <typename Signature>
[[nodiscard]] c10::TypedOperatorHandle<Signature> registered_operator(const char* name) {
    const std::string whole = operator_space() + "::" + name;
    return c10::Dispatcher::singleton().findSchemaOrThrow(whole.c_str(), "").typed<Signature>();
}

/// Whether an operator has a body for the device.
template <typename Signature>
[[nodiscard]] bool runs_on(const c10::TypedOperatorHandle<Signature>& of, at::Device device) {
    return of.hasComputedKernelForDispatchKey(c10::computeDispatchKey(std::nullopt, std::nullopt, device));
}

}  // namespace outrider::detail
