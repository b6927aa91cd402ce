#include <algorithm>

#include <outrider/core/error.hpp>
#include <outrider/io/tokenizer.hpp>

#include "json_text.hpp"
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
                               .fuse_unknown = flag(model, "fuse_unk", false)};
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
    require(!flag(field(root, "model"), "byte_fallback", false), "{}: converted from a SentencePiece vocabulary "
            "(byte_fallback), which is read as it was: put the model's tokenizer.model into the folder", name);
    auto state = std::make_unique<TokenizerState>();
    const Json& normalizer = field(root, "normalizer");
    if (!normalizer.is_null() && text(normalizer, "type") != "NFC") unsupported(name, "normalizer", normalizer);
    if (!read_words(name, field(root, "pre_tokenizer"), *state)) {
        fail("{}: expected a byte-level pre-tokenizer", name);
    }
    read_vocabulary(name, root, *state);
    read_model(name, field(root, "model"), *state);
    state->bos = state->find_added(first_token(field(root, "post_processor")));
    state->adds_bos = state->bos.has_value();
    state->read_neighbours(path.parent_path());
    state->finish(name);
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
