#include "added_tokens.hpp"

#include <algorithm>
#include <utility>

#include <outrider/core/error.hpp>

#include "unicode_text.hpp"

namespace outrider::detail {
namespace {

std::uint64_t step(std::uint64_t node, char c) { return node << 8 | static_cast<std::uint8_t>(c); }

}  // namespace

bool TextTrie::add(std::string_view text, std::size_t value) {
    first_[static_cast<std::uint8_t>(text[0])] = true;
    std::uint32_t node = 0;
    for (const char c : text) {
        const auto [place, fresh] = steps_.try_emplace(step(node, c), static_cast<std::uint32_t>(values_.size()));
        if (fresh) values_.push_back(-1);
        node = place->second;
    }
    if (values_[node] >= 0) return false;
    values_[node] = static_cast<std::int64_t>(value);
    return true;
}

std::optional<TextTrie::Found> TextTrie::longest(std::string_view text) const {
    if (text.empty() || !first_[static_cast<std::uint8_t>(text[0])]) return std::nullopt;
    std::optional<Found> best;
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto next = steps_.find(step(node, text[i]));
        if (next == steps_.end()) break;
        node = next->second;
        if (values_[node] >= 0) best = {static_cast<std::size_t>(values_[node]), i + 1};
    }
    return best;
}

void AddedTokens::put(AddedToken token) {
    const auto known = by_text_.find(token.text);
    const std::size_t at = known != by_text_.end() ? known->second : tokens_.size();
    if (at == tokens_.size())
        tokens_.emplace_back();
    else
        by_id_.erase(tokens_[at].id);
    by_text_[token.text] = at;
    by_id_[token.id] = at;
    tokens_[at] = std::move(token);
}

void AddedTokens::remove(TokenId id) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    const std::size_t at = found->second;
    by_text_.erase(tokens_[at].text);
    by_id_.erase(found);
    if (at + 1 != tokens_.size()) {
        tokens_[at] = std::move(tokens_.back());
        by_text_[tokens_[at].text] = by_id_[tokens_[at].id] = at;
    }
    tokens_.pop_back();
}

const AddedToken* AddedTokens::find(const std::string& text) const {
    const auto found = by_text_.find(text);
    return found != by_text_.end() ? &tokens_[found->second] : nullptr;
}

const AddedToken* AddedTokens::find(TokenId id) const {
    const auto found = by_id_.find(id);
    return found != by_id_.end() ? &tokens_[found->second] : nullptr;
}

void AddedTokens::finish(const std::string& name, const Normalizer& normalizer) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
        const AddedToken& token = tokens_[i];
        if (!token.own_search) continue;
        const std::string text = token.normalized ? normalizer(token.text) : token.text;
        require(!text.empty(), ErrorKind::damaged_file, "{}: the normalizer leaves nothing of the added token {}", name,
                token.text);
        require((token.normalized ? normalized_ : raw_).add(text, i), ErrorKind::damaged_file,
                "{}: the added token {} is another one after "
                "normalization, \"{}\"; expected tokens that differ",
                name, token.text, text);
        if (token.normalized && token.special) (void)written_.add(token.text, i);
    }
}

void AddedTokens::search(std::string_view text, const Find& find, bool with_special, const Take& take) const {
    std::size_t done = 0;  // the end of what was handed out
    for (std::size_t i = 0; i < text.size();) {
        const auto found = find(i);
        if (!found) {
            ++i;
            continue;
        }
        const AddedToken& token = tokens_[found->value];
        std::size_t begin = i, end = i + found->bytes;
        i = end;
        if (token.special && !with_special) continue;
        if (token.single_word && (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end))))
            continue;
        if (token.strip_left) begin = std::max(begin - white_space_at_end(text.substr(0, begin)), done);
        if (token.strip_right) end += white_space_at_front(text.substr(end));
        end = std::max(end, begin);  // white space that the token before took
        if (done < begin) take(text.substr(done, begin - done), nullptr, done == 0);
        take(text.substr(begin, end - begin), &token, begin == 0);
        done = end;
    }
    if (done < text.size()) take(text.substr(done), nullptr, done == 0);
}

void AddedTokens::search_normalized(std::string_view part, bool with_special, const Normalizer& normalizer, bool first,
                                    const Take& take) const {
    std::string own;
    if (!normalizer.empty()) part = own = normalizer(std::string(part));
    const Find find = [&](std::size_t i) { return normalized_.longest(part.substr(i)); };
    search(part, find, with_special,
           [&](std::string_view inner, const AddedToken* found, bool begins) { take(inner, found, first && begins); });
}

void AddedTokens::cut(std::string_view text, bool with_special, const Normalizer& normalizer, const Take& take) const {
    const Find find = [&](std::size_t i) { return raw_.longest(text.substr(i)); };
    search(text, find, with_special, [&](std::string_view part, const AddedToken* token, bool first) {
        if (token != nullptr) return take(part, token, first);
        search_normalized(part, with_special, normalizer, first, take);
    });
}

void AddedTokens::cut(std::string_view text, std::span<const TextSpan> plain, const Normalizer& normalizer,
                      const Take& take) const {
    const Find find = [&, left = plain](std::size_t i) mutable -> std::optional<TextTrie::Found> {
        while (!left.empty() && left.front().end <= i) left = left.subspan(1);
        const std::size_t most = (left.empty() ? text.size() : std::max(left.front().begin, i)) - i;
        const auto whole = raw_.longest(text.substr(i));
        if (whole && (!tokens_[whole->value].special || whole->bytes <= most)) {
            const auto written = written_.longest(text.substr(i, most));
            return written && written->bytes > whole->bytes ? written : whole;
        }
        const auto within = raw_.longest(text.substr(i, most)), written = written_.longest(text.substr(i, most));
        return within && (!written || within->bytes >= written->bytes) ? within : written;
    };
    search(text, find, true, [&](std::string_view part, const AddedToken* token, bool first) {
        if (token != nullptr) return take(part, token, first);
        search_normalized(part, false, normalizer, first, take);
    });
}

}  // namespace outrider::detail
