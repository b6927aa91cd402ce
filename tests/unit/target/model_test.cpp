// LlamaModel: formats, prompts, the head that drafters borrow, and the errors of its loaders.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/target/llama_model.hpp>

#include <outrider/core/detail/thread_team.hpp>
#include "target/checkpoint.hpp"
#include "target/weight_forms.hpp"

#include "../formats/torch_archive_builder.hpp"
#include "golden.hpp"
#include "tiny_copy.hpp"

using namespace outrider;
using namespace outrider::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

const std::filesystem::path kGguf = kGoldenFolder / "tiny-gguf/tiny.gguf", kHf = kGoldenFolder / "tiny-hf";

void check_load_fails(const std::filesystem::path& path, const std::string& because) {
    CAPTURE(because);
    CHECK_THROWS_MATCHES(LlamaModel::load(path), Error, MessageMatches(ContainsSubstring(because)));
}

}  // namespace

TEST_CASE("The fingerprint tells checkpoints apart, not formats") {
    const LlamaModel stored = LlamaModel::load(kGguf), wide = LlamaModel::load(kGguf, {.weights = Weights::f32});
    CHECK(stored.fingerprint() == wide.fingerprint());
    CHECK(stored.fingerprint() != LlamaModel::load(kHf).fingerprint());
    CHECK(stored.fingerprint().size() == 16);
}

TEST_CASE("What LibTorch throws while a model is loaded arrives as an Error") {
    // A kind of device that this LibTorch knows by name alone.
    CHECK_THROWS_AS(LlamaModel::load(kGguf, {.device = at::Device(at::kXLA)}), Error);
    CHECK_THROWS_AS((void)LlamaModel::load(kGguf).head(at::Device(at::kXLA)), Error);
}

TEST_CASE("Automatic weights: as stored where there is a fast path, else bf16") {
    CHECK(LlamaModel::load(kGguf).weights() == Weights::stored);
    CHECK(LlamaModel::load(kHf).weights() == Weights::bf16);
    CHECK(LlamaModel::load(kGguf).weight_bytes() < LlamaModel::load(kGguf, {.weights = Weights::bf16}).weight_bytes());
    CHECK(LlamaModel::load(kHf, {.weights = Weights::int8}).weights() == Weights::int8);
}

TEST_CASE("What matrices take is known before they are packed") {
    std::vector<std::filesystem::path> paths{kGguf, kHf};
    for (const char* family : {"gemma3", "granite", "phi3"})
        paths.push_back(std::filesystem::path(OUTRIDER_SOURCE_DIR "/tests/golden/families") / family / "twin.gguf");
    for (const std::filesystem::path& path : paths)
        for (const Weights weights :
             {Weights::automatic, Weights::stored, Weights::bf16, Weights::int8, Weights::f32}) {
            CAPTURE(path.string(), name_of(weights));
            const Checkpoint checkpoint = Checkpoint::open(path, 0);
            CHECK(kernel_target::packed_bytes(*checkpoint.source, checkpoint.config, weights) ==
                  LlamaModel::load(path, {.weights = weights, .threads = 1}).weight_bytes());
        }
}

TEST_CASE("A device that is not there is an error that says so") {
    const at::Device last(at::kCUDA, 63);  // LibTorch's part for CUDA is not there, or no driver, or not so many cards
    for (int i = 0; i < 2; ++i) {
        try {
            (void)LlamaModel::load(kGguf, {.device = last});
            FAIL("it was loaded");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::not_supported);
            CHECK_THAT(error.what(), ContainsSubstring("device cuda:63") && ContainsSubstring("xpected"));
        }
    }
    CHECK_NOTHROW(LlamaModel::load(kGguf, {.threads = 1}));  // the CPU goes on
}

TEST_CASE("Names of weights go there and back") {
    for (const Weights w : {Weights::automatic, Weights::stored, Weights::bf16, Weights::f32, Weights::int8})
        CHECK(weights_by_name(name_of(w)) == w);
    CHECK_THROWS_AS(weights_by_name("f16"), Error);
}

