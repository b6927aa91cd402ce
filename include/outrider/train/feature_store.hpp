// The target's features of all conversations, computed when they are first asked for and kept on disk.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <outrider/interface/verifier.hpp>
#include <outrider/train/conversations.hpp>

namespace outrider {

/// Shards of `kShard` conversations, one safetensors file each with `features` [tokens, H] in half precision, `tokens`
/// and `starts`. The folder is named after target and text, so that other text or another target never reads them; a
/// shard that is damaged or of other text is computed again. Not thread-safe.
class FeatureStore {
public:
    static constexpr std::size_t kShard = 64;

    /// The conversations must live as long as the store. `verifier` may be null: then every shard must be on disk.
    FeatureStore(const std::filesystem::path& root, const std::string& fingerprint, std::int64_t hidden,
                 std::span<const Conversation> conversations, Verifier* verifier);
    ~FeatureStore();

    /// [tokens, H] float16, row j the feature of token j. Views mapped memory: read-only, valid while the store lives.
    [[nodiscard]] at::Tensor features(std::size_t conversation);

    /// Whether a shard is on disk and whole; otherwise the next features() of it computes it.
    [[nodiscard]] bool ready(std::size_t shard) const;
    [[nodiscard]] std::size_t shards() const noexcept { return (conversations_.size() + kShard - 1) / kShard; }

    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return folder_; }
    /// Shards computed by this object, and the tokens in them.
    [[nodiscard]] std::int64_t computed_tokens() const noexcept { return computed_tokens_; }
    [[nodiscard]] double computed_seconds() const noexcept { return computed_seconds_; }

private:
    struct Shard;

    [[nodiscard]] std::filesystem::path path_of(std::size_t shard) const;
    [[nodiscard]] std::unique_ptr<Shard> open(std::size_t shard) const;  // null when it is not there or does not fit
    void compute(std::size_t shard);

    std::filesystem::path folder_;
    std::int64_t hidden_;
    std::span<const Conversation> conversations_;
    Verifier* verifier_;
    std::map<std::size_t, std::unique_ptr<Shard>> shards_;
    std::int64_t computed_tokens_ = 0;
    double computed_seconds_ = 0;
};

}  // namespace outrider
