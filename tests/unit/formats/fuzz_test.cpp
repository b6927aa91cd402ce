// Mutated files: every loader gives a result or an Error; no crash, no other exception, no allocation out of
// proportion. The number of inputs: see ../../mutation.hpp.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/text/chat_template.hpp>
#include "formats/gguf.hpp"
#include "formats/hf_config.hpp"
#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/text/tokenizer.hpp>
#include "formats/torch_archive.hpp"

#include "text/sentencepiece_file.hpp"
#include "../../mutation.hpp"
#include "gguf_builder.hpp"
#include "../temporary_folder.hpp"
#include "torch_archive_builder.hpp"

using namespace outrider;
using outrider::test::as_bytes;
using outrider::test::build_archive;
using outrider::test::fuzz_inputs;
using outrider::test::GgufBuilder;
using outrider::test::kJsonWords;

namespace {

std::atomic<std::size_t> largest_allocation{0};

}  // namespace

#ifndef __SANITIZE_ADDRESS__  // which has an operator new of its own, and looks at more than sizes
namespace {

void* allocate(std::size_t size) {
    std::size_t seen = largest_allocation.load(std::memory_order_relaxed);
    while (size > seen && !largest_allocation.compare_exchange_weak(seen, size)) {
    }
    if (void* p = std::malloc(std::max<std::size_t>(size, 1))) return p;
    throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace {

/// See test::fuzz; no load may allocate out of proportion.
void fuzz(const std::string& input, const std::vector<std::string>& words,
          const std::function<void(const std::string&)>& load, std::int64_t count = fuzz_inputs()) {
    largest_allocation = 0;
    test::fuzz(input, words, load, count);
    CHECK(largest_allocation < std::size_t{4} << 20);  // the inputs have some hundred bytes
}

void use(const Tokenizer& tokenizer) {
    for (const SpecialText mode : {SpecialText::plain, SpecialText::parse}) {
        (void)tokenizer.decode(tokenizer.encode("ab <end> ab12  a\u2019\n", mode));
    }
    for (std::int64_t id = 0; id < tokenizer.size(); ++id) (void)tokenizer.piece(static_cast<TokenId>(id));
    try {
        (void)ChatTemplate::of(tokenizer);
    } catch (const Error&) {
    }
}

std::string small_gguf() {
    GgufBuilder b;
    b.text("general.architecture", "llama").scalar<std::uint32_t>("general.alignment", 32).scalar("eps", 1e-5f);
    b.array<float>("scores", {1, 2, 3}).scalar("flag", true);
    b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
    b.array<std::string>("tokenizer.ggml.tokens",
                         {"a", "b", "ab", "\xC4\xA0", "1", "2", "\xC4\x8A", "<end>", "<", ">", "e", "n", "d"});
    b.array<std::string>("tokenizer.ggml.merges", {"a b"});
    b.array<std::int32_t>("tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1});
    b.scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 7).text("tokenizer.chat_template", "<|im_start|>system\nx");
    b.tensor("token_embd.weight", {32, 2}, 8, std::string(68, '\1'));
    b.tensor("norm.weight", {4}, 0, std::string(16, '\2')).tensor("k", {256}, 12, std::string(144, '\3'));
    return b.build();
}

/// A vocabulary of a few pieces; the unigram one with the golden vocabulary's rules of normalisation.
detail::SentencePieceFile small_pieces(bool bpe) {
    using detail::PieceKind;
    detail::SentencePieceFile file;
    file.bpe = bpe;
    file.pieces = {{"<unk>", 0, PieceKind::unknown}, {"<s>", 0, PieceKind::control}, {"</s>", 0, PieceKind::control}};
    float score = -1;
    for (const char* text : {"ab",
                             "\xE2\x96\x81"
                             "a",
                             "a", "b", "\xE2\x96\x81", "1", "n", "e", "d", "<", ">"})
        file.pieces.push_back({text, score -= 1, PieceKind::normal});
    file.pieces.push_back({"12", 0, PieceKind::user_defined});
    file.pieces.push_back({"nd", -20, PieceKind::unused});
    if (bpe) return file;
    const auto golden = SharedBytes::map(OUTRIDER_SOURCE_DIR "/tests/golden/sentencepiece/unigram.model");
    const std::string_view bytes(reinterpret_cast<const char*>(golden.span().data()), golden.span().size());
    file.charsmap = detail::SentencePieceFile::parse(bytes, "golden").charsmap;
    REQUIRE(file.charsmap.size() > 1000);
    return file;
}

std::string small_pieces_gguf() {
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<std::int32_t> kinds;
    for (const detail::Piece& piece : small_pieces(true).pieces) {
        tokens.push_back(piece.text);
        scores.push_back(piece.score);
        kinds.push_back(static_cast<std::int32_t>(piece.kind));
    }
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "llama").array("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.scores", scores).array("tokenizer.ggml.token_type", kinds);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 1).scalar("tokenizer.ggml.add_space_prefix", true);
    return b.build();
}

void read_gguf(const std::string& text) {
    const GgufFile file = GgufFile::parse(SharedBytes::copy(as_bytes(text)), "fuzzed");
    for (const std::string& key : file.keys()) {
        const std::function<void()> getters[] = {[&] { (void)file.string(key); },  [&] { (void)file.integer(key); },
                                                 [&] { (void)file.number(key); },  [&] { (void)file.boolean(key); },
                                                 [&] { (void)file.strings(key); }, [&] { (void)file.integers(key); },
                                                 [&] { (void)file.numbers(key); }, [&] { (void)file.booleans(key); }};
        int readable = 0;
        for (const auto& getter : getters) {
            try {
                getter();
                ++readable;
            } catch (const Error&) {
            }
        }
        if (readable > 2) FAIL("key " << key << " reads as " << readable << " kinds");
    }
    for (const GgufTensor& tensor : file.tensors()) {
        if (can_dequantise(tensor.type)) (void)to_floats(tensor);
    }
    use(*Tokenizer::from_gguf(file));
}

}  // namespace

