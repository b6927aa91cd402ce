// Reports that are whole or not there, and JSON that loses no byte of a name.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <json_output.hpp>
#include <output.hpp>

#include <random>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include "../temporary_folder.hpp"

using namespace outrider;
using namespace outrider::cli;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace fs = std::filesystem;

TEST_CASE("a report takes the old one's place when it is whole") {
    const TemporaryFolder folder;
    const std::string path = folder.write("r.json", "old");
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
    {
        ReportFile report("--json", path, ReportFile::Partial::removed);
        report.write_line("new");
        CHECK(folder.read("r.json") == "old");
        report.finish();
        CHECK(folder.read("r.json") == "new\n");
    }
    CHECK(folder.read("r.json") == "new\n");
    CHECK(folder.files() == 1);
    CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    {
        ReportFile report("--json", (folder.path() / "fresh.json").string(), ReportFile::Partial::kept);
        report.finish();
    }
    CHECK(folder.read("fresh.json").empty());
    CHECK(fs::exists(folder.path() / "fresh.json"));  // a report of nothing is one as well
}

TEST_CASE("a command that fails leaves the old report") {
    const TemporaryFolder folder;
    const std::string path = folder.write("r.json", "old");
    {
        const ReportFile report("--json", path, ReportFile::Partial::kept);
    }  // before a line was written
    {
        ReportFile report("--json", path, ReportFile::Partial::removed);
        report.write_line("half");
    }
    CHECK(folder.files() == 1);
    {
        ReportFile report("--json", path, ReportFile::Partial::kept);
        report.write_line("one line");
    }
    CHECK(folder.read("r.json") == "old");
    CHECK(folder.files() == 2);  // lines stand for themselves
}

TEST_CASE("a link to a report stays one") {
    const TemporaryFolder folder;
    folder.write("r.json", "old");
    fs::create_symlink("r.json", folder.path() / "link");
    ReportFile report("--json", (folder.path() / "link").string(), ReportFile::Partial::removed);
    report.write_line("new");
    report.finish();
    CHECK(fs::is_symlink(folder.path() / "link"));
    CHECK(folder.read("r.json") == "new\n");
}

TEST_CASE("places that cannot be written are told before the work") {
    const TemporaryFolder folder;
    const auto refused = [](const std::string& path) {
        CAPTURE(path);
        CHECK_THROWS_WITH(ReportFile("--json", path, ReportFile::Partial::removed),
                          ContainsSubstring("--json") && ContainsSubstring(path));
    };
    refused(folder.path().string());
    refused((folder.path() / "none" / "r.json").string());
    refused(folder.write("file", "").string() + "/r.json");
    CHECK(folder.files() == 1);
    ReportFile full("--json", "/dev/full", ReportFile::Partial::removed);
    CHECK_THROWS_WITH(full.write_line("x"), ContainsSubstring("/dev/full"));
    ReportFile nowhere("--json", "", ReportFile::Partial::removed);
    nowhere.write_line("x");
    nowhere.finish();
    ReportFile null("--json", "/dev/null", ReportFile::Partial::removed);
    null.write_line("x");
    null.finish();
    CHECK(fs::is_character_file("/dev/null"));
}

TEST_CASE("what a command reads is not what it writes") {
    const TemporaryFolder folder;
    const std::string a = folder.write("a", "text");
    fs::create_symlink("a", folder.path() / "b");
    const std::string b = (folder.path() / "b").string();
    CHECK_THROWS_WITH(refuse_inputs("--json", a, {"", a}), ContainsSubstring("--json"));
    CHECK_THROWS_AS(refuse_inputs("--json", b, {a}), Error);
    CHECK_THROWS_AS(refuse_inputs("--json", a, {"x", b}), Error);
    CHECK_NOTHROW(refuse_inputs("--json", a, {"", "-", "nowhere"}));
    CHECK_NOTHROW(refuse_inputs("--json", "nowhere", {"nowhere"}));
    CHECK_NOTHROW(refuse_inputs("--json", "", {a}));
    CHECK_NOTHROW(refuse_inputs("--json", "-", {"-"}));
}

namespace {

/// The bytes that escape_bytes wrote.
std::string unescaped(std::string_view text) {
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            bytes += text[i];
        } else if (text[++i] == '\\') {
            bytes += '\\';
        } else {
            bytes += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
            i += 2;
        }
    }
    return bytes;
}

}  // namespace

TEST_CASE("escaped bytes are text and come back") {
    CHECK(escape_bytes("caf\xE9.jsonl") == R"(caf\xE9.jsonl)");
    CHECK(escape_bytes(R"(a\xE9)") == R"(a\\xE9)");
    CHECK(escape_bytes("ü\xC3") == R"(ü\xC3)");
    std::mt19937 random(5);
    for (int trial = 0; trial < 2000; ++trial) {
        std::string bytes;
        for (int i = static_cast<int>(random() % 12); i > 0; --i)
            bytes +=
                "\\x\xC3\xA9\xFF"
                "aE\xF0\x9F"[random() % 9];
        const std::string text = escape_bytes(bytes);
        CHECK(is_valid_utf8(text));
        CHECK(unescaped(text) == bytes);
    }
}

TEST_CASE("JSON holds any name, and says which ones are escaped") {
    using nlohmann::ordered_json;
    const auto read = [](const ordered_json& document) { return ordered_json::parse(to_text(document)); };
    const ordered_json plain = {{"a", R"(C:\xE9)"}, {"b", {1, 2.5, nullptr, "ü"}}, {"c", {{"d", true}}}};
    CHECK(read(plain) == plain);
    CHECK(to_text(plain) == plain.dump());
    CHECK(to_text(plain, 2) == plain.dump(2));
    const ordered_json back = read({{"model", "caf\xE9\\"},
                                    {"drafters", {"none", "x\\y", "\xFF"}},
                                    {"id", R"(x\y)"},
                                    {"rows", {{{"drafter", "\xFF"}, {"n", 1}}, {{"drafter", "none"}}}}});
    CHECK(back["model"] == R"(caf\xE9\\)");
    CHECK(back["drafters"] == ordered_json({"none", R"(x\\y)", R"(\xFF)"}));
    CHECK(back["id"] == R"(x\y)");
    CHECK(back["escaped"] == ordered_json({"model", "drafters"}));
    CHECK(back["rows"][0] == ordered_json({{"drafter", R"(\xFF)"}, {"n", 1}, {"escaped", {"drafter"}}}));
    CHECK(back["rows"][1] == ordered_json({{"drafter", "none"}}));
}
