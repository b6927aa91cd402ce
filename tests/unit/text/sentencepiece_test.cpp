// SentencePiece vocabularies against the library's Python package (tests/oracle/make_sentencepiece_golden.py), from
// tokenizer.model and from GGUF, and what stands beside them in folders.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/text/chat_template.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "text/sentencepiece_file.hpp"
#include "../formats/gguf_builder.hpp"
#include "../temporary_folder.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using outrider::detail::PieceKind;
using outrider::detail::SentencePieceFile;
using outrider::test::GgufBuilder;
using outrider::test::TemporaryFolder;

namespace {

const std::filesystem::path kGolden = OUTRIDER_SOURCE_DIR "/tests/golden/sentencepiece";

json read(const std::filesystem::path& path) { return json::parse(std::ifstream(path)); }

std::string bytes_of_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

SentencePieceFile golden_file(const std::string& name) {
    return SentencePieceFile::parse(bytes_of_file(kGolden / (name + ".model")), name);
}

/// A folder with a golden vocabulary as tokenizer.model, and <|im_end|> behind it as the golden ids have it.
struct Folder : TemporaryFolder {
    explicit Folder(const std::string& name, bool with_added = true) {
        std::filesystem::copy(kGolden / (name + ".model"), path() / "tokenizer.model");
        if (with_added) write("tokenizer_config.json", config().dump());
    }
    static json config() {
        return {{"added_tokens_decoder", {{"800", {{"content", "<|im_end|>"}, {"special", true}}}}}};
    }
    [[nodiscard]] std::shared_ptr<const Tokenizer> load() const { return Tokenizer::from_folder(path()); }
};

std::shared_ptr<const Tokenizer> golden(const std::string& name) { return Folder(name).load(); }

/// The BPE vocabulary as a GGUF file in memory, changed by `change` before it is closed.
GgufFile as_gguf(const SentencePieceFile& file, const std::function<void(GgufBuilder&)>& change = {}) {
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<std::int32_t> kinds;
    for (const detail::Piece& piece : file.pieces) {
        tokens.push_back(piece.text);
        scores.push_back(piece.score);
        kinds.push_back(static_cast<std::int32_t>(piece.kind));
    }
    tokens.push_back("<|im_end|>");
    scores.push_back(-1000);
    kinds.push_back(3);
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "llama").array("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.scores", scores).array("tokenizer.ggml.token_type", kinds);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 1).scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 2);
    if (change) change(b);
    return GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "pieces.gguf");
}

/// Whether both are segmentations of one score: in a unigram model the order of the same pieces does not count, and
/// versions of the library break such ties differently.
bool same_sum(std::vector<TokenId> a, std::vector<TokenId> b) {
    std::ranges::sort(a);
    std::ranges::sort(b);
    return a == b;
}

/// All strings both ways. `round_trip`: the text comes back. `skip` leaves out the strings with that word.
void check_golden(const Tokenizer& tokenizer, const std::string& name, bool round_trip, const std::string& skip = "") {
    const auto strings = read(kGolden.parent_path() / "tokenizer/strings.json").get<std::vector<std::string>>();
    const json ids = read(kGolden / "ids.json")[name];
    REQUIRE(strings.size() > 500);
    REQUIRE(ids["plain"].size() == strings.size());
    int special = 0, ties = 0;
    for (std::size_t i = 0; i < strings.size(); ++i) {
        const std::string& text = strings[i];
        if (!skip.empty() && text.find(skip) != std::string::npos) continue;
        INFO("string " << i << " " << json(text).dump());
        const auto plain = tokenizer.encode(text, SpecialText::plain);
        const auto parsed = tokenizer.encode(text, SpecialText::parse);
        const auto check = [&](const std::vector<TokenId>& got, const char* kind) {
            const auto expected = ids[kind][i].get<std::vector<TokenId>>();
            if (name == "unigram" && got != expected && same_sum(got, expected))
                ++ties;
            else
                CHECK(got == expected);
        };
        check(plain, "plain");
        check(parsed, "parse");
        special += plain != parsed;
        if (round_trip) CHECK(tokenizer.decode(plain) == text);
    }
    CHECK(special > 10);
    CHECK(ties < 10);
}

