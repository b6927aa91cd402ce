// Every readable number format against what the Python package `gguf` reads (tests/oracle/make_gguf_golden.py).
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include "formats/ggml_types.hpp"

using namespace outrider;

namespace {

std::vector<std::byte> from_hex(const std::string& hex) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

}  // namespace

TEST_CASE("ggml types: golden blocks") {
    const auto golden = nlohmann::json::parse(std::ifstream(OUTRIDER_SOURCE_DIR "/tests/golden/gguf_blocks.json"));
    std::set<std::string> seen;
    for (const auto& row : golden) {
        const auto type = static_cast<GgmlType>(row["number"].get<std::uint32_t>());
        INFO(ggml_name(type));
        CHECK(ggml_name(type) == row["type"]);
        seen.insert(row["type"]);
        REQUIRE(can_dequantise(type));
        const auto blocks = from_hex(row["blocks"]);
        const auto bytes = from_hex(row["f32"]);
        std::vector<float> expected(bytes.size() / 4);
        std::memcpy(expected.data(), bytes.data(), bytes.size());
        std::vector<float> got(expected.size());
        dequantise(type, blocks, got);
        float largest = 0;
        for (const float x : expected) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
        for (std::size_t i = 0; i < got.size(); ++i) {
            INFO("number " << i << " expected " << expected[i] << " got " << got[i]);
            // Equal up to the rounding of one product and one sum; halves are exact, infinities and signs included.
            const bool exact = type == GgmlType::f16 || type == GgmlType::bf16;
            if (exact)
                REQUIRE(std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(expected[i]));
            else
                REQUIRE(std::abs(got[i] - expected[i]) <= 3e-7f * largest);
        }
    }
    CHECK(seen.size() == 14);
}

TEST_CASE("ggml types: sizes that do not fit, and types that cannot be read") {
    std::vector<std::byte> block(18);
    std::vector<float> out(32);
    CHECK_NOTHROW(dequantise(GgmlType::q4_0, block, out));
    CHECK_THROWS_AS(dequantise(GgmlType::q4_0, std::span(block).first(17), out), Error);
    CHECK_THROWS_AS(dequantise(GgmlType::q4_0, block, std::span(out).first(31)), Error);
    CHECK_THROWS_AS(dequantise(GgmlType::q4_0, {}, out), Error);
    CHECK_NOTHROW(dequantise(GgmlType::q4_0, {}, {}));
    CHECK_THROWS_AS(dequantise(GgmlType::iq1_s, {}, {}), Error);
    CHECK_THROWS_AS(dequantise(static_cast<GgmlType>(4), {}, {}), Error);
    CHECK(ggml_block(static_cast<GgmlType>(4)).elements == 0);
    CHECK(ggml_name(static_cast<GgmlType>(1000)) == "type 1000");
}
