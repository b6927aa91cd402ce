// What a checkpoint's configuration means where its files say it in other ways, by older keys, or not at all.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <fstream>

#include <outrider/core/error.hpp>
#include <outrider/target/llama_model.hpp>

#include "../formats/gguf_builder.hpp"
#include "formats/gguf.hpp"
#include "golden.hpp"
#include "tiny_copy.hpp"

using namespace outrider;
using namespace outrider::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using test::GgufBuilder;

namespace {

void check_load_fails(const std::filesystem::path& path, const std::string& because) {
    CHECK_THROWS_MATCHES(LlamaModel::load(path), Error, MessageMatches(ContainsSubstring(because)));
}

/// A GGUF file's values with no more than ModelConfig needs, and what `more` adds.
template <typename More>
ModelConfig config_of(More&& more) {
    GgufBuilder b;
    b.text("general.architecture", "llama").scalar<std::uint32_t>("llama.block_count", 1);
    b.scalar<std::uint32_t>("llama.embedding_length", 16).scalar<std::uint32_t>("llama.attention.head_count", 2);
    b.scalar<std::uint32_t>("llama.feed_forward_length", 32).scalar<std::uint32_t>("llama.context_length", 64);
    b.scalar<float>("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    std::forward<More>(more)(b);
    b.tensor("token_embd.weight", {16, 4}, 0, std::string(4 * 16 * 4, '\0'));
    return ModelConfig::from_gguf(GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "tiny.gguf"));
}

using Kind = RopeConfig::Kind;

}  // namespace

TEST_CASE("GGUF: rotary scaling is linear where the type is left out, by the newer key or the older") {
    const auto scaling = [](auto more) { return config_of(more).rope; };
    CHECK(scaling([](GgufBuilder&) {}).kind == Kind::none);
    for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
        INFO(key);
        for (const char* type : {"", "linear"}) {
            const RopeConfig rope = scaling([&](GgufBuilder& b) {
                if (*type != '\0') b.text("llama.rope.scaling.type", type);
                b.scalar<float>(key, 4);
            });
            CHECK(rope.kind == Kind::linear);
            CHECK(rope.factor == 4.0);
        }
        CHECK(scaling([&](GgufBuilder& b) { b.scalar<float>(key, 0); }).kind == Kind::none);
        CHECK(scaling([&](GgufBuilder& b) { b.scalar<float>(key, 1); }).kind == Kind::none);
        CHECK(scaling([&](GgufBuilder& b) { b.text("llama.rope.scaling.type", "none").scalar<float>(key, 4); }).kind ==
              Kind::none);
        CHECK_THROWS_MATCHES(scaling([&](GgufBuilder& b) { b.scalar<float>(key, -2); }), Error,
                             MessageMatches(ContainsSubstring(key)));
    }
    CHECK(scaling([](GgufBuilder& b) {
              b.scalar<float>("llama.rope.scale_linear", 8).scalar<float>("llama.rope.scaling.factor", 2);
          }).factor == 2.0);
    CHECK_THROWS_MATCHES(scaling([&](GgufBuilder& b) { b.text("llama.rope.scaling.type", "dynamic"); }), Error,
                         MessageMatches(ContainsSubstring("dynamic")));
    CHECK_THROWS_MATCHES(scaling([&](GgufBuilder& b) { b.text("llama.rope.scaling.type", "yarn"); }), Error,
                         MessageMatches(ContainsSubstring("llama.rope.scaling.factor")));
    CHECK(scaling([](GgufBuilder& b) { b.scalar<float>("llama.rope.scaling.attn_factor", 1.5f); }).magnitude == 1.5);
}

TEST_CASE("GGUF: values of other types, and models that write no text") {
    CHECK_NOTHROW(config_of([](GgufBuilder& b) { b.scalar<std::uint64_t>("llama.attention.head_count_kv", 1); }));
    CHECK_NOTHROW(config_of([](GgufBuilder& b) { b.scalar<std::int8_t>("llama.attention.head_count_kv", 1); }));
    CHECK_NOTHROW(config_of([](GgufBuilder& b) { b.scalar<double>("llama.rope.freq_base", 5e5); }));
    CHECK_NOTHROW(config_of([](GgufBuilder& b) { b.scalar<std::uint32_t>("llama.rope.freq_base", 500000); }));
    CHECK_NOTHROW(config_of([](GgufBuilder& b) { b.scalar<bool>("llama.attention.causal", true); }));
    const auto fails = [](auto more, const char* because) {
        CHECK_THROWS_MATCHES(config_of(more), Error, MessageMatches(ContainsSubstring(because)));
    };
    fails([](GgufBuilder& b) { b.scalar<bool>("llama.attention.causal", false); }, "llama.attention.causal is false");
    fails([](GgufBuilder& b) { b.scalar<std::uint32_t>("llama.expert_count", 8); }, "mixtures of experts");
    fails([](GgufBuilder& b) { b.text("llama.rope.freq_base", "10000"); }, "llama.rope.freq_base is a string");
    fails([](GgufBuilder& b) { b.scalar<float>("llama.attention.head_count_kv", 1); }, "head_count_kv is a float");
    fails([](GgufBuilder& b) { b.text("llama.attention.head_count_kv", "1"); }, "head_count_kv is a string");
    fails([](GgufBuilder& b) { b.array<std::uint32_t>("llama.attention.head_count_kv", {1, 2}); }, "layer to layer");
    fails([](GgufBuilder& b) { b.scalar<std::uint32_t>("llama.rope.scaling.type", 1); }, "scaling.type is an integer");
}

