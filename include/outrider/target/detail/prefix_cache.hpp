// Texts that a target has read and that are kept, so that later ones with the same beginning need not read it again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/detail/features.hpp>
#include <outrider/target/detail/kv_cache.hpp>

namespace outrider {

/// A text as a target has read it: keys, values and features stand for its first `tokens`, all of them.
struct OUTRIDER_API ReadText {
    std::vector<TokenId> tokens;
    KvCache cache;
    FeatureRequest asked = FeatureRequest::none();
    std::vector<at::Tensor> features = {};  ///< what was asked for, [rows, F] piece by piece; empty: none

    /// Keys, values and features as held.
    [[nodiscard]] std::size_t bytes() const;
    /// [tokens, F] features of the first `tokens`, as `wanted` of what was asked for; undefined where none are wanted.
    [[nodiscard]] at::Tensor first_features(std::int64_t tokens, const FeatureRequest& wanted) const;
    /// Whether it holds what a sequence with this request would have been given.
    [[nodiscard]] bool serves(const FeatureRequest& wanted) const { return both(asked, wanted) == asked; }
};

/// Tokens that two texts have in common from the beginning.
[[nodiscard]] OUTRIDER_API std::int64_t common_beginning(std::span<const TokenId> a, std::span<const TokenId> b);

/// Bounded by memory: the text that was used longest ago goes first. A text that is the beginning of another one that
/// is kept, and brings nothing of its own, is not kept beside it.
class OUTRIDER_API PrefixCache {
public:
    /// 0: keeps nothing.
    explicit PrefixCache(std::size_t most_bytes) : most_bytes_(most_bytes) {}

    void keep(ReadText text);

    /// The text with the longest beginning in common with `tokens` among those that serve the request, which counts as
    /// its use. Null: none has a token in common. Valid until the next `keep`.
    [[nodiscard]] const ReadText* find(std::span<const TokenId> tokens, const FeatureRequest& wanted);

    void clear() { texts_.clear(), bytes_ = 0; }

    [[nodiscard]] std::size_t most_bytes() const noexcept { return most_bytes_; }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    /// Texts kept.
    [[nodiscard]] std::size_t size() const noexcept { return texts_.size(); }

private:
    void drop(std::list<ReadText>::iterator text);

    std::size_t most_bytes_, bytes_ = 0;
    std::list<ReadText> texts_;  ///< the latest used first
};

}  // namespace outrider