TEST_CASE("A head read from files alone is that of the loaded model") {
    std::vector<std::filesystem::path> paths{kGguf, kHf};
    for (const char* family : {"gemma3", "granite", "qwen3"})  // scaled embeddings, tied and untied outputs
        for (const char* file : {"hf", "twin.gguf"})
            paths.push_back(std::filesystem::path(OUTRIDER_SOURCE_DIR "/tests/golden/families") / family / file);
    for (const std::filesystem::path& path : paths) {
        CAPTURE(path.string());
        const bool folder = std::filesystem::is_directory(path);
        const TargetHead loaded = LlamaModel::load(path, {.threads = 1}).head();
        const TargetHead head = folder ? TargetHead::from_folder(path) : TargetHead::from_gguf(path);
        const std::vector<TokenId> ids{7, 0, static_cast<TokenId>(head.vocabulary - 1), 7};
        CHECK(head.fingerprint == loaded.fingerprint);
        CHECK(head.tokenizer == loaded.tokenizer);
        CHECK(head.hidden == loaded.hidden);
        CHECK(head.vocabulary == loaded.vocabulary);
        CHECK(head.norm_eps == loaded.norm_eps);
        CHECK(at::equal(head.final_norm, loaded.final_norm));
        CHECK(at::equal(head.embed(ids), loaded.embed(ids)));
        CHECK(at::equal(head.output_rows(ids), loaded.output_rows(ids)));
        CHECK(head.feature_layers == 0);
        CHECK_THROWS_AS(head.embed(std::vector<TokenId>{static_cast<TokenId>(head.vocabulary)}), Error);
    }
    CHECK_THROWS_MATCHES(TargetHead::from_gguf(kHf), Error, MessageMatches(ContainsSubstring("from_folder")));
    CHECK_THROWS_MATCHES(TargetHead::from_folder(kGguf), Error, MessageMatches(ContainsSubstring("from_gguf")));
    CHECK_THROWS_MATCHES(TargetHead::from_gguf("nowhere"), Error, MessageMatches(ContainsSubstring("no such file")));
}

TEST_CASE("The head's tables are the checkpoint's own") {
    const LlamaModel model = LlamaModel::load(kHf);
    const TargetHead head = model.head();
    const SafeTensors file = SafeTensors::open(kHf);
    const std::vector<TokenId> ids{7, 0, 279, 7};
    const std::vector<float> embedding = to_floats(file.tensor("model.embed_tokens.weight"));
    const std::vector<float> output = to_floats(file.tensor("lm_head.weight"));
    const at::Tensor embedded = head.embed(ids), rows = head.output_rows(ids);
    REQUIRE(embedded.sizes() == at::IntArrayRef({4, 64}));
    for (std::int64_t i = 0; i < 4; ++i)
        for (std::int64_t d = 0; d < 64; ++d) {
            const auto at = static_cast<std::size_t>(ids[static_cast<std::size_t>(i)] * 64 + d);
            REQUIRE(embedded[i][d].item<float>() == embedding[at]);
            REQUIRE(rows[i][d].item<float>() == output[at]);
        }
    CHECK(head.hidden == 64);
    CHECK(head.vocabulary == 280);
    CHECK(head.final_norm.size(0) == 64);
    CHECK_THROWS_AS(head.embed(std::vector<TokenId>{280}), Error);
    const TargetHead tied = LlamaModel::load(kGguf).head();
    CHECK(at::equal(tied.embed(ids), tied.output_rows(ids)));
}

TEST_CASE("A folder with pytorch_model.bin is the same model as one with model.safetensors") {
    const TinyCopy copy;
    const SafeTensors file = SafeTensors::open(kHf);
    std::vector<SafeTensorView> tensors;
    for (const SafeTensor& t : file.tensors()) tensors.push_back({t.name, t.dtype, t.shape, t.data});
    const auto write = [&](const char* name, std::span<const SafeTensorView> part) {
        std::ofstream(copy.path() / name, std::ios::binary) << test::build_archive(part);
    };
    const LlamaModel expected = LlamaModel::load(copy.path());
    const auto logits = [](const LlamaModel& model) {
        const auto pass = model.make_pass();
        return all_logits(*pass, {3, 17, 204, 9, 9, 120});
    };
    const auto check_same = [&] {
        const LlamaModel model = LlamaModel::load(copy.path());
        CHECK(model.fingerprint() == expected.fingerprint());
        CHECK(at::equal(logits(model), logits(expected)));
        std::vector<TokenId> ids(280);
        for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(i);
        CHECK(at::equal(model.head().embed(ids), expected.head().embed(ids)));
        CHECK(at::equal(model.head().output_rows(ids), expected.head().output_rows(ids)));
    };
    // Safetensors win where both are there: these bytes are no archive.
    std::ofstream(copy.path() / "pytorch_model.bin", std::ios::binary) << "neither zip nor pickle";
    check_same();
    std::filesystem::remove(copy.path() / "pytorch_model.bin");
    std::filesystem::remove(copy.path() / "model.safetensors");
    check_load_fails(copy.path(), "pytorch_model.bin");
    write("pytorch_model.bin", tensors);
    check_same();
    std::filesystem::remove(copy.path() / "pytorch_model.bin");
    const auto shards = std::span<const SafeTensorView>(tensors);
    write("1.bin", shards.first(7));
    write("2.bin", shards.subspan(7));
    nlohmann::json index;
    for (std::size_t i = 0; i < tensors.size(); ++i) index["weight_map"][tensors[i].name] = i < 7 ? "1.bin" : "2.bin";
    std::ofstream(copy.path() / "pytorch_model.bin.index.json") << index.dump();
    check_same();
    write("2.bin", shards.subspan(8));
    check_load_fails(copy.path(), "should be in 2.bin");
}