TEST_CASE("fuzz: gguf and its tokenizer") {
    std::vector<std::string> words = {std::string(8, '\0'), std::string(8, '\xFF'), "GGUF", "\xFF", "a"};
    fuzz(small_gguf(), words, read_gguf);
}

TEST_CASE("fuzz: gguf with a SentencePiece vocabulary") {
    std::vector<std::string> words = {std::string(8, '\0'), std::string(8, '\xFF'), "<0x41>", "\xE2\x96\x81", "a"};
    fuzz(small_pieces_gguf(), words, [](const std::string& text) {
        use(*Tokenizer::from_gguf(GgufFile::parse(SharedBytes::copy(as_bytes(text)), "fuzzed")));
    });
}

TEST_CASE("fuzz: tokenizer.model and its neighbours") {
    const test::TemporaryFolder folder;
    const auto load = [&](const char* name) {
        return [&folder, name](const std::string& text) {
            folder.write(name, text);
            use(*Tokenizer::from_folder(folder.path()));
        };
    };
    const std::vector<std::string> words = {std::string(8, '\0'),
                                            std::string(8, '\xFF'),
                                            "\x0A",
                                            "\x18\x06",
                                            "\x1A\x04",
                                            "\xE2\x96\x81",
                                            std::string("\x15\0\0\x80\x7F", 5),
                                            "\x10\x00"};
    for (const bool bpe : {true, false}) {
        DYNAMIC_SECTION((bpe ? "bpe" : "unigram")) {
            const std::string model = small_pieces(bpe).write();
            fuzz(model, words, load("tokenizer.model"), fuzz_inputs() / 2);
            folder.write("tokenizer.model", model);
        }
    }
    folder.write("tokenizer.model", small_pieces(true).write());
    const std::string config =
        R"({"added_tokens_decoder": {"9": {"content": "<end>", "special": true}, "2": {"content": "ab"}},)"
        R"("eos_token": "<end>", "legacy": false, "chat_template": "x"})";
    fuzz(config, kJsonWords, load("tokenizer_config.json"), fuzz_inputs() / 5);
    folder.write("tokenizer_config.json", R"({"eos_token": "<end>"})");
    fuzz(R"({"<end>": 9, "<more>": 10})", kJsonWords, load("added_tokens.json"), fuzz_inputs() / 5);
}

