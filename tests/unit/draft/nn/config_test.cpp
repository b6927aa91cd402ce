// config.json of trained drafters: what is written is read, what cannot be is refused by name, and no damage crashes.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <outrider/core/error.hpp>
#include <string>

#include "../../../mutation.hpp"
#include "../../temporary_folder.hpp"
#include "heads_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;

namespace {

/// A kind of drafter: a config in its folder, and how it is read.
struct Kind {
    std::string name;
    std::function<void(const std::filesystem::path&)> write;
    std::function<void(const std::filesystem::path&)> read;
};

const std::vector<Kind> kKinds = {
    {"ctc", [](const auto& folder) { write_ctc_config(folder, toy_config(CtcConditioning::prefix)); },
     [](const auto& folder) { (void)read_ctc_config(folder); }},
    {"medusa", [](const auto& folder) { write_medusa_config(folder, toy_medusa(HeadOutput::shared)); },
     [](const auto& folder) { (void)read_medusa_config(folder); }},
    {"hydra", [](const auto& folder) { write_hydra_config(folder, toy_hydra(true)); },
     [](const auto& folder) { (void)read_hydra_config(folder); }}};

std::string text_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("drafters' configs: numbers are taken as they stand or refused", "[config]") {
    for (const Kind& kind : kKinds) {
        const TemporaryFolder folder;
        kind.write(folder.path());
        REQUIRE_NOTHROW(kind.read(folder.path()));
        const json written = json::parse(text_of(folder.path() / "config.json"));
        CHECK(written["kind"] == kind.name);
        const auto refuses = [&](const std::function<void(json&)>& change, const char* why) {
            json file = written;
            change(file);
            folder.write("config.json", file.dump());
            CHECK_THROWS_MATCHES(kind.read(folder.path()), Error,
                                 MessageMatches(ContainsSubstring("config.json") && ContainsSubstring(why)));
        };
        refuses([](json& f) { f["sizes"]["heads"] = 2.5; }, "heads is 2.5");
        refuses([](json& f) { f["sizes"]["hidden"] = 1e300; }, "hidden");
        refuses([](json& f) { f["sizes"]["hidden"] = (std::uint64_t{1} << 63) + 32; }, "hidden");
        refuses([](json& f) { f["sizes"]["hidden"] = -4; }, "hidden is -4");
        refuses([](json& f) { f["vocabulary"][1] = (std::int64_t{1} << 32) + 3; }, "vocabulary");  // 3 when wrapped
        refuses([](json& f) { f["vocabulary"][1] = 3.0; }, "vocabulary");
        refuses([](json& f) { f["vocabulary"][1] = -3; }, "vocabulary");
        refuses([](json& f) { f["vocabulary"] = {5, 3}; }, "ascending");
        refuses([](json& f) { f["kind"] = "other"; }, "kind is \"other\"");
        refuses([](json& f) { f["version"] = 99; }, "version is 99");
        refuses([](json& f) { f.erase("target"); }, "target");
        folder.write("config.json", R"({"kind": "ctc", "kind": "ctc"})");
        CHECK_THROWS_MATCHES(kind.read(folder.path()), Error, MessageMatches(ContainsSubstring("twice")));
    }
}

TEST_CASE("ctc configs: decoder layers go there and back, or are refused", "[config][layers]") {
    const TemporaryFolder folder;
    CtcConfig config = toy_config(CtcConditioning::prefix);
    write_ctc_config(folder.path(), config);
    CHECK(!json::parse(text_of(folder.path() / "config.json")).at("sizes").contains("layers"));  // one needs no word
    CHECK(read_ctc_config(folder.path()).layers == 1);
    config.layers = 2;
    write_ctc_config(folder.path(), config);
    CHECK(read_ctc_config(folder.path()).layers == 2);
    CtcWeights weights = toy_weights(config, toy_head());
    for (auto& [name, weight] : weights.named()) *weight = weight->to(at::kBFloat16).to(at::kFloat);
    write_ctc_weights(folder.path(), weights);
    CtcWeights read = read_ctc_weights(folder.path(), config);
    const auto names = weights.named(), again = read.named();
    REQUIRE(names.size() == again.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
        CHECK(names[i].first == again[i].first);
        CHECK(at::equal(*names[i].second, *again[i].second));
    }
    CtcWeights stored = read_ctc_weights(folder.path(), config, WeightType::stored);
    for (const auto& [name, weight] : stored.named()) CHECK(weight->scalar_type() == at::kBFloat16);
    for (std::size_t i = 0; i < names.size(); ++i)
        CHECK(at::equal(*names[i].second, stored.named()[i].second->to(at::kFloat)));
    CHECK(std::ranges::count_if(names, [](const auto& entry) { return entry.first == "layer.1.qkv"; }) == 1);
    CHECK_THROWS_AS(read_ctc_weights(folder.path(),
                                     [&] {
                                         CtcConfig three = config;
                                         three.layers = 3;
                                         return three;
                                     }()),
                    Error);
    CHECK_THROWS_AS(read_ctc_weights(folder.path(),
                                     [&] {
                                         CtcConfig one = config;
                                         one.layers = 1;
                                         return one;
                                     }()),
                    Error);
    json file = json::parse(text_of(folder.path() / "config.json"));
    for (const json& wrong : {json(0), json(17), json(-1), json("2"), json(1.5)}) {
        file["sizes"]["layers"] = wrong;
        folder.write("config.json", file.dump());
        INFO(wrong.dump());
        CHECK_THROWS_MATCHES(read_ctc_config(folder.path()), Error, MessageMatches(ContainsSubstring("layers")));
    }
}

TEST_CASE("ctc configs: feature layers go there and back, or are refused", "[config][features]") {
    const TemporaryFolder folder;
    CtcConfig config = toy_config(CtcConditioning::prefix);
    CHECK(ctc_feature_width(config) == kToyHidden);
    write_ctc_config(folder.path(), config);
    CHECK(!json::parse(text_of(folder.path() / "config.json")).contains("feature_layers"));
    CHECK(read_ctc_config(folder.path()).feature_layers.empty());
    config.feature_layers = {4, 16, 27};
    CHECK(ctc_feature_width(config) == 4 * kToyHidden);
    write_ctc_config(folder.path(), config);
    CHECK(read_ctc_config(folder.path()).feature_layers == config.feature_layers);
    const json written = json::parse(text_of(folder.path() / "config.json"));
    for (const json& wrong :
         {json{16, 4}, json{4, 4}, json{0, 4}, json{-1}, json{2.5}, json{"4"}, json(4), json{5000}}) {
        json file = written;
        file["feature_layers"] = wrong;
        folder.write("config.json", file.dump());
        INFO(wrong.dump());
        CHECK_THROWS_MATCHES(read_ctc_config(folder.path()), Error,
                             MessageMatches(ContainsSubstring("config.json") && ContainsSubstring("feature")));
    }
    // Weights without the layers' columns.
    CtcWeights weights = toy_weights(toy_config(CtcConditioning::prefix), toy_head());
    CHECK_NOTHROW(check_ctc_weights(toy_config(CtcConditioning::prefix), weights));
    CHECK_THROWS_MATCHES(check_ctc_weights(config, weights), Error, MessageMatches(ContainsSubstring("fuse")));
    CHECK_NOTHROW(check_ctc_weights(config, toy_weights(config, toy_head())));
}

TEST_CASE("ctc configs: a bottleneck goes there and back, or is refused", "[config][bottleneck]") {
    const TemporaryFolder folder;
    CtcConfig config = toy_config(CtcConditioning::prefix);
    write_ctc_config(folder.path(), config);
    CHECK(!json::parse(text_of(folder.path() / "config.json")).at("sizes").contains("prefix_bottleneck"));
    CHECK(read_ctc_config(folder.path()).prefix_bottleneck == 0);
    CHECK(ctc_prefix_columns(config) == config.prefix_rank);
    config.prefix_bottleneck = 8;
    CHECK(ctc_prefix_columns(config) == 8);
    write_ctc_config(folder.path(), config);
    CHECK(read_ctc_config(folder.path()).prefix_bottleneck == 8);
    write_ctc_weights(folder.path(), toy_weights(config, toy_head()));
    CHECK(at::IntArrayRef(read_ctc_weights(folder.path(), config).prefix_narrow.sizes()) ==
          at::IntArrayRef({8, config.prefix_rank}));
    json file = json::parse(text_of(folder.path() / "config.json"));
    for (const json& wrong : {json(-1), json(config.prefix_rank + 1), json("8"), json(1.5)}) {
        file["sizes"]["prefix_bottleneck"] = wrong;
        folder.write("config.json", file.dump());
        INFO(wrong.dump());
        CHECK_THROWS_MATCHES(read_ctc_config(folder.path()), Error,
                             MessageMatches(ContainsSubstring("prefix_bottleneck")));
    }
}

TEST_CASE("fuzz: drafters' configs") {
    for (const Kind& kind : kKinds) {
        DYNAMIC_SECTION(kind.name) {
            const TemporaryFolder folder;
            kind.write(folder.path());
            fuzz(text_of(folder.path() / "config.json"), kJsonWords, [&](const std::string& text) {
                folder.write("config.json", text);
                kind.read(folder.path());
            });
        }
    }
}
