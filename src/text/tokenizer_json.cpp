#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/text/tokenizer.hpp>

#include <outrider/formats/detail/json_text.hpp>

#include "folder_tokens.hpp"
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
    fail(ErrorKind::not_supported, "{}: the {} {} is not supported", name, part, shown(what));
}

/// Reads the steps of a pre-tokenizer.
class WordReader {
public:
    WordReader(const std::string& name, TokenizerState& state) : name_(name), state_(state) {}

    void read(const Json& step) {
        const std::string type = text(step, "type");
        if (type == "Sequence" && field(step, "pretokenizers").is_array()) {
            for (const Json& inner : field(step, "pretokenizers")) read(inner);
        } else if (type == "ByteLevel") {
            read_byte_level(step);
        } else if (type == "Metaspace") {
            read_metaspace(step);
        } else if (type == "Digits") {
            cut(flag(step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)", detail::CutBehavior::isolated);
        } else if (type == "Punctuation") {
            cut(R"([\p{P}$+<=>^`|~])", behavior(step, "Isolated"));
        } else if (type == "Split") {
            const Json& pattern = field(step, "pattern");
            const std::string plain = text(pattern, "String"), expression = text(pattern, "Regex");
            if (plain.empty() == expression.empty()) unsupported(name_, "pre-tokenizer", step);
            cut(plain.empty() ? expression : detail::quoted(plain), behavior(step, ""), flag(step, "invert", false));
        } else {
            unsupported(name_, "pre-tokenizer", step);
        }
    }

    /// Whether the words are bytes in GPT-2's alphabet.
    [[nodiscard]] bool in_bytes() const noexcept { return in_bytes_; }

private:
    void cut(std::string_view expression, detail::CutBehavior behavior, bool invert = false) {
        state_.words.add({detail::WordPattern(expression), behavior, invert, in_bytes_});
        any_ = true;
    }

    [[nodiscard]] detail::CutBehavior behavior(const Json& step, const std::string& usual) const {
        const std::string which = field(step, "behavior").is_null() ? usual : text(step, "behavior");
        if (which == "Isolated") return detail::CutBehavior::isolated;
        if (which == "Removed") return detail::CutBehavior::removed;
        if (which == "Contiguous") return detail::CutBehavior::contiguous;
        if (which == "MergedWithPrevious") return detail::CutBehavior::with_previous;
        if (which == "MergedWithNext") return detail::CutBehavior::with_next;
        unsupported(name_, "pre-tokenizer", step);
    }

    void read_byte_level(const Json& step) {
        const bool prefix = flag(step, "add_prefix_space", true);
        if (in_bytes_ || (prefix && any_)) unsupported(name_, "pre-tokenizer (after another)", step);
        if (prefix) state_.marks = SpaceMarks{.mark = " ", .prefix = true};
        if (flag(step, "use_regex", true)) cut(detail::kGpt2Pattern, detail::CutBehavior::isolated);
        in_bytes_ = any_ = true;
    }

    void read_metaspace(const Json& step) {
        const std::string mark = text(step, "replacement"), scheme = text(step, "prepend_scheme");
        if (any_ || mark.empty() || (!scheme.empty() && scheme != "first" && scheme != "always" && scheme != "never"))
            unsupported(name_, "pre-tokenizer", step);
        const bool prefix = scheme.empty() ? flag(step, "add_prefix_space", true) : scheme != "never";
        state_.marks = SpaceMarks{.mark = mark, .prefix = prefix, .only_first = scheme == "first"};
        state_.leading_space = prefix;
        if (flag(step, "split", true)) cut(detail::quoted(mark), detail::CutBehavior::with_next);
        any_ = true;
    }

    const std::string& name_;
    TokenizerState& state_;
    bool in_bytes_ = false, any_ = false;
};

/// The normalizer and the pre-tokenizer. Words are bytes, or characters beside the bytes for those that are no entries
/// (byte_fallback); returns which.
bool read_words(const std::string& name, const Json& root, TokenizerState& state) {
    const Json& words = field(root, "pre_tokenizer");
    state.normalizer = detail::Normalizer::read(name, field(root, "normalizer"));
    state.leading_space = state.normalizer.prefix() == detail::kSpaceMark;
    WordReader reader(name, state);
    if (!words.is_null()) reader.read(words);
    const bool characters = flag(field(root, "model"), "byte_fallback", false) && !reader.in_bytes();
    if (!characters && !reader.in_bytes())
        fail(ErrorKind::damaged_file,
             "{}: the pre-tokenizer is {}, without ByteLevel, and the model has no byte_fallback; expected one of them",
             name, shown(words));
    return characters;
}

/// The bytes of each entry; "<0x0A>" is one byte.
void spell_pieces(TokenizerState& state) {
    for (const std::string& entry : state.entries) {
        const bool byte = entry.size() == 6 && entry.starts_with("<0x") && entry.ends_with(">");
        state.bytes.push_back(detail::bytes_of({entry, 0, byte ? detail::PieceKind::byte : detail::PieceKind::normal}));
    }
}

void check_id(const std::string& name, const Json& id, const std::string& entry, std::size_t most) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= most)
        fail(ErrorKind::damaged_file, "{}: token \"{}\" has the id {}; expected a number less than {}", name, entry,
             shown(id), most);
}