TEST_CASE("fuzz: safetensors") {
    std::string header = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                         R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},)"
                         R"("c":{"dtype":"I64","shape":[],"data_offsets":[14,22]}})";
    std::string file;
    GgufBuilder::put<std::uint64_t>(file, header.size());
    file += header + std::string(22, '\5');
    fuzz(file, kJsonWords, [](const std::string& text) {
        const SafeTensors read = SafeTensors::parse(SharedBytes::copy(as_bytes(text)), "fuzzed");
        for (const SafeTensor& tensor : read.tensors()) (void)to_floats(tensor);
    });
}

TEST_CASE("fuzz: safetensors index") {
    const test::TemporaryFolder folder;
    const std::vector<float> one = {1};
    const std::vector<SafeTensorView> tensors = {{"a", SafeDtype::f32, {1}, std::as_bytes(std::span(one))}};
    write_safetensors(folder.path() / "m", tensors);
    fuzz(R"({"metadata": {"total_size": 4}, "weight_map": {"a": "m"}})", kJsonWords, [&](const std::string& text) {
        folder.write("model.safetensors.index.json", text);
        (void)SafeTensors::open(folder.path());
    });
}

TEST_CASE("fuzz: torch archive") {
    // As torch.save writes a module: memo, shared storage, _metadata; one tensor is strided.
    const std::string pickle = test::PickleBuilder()
                                   .global("collections", "OrderedDict")
                                   .raw(")R(")
                                   .text("a")
                                   .tensor("FloatStorage", "0", 6, 0, {2, 3}, {3, 1})
                                   .raw("q\1")
                                   .text("b")
                                   .raw("h\1")
                                   .text("c")
                                   .tensor("FloatStorage", "0", 6, 1, {2, 2}, {1, 3})
                                   .text("d")
                                   .global("torch._utils", "_rebuild_parameter")
                                   .tensor("HalfStorage", "1", 4, 0, {4}, {1})
                                   .raw("\x88}\x87Ru}")
                                   .text("_metadata")
                                   .raw("}sb.")
                                   .build();
    const std::vector<std::string> storages = {std::string(24, '\5'), std::string(8, '\7')};
    const auto read = [](const std::string& text) {
        const TorchArchive file = TorchArchive::parse(SharedBytes::copy(as_bytes(text)), "fuzzed");
        for (const SafeTensor& tensor : file.tensors()) (void)to_floats(tensor);
    };
    std::vector<std::string> words = {"PK\1\2",
                                      "PK\3\4",
                                      "PK\5\6",
                                      "PK\6\6",
                                      "PK\6\7",
                                      "made/",
                                      "data.pkl",
                                      "data/1",
                                      "big",
                                      std::string(8, '\0'),
                                      std::string(8, '\xFF')};
    SECTION("zip") { fuzz(build_archive(pickle, storages), words, read); }
    SECTION("zip, 64-bit") { fuzz(build_archive(pickle, storages, {.wide = true}), words, read); }
    SECTION("pickle") {
        for (const char* word : {"}",
                                 "(",
                                 ")",
                                 "t",
                                 "\x85",
                                 "\x86",
                                 "\x87",
                                 "u",
                                 "s",
                                 "b",
                                 "R",
                                 "Q",
                                 ".",
                                 "N",
                                 "\x88",
                                 "q\1",
                                 "h\1",
                                 "K\1",
                                 "J\xFF\xFF\xFF\x7F",
                                 "\x8A\x01\xFF",
                                 "ctorch\nLongStorage\n",
                                 "ccollections\nOrderedDict\n"})
            words.emplace_back(word);
        words.emplace_back("X\1\0\0\0a", 6);
        fuzz(pickle, words, [&](const std::string& text) { read(build_archive(text, storages)); });
    }
}

