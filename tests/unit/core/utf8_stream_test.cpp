// Utf8Stream: never half a character, whatever the cuts, and ill-formed bytes never hold up later text.
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

using outrider::is_valid_utf8;
using outrider::to_valid_utf8;
using outrider::Utf8Stream;

TEST_CASE("a character comes out with its last byte") {
    Utf8Stream stream;
    CHECK(stream.feed("a\xE2\x82") == "a");
    CHECK(stream.pending() == 2);
    CHECK(stream.feed("\xAC") == "\xE2\x82\xAC");
    CHECK(stream.pending() == 0);
    CHECK(stream.feed("\xF0\x9F\x98").empty());
    CHECK(stream.feed("\x80!") == "\xF0\x9F\x98\x80!");
    CHECK(stream.flush().empty());
}

TEST_CASE("what is left at the end becomes one replacement character") {
    Utf8Stream stream;
    CHECK(stream.feed("x\xF0\x9F\x98") == "x");
    CHECK(stream.flush() == "\xEF\xBF\xBD");
    CHECK(stream.pending() == 0);
    CHECK(stream.feed("y") == "y");
}

TEST_CASE("ill-formed bytes are replaced as Unicode advises and do not hold up text") {
    const std::string r = "\xEF\xBF\xBD";
    CHECK(to_valid_utf8("a\x80z") == "a" + r + "z");
    CHECK(to_valid_utf8("\xC0\xAF") == r + r);          // overlong
    CHECK(to_valid_utf8("\xE0\x80\x80") == r + r + r);  // overlong: E0 takes A0 to BF only
    CHECK(to_valid_utf8("\xED\xA0\x80") == r + r + r);  // surrogate
    CHECK(to_valid_utf8("\xF4\x90\x80\x80") == r + r + r + r);
    CHECK(to_valid_utf8("\xF5q") == r + "q");
    CHECK(to_valid_utf8("\xE2\x82q") == r + "q");  // one for the maximal part
    CHECK(to_valid_utf8("\xE2\x82\xE2\x82\xAC") == r + "\xE2\x82\xAC");
    // The row of table 3-8 of the Unicode standard, chapter 3.9.
    CHECK(to_valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64") ==
          "a" + r + r + r + "b" + r + "c" + r + r + "d");
    CHECK(is_valid_utf8("gr\xC3\xBC\xC3\x9F"));
    CHECK_FALSE(is_valid_utf8("\xC3"));
}

TEST_CASE("the cuts do not matter, and every piece is valid by itself") {
    const std::vector<std::string> parts = {"a",        "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
                                            "\xE2\x82", "\xF0\x9F", "\x80",         "\xFF",
                                            "\xED\xA0", "\xC0",     "\n",           "\xF4\x8F"};
    for (int round = 0; round < 2000; ++round) {
        const outrider::RandomKey key(7, 0, round);
        std::string bytes;
        for (std::uint64_t i = 0; i < 12; ++i) bytes += parts[key.bits(i) % parts.size()];
        Utf8Stream stream;
        std::string text;
        for (std::size_t at = 0, i = 100; at < bytes.size(); ++i) {
            const std::size_t n = key.bits(i) % 4;
            const std::string piece = stream.feed(std::string_view(bytes).substr(at, n));
            REQUIRE(is_valid_utf8(piece));
            REQUIRE(stream.pending() <= 3);
            text += piece;
            at += std::min(n, bytes.size() - at);
        }
        text += stream.flush();
        REQUIRE(text == to_valid_utf8(bytes));
        REQUIRE(is_valid_utf8(text));
    }
}
