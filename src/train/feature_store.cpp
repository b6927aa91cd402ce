#include <outrider/train/feature_store.hpp>

#include <algorithm>
#include <chrono>
#include <numeric>

#include <outrider/core/error.hpp>
#include <outrider/core/rng.hpp>
#include <outrider/io/safetensors.hpp>

namespace outrider {

namespace {

/// Tokens of one call of the target: enough for its matrices, few enough for its caches.
constexpr std::int64_t kTokensPerCall = 4096;
constexpr SequenceId kFirstSequence = std::int64_t{1} << 40;  // far from a decoder's own ids

std::uint64_t hash_text(const std::string& text) {
    std::uint64_t hash = 0;
    for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
    return hash;
}

template <typename T>
SafeTensorView view(const char* name, SafeDtype dtype, std::vector<std::int64_t> shape, const T* data,
                    std::size_t count) {
    return {name, dtype, std::move(shape), std::as_bytes(std::span(data, count))};
}

}  // namespace

struct FeatureStore::Shard {
    SafeTensors file;
    std::vector<std::int64_t> starts;
};

FeatureStore::FeatureStore(const std::filesystem::path& root, const std::string& fingerprint, std::int64_t hidden,
                           std::span<const Conversation> conversations, Verifier* verifier)
    : folder_(root / fmt::format("{:016x}", mix64(hash_text(fingerprint) ^ hash_of(conversations)))),
      hidden_(hidden),
      conversations_(conversations),
      verifier_(verifier) {
    std::filesystem::create_directories(folder_);
}

FeatureStore::~FeatureStore() = default;

std::filesystem::path FeatureStore::path_of(std::size_t shard) const {
    return folder_ / fmt::format("shard-{:05d}.safetensors", shard);
}

std::unique_ptr<FeatureStore::Shard> FeatureStore::open(std::size_t shard) const {
    if (!std::filesystem::exists(path_of(shard))) return nullptr;
    try {
        auto result = std::make_unique<Shard>(Shard{SafeTensors::open(path_of(shard)), {0}});
        std::vector<TokenId> expected;
        const std::size_t end = std::min(conversations_.size(), (shard + 1) * kShard);
        for (std::size_t i = shard * kShard; i < end; ++i) {
            expected.insert(expected.end(), conversations_[i].tokens.begin(), conversations_[i].tokens.end());
            result->starts.push_back(static_cast<std::int64_t>(expected.size()));
        }
        const SafeTensor& tokens = result->file.tensor("tokens");
        const SafeTensor& features = result->file.tensor("features");
        const auto bytes = std::as_bytes(std::span(expected));
        const bool fits = tokens.dtype == SafeDtype::i32 && std::ranges::equal(tokens.data, bytes) &&
                          features.dtype == SafeDtype::f16 &&
                          features.elements() == hidden_ * static_cast<std::int64_t>(expected.size());
        return fits ? std::move(result) : nullptr;
    } catch (const Error&) {
        return nullptr;  // damaged: computed again
    }
}

bool FeatureStore::ready(std::size_t shard) const { return shards_.contains(shard) || open(shard) != nullptr; }

void FeatureStore::compute(std::size_t shard) {
    require(verifier_ != nullptr, "FeatureStore: {} is not there, and there is no target to compute it with",
            path_of(shard).string());
    const auto began = std::chrono::steady_clock::now();
    const std::size_t begin = shard * kShard, end = std::min(conversations_.size(), begin + kShard);
    std::vector<at::Tensor> features(end - begin);
    for (std::size_t i = begin; i < end;) {
        std::vector<Prefill> prompts;
        std::int64_t tokens = 0;
        const std::size_t first = i;
        for (; i < end &&
               (tokens == 0 || tokens + static_cast<std::int64_t>(conversations_[i].tokens.size()) <= kTokensPerCall);
             ++i) {
            const std::vector<TokenId>& text = conversations_[i].tokens;
            prompts.push_back({kFirstSequence + static_cast<SequenceId>(i), text, text.back()});
            tokens += static_cast<std::int64_t>(text.size());
        }
        const Feedback feedback = verifier_->prefill(prompts);
        for (std::size_t k = 0; k < prompts.size(); ++k) {
            features[first - begin + k] = feedback[k].features.to(at::kCPU, at::kHalf).contiguous();
            verifier_->release(prompts[k].sequence);
        }
        computed_tokens_ += tokens;
    }
    const at::Tensor all = at::cat(features);
    std::vector<TokenId> tokens;
    std::vector<std::int64_t> starts{0};
    for (std::size_t i = begin; i < end; ++i) {
        tokens.insert(tokens.end(), conversations_[i].tokens.begin(), conversations_[i].tokens.end());
        starts.push_back(static_cast<std::int64_t>(tokens.size()));
    }
    const auto count = static_cast<std::int64_t>(tokens.size());
    require(all.size(0) == count && all.size(1) == hidden_,
            "FeatureStore: the target gave features [{}, {}], expected [{}, {}]", all.size(0), all.size(1), count,
            hidden_);
    write_safetensors(
        path_of(shard),
        std::vector<SafeTensorView>{
            view("features", SafeDtype::f16, {count, hidden_}, static_cast<const std::uint16_t*>(all.const_data_ptr()),
                 static_cast<std::size_t>(all.numel())),
            view("tokens", SafeDtype::i32, {count}, tokens.data(), tokens.size()),
            view("starts", SafeDtype::i64, {static_cast<std::int64_t>(starts.size())}, starts.data(), starts.size())});
    computed_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

at::Tensor FeatureStore::features(std::size_t conversation) {
    const std::size_t shard = conversation / kShard;
    std::unique_ptr<Shard>& entry = shards_[shard];
    if (!entry) entry = open(shard);
    if (!entry) {
        compute(shard);
        entry = open(shard);
        require(entry != nullptr, "FeatureStore: {} was written and cannot be read back", path_of(shard).string());
    }
    const std::int64_t begin = entry->starts[conversation % kShard], end = entry->starts[conversation % kShard + 1];
    const SafeTensor& tensor = entry->file.tensor("features");
    auto* data = const_cast<std::byte*>(tensor.data.data()) + begin * hidden_ * 2;
    return at::from_blob(data, {end - begin, hidden_}, at::TensorOptions().dtype(at::kHalf));
}

}  // namespace outrider
