#include <outrider/text/tokenizer.hpp>

#include <algorithm>
#include <functional>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/utf8_stream.hpp>

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
        if (state_.marks) return state_.model->encode(marked(text, first), scratch_, out_);
        for (const std::string_view word : state_.words.words(text)) {
            if (word.size() == 1 || word.size() > kCachedBytes) {
                state_.model->encode(word, scratch_, out_);
                continue;
            }
            const auto [place, fresh] = seen_.try_emplace(word, out_.size(), std::size_t{0});
            auto& [start, count] = place->second;
            if (fresh) {
                state_.model->encode(word, scratch_, out_);
                count = out_.size() - start;
            } else {
                for (std::size_t i = 0; i < count; ++i) out_.push_back(out_[start + i]);
            }
        }
    }

private:
    static constexpr std::size_t kCachedBytes = 64;

    [[nodiscard]] std::string marked(std::string_view text, bool first) const {
        const SpaceMarks& marks = *state_.marks;
        std::string result;
        if (text.empty()) return result;
        const bool has_one = text.starts_with(' ') || text.starts_with(detail::kSpaceMark);
        if (marks.prefix && (first || !marks.only_first) && !(marks.one_only && has_one)) result = detail::kSpaceMark;
        for (const char c : text) {
            if (c == ' ') result += detail::kSpaceMark;
            else result += c;
        }
        return result;
    }

    const TokenizerState& state_;
    std::vector<TokenId>& out_;
    detail::MergeBpe::Scratch scratch_;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen_;  // word to a range of out_
};

/// Bytes of the ASCII white space at an end of `text`.
std::size_t spaces_before(std::string_view text) {
    const auto last = text.find_last_not_of(" \t\r\n\v\f");
    return last == std::string_view::npos ? text.size() : text.size() - last - 1;
}
std::size_t spaces_after(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n\v\f");
    return first == std::string_view::npos ? text.size() : first;
}

}  // namespace

std::pair<std::string, std::string> split_merge(const std::string& line) {
    const auto space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos) {
        fail("a merge of the tokenizer is \"{}\"; expected two entries with a space between them", to_valid_utf8(line));
    }
    return {line.substr(0, space), line.substr(space + 1)};
}

void TokenizerState::finish(const std::string& name) {
    special.assign(entries.size(), false);
    bytes.reserve(entries.size());
    for (std::size_t i = bytes.size(); i < entries.size(); ++i) {
        bytes.push_back(detail::bytes_of_entry(entries[i]).value_or(entries[i]));
    }
    for (std::size_t i = 0; i < added.size(); ++i) {
        const AddedToken& token = added[i];
        require(!token.text.empty(), "{}: the added token {} is empty", name, token.id);
        require(token.id >= 0 && static_cast<std::size_t>(token.id) < entries.size(), "{}: the added token {} has the "
                "id {}, outside the vocabulary of {}", name, token.text, token.id, entries.size());
        const auto id = static_cast<std::size_t>(token.id);
        bytes[id] = token.special ? std::string() : token.text;
        special[id] = token.special;
        require(added_by_text.emplace(token.text, i).second, "{}: the added token {} occurs twice", name, token.text);
        if (token.own_search) added_by_byte[static_cast<std::uint8_t>(token.text[0])].push_back(i);
    }
    for (auto& indices : added_by_byte) {
        std::ranges::stable_sort(indices, std::greater{}, [&](std::size_t i) { return added[i].text.size(); });
    }
    for (const char* turn_end : {"<|im_end|>", "<|eot_id|>"}) {
        const auto found = added_by_text.find(turn_end);
        if (found != added_by_text.end()) end_ids.push_back(added[found->second].id);
    }
    if (eos) end_ids.push_back(*eos);
    std::ranges::sort(end_ids);
    end_ids.erase(std::ranges::unique(end_ids).begin(), end_ids.end());
    const auto inside = [&](TokenId id) { return id >= 0 && static_cast<std::size_t>(id) < entries.size(); };
    require(!bos || inside(*bos), "{}: the bos id {} is outside the vocabulary of {}", name, bos.value_or(0),
            entries.size());
    for (const TokenId id : end_ids) {
        require(inside(id), "{}: the end id {} is outside the vocabulary of {}", name, id, entries.size());
    }
    entries = {};  // a third of what a tokenizer holds, and `bytes` and `added` say the same
    bytes.shrink_to_fit();
}

std::optional<std::size_t> TokenizerState::added_at(std::string_view text, bool with_special) const {
    for (const std::size_t i : added_by_byte[static_cast<std::uint8_t>(text[0])]) {
        if ((with_special || !added[i].special) && text.starts_with(added[i].text)) return i;
    }
    return std::nullopt;
}

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerState> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialText special, TextPlace place) const {
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = to_valid_utf8(text);
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 4 + 8);
    PlainEncoder plain(*state_, ids);
    const bool starts = place == TextPlace::start;
    std::size_t start = 0;  // of the text that is not encoded yet
    for (std::size_t i = 0; i < text.size();) {
        const auto found = state_->added_at(text.substr(i), special == SpecialText::parse);
        if (!found) {
            ++i;
            continue;
        }
        const AddedToken& token = state_->added[*found];
        std::string_view before = text.substr(start, i - start);
        if (token.strip_left) before.remove_suffix(spaces_before(before));
        plain.encode(before, starts && start == 0);
        ids.push_back(token.id);
        i += token.text.size();
        if (token.strip_right) i += spaces_after(text.substr(i));
        start = i;
    }
    plain.encode(text.substr(start), starts && start == 0);
    return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, TextPlace place) const {
    std::string text;
    for (const TokenId token : tokens) text += bytes(token);
    if (place == TextPlace::start && state_->has_prefix() && text.starts_with(' ')) text.erase(0, 1);
    return text;
}

namespace {

std::size_t checked(TokenId token, const TokenizerState& state) {
    require(token >= 0 && static_cast<std::size_t>(token) < state.bytes.size(),
            "token id {} is outside the vocabulary of {}", token, state.bytes.size());
    return static_cast<std::size_t>(token);
}

}  // namespace

std::string Tokenizer::bytes(TokenId token) const { return state_->bytes[checked(token, *state_)]; }

std::string Tokenizer::piece(TokenId token) const {
    const std::size_t id = checked(token, *state_);
    if (!state_->special[id]) return state_->bytes[id];
    return std::ranges::find(state_->added, token, &AddedToken::id)->text;
}

bool Tokenizer::is_special(TokenId token) const { return state_->special[checked(token, *state_)]; }

std::optional<TokenId> Tokenizer::find_special(std::string_view text) const {
    const auto found = state_->added_by_text.find(std::string(text));
    return found != state_->added_by_text.end() ? std::optional(state_->added[found->second].id) : std::nullopt;
}

std::int64_t Tokenizer::size() const noexcept { return static_cast<std::int64_t>(state_->bytes.size()); }
std::optional<TokenId> Tokenizer::bos() const noexcept { return state_->bos; }
std::optional<TokenId> Tokenizer::eos() const noexcept { return state_->eos; }
bool Tokenizer::adds_bos() const noexcept { return state_->adds_bos && state_->bos.has_value(); }
const std::vector<TokenId>& Tokenizer::end_ids() const noexcept { return state_->end_ids; }
const std::string& Tokenizer::chat_template() const noexcept { return state_->chat_template; }

}  // namespace outrider
