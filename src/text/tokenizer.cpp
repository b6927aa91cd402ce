#include <outrider/text/tokenizer.hpp>

#include <algorithm>
#include <deque>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include "end_tokens.hpp"
#include "tokenizer_state.hpp"

namespace outrider {
namespace {

/// Encodes the text between special tokens; words that were seen in the same call are not merged again.
class PlainEncoder {
public:
    PlainEncoder(const TokenizerState& state, std::vector<TokenId>& out) : state_(state), out_(out) {}

    /// `first`: the text begins here.
    void encode(std::string_view text, bool first) {
        if (state_.pieces) return state_.pieces->encode(text, first, out_);
        // Views of `text` go into the list of words that were seen, so texts that are made here are kept.
        if (state_.marks) text = kept_.emplace_back((*state_.marks)(text, first));
        for (const std::string_view word : state_.words.words(text)) encode_word(word);
    }

    /// A copy of `text` that lives as long as this.
    std::string_view keep(std::string_view text) { return kept_.emplace_back(text); }

private:
    static constexpr std::size_t kCachedBytes = 64;

    void encode_word(std::string_view word) {
        if (word.size() == 1 || word.size() > kCachedBytes) return state_.model->encode(word, scratch_, out_);
        const auto [place, fresh] = seen_.try_emplace(word, out_.size(), std::size_t{0});
        auto& [start, count] = place->second;
        if (fresh) {
            state_.model->encode(word, scratch_, out_);
            count = out_.size() - start;
        } else {
            for (std::size_t i = 0; i < count; ++i) out_.push_back(out_[start + i]);
        }
    }

    const TokenizerState& state_;
    std::vector<TokenId>& out_;
    detail::MergeBpe::Scratch scratch_;
    std::deque<std::string> kept_;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen_;  // word to a range of out_
};

}  // namespace

std::pair<std::string, std::string> split_merge(const std::string& line) {
    const auto space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos) {
        fail("a merge of the tokenizer is \"{}\"; expected two entries with a space between them", to_valid_utf8(line));
    }
    return {line.substr(0, space), line.substr(space + 1)};
}

std::string SpaceMarks::operator()(std::string_view part, bool first) const {
    std::string result;
    if (part.empty()) return result;
    for (const char c : part) {
        if (c == ' ')
            result += mark;
        else
            result += c;
    }
    if (prefix && (first || !only_first) && !result.starts_with(mark)) result.insert(0, mark);
    return result;
}

void TokenizerState::put_entry(std::size_t id, const std::string& entry, const std::string& name) {
    if (id >= entries.size()) entries.resize(id + 1);
    require(entries[id].empty() || entries[id] == entry, "{}: the id {} belongs to \"{}\" and \"{}\"", name, id,
            to_valid_utf8(entries[id]), to_valid_utf8(entry));
    entries[id] = entry;
    ids.try_emplace(entry, static_cast<TokenId>(id));
}

std::optional<TokenId> TokenizerState::find_entry(const std::string& text) const {
    const auto found = ids.find(text);
    return found != ids.end() ? std::optional(found->second) : std::nullopt;
}

void TokenizerState::add(AddedToken token) {
    const auto id = static_cast<std::size_t>(token.id);
    if (id >= entries.size()) entries.resize(id + 1);
    if (entries[id].empty()) entries[id] = token.text;
    ids.try_emplace(token.text, token.id);
    added.put(std::move(token));
}

void TokenizerState::set_bos(std::optional<TokenId> token, bool adds) {
    bos = token;
    leading_ids.clear();
    if (adds && token) leading_ids.push_back(*token);
}

void TokenizerState::finish(const std::string& name) {
    special.assign(entries.size(), false);
    bytes.reserve(entries.size());
    for (std::size_t i = bytes.size(); i < entries.size(); ++i) {
        bytes.push_back(detail::bytes_of_entry(entries[i]).value_or(entries[i]));
    }
    const auto inside = [&](TokenId id) { return id >= 0 && static_cast<std::size_t>(id) < entries.size(); };
    for (const AddedToken& token : added.all()) {
        require(inside(token.id), "{}: the added token {} has the id {}, outside the vocabulary of {}", name,
                token.text, token.id, entries.size());
        const auto id = static_cast<std::size_t>(token.id);
        bytes[id] = token.special ? std::string() : token.text;
        special[id] = token.special;
    }
    added.finish(name, normalizer);
    detail::add_known_ends(*this, ends_by_name);
    if (eos) end_ids.push_back(*eos);
    std::ranges::sort(end_ids);
    end_ids.erase(std::ranges::unique(end_ids).begin(), end_ids.end());
    require(!bos || inside(*bos), "{}: the bos id {} is outside the vocabulary of {}", name, bos.value_or(0),
            entries.size());
    for (const TokenId id : leading_ids) {
        require(inside(id), "{}: texts begin with the id {}, outside the vocabulary of {}", name, id, entries.size());
    }
    for (const TokenId id : end_ids) {
        require(inside(id), "{}: the end id {} is outside the vocabulary of {}", name, id, entries.size());
    }
    const auto text_of = [&](TokenId id) {
        const AddedToken* token = added.find(id);
        return token != nullptr ? token->text : entries[static_cast<std::size_t>(id)];
    };
    if (bos) name_token("bos_token", text_of(*bos));
    if (eos) name_token("eos_token", text_of(*eos));
    entries = {};  // a third of what a tokenizer holds, and `bytes` and `added` say the same
    ids = {};
    bytes.shrink_to_fit();
}

