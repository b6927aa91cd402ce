// safetensors: round trips, shards, and files that lie.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/safetensors.hpp>

#include "gguf_builder.hpp"
#include "../temporary_folder.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using outrider::test::as_bytes;
using outrider::test::TemporaryFolder;

namespace {

/// A file of this header and these data.
std::string file_of(const std::string& header, const std::string& data) {
    std::string file;
    test::GgufBuilder::put<std::uint64_t>(file, header.size());
    return file + header + data;
}

void check_fails(const std::string& file, const std::string& part) {
    const TemporaryFolder folder;
    CHECK_THROWS_MATCHES(SafeTensors::open(folder.write("x.safetensors", file)), Error,
                         MessageMatches(ContainsSubstring(part)));
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
    return std::as_bytes(std::span(values));
}

}  // namespace

TEST_CASE("safetensors: what is written is read") {
    const TemporaryFolder folder;
    const auto path = folder.path() / "a.safetensors";
    const std::vector<float> f32 = {1.5f, -2, 0, 1e30f, 3, 4};
    const std::vector<double> f64 = {0.1};
    const std::vector<std::uint16_t> halves = {0x3C00, 0xC000};
    const std::vector<std::int64_t> i64 = {-5};
    const std::vector<std::int32_t> i32 = {7, -7};
    const std::vector<std::int16_t> i16 = {-300};
    const std::vector<std::int8_t> i8 = {-1, 2, -3};
    const std::vector<std::uint8_t> u8 = {255};
    const std::vector<std::uint8_t> flags = {0, 1};
    const std::vector<SafeTensorView> tensors = {{"u8", SafeDtype::u8, {1}, bytes_of(u8)},
                                                 {"w", SafeDtype::f32, {2, 3}, bytes_of(f32)},
                                                 {"scalar", SafeDtype::f64, {}, bytes_of(f64)},
                                                 {"half", SafeDtype::f16, {2}, bytes_of(halves)},
                                                 {"brain", SafeDtype::bf16, {2, 1}, bytes_of(halves)},
                                                 {"i64", SafeDtype::i64, {1}, bytes_of(i64)},
                                                 {"i32", SafeDtype::i32, {2}, bytes_of(i32)},
                                                 {"i16", SafeDtype::i16, {1}, bytes_of(i16)},
                                                 {"i8", SafeDtype::i8, {3}, bytes_of(i8)},
                                                 {"b", SafeDtype::boolean, {2}, bytes_of(flags)},
                                                 {"nothing", SafeDtype::f32, {4, 0}, {}},
                                                 {"caf\xC3\xA9 \"x\"", SafeDtype::u8, {1}, bytes_of(u8)}};
    write_safetensors(path, tensors, {{"kind", "ctc"}, {"note", "a\nb"}});
    const SafeTensors file = SafeTensors::open(path);
    CHECK(file.metadata() == std::map<std::string, std::string>{{"kind", "ctc"}, {"note", "a\nb"}});
    CHECK(file.names().size() == tensors.size());
    for (const SafeTensorView& written : tensors) {
        const SafeTensor& read = file.tensor(written.name);
        CHECK(read.dtype == written.dtype);
        CHECK(read.shape == written.shape);
        REQUIRE(read.data.size() == written.data.size());
        if (!read.data.empty()) CHECK(std::memcmp(read.data.data(), written.data.data(), read.data.size()) == 0);
        // Aligned for its own type, so that it can be used in place.
        CHECK(reinterpret_cast<std::uintptr_t>(read.data.data()) % safe_dtype_bytes(read.dtype) == 0);
    }
    CHECK(to_floats(file.tensor("w")) == f32);
    CHECK(to_floats(file.tensor("scalar")) == std::vector<float>{0.1f});
    CHECK(to_floats(file.tensor("half")) == std::vector<float>{1, -2});
    CHECK(to_floats(file.tensor("brain")) == std::vector<float>{0.0078125f, -2});
    CHECK(to_floats(file.tensor("i64")) == std::vector<float>{-5});
    CHECK(to_floats(file.tensor("i32")) == std::vector<float>{7, -7});
    CHECK(to_floats(file.tensor("i16")) == std::vector<float>{-300});
    CHECK(to_floats(file.tensor("i8")) == std::vector<float>{-1, 2, -3});
    CHECK(to_floats(file.tensor("u8")) == std::vector<float>{255});
    CHECK(to_floats(file.tensor("b")) == std::vector<float>{0, 1});
    CHECK(to_floats(file.tensor("nothing")).empty());
    CHECK_FALSE(file.has("absent"));
    CHECK_THROWS_AS(file.tensor("absent"), Error);
    std::vector<float> small(5);
    CHECK_THROWS_AS(to_floats(file.tensor("w"), small), Error);
}

