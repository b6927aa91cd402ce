// The front door: a model, a drafter and a policy by name.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <outrider/engine/async_engine.hpp>
#include <outrider/outrider.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "../temporary_folder.hpp"

using namespace outrider;

namespace {

const std::string kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

/// OUTRIDER_DRAFTERS while it lives.
struct Drafters {
    explicit Drafters(const std::string& place) { ::setenv("OUTRIDER_DRAFTERS", place.c_str(), 1); }
    ~Drafters() { ::unsetenv("OUTRIDER_DRAFTERS"); }
};

}  // namespace

TEST_CASE("a conversation may be one string, messages written on the spot, or a list") {
    Engine engine = Engine::open({.model = kTiny, .drafter = "ngram"});
    const GenerationOptions options{.max_tokens = 12, .stop_at_end = false};
    const std::vector<ChatMessage> both = {{"system", "Be brief."}, {"user", "Why?"}};
    const std::string text = engine.chat(both, options).text;
    CHECK(engine.chat({{"system", "Be brief."}, {"user", "Why?"}}, options).text == text);
    CHECK(engine.chat({{"user", "Why?"}}, options).text == engine.chat("Why?", options).text);
}

TEST_CASE("a sink may count tokens, take text, or both") {
    Engine engine = Engine::open({.model = kTiny, .drafter = "ngram"});
    std::string heard;
    std::size_t tokens = 0;
    const auto result = engine.chat("Why?", {.max_tokens = 8, .stop_at_end = false}, [&](const EmittedToken& event) {
        ++tokens;
        heard += event.text;
    });
    CHECK(tokens == result.tokens.size());
    CHECK(heard == result.text);
}

TEST_CASE("what an engine cannot open says its kind") {
    const auto kind = [](EngineOptions options) {
        try {
            (void)Engine::open(std::move(options));
        } catch (const Error& error) {
            return std::string(to_string(error.kind()));
        }
        return std::string("none");
    };
    CHECK(kind({.model = "no/such/file.gguf"}) == "damaged file");
    CHECK(kind({.model = __FILE__}) == "damaged file");
    CHECK(kind({.model = kTiny, .drafter = "nonsense"}) == "bad request");
    CHECK(kind({.model = kTiny, .policy = "nonsense"}) == "bad request");
    CHECK(kind({.model = kTiny, .drafter = OUTRIDER_SOURCE_DIR "/src"}) == "damaged file");
    CHECK(kind({.model = kTiny, .drafter = OUTRIDER_SOURCE_DIR "/examples/drafters/smollm2-135m-ctc"}) ==
          "mismatched drafter");
    CHECK(kind({.model = kTiny, .target = {.device = at::kCUDA}}) == (at::hasCUDA() ? "none" : "not supported"));
}

TEST_CASE("an engine looks for drafters by itself, or where it is told") {
    {
        const Drafters nowhere("");
        for (const auto& place : shipped_drafters()) CHECK(std::filesystem::is_directory(place));
        CHECK(Engine::open({.model = kTiny}).drafter() == "ngram");  // those that are shipped are of another model
    }
    const test::TemporaryFolder own;
    const auto drafter = own.path() / "mine";
    const LlamaModel model = LlamaModel::load(kTiny);
    std::filesystem::create_directories(drafter);
    (void)own.write("mine/config.json",
                    R"({"kind": "oracle", "target": {"fingerprint": ")" + model.fingerprint() + "\"}}");
    const Drafters place(own.path());
    CHECK(shipped_drafters().front() == own.path());
    CHECK(default_drafter(shipped_drafters(), model) == drafter.string() + "+ngram");
    CHECK_THROWS_AS(Engine::open(model, {}), Error);  // found, and of no kind that there is
    const test::TemporaryFolder empty;
    CHECK(Engine::open(model, {.drafter_places = {empty.path()}}).drafter() == "ngram");
}

