// config.json: the fields of both generations of transformers, defaults, and values of the wrong kind.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include "formats/hf_config.hpp"

#include "../temporary_folder.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;

namespace {

json least() {
    return {{"hidden_size", 64},
            {"intermediate_size", 96},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"vocab_size", 300}};
}

HfConfig parse(const json& root) { return parse_hf_config(root.dump(), "config.json"); }

}  // namespace

TEST_CASE("config: the defaults of Llama") {
    const HfConfig config = parse(least());
    CHECK(config.hidden_size == 64);
    CHECK(config.intermediate_size == 96);
    CHECK(config.layers == 2);
    CHECK(config.heads == 4);
    CHECK(config.kv_heads == 4);
    CHECK(config.head_dim == 16);
    CHECK(config.vocab_size == 300);
    CHECK(config.max_positions == 2048);
    CHECK(config.rms_norm_eps == 1e-6);
    CHECK(config.rope.type == "default");
    CHECK(config.rope.theta == 10000.0);
    CHECK_FALSE(config.tie_word_embeddings);
    CHECK_FALSE(config.sliding_window);
    CHECK(config.bos_ids.empty());
    CHECK(config.eos_ids.empty());
}

TEST_CASE("config: a text model beside a part for images is named as that") {
    for (const char* type : {"gemma3", "mistral3"}) {
        json root{{"model_type", type}, {"text_config", least()}, {"vision_config", json::object()}};
        CHECK_THROWS_MATCHES(parse(root), Error, MessageMatches(ContainsSubstring("part for images")));
        root.update(least());
        CHECK_THROWS_MATCHES(parse(root), Error, MessageMatches(ContainsSubstring(std::string(type))));
    }
}

TEST_CASE("config: every field") {
    json root = least();
    root.update(json::parse(R"({"model_type": "mistral", "architectures": ["MistralForCausalLM"],
        "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
        "max_position_embeddings": 131072, "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true,
        "sliding_window": 4096, "hidden_act": "gelu", "bos_token_id": 1, "eos_token_id": [2, 3],
        "torch_dtype": "bfloat16"})"));
    const HfConfig config = parse(root);
    CHECK(config.model_type == "mistral");
    CHECK(config.architectures == std::vector<std::string>{"MistralForCausalLM"});
    CHECK(config.kv_heads == 2);
    CHECK(config.head_dim == 32);
    CHECK(config.rms_norm_eps == 1e-5);
    CHECK(config.rope.theta == 500000.0);
    CHECK(config.rope.type == "llama3");
    CHECK(config.rope.factor == 8.0);
    CHECK(config.rope.low_freq_factor == 1.0);
    CHECK(config.rope.high_freq_factor == 4.0);
    CHECK(config.rope.original_context == 8192);
    CHECK(config.max_positions == 131072);
    CHECK(config.tie_word_embeddings);
    CHECK(config.attention_bias);
    CHECK(config.mlp_bias);
    CHECK(config.sliding_window == 4096);
    CHECK(config.hidden_act == "gelu");
    CHECK(config.bos_ids == std::vector<TokenId>{1});
    CHECK(config.eos_ids == std::vector<TokenId>{2, 3});
    CHECK(config.torch_dtype == "bfloat16");
}