TEST_CASE("safetensors: a file without tensors or metadata") {
    const TemporaryFolder folder;
    write_safetensors(folder.path() / "empty", {});
    CHECK(SafeTensors::open(folder.path() / "empty").tensors().empty());
}

TEST_CASE("safetensors: writing replaces the file whole, or leaves it as it was") {
    const TemporaryFolder folder;
    const auto path = folder.write("a.safetensors", "old");
    const std::vector<float> one = {1};
    const auto refuse = [&](const std::vector<SafeTensorView>& tensors) {
        CHECK_THROWS_AS(write_safetensors(path, tensors), Error);
        std::ifstream file(path);
        CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == "old");
    };
    refuse({{"a", SafeDtype::f32, {1}, bytes_of(one)}, {"a", SafeDtype::f32, {1}, bytes_of(one)}});
    refuse({{"a", SafeDtype::f32, {2}, bytes_of(one)}});
    refuse({{"a", SafeDtype::f32, {-1}, bytes_of(one)}});
    refuse({{"a", SafeDtype::f32, {std::int64_t{1} << 40, std::int64_t{1} << 40}, bytes_of(one)}});
    refuse({{"", SafeDtype::f32, {1}, bytes_of(one)}});
    refuse({{"\xFF", SafeDtype::f32, {1}, bytes_of(one)}});
    refuse({{"__metadata__", SafeDtype::f32, {1}, bytes_of(one)}});
    CHECK_THROWS_AS(write_safetensors(path, {}, {{"key", "\xFF"}}), Error);
    CHECK_THROWS_AS(write_safetensors(folder.path() / "no" / "such" / "folder", {}), Error);
    std::filesystem::create_directory(folder.path() / "in the way");
    CHECK_THROWS_AS(write_safetensors(folder.path() / "in the way", {}), Error);  // renaming fails, at the very end
    const std::vector<SafeTensorView> good = {{"a", SafeDtype::f32, {1}, bytes_of(one)}};
    write_safetensors(path, good);
    CHECK(to_floats(SafeTensors::open(path).tensor("a")) == one);
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);  // nothing temporary is left
}

TEST_CASE("safetensors: shards") {
    const TemporaryFolder folder;
    const std::vector<float> one = {1}, two = {2, 3};
    const std::vector<SafeTensorView> first = {{"a", SafeDtype::f32, {1}, bytes_of(one)}};
    const std::vector<SafeTensorView> second = {{"b", SafeDtype::f32, {2}, bytes_of(two)}};
    write_safetensors(folder.path() / "1.safetensors", first, {{"format", "pt"}});
    write_safetensors(folder.path() / "2.safetensors", second, {{"format", "pt"}, {"more", "yes"}});
    const auto index = [&](const std::string& text) {
        folder.write("model.safetensors.index.json", text);
        return SafeTensors::open(folder.path());
    };
    const SafeTensors file = index(R"({"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
    CHECK(to_floats(file.tensor("a")) == one);
    CHECK(to_floats(file.tensor("b")) == two);
    CHECK(file.metadata().at("more") == "yes");
    CHECK_THROWS_AS(index(R"({"weight_map": {"c": "1.safetensors"}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": "3.safetensors"}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": "../1.safetensors"}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": "/1.safetensors"}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": ".."}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": 5}})"), Error);
    CHECK_THROWS_AS(index(R"({"weight_map": []})"), Error);
    CHECK_THROWS_AS(index("[]"), Error);
    CHECK_THROWS_AS(index("{}"), Error);
    write_safetensors(folder.path() / "2.safetensors", first);
    CHECK_THROWS_MATCHES(index(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})"), Error,
                         MessageMatches(ContainsSubstring("two files")));
    std::filesystem::remove(folder.path() / "model.safetensors.index.json");
    CHECK_THROWS_MATCHES(SafeTensors::open(folder.path()), Error,
                         MessageMatches(ContainsSubstring("model.safetensors")));
    write_safetensors(folder.path() / "model.safetensors", second);
    CHECK(SafeTensors::open(folder.path()).names() == std::vector<std::string>{"b"});
    CHECK_THROWS_AS(SafeTensors::open(folder.path() / "absent"), Error);
}