void TokenizerState::name_token(const std::string& name, const std::string& text) {
    if (std::ranges::find(named_tokens, name, &std::pair<std::string, std::string>::first) == named_tokens.end())
        named_tokens.emplace_back(name, text);
}

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerState> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

namespace {

/// `cut`(take): hands out the parts of a text, see AddedTokens::cut.
template <typename Cut>
std::vector<TokenId> encode_parts(const TokenizerState& state, std::size_t size, bool starts, Cut&& cut) {
    std::vector<TokenId> ids;
    ids.reserve(size / 4 + 8);
    PlainEncoder plain(state, ids);
    const bool copies = !state.normalizer.empty() && !state.marks;
    cut([&](std::string_view part, const AddedToken* token, bool first) {
        if (token != nullptr)
            ids.push_back(token->id);
        else
            plain.encode(copies ? plain.keep(part) : part, starts && first);
    });
    return ids;
}

}  // namespace

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialText special, TextPlace place) const {
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = to_valid_utf8(text);
    return encode_parts(*state_, text.size(), place == TextPlace::start, [&](const detail::AddedTokens::Take& take) {
        state_->added.cut(text, special == SpecialText::parse, state_->normalizer, take);
    });
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, std::span<const TextSpan> plain) const {
    return encode_parts(*state_, text.size(), true, [&](const detail::AddedTokens::Take& take) {
        state_->added.cut(text, plain, state_->normalizer, take);
    });
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, TextPlace place) const {
    std::string text;
    for (const TokenId token : tokens) text += bytes(token);
    if (place == TextPlace::start && state_->leading_space && text.starts_with(' ')) text.erase(0, 1);
    return text;
}

// A model may have more rows than its vocabulary has ids, and any of them may be the likeliest.
std::optional<std::size_t> TokenizerState::index_of(TokenId token) const {
    require(token >= 0, "token id {} is negative; expected one from 0", token);
    const auto id = static_cast<std::size_t>(token);
    return id < bytes.size() ? std::optional(id) : std::nullopt;
}

std::string Tokenizer::bytes(TokenId token) const {
    const auto id = state_->index_of(token);
    return id ? state_->bytes[*id] : std::string();
}

std::string Tokenizer::piece(TokenId token) const {
    const auto id = state_->index_of(token);
    if (!id) return {};
    return state_->special[*id] ? state_->added.find(token)->text : state_->bytes[*id];
}

bool Tokenizer::is_special(TokenId token) const {
    const auto id = state_->index_of(token);
    return id && state_->special[*id];
}

bool Tokenizer::is_added(TokenId token) const { return state_->added.find(token) != nullptr; }

std::optional<TokenId> Tokenizer::find_special(std::string_view text) const {
    const AddedToken* found = state_->added.find(std::string(text));
    return found != nullptr ? std::optional(found->id) : std::nullopt;
}

std::int64_t Tokenizer::size() const noexcept { return static_cast<std::int64_t>(state_->bytes.size()); }
std::optional<TokenId> Tokenizer::bos() const noexcept { return state_->bos; }
std::optional<TokenId> Tokenizer::eos() const noexcept { return state_->eos; }
const std::vector<TokenId>& Tokenizer::leading_ids() const noexcept { return state_->leading_ids; }
bool Tokenizer::adds_bos() const noexcept { return !state_->leading_ids.empty(); }
const std::vector<TokenId>& Tokenizer::end_ids() const noexcept { return state_->end_ids; }
const std::string& Tokenizer::chat_template() const noexcept { return state_->chat_template; }
const std::vector<std::pair<std::string, std::string>>& Tokenizer::chat_templates() const noexcept {
    return state_->chat_templates;
}
const std::vector<std::pair<std::string, std::string>>& Tokenizer::named_tokens() const noexcept {
    return state_->named_tokens;
}

}  // namespace outrider