void check_fails(const std::filesystem::path& folder, const std::string& because) {
    CHECK_THROWS_MATCHES(Tokenizer::from_folder(folder), Error, MessageMatches(ContainsSubstring(because)));
}

}  // namespace

TEST_CASE("sentencepiece: golden ids of a BPE vocabulary, from tokenizer.model and from GGUF") {
    const auto from_model = golden("bpe");
    check_golden(*from_model, "bpe", true);
    CHECK(from_model->size() == 801);
    const auto from_gguf = Tokenizer::from_gguf(as_gguf(golden_file("bpe")));
    // A user's own token cuts the text in llama.cpp, not in the library.
    check_golden(*from_gguf, "bpe", true, "<tool>");
    for (const auto& tokenizer : {from_model, from_gguf}) {
        CHECK(tokenizer->bos() == 1);
        CHECK(tokenizer->eos() == 2);
        CHECK(tokenizer->adds_bos());
        CHECK(tokenizer->end_ids() == std::vector<TokenId>{2, 800});
        CHECK(tokenizer->is_special(0));
        CHECK(tokenizer->find_special("<|im_end|>") == 800);
        CHECK(tokenizer->find_special("<tool>").has_value());
        CHECK_FALSE(tokenizer->is_special(*tokenizer->find_special("<tool>")));
        CHECK(tokenizer->encode("", SpecialText::parse).empty());
    }
    CHECK(from_gguf->decode(from_gguf->encode("a<tool>b", SpecialText::plain)) == "a<tool> b");
}

TEST_CASE("sentencepiece: golden ids of a unigram vocabulary with rules of normalisation") {
    const auto tokenizer = golden("unigram");
    check_golden(*tokenizer, "unigram", false);
    CHECK(tokenizer->decode(tokenizer->encode("  the \u201cquoted\u201d\u3000 text ", SpecialText::plain)) ==
          "the \"quoted\" text");
}

TEST_CASE("sentencepiece: tokens joined one at a time lose no space and double none") {
    const auto tokenizer = golden("bpe");
    for (const std::string text : {"The ferry left.", "  two", " one", "", "\n x", "é😀中"}) {
        const auto ids = tokenizer->encode(text, SpecialText::plain);
        std::string joined;
        Utf8Stream stream;
        for (const TokenId id : ids) joined += stream.feed(tokenizer->bytes(id));
        CHECK(joined + stream.flush() == (text.empty() ? "" : " " + text));
        CHECK(tokenizer->decode(ids, TextPlace::middle) == (text.empty() ? "" : " " + text));
        CHECK(tokenizer->decode(ids) == text);
    }
    // Wherever an answer is cut: the part before begins a text, the part behind goes on.
    const std::string answer = "She asked what the tide was, and   the sea\n answered her.";
    const auto ids = tokenizer->encode(answer, SpecialText::plain);
    for (std::size_t cut = 1; cut <= ids.size(); ++cut) {
        const auto all = std::span(ids);
        CHECK(tokenizer->decode(all.first(cut)) + tokenizer->decode(all.subspan(cut), TextPlace::middle) == answer);
    }
}

TEST_CASE("sentencepiece: byte tokens") {
    const auto tokenizer = golden("bpe");
    const auto ids = tokenizer->encode("\U0001F9FF", SpecialText::plain);  // no piece of its own
    REQUIRE(ids.size() >= 4);
    CHECK(tokenizer->bytes(ids.back()).size() == 1);
    CHECK(tokenizer->piece(ids.back()) == "\xBF");
    CHECK(tokenizer->encode("<0x41>", SpecialText::parse).size() > 2);  // its name is text
    CHECK(tokenizer->decode(tokenizer->encode("a\xFFz", SpecialText::plain)) == "a\xEF\xBF\xBDz");
}

TEST_CASE("sentencepiece: user text cannot be a special token") {
    for (const auto& tokenizer :
         {golden("bpe"), golden("unigram"), Tokenizer::from_gguf(as_gguf(golden_file("bpe")))}) {
        for (const TokenId id : tokenizer->encode("</s><s>x</s> [/INST]<|im_end|><unk>", SpecialText::plain))
            CHECK((id == 0 || !tokenizer->is_special(id)));  // 0: what the unigram vocabulary does not know
        CHECK(tokenizer->encode("</s>", SpecialText::parse) == std::vector<TokenId>{2});
    }
}