TEST_CASE("safetensors: hostile headers") {
    const std::string four = "abcd";
    const auto entry = [](const std::string& name, const std::string& dtype, const std::string& shape,
                          const std::string& offsets) {
        return fmt::format(R"("{}": {{"dtype": "{}", "shape": {}, "data_offsets": {}}})", name, dtype, shape, offsets);
    };
    const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
        return file_of(fmt::format("{{{}}}", entry("a", dtype, shape, offsets)), four);
    };
    const auto two = [&](const std::string& first, const std::string& second) {
        return file_of(fmt::format("{{{}, {}}}", first, second), four);
    };
    const TemporaryFolder folder;
    REQUIRE_NOTHROW(SafeTensors::open(folder.write("good", one("F32", "[1]", "[0, 4]"))));
    check_fails("", "expected a safetensors file");
    check_fails("1234567", "expected a safetensors file");
    check_fails(std::string(8, '\xFF') + "{}", "its header would have");
    std::string long_header;
    test::GgufBuilder::put<std::uint64_t>(long_header, 3);
    check_fails(long_header + "{}", "its header would have");
    check_fails(file_of("{", ""), "expected JSON");
    check_fails(file_of("[]", ""), "no JSON object");
    check_fails(file_of("{\"\xFF\": 1}", ""), "expected JSON");
    check_fails(file_of(std::string(100'000, '['), ""), "levels deep");
    check_fails(two(entry("a", "F32", "[1]", "[0, 4]"), entry("a", "F32", "[1]", "[0, 4]")), "occurs twice");
    check_fails(file_of(R"({"a": 1})", ""), "expected dtype");
    check_fails(file_of(R"({"a": {"dtype": "F32"}})", ""), "expected shape");
    check_fails(file_of(R"({"a": {"dtype": "F32", "shape": [1]}})", four), "expected data_offsets");
    check_fails(file_of(R"({"__metadata__": 1})", ""), "__metadata__");
    check_fails(file_of(R"({"__metadata__": {"a": 1}})", ""), "no string");
    check_fails(one("F8_E4M3", "[4]", "[0, 4]"), "F8_E4M3");
    check_fails(one("f32", "[1]", "[0, 4]"), "dtype");
    check_fails(one("F32", "[2]", "[0, 4]"), "takes 8 bytes");
    check_fails(one("F32", "[1]", "[0, 5]"), "reach beyond");
    check_fails(one("F32", "[1]", "[4, 0]"), "reach beyond");
    check_fails(one("F32", "[1]", "[0]"), "reach beyond");
    check_fails(one("F32", "[1]", "[0, 4, 8]"), "reach beyond");
    check_fails(one("F32", "[-1]", "[0, 4]"), "expected shape");
    check_fails(one("F32", "[1.0]", "[0, 4]"), "expected shape");
    check_fails(one("F32", "[1]", "[-4, 0]"), "expected data_offsets");
    check_fails(one("F32", "[18446744073709551615]", "[0, 4]"), "expected shape");
    check_fails(one("F32", "[4611686018427387904, 4]", "[0, 4]"), "takes 0 bytes");
    check_fails(one("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "[0, 4]"), "at most 16");
    check_fails(one("F32", "[0]", "[0, 0]"), "the file holds 4");
    check_fails(two(entry("a", "U8", "[3]", "[0, 3]"), entry("b", "U8", "[2]", "[2, 4]")), "overlap or leave a hole");
    check_fails(two(entry("a", "U8", "[1]", "[0, 1]"), entry("b", "U8", "[2]", "[2, 4]")), "overlap or leave a hole");
}