TEST_CASE("fuzz: config.json") {
    const std::string config =
        R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,)"
        R"("num_attention_heads": 4, "vocab_size": 300, "rms_norm_eps": 1e-05, "eos_token_id": [2, 3],)"
        R"("rope_scaling": {"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}})";
    fuzz(config, kJsonWords, [](const std::string& text) { (void)parse_hf_config(text, "fuzzed"); });
}

TEST_CASE("fuzz: tokenizer.json and its neighbours") {
    const std::string tokenizer =
        R"x({"added_tokens":[{"id":8,"content":"<end>","special":true,"lstrip":true},{"id":12,"content":"d","normalized":true,)x"
        R"x("rstrip":true,"single_word":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Nmt"},)x"
        R"x({"type":"Lowercase"},{"type":"Strip","strip_left":true,"strip_right":false},{"type":"StripAccents"},)x"
        R"x({"type":"Replace","pattern":{"Regex":"\\w+(?= )"},"content":"ab"},{"type":"NFKD"}]},)x"
        R"x("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)x"
        R"x({"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|[ab]+"},"behavior":"Isolated","invert":false},)x"
        R"x({"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},)x"
        R"x("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<end>","type_id":0}}]},)x"
        R"x("model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"\u0120":3,"1":4,"2":5,"\u010a":6,)x"
        R"x("e":7,"<":9,">":10,"n":11,"d":12},"merges":["a b"]}})x";
    const std::string config =
        R"({"bos_token": {"content": "<end>"}, "eos_token": "<end>", "chat_template": [{"name": "default", "template": "x"}]})";
    const std::string listed =
        R"({"pad_token": "<pad>", "added_tokens_decoder": {"8": {"content": "<end>", "special": true, "rstrip": true}, "13": {"content": "x"}}})";
    const std::string map =
        R"({"eos_token": {"content": "<end>", "lstrip": true}, "additional_special_tokens": ["ab", "<x>"]})";
    const std::string generation = R"({"eos_token_id": [8, 2]})";
    const test::TemporaryFolder folder;
    const auto path = folder.write("tokenizer.json", tokenizer);
    folder.write("tokenizer_config.json", config);
    folder.write("generation_config.json", generation);
    const auto load = [&](const char* name) {
        return [&folder, &path, name](const std::string& text) {
            folder.write(name, text);
            use(*Tokenizer::from_json(path));
        };
    };
    fuzz(tokenizer, kJsonWords, load("tokenizer.json"));
    folder.write("tokenizer.json", tokenizer);
    fuzz(config, kJsonWords, load("tokenizer_config.json"), fuzz_inputs() / 5);
    folder.write("tokenizer_config.json", config);
    fuzz(generation, kJsonWords, load("generation_config.json"), fuzz_inputs() / 5);
    folder.write("generation_config.json", generation);
    fuzz(map, kJsonWords, load("special_tokens_map.json"), fuzz_inputs() / 5);
    folder.write("special_tokens_map.json", map);
    fuzz(R"({"<end>": 8, "<more>": 13})", kJsonWords, load("added_tokens.json"), fuzz_inputs() / 5);
    folder.write("added_tokens.json", "{}");
    fuzz(listed, kJsonWords, load("tokenizer_config.json"), fuzz_inputs() / 5);
}

TEST_CASE("fuzz: tokenizer.json over characters") {
    const std::string tokenizer =
        R"x({"added_tokens":[{"id":1,"content":"<s>","special":true},{"id":14,"content":"<end>","special":true}],)x"
        R"x("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"\u2581"},)x"
        R"x({"type":"Replace","pattern":{"String":" "},"content":"\u2581"}]},"pre_tokenizer":null,)x"
        R"x("model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"<s>":1,)x"
        R"x("<0xE2>":2,"<0x80>":3,"<0x99>":4,"\u2581":5,"a":6,"b":7,"\u2581a":8,"ab":9,"1":10,"n":11,"d":12,"nd":13},)x"
        R"x("merges":["\u2581 a","a b","n d"]}})x";
    const test::TemporaryFolder folder;
    fuzz(tokenizer, kJsonWords,
         [&](const std::string& text) { use(*Tokenizer::from_json(folder.write("tokenizer.json", text))); });
}