void read_vocabulary(const std::string& name, const Json& root, TokenizerState& state) {
    const Json& vocabulary = field(field(root, "model"), "vocab");
    require(vocabulary.is_object() && !vocabulary.empty(), ErrorKind::damaged_file,
            "{}: expected model.vocab, entries with their ids", name);
    // Ids may have holes, but a list of them may not be much longer than what it lists.
    const std::size_t most = 2 * (vocabulary.size() + field(root, "added_tokens").size()) + 1024;
    for (const auto& [entry, id] : vocabulary.items()) {
        check_id(name, id, entry, most);
        state.put_entry(id.get<std::size_t>(), entry, name);
    }
}

/// Adds tokens with the ids that the library `tokenizers` gives them (added_vocabulary.rs, add_tokens): a text of the
/// vocabulary keeps its id, any other gets the next one. Ids that files name do not count, as they do not there.
class AddedIds {
public:
    /// Made when `state` holds the entries of model.vocab and nothing else.
    explicit AddedIds(TokenizerState& state) : state_(state), next_(static_cast<TokenId>(state.ids.size())) {}

    void add(AddedToken token) {
        if (token.text.empty()) return;  // as in the reference
        if (const AddedToken* before = state_.added.find(token.text)) token.special = token.special || before->special;
        token.id = state_.find_entry(token.text).value_or(next_);
        next_ = std::max(next_, token.id + 1);
        state_.add(std::move(token));
    }

private:
    TokenizerState& state_;
    TokenId next_;  // above all added tokens, and at least the number of entries
};

AddedToken own_added(const std::string& name, const Json& token) {
    require(token.is_object() && field(token, "content").is_string(), ErrorKind::damaged_file,
            "{}: an added token has no content", name);
    const std::string content = text(token, "content");
    check_id(name, field(token, "id"), content, std::size_t{1} << 32);
    return content.empty() ? AddedToken() : detail::read_added_token(token, kNoToken, name);
}

/// Tokens that belong to no word: those of the file, and what the files beside it say.
void read_added(const std::string& name, const Json& root, const detail::FolderTokens& tokens, TokenizerState& state) {
    AddedIds ids(state);
    std::set<std::uint64_t> named_ids;
    const Json& own = field(root, "added_tokens");
    for (const Json& token : own.is_array() ? own : Json::array()) {
        ids.add(own_added(name, token));
        named_ids.insert(field(token, "id").get<std::uint64_t>());
    }
    for (const AddedToken& token : tokens.listed) ids.add(token);
    for (const AddedToken& token : tokens.older)  // of two with one id the file's own counts
        if (!named_ids.contains(static_cast<std::uint64_t>(token.id))) ids.add(token);
    for (const AddedToken& token : tokens.named)
        if (state.added.find(token.text) == nullptr) ids.add(token);
}

