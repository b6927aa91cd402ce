#include <outrider/target/detail/prefix_cache.hpp>

#include <algorithm>
#include <iterator>
#include <utility>

namespace outrider {

std::size_t ReadText::bytes() const {
    std::size_t sum = cache.bytes() + tokens.size() * sizeof(TokenId);
    for (const at::Tensor& piece : features) sum += static_cast<std::size_t>(piece.nbytes());
    return sum;
}

at::Tensor ReadText::first_features(std::int64_t tokens_wanted, const FeatureRequest& wanted) const {
    if (!wanted.wanted) return {};
    std::vector<at::Tensor> pieces;
    std::int64_t rows = 0;
    for (const at::Tensor& piece : features) {
        const std::int64_t take = std::min(piece.size(0), tokens_wanted - rows);
        if (take <= 0) break;
        pieces.push_back(take_features(piece.slice(0, 0, take), asked, wanted));
        rows += take;
    }
    if (!pieces.empty()) return join_rows(pieces);
    return features.empty() ? at::Tensor{} : take_features(features.front().slice(0, 0, 0), asked, wanted);
}

std::int64_t common_beginning(std::span<const TokenId> a, std::span<const TokenId> b) {
    const std::size_t most = std::min(a.size(), b.size());
    const auto differs = std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin());
    return differs.first - a.begin();
}

void PrefixCache::drop(std::list<ReadText>::iterator text) {
    bytes_ -= text->bytes();
    texts_.erase(text);
}

void PrefixCache::keep(ReadText text) {
    const auto length = std::ssize(text.tokens);
    if (length == 0 || text.bytes() > most_bytes_) return;
    const auto holds = [](const ReadText& longer, const ReadText& shorter) {
        return longer.serves(shorter.asked) &&
               common_beginning(longer.tokens, shorter.tokens) == std::ssize(shorter.tokens);
    };
    for (auto each = texts_.begin(); each != texts_.end();) {
        const auto old = each++;
        if (holds(*old, text)) {
            texts_.splice(texts_.begin(), texts_, old);
            return;
        }
        if (holds(text, *old)) drop(old);
    }
    bytes_ += text.bytes();
    texts_.push_front(std::move(text));
    while (bytes_ > most_bytes_) drop(std::prev(texts_.end()));
}

const ReadText* PrefixCache::find(std::span<const TokenId> tokens, const FeatureRequest& wanted) {
    auto best = texts_.end();
    std::int64_t longest = 0;
    for (auto each = texts_.begin(); each != texts_.end(); ++each) {
        const std::int64_t common = each->serves(wanted) ? common_beginning(each->tokens, tokens) : 0;
        if (common > longest) longest = common, best = each;
    }
    if (best == texts_.end()) return nullptr;
    texts_.splice(texts_.begin(), texts_, best);
    return &texts_.front();
}

}  // namespace outrider