TEST_CASE("config: later and older spellings") {
    json root = least();
    root["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e5}};
    root["dtype"] = "float32";
    root["use_sliding_window"] = false;
    root["sliding_window"] = 10;
    root["rope_scaling"] = nullptr;
    HfConfig config = parse(root);
    CHECK(config.rope.theta == 1e5);
    CHECK(config.torch_dtype == "float32");
    CHECK_FALSE(config.sliding_window);
    root = least();
    root["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
    root["eos_token_id"] = -1;
    config = parse(root);
    CHECK(config.rope.type == "linear");
    CHECK(config.rope.factor == 2.0);
    CHECK(config.eos_ids.empty());
}

TEST_CASE("config: what is left out has the value of the model's own class") {
    json root = least();
    root["model_type"] = "mistral";
    HfConfig config = parse(root);
    CHECK(config.sliding_window == 4096);
    CHECK(config.max_positions == 131072);
    CHECK(config.kv_heads == 8);
    root["num_key_value_heads"] = nullptr;
    root["sliding_window"] = nullptr;
    config = parse(root);
    CHECK_FALSE(config.sliding_window);
    CHECK(config.kv_heads == 4);
    root["sliding_window"] = 12;
    root["use_sliding_window"] = false;  // a key of other models
    CHECK(parse(root).sliding_window == 12);
    root = least();
    root["architectures"] = {"MistralForCausalLM"};
    CHECK(parse(root).sliding_window == 4096);
    root["model_type"] = "llama";
    CHECK_FALSE(parse(root).sliding_window);
    CHECK(parse(root).kv_heads == 4);
}

TEST_CASE("config: rotary scaling by older and newer keys") {
    const auto rope = [](const char* key, const char* text) {
        json root = least();
        root["max_position_embeddings"] = 512;
        root[key] = json::parse(text);
        return parse(root).rope;
    };
    CHECK(rope("rope_scaling", R"({"rope_type": "linear", "factor": 4})").factor == 4.0);
    CHECK(rope("rope_parameters", R"({"rope_type": "linear", "factor": 4, "rope_theta": 7})").theta == 7.0);
    CHECK(rope("rope_scaling", "{}").type == "default");
    CHECK(rope("rope_scaling", R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4})")
              .original_context == 512);
    json both = least();
    both["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
    both["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5}};
    CHECK(parse(both).rope.type == "linear");
    CHECK(parse(both).rope.theta == 10000.0);
    const auto fails = [&](const char* key, const char* text, const char* part) {
        INFO(text);
        CHECK_THROWS_MATCHES(rope(key, text), Error, MessageMatches(ContainsSubstring(part)));
    };
    fails("rope_scaling", R"({"type": "linear"})", "no factor");
    fails("rope_scaling", R"({"factor": 2.0})", "no type");
    fails("rope_parameters", R"({"rope_type": "default", "partial_rotary_factor": 1.5})", "partial_rotary_factor");
    fails("partial_rotary_factor", "0", "partial_rotary_factor");
    fails("quantization_config", R"({"quant_method": "awq"})", "quantization_config");
}

TEST_CASE("config: numbers that only Python writes") {
    const std::string text = least().dump();
    const auto with = [&](const std::string& more) {
        return parse_hf_config(text.substr(0, text.size() - 1) + more + "}", "config.json");
    };
    CHECK(with(R"(, "time_step_limit": [0.0, Infinity], "aux": NaN, "low": -Infinity, "say \"NaN\"": "NaN")")
              .hidden_size == 64);
    for (const char* number : {"NaN", "Infinity", "-Infinity"})
        CHECK_THROWS_MATCHES(with(std::string(R"(, "rope_theta": )") + number), Error,
                             MessageMatches(ContainsSubstring("rope_theta") && ContainsSubstring(number)));
    CHECK_THROWS_MATCHES(with(", \"a\": NaNs"), Error, MessageMatches(ContainsSubstring("config.json: expected JSON")));
    CHECK_THROWS_MATCHES(with(", \"a\": nan"), Error, MessageMatches(!ContainsSubstring("json.exception")));
}

TEST_CASE("config: the depth of a document is counted outside of strings") {
    const auto deep = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    for (const std::string& fits :
         {deep(200), "[" + deep(199) + "," + deep(199) + "]", "[\"" + std::string(999, '[') + "\"]",
          "[\"\\\"" + std::string(999, '{') + "\"]", std::string("[\"\\\\\",[]]"), std::string(), std::string("\"")})
        CHECK_NOTHROW(detail::check_json_depth(fits, "it"));
    for (const std::string& fails :
         {deep(201), deep(1'000'000), std::string(999, '{'), "\"\\\\\"" + deep(201), "\"[\"" + deep(201)})
        CHECK_THROWS_MATCHES(detail::check_json_depth(fails, "it"), Error,
                             MessageMatches(ContainsSubstring("it: JSON nested more than 200 levels deep")));
}

TEST_CASE("config: nested too deep is an error") {
    for (const std::size_t depth : {65u, 1000u, 1'000'000u}) {
        const std::string deep = std::string(depth, '[') + std::string(depth, ']');
        CHECK_THROWS_MATCHES(parse_hf_config(deep, "config.json"), Error,
                             MessageMatches(ContainsSubstring("levels deep")));
        CHECK_THROWS_AS(parse_hf_config(std::string(depth, '['), "config.json"), Error);
        CHECK_THROWS_AS(parse_hf_config("{\"a\":" + deep + "}", "config.json"), Error);
    }
}

TEST_CASE("config: missing and impossible values are named") {
    const json whole = least();
    for (const auto& [key, value] : whole.items()) {
        json root = whole;
        root.erase(key);
        INFO(key);
        CHECK_THROWS_MATCHES(parse(root), Error, MessageMatches(ContainsSubstring(key)));
        for (const json& bad :
             {json(0), json(-1), json(1.5), json("64"), json(true), json(1ull << 40), json::array()}) {
            root[key] = bad;
            INFO(bad.dump());
            CHECK_THROWS_MATCHES(parse(root), Error, MessageMatches(ContainsSubstring(key)));
        }
    }
    const auto fails = [](const char* key, const json& value) {
        json root = least();
        root[key] = value;
        INFO(key << " " << value.dump());
        CHECK_THROWS_MATCHES(parse(root), Error, MessageMatches(ContainsSubstring(key)));
    };
    fails("num_key_value_heads", 0);
    fails("head_dim", "x");
    fails("rms_norm_eps", "small");
    fails("rope_theta", -1.0);
    fails("rope_scaling", 3);
    fails("rope_parameters", json::array());
    fails("tie_word_embeddings", 1);
    fails("attention_bias", "yes");
    fails("bos_token_id", "one");
    fails("eos_token_id", json::array({1, "two"}));
    fails("eos_token_id", 1ull << 40);
    fails("eos_token_id", -2);
    fails("architectures", "Llama");
    fails("architectures", json::array({1}));
    fails("model_type", 1);
    json root = least();
    root["num_attention_heads"] = 100;
    CHECK_THROWS_AS(parse(root), Error);
    CHECK_THROWS_AS(parse(json::array()), Error);
    CHECK_THROWS_AS(parse_hf_config("{", "config.json"), Error);
    CHECK_THROWS_AS(parse_hf_config(R"({"hidden_size": 1, "hidden_size": 2})", "config.json"), Error);
}

TEST_CASE("config: from a folder") {
    const test::TemporaryFolder folder;
    CHECK_THROWS_MATCHES(read_hf_config(folder.path()), Error, MessageMatches(ContainsSubstring("config.json")));
    folder.write("config.json", least().dump());
    CHECK(read_hf_config(folder.path()).hidden_size == 64);
}
