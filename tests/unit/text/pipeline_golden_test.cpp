// Normalizers, added tokens, pre-tokenizers and the files beside a tokenizer.json against Python's `tokenizers` and
// `transformers` (tests/oracle/make_pipeline_golden.py).
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/text/tokenizer.hpp>

#include "../temporary_folder.hpp"

using namespace outrider;
using nlohmann::json;
using outrider::test::TemporaryFolder;

namespace {

const std::filesystem::path kGolden = OUTRIDER_SOURCE_DIR "/tests/golden";

json read(const std::filesystem::path& path) { return json::parse(std::ifstream(path)); }

/// Takes entries out of a vocabulary, and the merges that need them.
void drop(json& model, const std::vector<std::string>& entries) {
    const auto dropped = [&](const std::string& entry) { return std::ranges::find(entries, entry) != entries.end(); };
    for (const std::string& entry : entries) model["vocab"].erase(entry);
    json kept = json::array();
    for (const json& merge : model["merges"]) {
        const std::string left = merge[0], right = merge[1];
        if (!dropped(left) && !dropped(right) && !dropped(left + right)) kept.push_back(merge);
    }
    model["merges"] = kept;
}

/// The vocabulary of a case in a folder, with the files beside it.
std::shared_ptr<const Tokenizer> load(const json& test) {
    json root = read(kGolden / test["base"].get<std::string>());
    root.update(test["set"]);
    if (test.contains("drop")) drop(root["model"], test["drop"]);
    json known = root["model"]["vocab"];
    int next = 0;
    for (const json& token : root["added_tokens"]) known[token["content"].get<std::string>()] = token["id"];
    for (const json& id : known) next = std::max(next, id.get<int>() + 1);
    for (json token : test["add"]) {
        const auto content = token["content"].get<std::string>();
        if (!known.contains(content)) known[content] = next++;
        token["id"] = known[content];
        root["added_tokens"].push_back(token);
    }
    const TemporaryFolder folder;
    for (const auto& [name, content] : test["files"].items()) folder.write(name, content.dump());
    return Tokenizer::from_json(folder.write("tokenizer.json", root.dump()));
}

using Ids = std::vector<TokenId>;

}  // namespace

TEST_CASE("tokenizer: normalizers, added tokens, pre-tokenizers and side files as the reference reads them") {
    const json golden = read(kGolden / "tokenizer" / "pipelines.json");
    REQUIRE(golden["cases"].size() == 167);
    int compared = 0;
    for (const json& test : golden["cases"]) {
        INFO(test["name"] << ", " << test["base"] << ", " << test["set"].dump() << " " << test["add"].dump());
        const auto tokenizer = load(test);
        std::vector<std::string> texts = golden["texts"];
        for (const json& text : test["texts"]) texts.push_back(text);
        REQUIRE(texts.size() == test["plain"].size());
        for (std::size_t i = 0; i < texts.size(); ++i) {
            INFO("text " << json(texts[i]).dump());
            const Ids plain = test["plain"][i];
            CHECK(tokenizer->encode(texts[i], SpecialText::plain) == plain);
            const json& parse = test["parse"][i];
            CHECK(tokenizer->encode(texts[i], SpecialText::parse) == (parse.is_null() ? plain : parse.get<Ids>()));
            ++compared;
        }
        if (test.contains("shown"))
            for (const auto& [id, text] : test["shown"].items())
                CHECK(tokenizer->bytes(std::stoi(id)) == text.get<std::string>());
        if (!test.contains("leading")) continue;
        CHECK(tokenizer->leading_ids() == test["leading"].get<Ids>());
        if (test["eos"].is_null()) continue;
        const auto eos = test["eos"].get<TokenId>();
        CHECK(tokenizer->eos() == eos);
        CHECK(std::ranges::find(tokenizer->end_ids(), eos) != tokenizer->end_ids().end());
    }
    CHECK(compared == 8986);
}