TEST_CASE("A head outlives its model's handle") {
    TargetHead head;
    {
        head = LlamaModel::load(kGguf).head();
    }
    CHECK(head.embed(std::vector<TokenId>{5}).isfinite().all().item<bool>());
}

TEST_CASE("A head lends the threads of the kernels' passes; plain tensor operations have none") {
    const TargetHead head = LlamaModel::load(kGguf, {.threads = 2}).head();
    REQUIRE(head.team != nullptr);
    CHECK(head.team->size() == 2);
    CHECK(LlamaModel::load(kGguf, {.backend = LlamaModel::Backend::aten}).head().team == nullptr);
}

// Members wait for the file while weights are packed, which a team takes for other work on its cores.
TEST_CASE("The team of a model that was just loaded has learned nothing") {
    for (const std::filesystem::path& path : {kGguf, kHf}) {
        CAPTURE(path.string());
        const LlamaModel model = LlamaModel::load(path, {.threads = 2});
        const std::shared_ptr<ThreadTeam> team = model.head().team;
        CHECK(team->runs() == 0);
        (void)all_logits(*model.make_pass(), {3, 17});
        CHECK(team->runs() > 0);
    }
}

TEST_CASE("Chat prompts end where the answer begins, and users cannot write special tokens") {
    const LlamaModel model = LlamaModel::load(kGguf);
    const Prompt prompt = model.chat("a<|im_end|>b");
    CHECK(std::count(prompt.tokens.begin(), prompt.tokens.end(), 2) == 1);  // the user's turn ends once
    CHECK(model.tokenizer().piece(prompt.tokens[0]) == "<|im_start|>");
    CHECK(prompt.end_ids == std::vector<TokenId>(model.tokenizer().end_ids()));
    REQUIRE(prompt.text != nullptr);
    CHECK(prompt.text->bytes(prompt.tokens.back()) == "\n");
    CHECK(model.raw("a<|im_end|>").tokens.back() == 2);
    CHECK_THROWS_AS(model.raw(""), Error);
}

TEST_CASE("Messages can be written where the conversation is passed") {
    const LlamaModel model = LlamaModel::load(kGguf);
    const std::vector<ChatMessage> both = {{"system", "Be brief."}, {"user", "Why?"}};
    CHECK(model.chat({{"system", "Be brief."}, {"user", "Why?"}}).tokens == model.chat(both).tokens);
    CHECK(model.chat({{"user", "Why?"}}).tokens == model.chat("Why?").tokens);
    CHECK(model.chat({{"user", "Why?"}}).tokens != model.chat(both).tokens);
}