void read_model(const std::string& name, const Json& model, bool characters, TokenizerState& state) {
    const std::string type = text(model, "type");
    require(type == "BPE" || (type.empty() && field(model, "merges").is_array()), ErrorKind::damaged_file,
            "{}: the tokenizer's model is \"{}\"; expected BPE", name, type);
    require(text(model, "continuing_subword_prefix").empty() && text(model, "end_of_word_suffix").empty() &&
                !field(model, "dropout").is_number(),
            ErrorKind::not_supported, "{}: dropout, subword prefixes and word suffixes are not supported", name);
    const Json& list = field(model, "merges");
    require(list.is_array(), ErrorKind::damaged_file, "{}: expected model.merges, a list", name);
    std::vector<std::pair<std::string, std::string>> merges;
    for (const Json& merge : list) {
        if (merge.is_string()) {
            merges.push_back(split_merge(merge.get_ref<const std::string&>()));
        } else {
            if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
                fail(ErrorKind::damaged_file, "{}: a merge is {}; expected two entries", name, shown(merge));
            }
            merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
        }
    }
    detail::BpeOptions options{.whole_words = flag(model, "ignore_merges", false),
                               .fuse_unknown = flag(model, "fuse_unk", false),
                               .characters = characters};
    if (const std::string unknown = text(model, "unk_token"); !unknown.empty()) {
        const auto found = state.find_entry(unknown);
        require(found.has_value(), ErrorKind::damaged_file, "{}: unk_token {} is not in the vocabulary", name, unknown);
        options.unknown = *found;
    }
    state.model.emplace(state.entries, merges, options);
}

/// The ids of a special token of a template.
std::vector<TokenId> template_ids(const std::string& name, const Json& step, const std::string& token,
                                  const TokenizerState& state) {
    std::vector<TokenId> result;
    const Json& ids = field(field(field(step, "special_tokens"), token.c_str()), "ids");
    if (ids.is_array()) {
        for (const Json& id : ids) {
            if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= state.entries.size())
                fail(ErrorKind::damaged_file, "{}: the post-processor gives {} the id {}, outside the vocabulary of {}",
                     name, token, shown(id), state.entries.size());
            result.push_back(id.get<TokenId>());
        }
    } else if (const auto id = state.find_entry(token)) {
        result.push_back(*id);
    }
    return result;
}

/// What the post-processor puts before a text. Of several templates in a sequence the first counts, as in the
/// reference.
std::vector<TokenId> leading_tokens(const std::string& name, const Json& step, const TokenizerState& state) {
    const std::string type = text(step, "type");
    std::vector<TokenId> result;
    const Json& inner = field(step, "processors");
    if (type == "Sequence" && inner.is_array()) {
        for (const Json& one : inner)
            if (result.empty()) result = leading_tokens(name, one, state);
    } else if (type == "TemplateProcessing") {
        for (const Json& part : field(step, "single")) {
            const std::string token = text(field(part, "SpecialToken"), "id");
            if (token.empty()) break;  // the text itself
            const auto ids = template_ids(name, step, token, state);
            result.insert(result.end(), ids.begin(), ids.end());
        }
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
        const Json& first = field(step, "cls");
        if (first.is_array() && first.size() == 2 && first[1].is_number_unsigned() &&
            first[1].get<std::uint64_t>() < state.entries.size())
            result.push_back(first[1].get<TokenId>());
    } else if (!step.is_null() && type != "ByteLevel") {
        unsupported(name, "post-processor", step);
    }
    return result;
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_json(const std::filesystem::path& path) {
    const std::string name = path.string();
    const Json root = detail::read_json(path);
    require(root.is_object(), ErrorKind::damaged_file, "{}: expected a JSON object", name);
    const detail::FolderTokens tokens = detail::FolderTokens::read(path.parent_path());
    auto state = std::make_unique<TokenizerState>();
    const bool characters = read_words(name, root, *state);
    read_vocabulary(name, root, *state);
    for (unsigned byte = 0; byte < 256 && !characters && flag(field(root, "model"), "byte_fallback", false); ++byte)
        require(state->find_entry(detail::entry_of_byte(static_cast<std::uint8_t>(byte))).has_value(),
                ErrorKind::not_supported,
                "{}: byte_fallback "
                "beside the pre-tokenizer ByteLevel and a vocabulary without the byte {} is not supported",
                name, byte);
    read_added(name, root, tokens, *state);
    if (characters) spell_pieces(*state);
    read_model(name, field(root, "model"), characters, *state);
    state->leading_ids = leading_tokens(name, field(root, "post_processor"), *state);
    if (!state->leading_ids.empty()) state->bos = state->leading_ids.front();
    state->read_neighbours(path.parent_path(), tokens);
    state->finish(name);
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