TEST_CASE("sentencepiece: a control token of one character does not come from text") {
    SentencePieceFile file = golden_file("bpe");
    const auto q = std::ranges::find(file.pieces, "q", &detail::Piece::text);
    REQUIRE(q != file.pieces.end());
    q->kind = PieceKind::control;
    const auto id = static_cast<TokenId>(q - file.pieces.begin());
    const auto tokenizer = Tokenizer::from_gguf(as_gguf(file));
    CHECK(tokenizer->decode(tokenizer->encode("aqb", SpecialText::plain)) == "aqb");
    const auto parsed = tokenizer->encode("q", SpecialText::parse);
    CHECK(parsed == std::vector<TokenId>{id});
}

TEST_CASE("sentencepiece: which parts of a text get the space") {
    const Folder folder("bpe");
    const auto show = [](const Tokenizer& tokenizer, std::string_view text, TextPlace place = TextPlace::start) {
        std::string shown;
        for (const TokenId id : tokenizer.encode(text, SpecialText::parse, place)) shown += tokenizer.piece(id);
        return shown;
    };
    const auto configured = [&](const json& more) {
        json config = Folder::config();
        config.update(more);
        folder.write("tokenizer_config.json", config.dump());
        return folder.load();
    };
    auto tokenizer = configured(json::object());
    CHECK(show(*tokenizer, "a</s>b") == " a</s> b");
    CHECK(show(*tokenizer, "</s>b", TextPlace::middle) == "</s> b");
    CHECK(show(*tokenizer, "b", TextPlace::middle) == " b");
    tokenizer = configured({{"legacy", false}});
    CHECK(show(*tokenizer, "a</s>b") == " a</s>b");
    CHECK(show(*tokenizer, "<s>a") == "<s>a");
    CHECK(show(*tokenizer, "b", TextPlace::middle) == "b");
    tokenizer = configured({{"add_prefix_space", false}});
    CHECK(show(*tokenizer, "a</s>b") == "a</s>b");
    CHECK(tokenizer->decode(tokenizer->encode(" a", SpecialText::plain)) == " a");
    // A tokenizer.json of the same vocabulary knows better.
    json converted = {{"model", {{"type", "BPE"}, {"byte_fallback", true}}}, {"normalizer", nullptr}};
    const auto scheme = [&](const char* name) {
        converted["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", name}};
        folder.write("tokenizer.json", converted.dump());
        return show(*configured({{"legacy", true}}), "a</s>b");
    };
    CHECK(scheme("first") == " a</s>b");
    CHECK(scheme("always") == " a</s> b");
    CHECK(scheme("never") == "a</s>b");
    converted["pre_tokenizer"] = nullptr;
    converted["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}}}};
    folder.write("tokenizer.json", converted.dump());
    CHECK(show(*configured({{"legacy", false}}), "a</s>b") == " a</s> b");
    const auto gguf = Tokenizer::from_gguf(
        as_gguf(golden_file("bpe"), [](GgufBuilder& b) { b.scalar("tokenizer.ggml.add_space_prefix", false); }));
    CHECK(show(*gguf, "a</s>b") == "a</s>b");
}

TEST_CASE("sentencepiece: the files beside a tokenizer.model") {
    const Folder folder("bpe", false);
    CHECK(folder.load()->size() == 800);
    folder.write("added_tokens.json", R"({"<pad>": 800, "<call>": 801, "<|user|>": 802})");
    folder.write("special_tokens_map.json",
                 R"({"pad_token": {"content": "<pad>"}, "additional_special_tokens": ["<|user|>"]})");
    folder.write("tokenizer_config.json",
                 R"({"eos_token": "<|user|>", "add_bos_token": false, "chat_template": "source"})");
    folder.write("config.json", R"({"eos_token_id": 5})");
    auto tokenizer = folder.load();
    CHECK(tokenizer->size() == 803);
    CHECK(tokenizer->is_special(800));
    CHECK_FALSE(tokenizer->is_special(801));
    CHECK(tokenizer->is_special(802));
    CHECK(tokenizer->bytes(801) == "<call>");
    CHECK(tokenizer->encode("<call><pad>", SpecialText::plain).front() == 801);
    CHECK(tokenizer->encode("<pad><call>", SpecialText::parse) == std::vector<TokenId>{800, 801});
    CHECK(tokenizer->eos() == 802);
    CHECK(tokenizer->bos() == 1);
    CHECK_FALSE(tokenizer->adds_bos());
    CHECK(tokenizer->end_ids() == std::vector<TokenId>{5, 802});
    CHECK(tokenizer->chat_template() == "source");
    // A piece that was made special later is not made of text any more.
    const auto the = tokenizer->encode("the", SpecialText::plain);
    REQUIRE(the.size() == 1);
    folder.write("tokenizer_config.json",
                 json{{"added_tokens_decoder",
                       {{std::to_string(the[0]),
                         {{"content", tokenizer->piece(the[0]).replace(0, 1, "\u2581")}, {"special", true}}}}}}
                     .dump());
    tokenizer = folder.load();
    CHECK(tokenizer->is_special(the[0]));
    CHECK(tokenizer->encode("the", SpecialText::plain) != the);
    CHECK(tokenizer->decode(tokenizer->encode("the", SpecialText::plain)) == "the");
}

