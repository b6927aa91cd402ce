#include <algorithm>

#include <outrider/core/error.hpp>
#include <outrider/text/tokenizer.hpp>

#include <outrider/formats/detail/json_text.hpp>
#include "tokenizer_state.hpp"

// Format of Hugging Face's library `tokenizers`; there is no text that defines it but its serialisation code.
namespace outrider {
namespace {

using detail::field;
using detail::flag;
using detail::Json;
using detail::shown;
using detail::text;

[[noreturn]] void unsupported(const std::string& name, const char* part, const Json& what) {
    fail("{}: the {} {} is not supported", name, part, shown(what));
}

void read_split(const std::string& name, const Json& step, TokenizerState& state) {
    const std::string expression = text(field(step, "pattern"), "Regex");
    if (expression.empty() || text(step, "behavior") != "Isolated" || flag(step, "invert", false)) {
        unsupported(name, "pre-tokenizer", step);
    }
    state.words.add(expression);
}

/// Adds the patterns of a pre-tokenizer; true once the bytes' alphabet was reached.
bool read_words(const std::string& name, const Json& step, TokenizerState& state) {
    const std::string type = text(step, "type");
    if (type == "Sequence" && field(step, "pretokenizers").is_array()) {
        bool in_bytes = false;
        for (const Json& inner : field(step, "pretokenizers")) {
            if (in_bytes) unsupported(name, "pre-tokenizer after ByteLevel", inner);
            in_bytes = read_words(name, inner, state);
        }
        return in_bytes;
    }
    if (type == "ByteLevel" && !flag(step, "add_prefix_space", true)) {
        if (flag(step, "use_regex", true)) state.words.add(detail::kGpt2Pattern);
        return true;
    }
    if (type == "Digits") {
        state.words.add(flag(step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
    } else if (type == "Split") {
        read_split(name, step, state);
    } else {
        unsupported(name, "pre-tokenizer", step);
    }
    return false;
}

bool replaces_spaces(const Json& step) {
    return text(field(step, "pattern"), "String") == " " && text(step, "content") == detail::kSpaceMark;
}

/// How a vocabulary with byte_fallback marks spaces: by a normaliser that prepends and replaces, as Llama 2's files do,
/// or by the pre-tokenizer Metaspace.
SpaceMarks read_marks(const std::string& name, const Json& normalizer, const Json& words) {
    constexpr const char* kRemedy = "; where the model has a tokenizer.model, put that into the folder";
    SpaceMarks marks;
    bool replaced = false;
    const Json steps = text(normalizer, "type") == "Sequence" ? field(normalizer, "normalizers")
                       : normalizer.is_null()                ? Json::array()
                                                             : Json::array({normalizer});
    for (const Json& step : steps) {
        const std::string type = text(step, "type");
        const bool prepends = type == "Prepend" && text(step, "prepend") == detail::kSpaceMark && !marks.prefix;
        if (!prepends && !(type == "Replace" && replaces_spaces(step)))
            fail("{}: the normalizer {} is not supported beside byte_fallback{}", name, shown(step), kRemedy);
        (prepends ? marks.prefix : replaced) = true;
    }
    if (words.is_null() && replaced) return marks;
    const std::string scheme = text(words, "prepend_scheme");
    if (replaced || marks.prefix || text(words, "type") != "Metaspace" || flag(words, "split", true) ||
        text(words, "replacement") != detail::kSpaceMark || (scheme != "first" && scheme != "always" && scheme != "never"))
        fail("{}: the pre-tokenizer {} is not supported beside byte_fallback{}", name, shown(words), kRemedy);
    return {.prefix = scheme != "never", .only_first = scheme == "first", .one_only = true};
}

/// The bytes of each entry; "<0x0A>" is one byte.
void spell_pieces(TokenizerState& state) {
    for (const std::string& entry : state.entries) {
        const bool byte = entry.size() == 6 && entry.starts_with("<0x") && entry.ends_with(">");
        state.bytes.push_back(detail::bytes_of({entry, 0, byte ? detail::PieceKind::byte : detail::PieceKind::normal}));
    }
}

void put_entry(const std::string& name, TokenizerState& state, const Json& id, const std::string& entry,
               std::size_t most) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= most) {
        fail("{}: token \"{}\" has the id {}; expected a number less than {}", name, entry, shown(id), most);
    }
    const auto index = id.get<std::size_t>();
    if (index >= state.entries.size()) state.entries.resize(index + 1);
    require(state.entries[index].empty() || state.entries[index] == entry, "{}: the id {} belongs to \"{}\" and "
            "\"{}\"", name, index, state.entries[index], entry);
    state.entries[index] = entry;
}

void read_vocabulary(const std::string& name, const Json& root, TokenizerState& state) {
    const Json& vocabulary = field(field(root, "model"), "vocab");
    require(vocabulary.is_object() && !vocabulary.empty(), "{}: expected model.vocab, entries with their ids", name);
    const Json& added = field(root, "added_tokens");
    // Ids may have holes, but a list of them may not be much longer than what it lists.
    const std::size_t most = 2 * (vocabulary.size() + (added.is_array() ? added.size() : 0)) + 1024;
    for (const auto& [entry, id] : vocabulary.items()) put_entry(name, state, id, entry, most);
    if (!added.is_array()) return;
    for (const Json& token : added) {
        const std::string content = text(token, "content");
        require(!content.empty(), "{}: an added token has no content", name);
        require(!flag(token, "single_word", false), "{}: the added token {} is of a kind (single_word) that is not "
                "supported", name, content);
        put_entry(name, state, field(token, "id"), content, most);
        state.added.push_back({field(token, "id").get<TokenId>(), content, flag(token, "special", false),
                               flag(token, "lstrip", false), flag(token, "rstrip", false)});
    }
}

void read_model(const std::string& name, const Json& model, TokenizerState& state) {
    const std::string type = text(model, "type");
    require(type == "BPE" || (type.empty() && field(model, "merges").is_array()),
            "{}: the tokenizer's model is \"{}\"; expected BPE", name, type);
    require(text(model, "continuing_subword_prefix").empty() && text(model, "end_of_word_suffix").empty() &&
                !field(model, "dropout").is_number(),
            "{}: dropout, subword prefixes and word suffixes are not supported", name);
    const Json& list = field(model, "merges");
    require(list.is_array(), "{}: expected model.merges, a list", name);
    std::vector<std::pair<std::string, std::string>> merges;
    for (const Json& merge : list) {
        if (merge.is_string()) {
            merges.push_back(split_merge(merge.get_ref<const std::string&>()));
        } else {
            if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
                fail("{}: a merge is {}; expected two entries", name, shown(merge));
            }
            merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
        }
    }
    detail::BpeOptions options{.whole_words = flag(model, "ignore_merges", false),
                               .fuse_unknown = flag(model, "fuse_unk", false),
                               .characters = state.marks.has_value()};
    if (const std::string unknown = text(model, "unk_token"); !unknown.empty()) {
        const auto found = std::ranges::find(state.entries, unknown);
        require(found != state.entries.end(), "{}: unk_token {} is not in the vocabulary", name, unknown);
        options.unknown = static_cast<TokenId>(found - state.entries.begin());
    }
    state.model.emplace(state.entries, merges, options);
}

/// The special token that the post-processor puts before a text; empty when none.
std::string first_token(const Json& step) {
    if (text(step, "type") == "Sequence" && field(step, "processors").is_array()) {
        for (const Json& inner : field(step, "processors")) {
            if (const std::string found = first_token(inner); !found.empty()) return found;
        }
    }
    const Json& single = field(step, "single");
    if (text(step, "type") != "TemplateProcessing" || !single.is_array() || single.empty()) return {};
    return text(field(single[0], "SpecialToken"), "id");
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_json(const std::filesystem::path& path) {
    const std::string name = path.string();
    const Json root = detail::read_json(path);
    require(root.is_object(), "{}: expected a JSON object", name);
    auto state = std::make_unique<TokenizerState>();
    const Json &normalizer = field(root, "normalizer"), &words = field(root, "pre_tokenizer");
    if (flag(field(root, "model"), "byte_fallback", false)) {
        state->marks = read_marks(name, normalizer, words);
    } else {
        if (!normalizer.is_null() && text(normalizer, "type") != "NFC") unsupported(name, "normalizer", normalizer);
        if (!read_words(name, words, *state)) fail("{}: expected a byte-level pre-tokenizer", name);
    }
    read_vocabulary(name, root, *state);
    if (state->marks) spell_pieces(*state);
    read_model(name, field(root, "model"), *state);
    state->bos = state->find_added(first_token(field(root, "post_processor")));
    state->adds_bos = state->bos.has_value();
    state->read_neighbours(path.parent_path());
    state->finish(name);
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