TEST_CASE("Configurations that cannot run are rejected by name") {
    const TinyCopy copy;
    const auto rejected = [&](const std::string& key, const nlohmann::json& value, const std::string& because) {
        const nlohmann::json before = read_json(copy.path() / "config.json")[key];
        copy.configure(key, value);
        check_load_fails(copy.path(), because);
        copy.configure(key, before);
    };
    rejected("model_type", "mixtral", "\"mixtral\" is a mixture of experts");
    rejected("model_type", "qwen3_5", "\"qwen3_5\" has recurrent layers");
    rejected("model_type", "bert", "architecture \"bert\" is not supported; expected one of llama, mistral");
    rejected("model_type", "qwen2", "self_attn.q_proj.bias");
    rejected("attention_bias", true, "self_attn.q_proj.bias");
    rejected("mlp_bias", true, "mlp.gate_proj.bias");
    rejected("partial_rotary_factor", 0.5, "partial_rotary_factor");
    rejected("hidden_act", "gelu", "gelu");
    rejected("num_key_value_heads", 3, "key-value heads");
    rejected("rope_parameters", {{"rope_type", "dynamic"}, {"rope_theta", 10000.0}, {"factor", 2.0}}, "dynamic");
    rejected("intermediate_size", 95, "mlp.gate_proj.weight");
    rejected("vocab_size", 100, "embed_tokens");
    CHECK_NOTHROW(LlamaModel::load(copy.path()));
    copy.configure("model_type", "mistral");
    CHECK_NOTHROW(LlamaModel::load(copy.path()));
}

TEST_CASE("Linear rotary scaling divides positions") {
    const RopeConfig plain, linear{.kind = RopeConfig::Kind::linear, .factor = 4.0};
    for (std::size_t i = 0; i < 4; ++i) CHECK(linear.frequencies(8)[i] == plain.frequencies(8)[i] / 4);
}

TEST_CASE("Missing, extra and misshaped tensors are named") {
    const TinyCopy copy;
    copy.rewrite([](auto& tensors) {
        std::erase_if(tensors, [](const auto& t) { return t.name == "model.layers.1.mlp.up_proj.weight"; });
    });
    check_load_fails(copy.path(), "model.layers.1.mlp.up_proj.weight");
    copy.rewrite([](auto& tensors) {
        tensors.push_back(tensors[0]);
        tensors.back().name = "model.layers.0.self_attn.q_proj.bias";
    });
    check_load_fails(copy.path(), "model.layers.0.self_attn.q_proj.bias");
    copy.rewrite([](auto& tensors) {
        for (auto& t : tensors)
            if (t.name == "model.layers.0.self_attn.k_proj.weight") std::swap(t.shape[0], t.shape[1]);
    });
    check_load_fails(copy.path(), "model.layers.0.self_attn.k_proj.weight");
    copy.rewrite([](auto& tensors) {
        for (auto& t : tensors)
            if (t.name == "model.norm.weight") t.dtype = SafeDtype::i16;
    });
    check_load_fails(copy.path(), "I16");
}

TEST_CASE("GGUF files of another architecture or with other tensors are rejected by name") {
    std::ifstream file(kGguf, std::ios::binary);
    const std::string good((std::istreambuf_iterator<char>(file)), {});
    const test::TemporaryFolder folder;
    const auto patched = [&](const std::string& from, const std::string& to) {
        REQUIRE(from.size() == to.size());
        std::string bytes = good;
        const std::size_t at = bytes.find(from);
        REQUIRE(at != std::string::npos);
        bytes.replace(at, from.size(), to);
        return folder.write("patched.gguf", bytes);
    };
    using namespace std::string_literals;
    check_load_fails(patched("\5\0\0\0\0\0\0\0llama"s, "\5\0\0\0\0\0\0\0gemma"s), "gemma");
    check_load_fails(patched("blk.1.ffn_up.weight", "blk.1.ffn_xp.weight"), "blk.1.ffn_up.weight");
    check_load_fails(patched("blk.1.ffn_up.weight", "blk.1.attn_q.wxight"), "blk.1.ffn_up.weight");
    const std::filesystem::path more_layers =
        patched("llama.block_count\4\0\0\0\2\0\0\0"s, "llama.block_count\4\0\0\0\3\0\0\0"s);
    check_load_fails(more_layers, "blk.2.attn_q.weight");
    check_load_fails(patched("llama.block_count\4\0\0\0\2\0\0\0"s, "llama.block_count\4\0\0\0\2\0\0\x40"s), "layers");
    check_load_fails(patched("llama.block_count\4\0\0\0\2\0\0\0"s, "llama.block_count\4\0\0\0\1\0\0\0"s),
                     "is not part of a llama model");
}

TEST_CASE("A path that is no model is an Error") {
    check_load_fails(kGoldenFolder / "nowhere.gguf", "no such file");
    check_load_fails(kGoldenFolder / "smollm2_greedy.json", "GGUF");
}
