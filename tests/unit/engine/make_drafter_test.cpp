#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fmt/format.h>
#include <outrider/core/error.hpp>
#include <outrider/engine.hpp>

#include <filesystem>
#include <fstream>

#include "../temporary_folder.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

struct Folder {
    test::TemporaryFolder own;
    fs::path path = own.path();
    void config(const std::string& name, const std::string& text) const {
        fs::create_directories(path / name);
        std::ofstream(path / name / "config.json") << text;
    }
};

}  // namespace

TEST_CASE("drafters by name, alone and joined") {
    const TargetHead nobody;
    CHECK(make_drafter("none", nobody)->kind() == "none");
    CHECK(make_drafter("ngram", nobody)->kind() == "ngram");
    CHECK(make_drafter("ngram+none", nobody)->kind() == "ngram+none");
    CHECK(make_drafter("ngram:copy", nobody)->kind() == "ngram:copy");
    CHECK(make_drafter("ngram:maxgram+ngram", nobody)->kind() == "ngram:maxgram+ngram");
    CHECK_THROWS_WITH(make_drafter("ngram:other", nobody), ContainsSubstring("ngram:maxgram"));
    CHECK_THROWS_WITH(make_drafter("", nobody), ContainsSubstring("unknown drafter ''"));
    CHECK_THROWS_WITH(make_drafter("ngram+", nobody), ContainsSubstring("unknown drafter ''"));
    CHECK_THROWS_WITH(make_drafter("oracle", nobody), ContainsSubstring("oracle") && ContainsSubstring("ngram"));
}

TEST_CASE("what the system throws for a drafter's name arrives as an Error") {
    const std::string far_too_long(5000, 'x');
    for (const std::string& name : {far_too_long, "lm:" + far_too_long, far_too_long + "+ngram"})
        CHECK_THROWS_AS(make_drafter(name, TargetHead{}), Error);
}

TEST_CASE("what LibTorch throws while a drafter is made arrives as an Error") {
    DrafterOptions options;
    options.lm_model.device = at::Device(at::kXLA);  // a kind of device that this LibTorch knows by name alone
    CHECK_THROWS_AS(
        make_drafter("lm:" OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf", TargetHead{}, options),
        Error);
}

TEST_CASE("a folder says its kind") {
    const Folder folder;
    const auto message = [&](const std::string& name) {
        try {
            (void)make_drafter((folder.path / name).string(), TargetHead{});
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    fs::create_directories(folder.path / "empty");
    folder.config("broken", "{");
    folder.config("list", "[1]");
    folder.config("odd+name", R"({"kind": "oracle"})");
    CHECK_THAT(message("empty"), ContainsSubstring("config.json"));
    CHECK_THAT(message("broken"), ContainsSubstring("broken/config.json: expected JSON"));
    CHECK_THAT(message("list"), ContainsSubstring("kind is null"));
    CHECK_THAT(message("odd+name"), ContainsSubstring("kind is \"oracle\""));
    folder.config("number", R"({"kind": 3})");
    CHECK_THAT(message("number"), ContainsSubstring("number/config.json: kind is 3"));
    folder.config("deep", R"({"kind": )" + std::string(100000, '[') + std::string(100000, ']') + "}");
    CHECK_THAT(message("deep"), ContainsSubstring("levels deep"));
    for (const char* kind : {"ctc", "medusa", "hydra"}) {
        folder.config("own", fmt::format(R"({{"kind": "{}", "version": 1}})", kind));
        CHECK_THAT(message("own"), ContainsSubstring("own/config.json") && !ContainsSubstring("json.exception"));
        folder.config(
            "own",
            fmt::format(R"({{"kind": "{}", "version": 1, "target": {{"fingerprint": null, "name": 1}}}})", kind));
        CHECK_THAT(message("own"), ContainsSubstring("own/config.json") && !ContainsSubstring("json.exception"));
    }
}

TEST_CASE("a folder that looks published says what it lacks") {
    const Folder folder;
    const auto message = [&](const std::string& name) {
        try {
            (void)make_drafter((folder.path / name).string(), TargetHead{});
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    folder.config("bare", R"({"medusa_num_heads": 2})");
    CHECK_THAT(message("bare"), ContainsSubstring("look like published heads") && ContainsSubstring("bare"));
    folder.config("pointer", "{}");
    const auto put = [&](const char* text) {
        std::ofstream(folder.path / "pointer" / "medusa_lm_head.safetensors") << text;
    };
    put("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
    CHECK_THAT(message("pointer"), ContainsSubstring("Git LFS pointer"));
    put("too short to be one");
    CHECK_THAT(message("pointer"), ContainsSubstring("medusa_lm_head.safetensors"));
}

TEST_CASE("the drafter of a target is the one that accepted most") {
    const Folder folder;
    const auto config = [](const std::string& fingerprint, double beta) {
        return fmt::format(R"({{"target": {{"fingerprint": "{}"}}, "training": {{"held_out_beta_16_nodes": {}}}}})",
                           fingerprint, beta);
    };
    folder.config("a", config("mine", 2.0));
    folder.config("b", config("mine", 2.5));
    folder.config("c", config("another", 9.0));
    folder.config("d", "not a drafter");
    folder.config("e", R"({"target": {"fingerprint": "fresh"}})");
    folder.config("other/f", config("mine", 2.2));
    const std::vector<fs::path> places = {folder.path / "other", folder.path};
    CHECK(find_drafter(places, "mine") == folder.path / "b");
    CHECK(find_drafter(places, "another") == folder.path / "c");
    CHECK(find_drafter(places, "fresh") == folder.path / "e");
    CHECK_FALSE(find_drafter(places, "unknown").has_value());
    CHECK_FALSE(find_drafter({}, "mine").has_value());
    const std::vector<fs::path> itself = {folder.path / "a"};
    CHECK(find_drafter(itself, "mine") == folder.path / "a");
}

TEST_CASE("a place for drafters that is no folder is told, not passed over") {
    const Folder folder;
    for (const fs::path& place : {folder.path / "nowhere", fs::path()})
        CHECK_THROWS_MATCHES(find_drafter(std::vector<fs::path>{folder.path, place}, "mine"), Error,
                             Catch::Matchers::MessageMatches(ContainsSubstring(place.string() + "' is no folder")));
}
