// GGUF: what is in a file comes out, and nothing in a file can do harm.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"

#include "gguf_builder.hpp"
#include "../temporary_folder.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using outrider::test::as_bytes;
using outrider::test::GgufBuilder;

namespace {

GgufFile parse(const GgufBuilder& builder) {
    return GgufFile::parse(SharedBytes::copy(as_bytes(builder.build())), "tiny.gguf");
}

std::string floats(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

void check_fails(const GgufBuilder& builder, const std::string& part) {
    CHECK_THROWS_MATCHES(parse(builder), Error, MessageMatches(ContainsSubstring(part)));
}

}  // namespace

TEST_CASE("gguf: metadata of every type") {
    GgufBuilder b;
    b.scalar<std::uint8_t>("u8", 200).scalar<std::int8_t>("i8", -7).scalar<std::uint16_t>("u16", 65535);
    b.scalar<std::int16_t>("i16", -300).scalar<std::uint32_t>("u32", 4000000000u).scalar<std::int32_t>("i32", -5);
    b.scalar<std::uint64_t>("u64", 1ull << 40).scalar<std::int64_t>("i64", -(1ll << 40)).scalar("f32", 1.5f);
    b.scalar("f64", 0.1).scalar("yes", true).text("text", "caf\xC3\xA9");
    b.array<std::string>("words", {"a", "", "b c"}).array<float>("scores", {1.f, -2.f});
    b.array<std::int32_t>("types", {1, 3}).array<bool>("flags", {});
    b.scalar<std::uint64_t>("huge", std::numeric_limits<std::uint64_t>::max());
    for (const std::uint32_t version : {2u, 3u}) {
        b.version = version;
        const GgufFile file = parse(b);
        CHECK(file.version() == version);
        CHECK(file.integer("u8") == 200);
        CHECK(file.integer("i8") == -7);
        CHECK(file.integer("u16") == 65535);
        CHECK(file.integer("i16") == -300);
        CHECK(file.integer("u32") == 4000000000);
        CHECK(file.integer("i32") == -5);
        CHECK(file.integer("u64") == (1ll << 40));
        CHECK(file.integer("i64") == -(1ll << 40));
        CHECK(file.number("f32") == 1.5);
        CHECK(file.number("f64") == 0.1);
        CHECK(file.number("i16") == -300.0);
        CHECK(file.boolean("yes"));
        CHECK(file.string("text") == "caf\xC3\xA9");
        CHECK(file.strings("words") == std::vector<std::string>{"a", "", "b c"});
        CHECK(file.numbers("scores") == std::vector<double>{1, -2});
        CHECK(file.integers("types") == std::vector<std::int64_t>{1, 3});
        CHECK(file.is_array("types"));
        CHECK_FALSE(file.is_array("i16"));
        CHECK(file.keys().size() == 17);
        CHECK_FALSE(file.find_integer("absent"));
        CHECK(file.find_number("f32") == 1.5);
        CHECK_THROWS_AS(file.integer("huge"), Error);
        CHECK_THROWS_AS(file.integer("absent"), Error);
        CHECK_THROWS_AS(file.integer("text"), Error);
        CHECK_THROWS_AS(file.integer("f32"), Error);
        CHECK_THROWS_AS(file.find_integer("types"), Error);
        CHECK_THROWS_AS(file.number("yes"), Error);
        CHECK_THROWS_AS(file.string("words"), Error);
        CHECK_THROWS_AS(file.strings("types"), Error);
        CHECK_THROWS_AS(file.integers("scores"), Error);
        CHECK_THROWS_AS(file.boolean("i8"), Error);
    }
}

TEST_CASE("gguf: tensors have row-major shapes and lie where the file says") {
    GgufBuilder b;
    b.tensor("w", {3, 2}, 0, floats({1, 2, 3, 4, 5, 6})).tensor("b", {2}, 0, floats({7, 8}));
    const GgufFile file = parse(b);
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensor("w").shape == std::vector<std::int64_t>{2, 3});
    CHECK(to_floats(file.tensor("w")) == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(to_floats(file.tensor("b")) == std::vector<float>{7, 8});
    CHECK_FALSE(file.has_tensor("c"));
    CHECK_THROWS_MATCHES(file.tensor("c"), Error, MessageMatches(ContainsSubstring("tensor c is missing")));
    const GgufFile part = parse(b.scalar<std::uint16_t>("split.count", 3));
    CHECK_THROWS_MATCHES(part.tensor("c"), Error, MessageMatches(ContainsSubstring("one part of several")));
}

namespace {

/// Part `index` (from 0) of `count`, with one tensor of its own.
std::string part_of(std::uint16_t index, std::uint16_t count, std::int32_t tensors) {
    GgufBuilder b;
    b.scalar<std::uint16_t>("split.no", index).scalar<std::uint16_t>("split.count", count);
    b.scalar<std::int32_t>("split.tensors.count", tensors);
    if (index == 0) b.text("general.architecture", "llama");
    const std::string name = "t" + std::to_string(index);
    return b.tensor(name, {2}, 0, floats({1.0f + static_cast<float>(index), 2})).build();
}

}  // namespace

TEST_CASE("gguf: a model in parts is opened by any of them") {
    const test::TemporaryFolder folder;
    std::vector<std::filesystem::path> paths;
    for (std::uint16_t i = 0; i < 3; ++i)
        paths.push_back(
            folder.write("a-00001-of-00009-0000" + std::to_string(i + 1) + "-of-00003.gguf", part_of(i, 3, 3)));
    for (const auto& path : paths) {
        const GgufFile file = GgufFile::open(path);
        CHECK(file.tensors().size() == 3);
        CHECK(file.string("general.architecture") == "llama");
        for (int i = 0; i < 3; ++i) {
            const GgufTensor& tensor = file.tensor("t" + std::to_string(i));
            CHECK(to_floats(tensor) == std::vector<float>{1.0f + static_cast<float>(i), 2});
            file.drop_pages(tensor.data);
        }
    }
    const auto fails = [&](const char* part) {
        CHECK_THROWS_MATCHES(GgufFile::open(paths[0]), Error, MessageMatches(ContainsSubstring(part)));
    };
    const auto third = paths[2].filename().string();
    folder.write(third, part_of(1, 3, 3));
    fails("split.no is 1");
    folder.write(third, part_of(2, 4, 3));
    fails("split.count 4");
    folder.write(third, part_of(2, 3, 3).substr(0, 150));
    CHECK_THROWS_AS(GgufFile::open(paths[0]), Error);
    folder.write(third, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
    fails("Git LFS pointer");
    std::filesystem::remove(paths[2]);
    fails("part 3 of 3 is missing");
    paths[0] = folder.write("b-00001-of-00001.gguf", part_of(0, 1, 1));
    CHECK(GgufFile::open(paths[0]).tensors().size() == 1);
    for (const char* name :
         {"model.gguf", "model-00001-of-00002.gguf", "model-0001-of-0003.gguf", "-00001-of-00003.bin"}) {
        paths[0] = folder.write(name, part_of(0, 3, 3));
        fails("one part of 3");
    }
    for (std::uint16_t i = 0; i < 2; ++i) {  // one tensor in both
        const auto path = folder.write("c-0000" + std::to_string(i + 1) + "-of-00002.gguf", part_of(0, 2, 2));
        if (i == 0) paths[0] = path;
    }
    CHECK_THROWS_AS(GgufFile::open(paths[0]), Error);
    for (std::uint16_t i = 0; i < 2; ++i)
        paths[i] = folder.write("d-0000" + std::to_string(i + 1) + "-of-00002.gguf", part_of(i, 2, 7));
    fails("split.tensors.count is 7");
}

TEST_CASE("files: a Git LFS pointer is named as one") {
    const test::TemporaryFolder folder;
    const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    CHECK_THROWS_MATCHES(SharedBytes::map(folder.write("m.gguf", pointer)), Error,
                         MessageMatches(ContainsSubstring("m.gguf") && ContainsSubstring("Git LFS pointer")));
    CHECK_THROWS_AS(SharedBytes::map(folder.write("m", "version https://hawser.github.com/spec/v1\n")), Error);
    CHECK(SharedBytes::map(folder.write("m", "version https://example.org/\n")).size() > 0);
    CHECK(SharedBytes::map(folder.write("m", pointer + std::string(2000, 'x'))).size() > 2000);
}

TEST_CASE("files: what is no file is refused, and a pipe is not waited for") {
    const test::TemporaryFolder folder;
    const auto pipe = folder.path() / "pipe.gguf";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    for (const std::filesystem::path& path : {pipe, folder.path(), std::filesystem::path("/dev/null")})
        CHECK_THROWS_MATCHES(SharedBytes::map(path), Error, MessageMatches(ContainsSubstring("expected a file")));
    CHECK_THROWS_MATCHES(SharedBytes::map(folder.path() / "none"), Error,
                         MessageMatches(ContainsSubstring("cannot open")));
    std::filesystem::create_symlink(folder.write("a", "text"), folder.path() / "link");
    CHECK(SharedBytes::map(folder.path() / "link").size() == 4);
}

TEST_CASE("gguf: the mapping outlives the handle it came from") {
    std::vector<GgufTensor> tensors;
    GgufFile copy = parse(GgufBuilder().tensor("a", {1}, 0, floats({3})));
    {
        const GgufFile first = copy;
        tensors = first.tensors();
    }
    CHECK(to_floats(tensors[0]) == std::vector<float>{3});
}

TEST_CASE("gguf: a type that cannot be read is named with its tensor") {
    const GgufFile file = parse(GgufBuilder().tensor("blk.0.ffn_up.weight", {256}, 19, std::string(50, 'x')));
    CHECK_THROWS_MATCHES(to_floats(file.tensor("blk.0.ffn_up.weight")), Error,
                         MessageMatches(ContainsSubstring("blk.0.ffn_up.weight") && ContainsSubstring("IQ1_S")));
    check_fails(GgufBuilder().tensor("t", {32}, 4, std::string(20, 'x')), "tensor t is of unknown type 4");
}

TEST_CASE("gguf: hostile headers") {
    const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
    GgufBuilder b;
    b.magic = "GGML";
    check_fails(b, "does not begin with");
    b.magic = "GGUF", b.version = 1;
    check_fails(b, "version 1");
    b.version = 3u << 24;
    check_fails(b, "big-endian");
    b.version = 3, b.tensor_count = most;
    check_fails(b, "tensors cannot be");
    b.tensor_count = 0, b.value_count = most;
    check_fails(b, "metadata values cannot be");
    check_fails(GgufBuilder().scalar("a", 1).scalar("a", 2), "occurs twice");
    check_fails(GgufBuilder().scalar("\xFF\xFE", 1), "not UTF-8");
    check_fails(GgufBuilder().raw("a", 13, "x"), "unknown");
    std::string bytes;
    GgufBuilder::put<std::uint32_t>(bytes, 9);
    GgufBuilder::put<std::uint64_t>(bytes, 1);
    check_fails(GgufBuilder().raw("nested", 9, bytes), "nested array");
    bytes.clear();
    GgufBuilder::put<std::uint32_t>(bytes, 12);
    GgufBuilder::put<std::uint64_t>(bytes, (most >> 3) + 1);  // times 8 overflows to 8
    check_fails(GgufBuilder().raw("long", 9, bytes + std::string(64, 'x')), "cannot be in");
    bytes.clear();
    GgufBuilder::put<std::uint64_t>(bytes, most);
    check_fails(GgufBuilder().raw("text", 8, bytes), "ends inside");
    for (const std::uint32_t alignment : {0u, 3u, 1u << 30}) {
        check_fails(GgufBuilder().scalar("general.alignment", alignment), "power of two");
    }
    check_fails(GgufBuilder().text("general.alignment", "32"), "expected an integer");
}

TEST_CASE("gguf: hostile tensors") {
    const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
    const std::string four = floats({1, 2, 3, 4});
    check_fails(GgufBuilder().tensor("a", {4}, 0, four).tensor("a", {4}, 0, four), "occurs twice");
    check_fails(GgufBuilder().tensor("\xC0", {4}, 0, four), "not UTF-8");
    check_fails(GgufBuilder().tensor("a", {1, 1, 1, 2, 2}, 0, four), "5 dimensions");
    check_fails(GgufBuilder().tensor("a", {0, 4}, 0, four), "impossible");
    check_fails(GgufBuilder().tensor("a", {1ull << 32, 1ull << 32}, 0, four), "impossible");
    check_fails(GgufBuilder().tensor("a", {most}, 0, four), "impossible");
    check_fails(GgufBuilder().tensor("a", {48}, 2, std::string(54, 'x')), "whole blocks");
    check_fails(GgufBuilder().tensor("a", {5}, 0, four), "reaches beyond");
    check_fails(GgufBuilder().tensor_at("a", {4}, 0, 4).data(std::string(64, 'x')), "not a multiple");
    check_fails(GgufBuilder().tensor_at("a", {4}, 0, most - 31).data(four), "reaches beyond");
    check_fails(GgufBuilder().tensor_at("a", {4}, 0, 0).tensor_at("b", {16}, 0, 0).data(std::string(96, 'x')),
                "overlap");
}

TEST_CASE("gguf: every truncation of a file is an error") {
    GgufBuilder b;
    b.scalar("n", 5).text("t", "text").array<std::string>("words", {"one", "two"});
    b.tensor("w", {4}, 0, floats({1, 2, 3, 4})).tensor("v", {32}, 8, std::string(34, 'q'));
    const std::string whole = b.build();
    REQUIRE_NOTHROW(GgufFile::parse(SharedBytes::copy(as_bytes(whole)), "whole"));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        REQUIRE_THROWS_AS(GgufFile::parse(SharedBytes::copy(as_bytes(whole).first(size)), "cut"), Error);
    }
}

TEST_CASE("gguf: files that are not there, are folders, or are empty") {
    CHECK_THROWS_MATCHES(GgufFile::open("/no/such/file.gguf"), Error,
                         MessageMatches(ContainsSubstring("/no/such/file.gguf")));
    CHECK_THROWS_AS(GgufFile::open("/"), Error);
    CHECK_THROWS_AS(GgufFile::open("/dev/null"), Error);
}