TEST_CASE("sentencepiece: files that cannot be used say why") {
    const Folder folder("bpe", false);
    const auto with = [&](const std::string& name, const std::string& content, const std::string& because) {
        folder.write(name, content);
        check_fails(folder.path(), because);
        std::filesystem::remove(folder.path() / name);
    };
    with("added_tokens.json", R"({"<far>": 1000000})", "expected one near the vocabulary");
    with("added_tokens.json", R"({"<odd>": "one"})", "<odd>\" has the id \"one\"");
    with("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})", "the key \"x\"");
    with("tokenizer_config.json", R"({"added_tokens_decoder": {"800": {"content": ""}}})", "no content");
    const auto changed = [&](const std::function<void(SentencePieceFile&)>& change, const std::string& because) {
        SentencePieceFile file = golden_file("bpe");
        change(file);
        folder.write("tokenizer.model", file.write());
        check_fails(folder.path(), because);
    };
    using F = SentencePieceFile;
    changed([](F& f) { f.pieces.clear(); }, "no pieces");
    changed([](F& f) { f.pieces[300].text.clear(); }, "token 300 is empty or not UTF-8");
    changed([](F& f) { f.pieces[300].text = std::string(1, '\xFF'); }, "token 300 is empty or not UTF-8");
    changed([](F& f) { f.pieces[300].score = INFINITY; }, "token 300 has the score inf");
    changed([](F& f) { f.pieces[300].kind = PieceKind{9}; }, "token 300 is of the type 9");
    changed([](F& f) { f.pieces[300].text = f.pieces[301].text; }, "cannot be used");
    changed([](F& f) { f.pieces[0].kind = PieceKind::normal; }, "unk");
    changed([](F& f) { f.byte_fallback = false; }, "byte");
    changed([](F& f) { f.charsmap = std::string(2000, '\1'); }, "rules of normalisation");
    changed(
        [](F& f) {  // the root of the double array leads far away, and looks like a value
            f.charsmap = golden_file("unigram").charsmap;
            f.charsmap.replace(4, 4, "\xFF\xFF\xFF\xFF");
        },
        "rules of normalisation");
    const std::string good = bytes_of_file(kGolden / "bpe.model");
    folder.write("tokenizer.model", good.substr(0, good.size() / 2));
    check_fails(folder.path(), "damaged");
    folder.write("tokenizer.model", "<|begin|> is no field");
    check_fails(folder.path(), "tokenizer.model");
    std::filesystem::remove(folder.path() / "tokenizer.model");
    check_fails(folder.path(), "expected tokenizer.json or tokenizer.model");
}

