// CUDA, opened when it is asked for: LibTorch's part of it and the library's own.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "cuda/module.hpp"

namespace outrider {

/// Opens what a device needs, once a process; of other devices than CUDA's nothing. Without the library's own module
/// (a build without OUTRIDER_CUDA) a CUDA device runs tensor operations one by one. Throws Error, not_supported, where
/// LibTorch's CUDA part cannot be opened, or finds no such device.
void open_device(at::Device device);

/// Null where there is none, or where no CUDA device was opened.
[[nodiscard]] const cuda::Module* cuda_module();

/// What a device is, for figures that hold for it alone: see cuda::Module::card; its name where that is not known.
[[nodiscard]] std::string card(at::Device device);

}  // namespace outrider