TEST_CASE("a folder of drafters that is not there is told, not passed over") {
    const Drafters place("/no/such/folder");
    CHECK_THROWS_AS(Engine::open({.model = kTiny}), Error);
    CHECK(Engine::open({.model = kTiny, .drafter = "ngram"}).drafter() == "ngram");
}

TEST_CASE("a conversation is saved by one engine and loaded by another") {
    const test::TemporaryFolder folder;
    const std::filesystem::path file = folder.path() / "talk";
    const EngineOptions options{.model = kTiny, .drafter = "ngram", .kept_bytes = 1 << 24};
    const GenerationOptions ask{.max_tokens = 12, .stop_at_end = false};
    Engine writer = Engine::open(options);
    const std::vector<TokenId> tokens = writer.model().chat("Why?").tokens;
    const std::vector<TokenId> expected = writer.chat("Why?", ask).tokens;
    REQUIRE(writer.save(tokens, file) == std::ssize(tokens));

    Engine reader = Engine::open(options);
    CHECK(reader.load(file) == tokens);
    const GenerationResult result = reader.chat("Why?", ask);
    CHECK(result.tokens == expected);
    CHECK(result.stats.resumed == std::ssize(tokens) - 1);

    AsyncEngine async(Engine::open(options));
    CHECK(async.load(file).get() == tokens);
    CHECK(async.submit(async.model().chat("Why?"), ask).get().stats.resumed == std::ssize(tokens) - 1);
    CHECK(async.save(tokens, folder.path() / "again").get() == std::ssize(tokens));
    CHECK(std::filesystem::file_size(folder.path() / "again") == std::filesystem::file_size(file));
    CHECK_THROWS_AS(async.load(folder.path() / "none").get(), Error);
    async.stop();
    CHECK_THROWS_AS(async.load(file), RequestRefused);
}

TEST_CASE("a conversation that cannot be saved or loaded says why") {
    const test::TemporaryFolder folder;
    const std::filesystem::path file = folder.path() / "talk";
    EngineOptions options{.model = kTiny, .drafter = "ngram", .kept_bytes = 1 << 24};
    Engine engine = Engine::open(options);
    const auto refused = [](ErrorKind kind, const std::string& said, auto&& call) {
        CAPTURE(said);
        try {
            call();
            FAIL("nothing was thrown");
        } catch (const Error& error) {
            CHECK(error.kind() == kind);
            CHECK_THAT(error.what(), Catch::Matchers::ContainsSubstring(said));
        }
    };
    const std::vector<TokenId> tokens = engine.model().chat("Why?").tokens;
    refused(ErrorKind::bad_request, "nothing is kept of these tokens", [&] { engine.save(tokens, file); });
    CHECK_FALSE(std::filesystem::exists(file));
    (void)engine.chat("Why?", {.max_tokens = 4});
    engine.save(tokens, file);
    CHECK_THROWS_AS(engine.save(tokens, folder.path() / "no" / "such" / "folder"), Error);

    options.kept_bytes = 1000;
    Engine small = Engine::open(options);
    refused(ErrorKind::bad_request, "kept_bytes is 1000", [&] { small.load(file); });
    options.kept_bytes = 0;
    Engine none = Engine::open(options);
    refused(ErrorKind::bad_request, "kept_bytes is 0", [&] { none.load(file); });
    options.kept_bytes = 1 << 24, options.target.weights = Weights::f32;
    Engine wide = Engine::open(options);
    refused(ErrorKind::bad_request, "load it as it was held", [&] { wide.load(file); });
    options.model = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-hf", options.target.weights = Weights::automatic;
    Engine other = Engine::open(options);
    refused(ErrorKind::bad_request, "another checkpoint", [&] { other.load(file); });
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
    refused(ErrorKind::damaged_file, "talk", [&] { engine.load(file); });
    refused(ErrorKind::damaged_file, "No such file", [&] { engine.load(folder.path() / "none"); });
}
