#include "formats/ggml_types.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/bits.hpp>
#include "ggml_k_quants.hpp"

namespace outrider {
namespace {

using detail::bfloat_to_float;
using detail::half_at;
using detail::load;

using Byte = std::uint8_t;

// One block each: `p` the block, `y` its floats.

void block_f32(const Byte* p, float* y) { *y = load<float>(p); }
void block_f16(const Byte* p, float* y) { *y = half_at(p); }
void block_bf16(const Byte* p, float* y) { *y = bfloat_to_float(load<std::uint16_t>(p)); }

void block_q8_0(const Byte* p, float* y) {
    const float d = half_at(p);
    for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(static_cast<std::int8_t>(p[2 + j]));
}

void block_q4_0(const Byte* p, float* y) {
    const float d = half_at(p);
    for (int j = 0; j < 16; ++j) {
        y[j] = d * static_cast<float>((p[2 + j] & 15) - 8);
        y[j + 16] = d * static_cast<float>((p[2 + j] >> 4) - 8);
    }
}

void block_q4_1(const Byte* p, float* y) {
    const float d = half_at(p), m = half_at(p + 2);
    for (int j = 0; j < 16; ++j) {
        y[j] = d * static_cast<float>(p[4 + j] & 15) + m;
        y[j + 16] = d * static_cast<float>(p[4 + j] >> 4) + m;
    }
}

/// The five-bit number j of a block: low bits `q` (16 bytes, j and j + 16 share one), fifth bits `high`.
int five_bits(const Byte* q, std::uint32_t high, int j) {
    const int low = j < 16 ? q[j] & 15 : q[j - 16] >> 4;
    return low | static_cast<int>((high >> j) & 1) << 4;
}

void block_q5_0(const Byte* p, float* y) {
    const float d = half_at(p);
    const auto high = load<std::uint32_t>(p + 2);
    for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(five_bits(p + 6, high, j) - 16);
}

void block_q5_1(const Byte* p, float* y) {
    const float d = half_at(p), m = half_at(p + 2);
    const auto high = load<std::uint32_t>(p + 4);
    for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(five_bits(p + 8, high, j)) + m;
}

using Reader = void (*)(const Byte*, float*);

struct TypeEntry {
    GgmlType type;
    const char* name;
    GgmlBlock block;
    Reader read;  // null: known by name only
};

constexpr std::array kTypes = {
    TypeEntry{GgmlType::f32, "F32", {1, 4}, block_f32},
    TypeEntry{GgmlType::f16, "F16", {1, 2}, block_f16},
    TypeEntry{GgmlType::bf16, "BF16", {1, 2}, block_bf16},
    TypeEntry{GgmlType::q4_0, "Q4_0", {32, 18}, block_q4_0},
    TypeEntry{GgmlType::q4_1, "Q4_1", {32, 20}, block_q4_1},
    TypeEntry{GgmlType::q5_0, "Q5_0", {32, 22}, block_q5_0},
    TypeEntry{GgmlType::q5_1, "Q5_1", {32, 24}, block_q5_1},
    TypeEntry{GgmlType::q8_0, "Q8_0", {32, 34}, block_q8_0},
    TypeEntry{GgmlType::q8_1, "Q8_1", {32, 36}, nullptr},
    TypeEntry{GgmlType::q2_k, "Q2_K", {256, 84}, detail::block_q2_k},
    TypeEntry{GgmlType::q3_k, "Q3_K", {256, 110}, detail::block_q3_k},
    TypeEntry{GgmlType::q4_k, "Q4_K", {256, 144}, detail::block_q4_k},
    TypeEntry{GgmlType::q5_k, "Q5_K", {256, 176}, detail::block_q5_k},
    TypeEntry{GgmlType::q6_k, "Q6_K", {256, 210}, detail::block_q6_k},
    TypeEntry{GgmlType::q8_k, "Q8_K", {256, 292}, nullptr},
    TypeEntry{GgmlType::iq2_xxs, "IQ2_XXS", {256, 66}, nullptr},
    TypeEntry{GgmlType::iq2_xs, "IQ2_XS", {256, 74}, nullptr},
    TypeEntry{GgmlType::iq3_xxs, "IQ3_XXS", {256, 98}, nullptr},
    TypeEntry{GgmlType::iq1_s, "IQ1_S", {256, 50}, nullptr},
    TypeEntry{GgmlType::iq4_nl, "IQ4_NL", {32, 18}, detail::block_iq4_nl},
    TypeEntry{GgmlType::iq3_s, "IQ3_S", {256, 110}, nullptr},
    TypeEntry{GgmlType::iq2_s, "IQ2_S", {256, 82}, nullptr},
    TypeEntry{GgmlType::iq4_xs, "IQ4_XS", {256, 136}, detail::block_iq4_xs},
    TypeEntry{GgmlType::iq1_m, "IQ1_M", {256, 56}, nullptr},
    TypeEntry{GgmlType::i8, "I8", {1, 1}, nullptr},
    TypeEntry{GgmlType::i16, "I16", {1, 2}, nullptr},
    TypeEntry{GgmlType::i32, "I32", {1, 4}, nullptr},
    TypeEntry{GgmlType::i64, "I64", {1, 8}, nullptr},
    TypeEntry{GgmlType::f64, "F64", {1, 8}, nullptr},
    TypeEntry{GgmlType::tq1_0, "TQ1_0", {256, 54}, nullptr},
    TypeEntry{GgmlType::tq2_0, "TQ2_0", {256, 66}, nullptr},
    TypeEntry{GgmlType::mxfp4, "MXFP4", {32, 17}, nullptr},
};

const TypeEntry* find(GgmlType type) noexcept {
    for (const TypeEntry& entry : kTypes) {
        if (entry.type == type) return &entry;
    }
    return nullptr;
}

}  // namespace

GgmlBlock ggml_block(GgmlType type) noexcept {
    const TypeEntry* entry = find(type);
    return entry != nullptr ? entry->block : GgmlBlock{};
}

std::string ggml_name(GgmlType type) {
    const TypeEntry* entry = find(type);
    return entry != nullptr ? entry->name : fmt::format("type {}", static_cast<std::uint32_t>(type));
}

bool can_dequantise(GgmlType type) noexcept {
    const TypeEntry* entry = find(type);
    return entry != nullptr && entry->read != nullptr;
}

void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
    const TypeEntry* entry = find(type);
    require(entry != nullptr && entry->read != nullptr, ErrorKind::damaged_file,
            "cannot read numbers of GGUF type {}: convert the file to F16, Q8_0, Q4_K or another supported type",
            ggml_name(type));
    const auto elements = static_cast<std::size_t>(entry->block.elements);
    const auto bytes = static_cast<std::size_t>(entry->block.bytes);
    require(out.size() % elements == 0 && blocks.size() % bytes == 0 && blocks.size() / bytes == out.size() / elements,
            ErrorKind::damaged_file, "{} stores {} numbers in {} bytes: {} bytes do not hold {} numbers", entry->name,
            elements, bytes, blocks.size(), out.size());
    if (type == GgmlType::f32) {
        if (!out.empty()) std::memcpy(out.data(), blocks.data(), blocks.size());
        return;
    }
    const auto* p = reinterpret_cast<const Byte*>(blocks.data());
    for (std::size_t i = 0; i < out.size(); i += elements, p += bytes) entry->read(p, out.data() + i);
}

}  // namespace outrider
