// The version of the library; CMake reads it from here.
#pragma once

namespace outrider {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace outrider
