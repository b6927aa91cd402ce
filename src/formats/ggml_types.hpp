// The number formats of GGUF tensors: their sizes, and back to f32. Layouts as in ggml's ggml-quants.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace outrider {

/// ggml's own numbers. Those without a body in `dequantise` are known by name and size only.
enum class GgmlType : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q8_1 = 9,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    q8_k = 15,
    iq2_xxs = 16,
    iq2_xs = 17,
    iq3_xxs = 18,
    iq1_s = 19,
    iq4_nl = 20,
    iq3_s = 21,
    iq2_s = 22,
    iq4_xs = 23,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    f64 = 28,
    iq1_m = 29,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39
};

/// Numbers are stored in blocks: `elements` of them in `bytes` bytes. elements = 0: not a type of this list.
struct GgmlBlock {
    std::int64_t elements = 0;
    std::int64_t bytes = 0;
};

[[nodiscard]] GgmlBlock ggml_block(GgmlType type) noexcept;

/// ggml's name, "Q4_1"; "type 77" for an unknown number.
[[nodiscard]] std::string ggml_name(GgmlType type);

/// True when `dequantise` reads the type.
[[nodiscard]] bool can_dequantise(GgmlType type) noexcept;

/// Whole blocks to f32: `out` holds as many floats as `blocks` holds elements. Throws Error when the sizes disagree or
/// the type cannot be read.
void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace outrider
