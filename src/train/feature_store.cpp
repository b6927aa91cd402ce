#include "train/feature_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/formats/detail/atomic_file.hpp>
#include <outrider/formats/detail/safetensors.hpp>

namespace outrider {

namespace {

/// Tokens of one call of the target: enough for its matrices, few enough for its caches.
constexpr std::int64_t kTokensPerCall = 4096;
constexpr SequenceId kFirstSequence = std::int64_t{1} << 40;  // far from a decoder's own ids

std::uint64_t hash_name(const std::string& text) {
    std::uint64_t hash = 0;
    for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
    return hash;
}

/// Of a folder's name. Without layers it is that of target and text.
std::uint64_t hash_layers(std::uint64_t hash, const std::vector<std::int64_t>& layers) {
    for (const std::int64_t layer : layers) hash = mix64(hash + static_cast<std::uint64_t>(layer));
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

struct FeatureStore::Text {
    std::filesystem::path folder;
    std::vector<std::size_t> conversations;  // its own, in order
    std::vector<std::unique_ptr<Shard>> shards;

    [[nodiscard]] std::filesystem::path path_of(std::size_t shard) const {
        return folder / fmt::format("shard-{:05d}.safetensors", shard);
    }
};

FeatureStore::FeatureStore(const std::filesystem::path& root, const std::string& fingerprint, std::int64_t hidden,
                           std::span<const Conversation> conversations, Verifier* verifier,
                           std::vector<std::int64_t> layers)
    : hidden_(hidden), layers_(std::move(layers)), conversations_(conversations), verifier_(verifier) {
    for (std::size_t i = 0; i < conversations.size(); ++i) {
        const std::size_t text = conversations[i].text;
        if (texts_.size() <= text) texts_.resize(text + 1);
        places_.push_back({text, texts_[text].conversations.size()});
        texts_[text].conversations.push_back(i);
    }
    for (std::size_t text = 0; text < texts_.size(); ++text) {
        texts_[text].folder =
            root /
            fmt::format("{:016x}", hash_layers(mix64(hash_name(fingerprint) ^ hash_of(conversations, text)), layers_));
        texts_[text].shards.resize((texts_[text].conversations.size() + kShard - 1) / kShard);
        detail::make_folders(texts_[text].folder);
    }
}

FeatureStore::~FeatureStore() = default;

void FeatureStore::keep_on(at::Device device, std::size_t most) { kept_ = KeptFeatures(device, most); }

const std::filesystem::path& FeatureStore::folder(std::size_t text) const { return texts_.at(text).folder; }

/// Numbers of a shard's conversations.
std::span<const std::size_t> FeatureStore::members(const Text& text, std::size_t shard) const {
    const std::size_t begin = shard * kShard;
    return std::span(text.conversations).subspan(begin, std::min(kShard, text.conversations.size() - begin));
}

std::unique_ptr<FeatureStore::Shard> FeatureStore::open(const Text& text, std::size_t shard) const {
    if (!std::filesystem::exists(text.path_of(shard))) return nullptr;
    try {
        auto result = std::make_unique<Shard>(Shard{SafeTensors::open(text.path_of(shard)), {0}});
        std::vector<TokenId> expected;
        for (const std::size_t i : members(text, shard)) {
            expected.insert(expected.end(), conversations_[i].tokens.begin(), conversations_[i].tokens.end());
            result->starts.push_back(static_cast<std::int64_t>(expected.size()));
        }
        const SafeTensor& tokens = result->file.tensor("tokens");
        const SafeTensor& features = result->file.tensor("features");
        const auto bytes = std::as_bytes(std::span(expected));
        const bool fits = tokens.dtype == SafeDtype::i32 && std::ranges::equal(tokens.data, bytes) &&
                          features.dtype == SafeDtype::f16 &&
                          features.elements() == width() * static_cast<std::int64_t>(expected.size());
        return fits ? std::move(result) : nullptr;
    } catch (const Error&) {
        return nullptr;  // damaged: computed again
    }
}

FeatureStore::Shard* FeatureStore::opened(Text& text, std::size_t shard) {
    if (!text.shards[shard]) text.shards[shard] = open(text, shard);
    return text.shards[shard].get();
}

bool FeatureStore::ready(std::size_t conversation) {
    const Place place = places_[conversation];
    return opened(texts_[place.text], place.index / kShard) != nullptr;
}

/// As many of the first of these conversations as one call of the target takes, at least one.
std::vector<Prefill> FeatureStore::batch(std::span<const std::size_t> wanted) const {
    std::vector<Prefill> prompts;
    std::int64_t tokens = 0;
    for (const std::size_t one : wanted) {
        const std::vector<TokenId>& own = conversations_[one].tokens;
        const auto count = static_cast<std::int64_t>(own.size());
        if (tokens > 0 && tokens + count > kTokensPerCall) break;
        prompts.push_back({kFirstSequence + static_cast<SequenceId>(one), own, own.back(), {.layers = layers_}});
        tokens += count;
    }
    return prompts;
}

/// Adds what the target says of them.
void FeatureStore::run(std::span<const Prefill> prompts, std::vector<at::Tensor>& features) {
    const Feedback feedback = none_refused(verifier_->prefill(prompts));
    for (std::size_t k = 0; k < prompts.size(); ++k) {
        const at::Tensor& all = feedback[k].features;
        require(all.size(1) == width(), "FeatureStore: the target gave features of width {}, expected {}", all.size(1),
                width());
        const at::Tensor half = all.to(at::kHalf).contiguous();
        if (!half.is_cpu() && half.device().type() == kept_.device().type())
            kept_.keep(static_cast<std::size_t>(prompts[k].sequence - kFirstSequence), half.to(kept_.device()));
        features.push_back(half.to(at::kCPU));
        verifier_->release(prompts[k].sequence);
        computed_tokens_ += std::ssize(prompts[k].tokens);
    }
}

void FeatureStore::compute(const Text& text, std::size_t shard) {
    const std::filesystem::path path = text.path_of(shard);
    require(verifier_ != nullptr, "FeatureStore: {} is not there, and there is no target to compute it with",
            path.string());
    const auto wanted = members(text, shard);
    std::vector<at::Tensor> features;
    std::vector<TokenId> all_tokens;
    std::vector<std::int64_t> starts{0};
    for (std::size_t i = 0; i < wanted.size();) {
        const std::vector<Prefill> prompts = batch(std::span(wanted).subspan(i));
        i += prompts.size();
        for (const Prefill& one : prompts) {
            all_tokens.insert(all_tokens.end(), one.tokens.begin(), one.tokens.end());
            starts.push_back(static_cast<std::int64_t>(all_tokens.size()));
        }
        run(prompts, features);
    }
    const at::Tensor all = at::cat(features);
    const auto count = static_cast<std::int64_t>(all_tokens.size());
    require(all.size(0) == count, "FeatureStore: the target gave {} rows of features for {} tokens", all.size(0),
            count);
    write_safetensors(
        path,
        std::vector<SafeTensorView>{
            view("features", SafeDtype::f16, {count, width()}, static_cast<const std::uint16_t*>(all.const_data_ptr()),
                 static_cast<std::size_t>(all.numel())),
            view("tokens", SafeDtype::i32, {count}, all_tokens.data(), all_tokens.size()),
            view("starts", SafeDtype::i64, {static_cast<std::int64_t>(starts.size())}, starts.data(), starts.size())});
}

at::Tensor KeptFeatures::find(std::size_t conversation) {
    const auto found = all_.find(conversation);
    if (found == all_.end()) return {};
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return found->second.features;
}

void KeptFeatures::keep(std::size_t conversation, const at::Tensor& features) {
    if (features.nbytes() > most_ || all_.contains(conversation)) return;
    for (bytes_ += features.nbytes(); bytes_ > most_; uses_.pop_back()) {
        const auto last = all_.find(uses_.back());
        bytes_ -= last->second.features.nbytes();
        all_.erase(last);
    }
    uses_.push_front(conversation);
    all_.emplace(conversation, Kept{features, uses_.begin()});
}

at::Tensor FeatureStore::features(std::size_t conversation) {
    if (kept_.device().is_cpu()) return mapped(conversation);
    if (const at::Tensor kept = kept_.find(conversation); kept.defined()) return kept;
    const at::Tensor here = mapped(conversation);  // the target may just have computed and kept them
    if (const at::Tensor kept = kept_.find(conversation); kept.defined()) return kept;
    const at::Tensor there = here.to(kept_.device());
    kept_.keep(conversation, there);
    return there;
}

at::Tensor FeatureStore::mapped(std::size_t conversation) {
    const Place place = places_.at(conversation);
    Text& text = texts_[place.text];
    const std::size_t number = place.index / kShard, row = place.index % kShard;
    Shard* shard = opened(text, number);
    if (!shard) {
        compute(text, number);
        shard = opened(text, number);
        require(shard != nullptr, "FeatureStore: {} was written and cannot be read back",
                text.path_of(number).string());
    }
    const std::int64_t begin = shard->starts[row], end = shard->starts[row + 1];
    auto* data = const_cast<std::byte*>(shard->file.tensor("features").data.data()) + begin * width() * 2;
    return at::from_blob(data, {end - begin, width()}, at::TensorOptions().dtype(at::kHalf));
}

}  // namespace outrider