TEST_CASE("A sliding window belongs to the model's type") {
    const TinyCopy copy;
    const auto window = [&] { return ModelConfig::from_hf(copy.path()).window; };
    copy.configure("max_position_embeddings", 8192);
    CHECK(window() == 0);
    copy.configure("model_type", "mistral");
    CHECK(window() == 4096);  // the class's own
    copy.configure("max_position_embeddings", 4096);
    CHECK(window() == 0);  // no token is further away
    copy.configure("sliding_window", 100);
    CHECK(window() == 100);
    copy.configure("use_sliding_window", false);
    CHECK(window() == 100);
    copy.configure("sliding_window", nullptr);
    CHECK(window() == 0);
    copy.configure("model_type", "llama");
    CHECK(window() == 0);
    copy.configure("sliding_window", 100);
    CHECK(window() == 0);  // use_sliding_window says no
    copy.configure("use_sliding_window", true);
    CHECK_THROWS_MATCHES(window(), Error, MessageMatches(ContainsSubstring("sliding_window is 100")));
    copy.configure("sliding_window", 4096);
    CHECK(window() == 0);
}

TEST_CASE("Tied and untied outputs: the file's matrices count") {
    const TinyCopy copy;
    const auto find = [](auto& tensors, const char* name) {
        return std::ranges::find(tensors, std::string(name), &SafeTensorView::name);
    };
    const std::vector<TokenId> ids = {0, 5, 77};
    const auto load = [&] { return LlamaModel::load(copy.path(), {.weights = Weights::f32}); };
    // Untied and both there.
    const LlamaModel untied = load();
    REQUIRE_FALSE(untied.config().tied_output);
    CHECK(untied.note().empty());
    // Said to be tied, and the two differ: the output matrix is used and said to be.
    copy.configure("tie_word_embeddings", true);
    const LlamaModel differs = load();
    CHECK_FALSE(differs.config().tied_output);
    CHECK_THAT(differs.note(), ContainsSubstring("lm_head.weight differs"));
    CHECK(at::equal(differs.head().output_rows(ids), untied.head().output_rows(ids)));
    // Tied and the same twice, tied and alone, tied under the output's name.
    const auto check_tied = [&] {
        const LlamaModel tied = load();
        CHECK(tied.config().tied_output);
        CHECK(tied.note().empty());
        CHECK(at::equal(tied.head().embed(ids), untied.head().embed(ids)));
        CHECK(at::equal(tied.head().output_rows(ids), untied.head().embed(ids)));
    };
    copy.rewrite([&](auto& tensors) {
        find(tensors, "lm_head.weight")->data = find(tensors, "model.embed_tokens.weight")->data;
    });
    check_tied();
    copy.rewrite([&](auto& tensors) { tensors.erase(find(tensors, "lm_head.weight")); });
    check_tied();
    copy.rewrite([&](auto& tensors) {
        tensors.erase(find(tensors, "lm_head.weight"));
        find(tensors, "model.embed_tokens.weight")->name = "lm_head.weight";
    });
    check_tied();
    // Said to be untied, and there is one only.
    copy.rewrite([&](auto& tensors) { tensors.erase(find(tensors, "lm_head.weight")); });
    copy.configure("tie_word_embeddings", false);
    check_load_fails(copy.path(), "tie_word_embeddings");
    copy.configure("tie_word_embeddings", nullptr);
    check_load_fails(copy.path(), "tie_word_embeddings");
}

TEST_CASE("Rows beyond the tokenizer add nothing to a text, and added tokens may lie beyond the rows") {
    const TinyCopy copy;
    const LlamaModel model = LlamaModel::load(copy.path());
    const auto size = static_cast<TokenId>(model.tokenizer().size());
    const Prompt prompt = model.raw("a");
    std::string text;
    for (const TokenId token : {prompt.tokens.back(), size, static_cast<TokenId>(size + 7), prompt.tokens.back()})
        text += model.tokenizer().bytes(token);
    CHECK(text == model.tokenizer().decode(std::vector<TokenId>{prompt.tokens.back(), prompt.tokens.back()}));
    // A padding token that was named and never given a row.
    std::ofstream(copy.path() / "tokenizer_config.json") << R"({"pad_token": "<|never seen|>"})";
    const LlamaModel padded = LlamaModel::load(copy.path());
    CHECK(padded.tokenizer().find_special("<|never seen|>") == size);
}

TEST_CASE("A Git LFS pointer in the place of any file is named") {
    for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
        const TinyCopy copy;
        std::filesystem::remove(copy.path() / name);
        std::ofstream(copy.path() / name) << "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
        CHECK_THROWS_MATCHES(LlamaModel::load(copy.path()), Error,
                             MessageMatches(ContainsSubstring(name) && ContainsSubstring("Git LFS pointer")));
    }
}
