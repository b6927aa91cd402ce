// What the output of distill holds, what is left to answer, and that a mistake costs no line.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <distilled_file.hpp>

#include <set>
#include <sstream>

#include <nlohmann/json.hpp>
#include <outrider/core/error.hpp>

#include "../temporary_folder.hpp"

using namespace outrider;
using namespace outrider::cli;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::vector<PromptRow> rows_of(const std::string& text) {
    std::istringstream in(text);
    return read_prompts(in, "prompts", 0);
}

/// The line that distill writes for a row.
std::string line_of(const PromptRow& row) {
    nlohmann::ordered_json messages = nlohmann::ordered_json::array();
    for (const ChatMessage& message : messages_of(row))
        messages.push_back({{"role", message.role}, {"content", message.content}});
    messages.push_back({{"role", "assistant"}, {"content", "an answer"}});
    nlohmann::ordered_json line = {{"id", row.id}, {"messages", messages}, {"completion_ids", {1, 2}}};
    if (row.sample > 0) line["sample"] = row.sample;
    return line.dump();
}

/// Answers `count` of the rows that are left, into the file.
std::vector<std::string> answer(const std::string& path, const std::vector<PromptRow>& rows, std::size_t count = 1000) {
    DistilledFile file(path);
    std::vector<std::string> ids;
    for (const PromptRow& row : file.left_of(rows)) {
        if (ids.size() == count) break;
        file.append(line_of(row));
        ids.push_back(row.id);
    }
    return ids;
}

}  // namespace

TEST_CASE("rows without ids of several files are all answered, under ids of their own") {
    const TemporaryFolder folder;
    const std::string path = (folder.path() / "out.jsonl").string();
    const auto a = rows_of("{\"prompt\": \"red\"}\n{\"prompt\": \"apple\"}\n{\"prompt\": \"Rome\"}\n"),
               b = rows_of(
                   "{\"prompt\": \"Rhine\"}\n{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": "
                   "\"user\", \"content\": \"iron\"}]}\n");
    std::vector<std::string> ids = answer(path, a), more = answer(path, b);
    CHECK((ids.size() == 3 && more.size() == 2));
    ids.insert(ids.end(), more.begin(), more.end());
    CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 5);
    CHECK(answer(path, a).empty());
    CHECK(answer(path, b).empty());
    CHECK(DistilledFile(path).ids() == std::set<std::string>(ids.begin(), ids.end()));
    CHECK(answer(path, {a.rbegin(), a.rend()}).empty());  // the row's place is no part of what it is
}

TEST_CASE("rows that share an id are all answered, wherever a run stopped") {
    const auto rows = rows_of(
        "{\"id\": \"x\", \"prompt\": \"red\"}\n{\"id\": \"x\", \"prompt\": \"blue\"}\n{\"id\": \"x\", \"prompt\": "
        "\"red\"}\n"
        "{\"id\": \"x\", \"prompt\": \"red\", \"sample\": 1}\n{\"id\": \"y\", \"prompt\": \"red\"}\n{\"prompt\": "
        "\"red\"}\n"
        "{\"prompt\": \"red\"}\n{\"prompt\": \"red\", \"sample\": 1}\n");
    for (std::size_t stop = 0; stop <= rows.size(); ++stop) {
        CAPTURE(stop);
        const TemporaryFolder folder;
        const std::string path = (folder.path() / "out.jsonl").string();
        CHECK(answer(path, rows, stop).size() == stop);
        CHECK(answer(path, rows).size() == rows.size() - stop);
        CHECK(answer(path, rows).empty());
        CHECK(DistilledFile(path).size() == std::ssize(rows));
    }
    // A part of the file, then all of it.
    const TemporaryFolder folder;
    const std::string path = (folder.path() / "out.jsonl").string();
    CHECK(answer(path, {rows.begin() + 3, rows.end()}).size() == rows.size() - 3);
    CHECK(answer(path, rows).size() == 3);
}

TEST_CASE("a file of raw texts goes on as one, and is no file of conversations") {
    const TemporaryFolder folder;
    const auto rows = rows_of("{\"id\": \"a\", \"prompt\": \"red\"}\n{\"id\": \"b\", \"prompt\": \"blue\"}\n");
    const std::string path = (folder.path() / "raw.jsonl").string();
    {
        DistilledFile file(path, true);
        CHECK(file.left_of(rows).size() == 2);
        file.append(R"({"id":"a","prompt":"red","completion":" and","completion_ids":[1,2]})");
    }
    const DistilledFile there(path, true);
    CHECK(there.size() == 1);
    const auto left = there.left_of(rows);
    REQUIRE(left.size() == 1);
    CHECK(left[0].id == "b");
    CHECK_THROWS_WITH(DistilledFile(path), ContainsSubstring("raw.jsonl:1") && ContainsSubstring("--raw"));
    const std::string chats = folder.write("chats.jsonl", line_of(rows[0]) + "\n");
    CHECK_THROWS_WITH(DistilledFile(chats, true), ContainsSubstring("chats.jsonl:1") && ContainsSubstring("--raw"));
}

TEST_CASE("half a line is cut off when the next one is written, and not before") {
    const auto rows = rows_of("{\"id\": \"a\", \"prompt\": \"red\"}\n{\"id\": \"b\", \"prompt\": \"blue\"}\n");
    const std::string whole = line_of(rows[0]) + "\n", second = line_of(rows[1]);
    for (std::size_t cut = 1; cut < second.size(); ++cut) {
        CAPTURE(cut);
        const TemporaryFolder folder;
        const std::string path = folder.write("out.jsonl", whole + second.substr(0, cut));
        {
            const DistilledFile file(path);
        }
        REQUIRE(folder.read("out.jsonl") == whole + second.substr(0, cut));
        REQUIRE(answer(path, rows) == std::vector<std::string>{"b"});
        REQUIRE(folder.read("out.jsonl") == whole + second + "\n");
    }
    const TemporaryFolder folder;  // a whole line that only lost its break is an answer
    const std::string path = folder.write("out.jsonl", whole + second);
    CHECK(answer(path, rows).empty());
    DistilledFile file(path);
    file.append(whole.substr(0, whole.size() - 1));
    CHECK(folder.read("out.jsonl") == whole + second + "\n" + whole);
}

TEST_CASE("what is no distilled text is refused and stays as it is") {
    const TemporaryFolder folder;
    for (const char* text :
         {"a line of notes", "a line of notes\n", "{\"prompt\": \"red\"}\n", "{\"id\": \"a\", \"prompt\": \"x\"}",
          "{\"id\": 3, \"messages\": [], \"completion_ids\": []}\n", "[]\n", "{\"other\": ", "\n\n", "\xFF"}) {
        CAPTURE(text);
        const std::string path = folder.write("out.jsonl", text);
        CHECK_THROWS_WITH(DistilledFile(path), ContainsSubstring("out.jsonl:1") && ContainsSubstring("--output"));
        CHECK(folder.read("out.jsonl") == text);
    }
    for (const std::string& path : {folder.path().string(), std::string("/dev/full"), std::string("/dev/null"),
                                    (folder.path() / "none" / "out.jsonl").string()}) {
        CAPTURE(path);
        CHECK_THROWS_WITH(DistilledFile(path), ContainsSubstring("--output") && ContainsSubstring(path));
    }
    const std::filesystem::path fresh = folder.path() / "fresh.jsonl";
    {
        const DistilledFile file(fresh);
    }
    CHECK_FALSE(std::filesystem::exists(fresh));  // a command that fails leaves no empty file
}
