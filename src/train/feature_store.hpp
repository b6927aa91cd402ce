// The target's features of all conversations, computed when they are first asked for and kept on disk.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <outrider/target/detail/features.hpp>
#include <outrider/target/verifier.hpp>
#include <outrider/train/train.hpp>

namespace outrider {

/// Features of whole conversations on a device, the last used ones up to a bound of bytes.
class KeptFeatures {
public:
    explicit KeptFeatures(at::Device device = at::kCPU, std::size_t most = 0) : device_(device), most_(most) {}

    [[nodiscard]] at::Device device() const noexcept { return device_; }
    /// Undefined where they are not kept.
    [[nodiscard]] at::Tensor find(std::size_t conversation);
    void keep(std::size_t conversation, const at::Tensor& features);

private:
    using Uses = std::list<std::size_t>;
    struct Kept {
        at::Tensor features;
        Uses::iterator use;
    };

    at::Device device_;
    std::size_t most_, bytes_ = 0;
    Uses uses_;  // the last one first
    std::unordered_map<std::size_t, Kept> all_;
};

/// Shards of `kShard` conversations of one text, one safetensors file each with `features` [tokens, F] in half
/// precision, `tokens` and `starts`. F is H, and H more for each of the layers, in their order.
/// Every text has a folder of its own, named after target, text and layers: another target or text never reads it, and
/// a text that is joined with others, or others with it, finds what it has. A shard that is damaged or of other text is
/// computed again. Not thread-safe.
class FeatureStore {
public:
    static constexpr std::size_t kShard = 64;

    /// The conversations' tokens must stay as they are while the store lives. `verifier` may be null: then every shard
    /// must be on disk. `layers`: of the target, whose residual streams the store holds beside the final features
    /// (FeatureRequest).
    FeatureStore(const std::filesystem::path& root, const std::string& fingerprint, std::int64_t hidden,
                 std::span<const Conversation> conversations, Verifier* verifier,
                 std::vector<std::int64_t> layers = {});
    ~FeatureStore();

    /// From now on features lie on a device, as many bytes of them as `most`: those that the target computes there
    /// stay, others come when they are asked for, and the ones used longest ago make room.
    void keep_on(at::Device device, std::size_t most);
    [[nodiscard]] at::Device device() const noexcept { return kept_.device(); }

    /// [tokens, F] float16, row j the feature of token j. On the CPU a view of mapped memory: read-only, valid while
    /// the store lives.
    [[nodiscard]] at::Tensor features(std::size_t conversation);

    /// Whether a conversation's features are on disk and whole; otherwise features() of it computes its shard.
    [[nodiscard]] bool ready(std::size_t conversation);

    [[nodiscard]] std::int64_t hidden() const noexcept { return hidden_; }

    /// Of a text, in the order of the conversations' `text`.
    [[nodiscard]] const std::filesystem::path& folder(std::size_t text = 0) const;
    /// Tokens in the shards that this object computed.
    [[nodiscard]] std::int64_t computed_tokens() const noexcept { return computed_tokens_; }

private:
    struct Shard;
    struct Text;
    struct Place {
        std::size_t text = 0, index = 0;  // among the text's own conversations
    };

    [[nodiscard]] std::span<const std::size_t> members(const Text& text, std::size_t shard) const;
    [[nodiscard]] std::unique_ptr<Shard> open(const Text& text, std::size_t shard) const;  // null: not there or unfit
    [[nodiscard]] Shard* opened(Text& text, std::size_t shard);
    [[nodiscard]] std::vector<Prefill> batch(std::span<const std::size_t> wanted) const;
    void run(std::span<const Prefill> prompts, std::vector<at::Tensor>& features);
    void compute(const Text& text, std::size_t shard);

    [[nodiscard]] at::Tensor mapped(std::size_t conversation);

    [[nodiscard]] std::int64_t width() const { return FeatureRequest{.layers = layers_}.width(hidden_); }

    std::int64_t hidden_;
    std::vector<std::int64_t> layers_;
    std::span<const Conversation> conversations_;
    Verifier* verifier_;
    KeptFeatures kept_;
    std::vector<Place> places_;  // of each conversation
    std::vector<Text> texts_;
    std::int64_t computed_tokens_ = 0;
};

}  // namespace outrider