TEST_CASE("sentencepiece: GGUF vocabularies that cannot be used say why") {
    const auto fails = [](const std::function<void(GgufBuilder&)>& build, const std::string& because) {
        GgufBuilder b;
        b.text("tokenizer.ggml.model", "llama");
        build(b);
        const GgufFile file = GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "pieces.gguf");
        CHECK_THROWS_MATCHES(Tokenizer::from_gguf(file), Error, MessageMatches(ContainsSubstring(because)));
    };
    const auto tokens = [](GgufBuilder& b) -> GgufBuilder& {
        return b.array<std::string>("tokenizer.ggml.tokens", {"<unk>", "a", "b"});
    };
    fails([](GgufBuilder&) {}, "tokenizer.ggml.tokens is missing");
    fails([&](GgufBuilder& b) { tokens(b); }, "tokenizer.ggml.scores is missing");
    fails([&](GgufBuilder& b) { tokens(b).array<float>("tokenizer.ggml.scores", {1, 2, 3}); },
          "tokenizer.ggml.token_type is missing");
    fails(
        [&](GgufBuilder& b) {
            tokens(b)
                .array<float>("tokenizer.ggml.scores", {1, 2})
                .array<std::int32_t>("tokenizer.ggml.token_type", {2, 1, 1});
        },
        "2 scores for 3 tokens");
    fails(
        [&](GgufBuilder& b) {
            tokens(b)
                .array<float>("tokenizer.ggml.scores", {1, 2, 3})
                .array<std::int32_t>("tokenizer.ggml.token_type", {2, 1});
        },
        "2 token types for 3 tokens");
    fails(
        [&](GgufBuilder& b) {
            tokens(b)
                .array<float>("tokenizer.ggml.scores", {1, 2, 3})
                .array<std::int32_t>("tokenizer.ggml.token_type", {2, 1, 6});
        },
        "cannot be used");
}

TEST_CASE("sentencepiece: chats as the published templates write them") {
    const Folder folder("bpe");
    const auto from_gguf = Tokenizer::from_gguf(as_gguf(golden_file("bpe")));
    const auto from_model = folder.load();
    int compared = 0;
    for (const json& row : read(kGolden / "chat.json")) {
        std::vector<ChatMessage> messages;
        for (const json& message : row["messages"]) messages.push_back({message["role"], message["content"]});
        const auto chat = ChatTemplate::by_name(row["template"].get<std::string>());
        INFO(row["template"] << " " << row["text"]);
        CHECK(chat.encode(messages, *from_model) == row["ids"].get<std::vector<TokenId>>());
        CHECK(chat.encode(messages, *from_gguf) == row["ids"].get<std::vector<TokenId>>());
        ++compared;
    }
    CHECK(compared > 12);
}

TEST_CASE("sentencepiece: vocabularies that were converted to a tokenizer.json") {  // make_converted_golden.py
    const json golden = read(kGolden / "converted_ids.json"),
               texts = read(kGolden.parent_path() / "tokenizer/strings.json");
    const json converted = read(kGolden / "converted.json");
    const TemporaryFolder folder;
    const auto load = [&](const json& root) {
        folder.write("tokenizer.json", root.dump());
        return Tokenizer::from_folder(folder.path());
    };
    const auto ids = [&](const Tokenizer& tokenizer, std::size_t i) {
        return tokenizer.encode(texts[i].get<std::string>(), SpecialText::parse);
    };
    const auto legacy = load(converted);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto got = ids(*legacy, i);
        if (got != golden["prepend"][i].get<std::vector<TokenId>>()) FAIL_CHECK("string " << i << ": " << texts[i]);
        if (to_valid_utf8(legacy->decode(got)) != golden["decoded"][i]) FAIL_CHECK("decoded string " << i);
    }
    for (const std::string scheme : {"first", "always", "never"}) {
        json root = converted;
        root["normalizer"] = nullptr;
        root["pre_tokenizer"] = {
            {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", false}};
        const auto tokenizer = load(root);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto other = golden[scheme].find(std::to_string(i));
            if (other == golden[scheme].end() && scheme == "never") continue;
            const json& expected = other == golden[scheme].end() ? golden["prepend"][i] : *other;
            if (ids(*tokenizer, i) != expected.get<std::vector<TokenId>>()) FAIL_CHECK(scheme << ", string " << i);
        }
    }
    const auto fails = [&](const std::function<void(json&)>& change) {
        json root = converted;
        change(root);
        CHECK_THROWS_MATCHES(load(root), Error, MessageMatches(ContainsSubstring("not supported")));
    };
    fails([](json& r) { r["normalizer"] = {{"type", "Precompiled"}}; });
    fails([](json& r) { r["normalizer"]["normalizers"].push_back({{"type", "BertNormalizer"}}); });
    fails([](json& r) { r["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "first"}}; });
    fails([](json& r) {
        r["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "last"}};
    });
}
