#include <outrider/target/llama_verifier.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_set>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/target/features.hpp>
#include <outrider/target/pass_times.hpp>

#include "kv_pool.hpp"

namespace outrider {
namespace {

/// Throws Error when two items name one sequence.
template <typename Items>
void check_distinct(const Items& items, const char* call) {
    std::unordered_set<SequenceId> seen;
    for (const auto& item : items)
        require(seen.insert(item.sequence).second,
                "LlamaVerifier: sequence {} appears twice in one {}; expected each "
                "at most once",
                item.sequence, call);
}

/// Row 0 of `from` [n, F] and those of `path`, on the CPU by hand: ATen would cost more than the copy, and wake its own
/// threads.
at::Tensor take_path(const at::Tensor& from, std::span<const NodeIndex> path) {
    const std::int64_t width = from.size(1);
    at::Tensor result = at::empty({1 + std::ssize(path), width}, from.options());
    const float* source = from.data_ptr<float>();
    float* target = result.data_ptr<float>();
    for (std::size_t i = 0; i <= path.size(); ++i)
        std::memcpy(target + static_cast<std::int64_t>(i) * width, source + (i == 0 ? 0 : path[i - 1]) * from.stride(0),
                    static_cast<std::size_t>(width) * sizeof(float));
    return result;
}

/// The same of several trees on a device: one operation for all that are equally wide, and no index that would have to
/// be copied there.
std::vector<at::Tensor> take_paths(std::span<const at::Tensor> from, std::span<const SequenceAcceptance> accepted) {
    std::vector<at::Tensor> taken(from.size());
    std::map<std::int64_t, std::vector<std::size_t>> by_width;
    for (std::size_t i = 0; i < from.size(); ++i)
        if (from[i].defined()) by_width[from[i].size(1)].push_back(i);
    for (const auto& [width, members] : by_width) {
        std::vector<at::Tensor> rows;
        for (const std::size_t i : members) {
            rows.push_back(from[i].narrow(0, 0, 1));
            for (const NodeIndex node : accepted[i].accepted.path) rows.push_back(from[i].narrow(0, node, 1));
        }
        const at::Tensor all = at::cat(rows);
        std::int64_t begin = 0;
        for (const std::size_t i : members) {
            const std::int64_t count = 1 + std::ssize(accepted[i].accepted.path);
            taken[i] = all.narrow(0, begin, count);
            begin += count;
        }
    }
    return taken;
}

}  // namespace

LlamaVerifier::LlamaVerifier(LlamaModel model, Options options)
    : model_(std::move(model)), options_(options), pass_(model_.make_pass()) {
    require(options_.prefill_rows >= 0, "LlamaVerifier: prefill_rows is {}, expected 0 (by device) or more",
            options_.prefill_rows);
    if (options_.prefill_rows == 0) options_.prefill_rows = model_.device().is_cpu() ? 192 : 1024;
}

void LlamaVerifier::check_prefill(std::span<const Prefill> sequences) const {
    check_distinct(sequences, "prefill");
    for (const Prefill& one : sequences) {
        require(!sequences_.contains(one.sequence),
                "LlamaVerifier: prefill of sequence {}, which is known already; "
                "release it first or choose another id",
                one.sequence);
        const auto length = static_cast<std::int64_t>(one.tokens.size());
        require(length < context(),
                "LlamaVerifier: the prompt of sequence {} has {} tokens with its pending one, the "
                "model's context holds {}; shorten the prompt",
                one.sequence, length + 1, context());
        OUTRIDER_ASSERT(
            std::ranges::all_of(one.tokens, [&](TokenId token) { return token >= 0 && token < vocabulary(); }));
    }
}

Feedback LlamaVerifier::prefill(std::span<const Prefill> sequences) {
    check_prefill(sequences);
    const at::NoGradGuard no_grad;
    Feedback feedback;
    feedback.reserve(sequences.size());
    for (const Prefill& one : sequences)
        feedback.push_back({.sequence = one.sequence,
                            .tokens = {one.tokens.begin(), one.tokens.end()},
                            .features = {},
                            .pending = one.pending,
                            .committed = static_cast<std::int64_t>(one.tokens.size())});
    try {
        for (const Prefill& one : sequences)
            sequences_.emplace(one.sequence, Sequence{.cache = pass_->make_cache(), .asked = one.features});
        check_room(sequences);
        run_prompts(sequences, feedback);
    } catch (...) {
        for (const Prefill& one : sequences) sequences_.erase(one.sequence);
        throw;
    }
    return feedback;
}

/// Where caches share a pool: room for these prompts and a little of everybody's text. Throws Error (out of memory).
void LlamaVerifier::check_room(std::span<const Prefill> sequences) const {
    constexpr std::int64_t kGrowth = 64;  // tokens of each sequence, a round's tree and some rounds
    const PooledSlots* any = sequences.empty() ? nullptr : sequences_.at(sequences[0].sequence).cache.pooled();
    if (any == nullptr) return;
    const auto growth = kGrowth * std::ssize(sequences_);
    std::int64_t tokens = 0;
    for (const Prefill& one : sequences) tokens += std::ssize(one.tokens);
    require(tokens + growth <= any->pool().free_tokens(), ErrorKind::out_of_memory,
            "LlamaVerifier: the prompts hold {} tokens, and {} are kept free for the texts to grow; the device's cache "
            "has {} of {} left. Decode fewer sequences at once, shorten the prompts, or raise "
            "LlamaModel::Options::cache_tokens ({} bytes a token)",
            tokens, growth, any->pool().free_tokens(), any->pool().limits().tokens, any->pool().token_bytes());
}

// Fills forwards of `prefill_rows` rows with prompt after prompt; a long prompt goes on in the next forward.
void LlamaVerifier::run_prompts(std::span<const Prefill> sequences, Feedback& feedback) {
    FeatureRequest all = FeatureRequest::none();
    for (const Prefill& one : sequences) all = both(all, one.features);
    std::vector<std::vector<at::Tensor>> pieces(sequences.size());
    std::vector<RowSegment> segments;
    std::vector<std::size_t> owner;
    std::int64_t rows = 0;
    const auto flush = [&] {
        if (segments.empty()) return;
        const PassOutput output = pass_->forward(segments, false, all.layers);
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < segments.size(); ++i) {
            const auto count = static_cast<std::int64_t>(segments[i].tokens.size());
            segments[i].cache->append(count);
            const FeatureRequest& asked = sequences[owner[i]].features;
            if (asked.wanted)
                pieces[owner[i]].push_back(take_features(output.features.slice(0, begin, begin + count), all, asked));
            begin += count;
        }
        segments.clear(), owner.clear(), rows = 0;
    };
    for (std::size_t s = 0; s < sequences.size(); ++s) {
        std::span<const TokenId> left = sequences[s].tokens;
        KvCache& cache = sequences_.at(sequences[s].sequence).cache;
        while (!left.empty()) {
            const auto take =
                std::min<std::size_t>(left.size(), static_cast<std::size_t>(options_.prefill_rows - rows));
            cache.reserve(static_cast<std::int64_t>(take));
            segments.push_back({.cache = &cache, .tokens = left.first(take)});
            owner.push_back(s);
            left = left.subspan(take);
            rows += static_cast<std::int64_t>(take);
            if (rows == options_.prefill_rows) flush();
        }
    }
    flush();
    const auto on_device = at::TensorOptions().device(model_.device()).dtype(at::kFloat);
    for (std::size_t s = 0; s < sequences.size(); ++s)
        if (const FeatureRequest& asked = sequences[s].features; asked.wanted)
            feedback[s].features = pieces[s].empty() ? at::empty({0, asked.width(model_.config().hidden)}, on_device)
                                                     : join_rows(pieces[s]);
}

void LlamaVerifier::check_trees(std::span<const SequenceTree> trees) const {
    check_distinct(trees, "verify");
    for (const SequenceTree& one : trees) {
        const auto found = sequences_.find(one.sequence);
        require(found != sequences_.end(),
                "LlamaVerifier: verify of sequence {}, which is unknown; expected one that "
                "prefill made known and that was not released",
                one.sequence);
        require(!found->second.verified,
                "LlamaVerifier: verify of sequence {} again before its commit; commit or "
                "release it first",
                one.sequence);
        const std::int64_t deepest = found->second.cache.committed() + one.tree.height();
        require(deepest < context(),
                "LlamaVerifier: the tree of sequence {} reaches position {}, the model's context "
                "holds {} tokens; draft less deep or end the text",
                one.sequence, deepest, context());
        OUTRIDER_ASSERT(std::ranges::all_of(one.tree.tokens(), [&](TokenId token) { return token < vocabulary(); }));
    }
}

TreeOutput LlamaVerifier::verify(std::span<const SequenceTree> trees) {
    check_trees(trees);
    const at::NoGradGuard no_grad;
    TreeOutput result;
    result.offsets.push_back(0);
    if (trees.empty()) {
        const auto on_device = at::TensorOptions().device(model_.device()).dtype(at::kFloat);
        result.logits = at::empty({0, vocabulary()}, on_device);
        return result;
    }
    std::vector<RowSegment> segments;
    FeatureRequest all = FeatureRequest::none();
    for (const SequenceTree& one : trees) {
        Sequence& sequence = sequences_.at(one.sequence);
        KvCache& cache = sequence.cache;
        all = both(all, sequence.asked);
        cache.reserve(static_cast<std::int64_t>(one.tree.size()));
        segments.push_back({.cache = &cache, .tokens = one.tree.tokens(), .parents = one.tree.parents()});
        result.offsets.push_back(result.offsets.back() + static_cast<std::int64_t>(one.tree.size()));
    }
    const auto start = std::chrono::steady_clock::now();
    PassOutput output = pass_->forward(segments, true, all.layers);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (watch_ && watch_->saw(result.offsets.back(), took.count()))
        write_pass_times(options_.pass_times_file.value_or(default_pass_times_file()), pass_times_key(model_),
                         watch_->table());
    result.logits = std::move(output.logits);
    result.argmax = std::move(output.argmax);
    for (std::size_t i = 0; i < trees.size(); ++i) {
        Sequence& sequence = sequences_.at(trees[i].sequence);
        sequence.verified = true;
        if (sequence.asked.wanted)
            sequence.features =
                take_features(output.features.slice(0, result.offsets[i], result.offsets[i + 1]), all, sequence.asked);
    }
    return result;
}

void LlamaVerifier::check_accepted(std::span<const SequenceAcceptance> accepted) const {
    check_distinct(accepted, "commit");
    for (const SequenceAcceptance& one : accepted) {
        const auto found = sequences_.find(one.sequence);
        require(found != sequences_.end(),
                "LlamaVerifier: commit of sequence {}, which is unknown; expected one of "
                "the last verify",
                one.sequence);
        require(found->second.verified,
                "LlamaVerifier: commit of sequence {} without a verify before it; "
                "verify its tree first",
                one.sequence);
        OUTRIDER_ASSERT(one.tokens.size() == one.accepted.path.size() + 1);
    }
}

Feedback LlamaVerifier::commit(std::span<const SequenceAcceptance> accepted) {
    check_accepted(accepted);
    const at::NoGradGuard no_grad;
    Feedback feedback;
    feedback.reserve(accepted.size());
    std::vector<at::Tensor> features;
    for (const SequenceAcceptance& one : accepted) {
        Sequence& sequence = sequences_.at(one.sequence);
        sequence.verified = false;
        sequence.cache.keep(one.accepted.path);
        features.push_back(std::exchange(sequence.features, {}));
        feedback.push_back({.sequence = one.sequence,
                            .tokens = one.tokens,
                            .features = {},
                            .pending = one.accepted.pending,
                            .committed = sequence.cache.committed()});
    }
    if (!model_.device().is_cpu()) features = take_paths(features, accepted);
    for (std::size_t i = 0; i < accepted.size(); ++i) {
        if (!features[i].defined()) continue;
        feedback[i].features =
            model_.device().is_cpu() ? take_path(features[i], accepted[i].accepted.path) : features[i];
    }
    return feedback;
}

std::vector<PassTime> LlamaVerifier::pass_times() {
    if (watch_) return watch_->table();
    const std::filesystem::path file = options_.pass_times_file.value_or(default_pass_times_file());
    const std::string key = pass_times_key(model_);
    std::optional<std::vector<PassTime>> times = read_pass_times(file, key);
    if (!times) {
        static std::mutex mutex;
        static std::unordered_map<std::string, std::vector<PassTime>> measured;  // where no file can be written
        const std::scoped_lock lock(mutex);
        std::vector<PassTime>& here = measured[key];
        if (here.empty()) here = measure_pass_times(model_, *pass_);
        write_pass_times(file, key, here);
        times = here;
    }
    if (model_.device().is_cpu()) watch_.emplace(*times);  // elsewhere a call returns before its pass is done
    return *std::move(times);
}

void LlamaVerifier::release(SequenceId sequence) { sequences_.erase(sequence); }

std::size_t LlamaVerifier::cache_bytes() const {
    std::size_t sum = 0;
    for (const auto& [id, sequence] : sequences_) sum += sequence.cache.bytes();
    return sum;
}

}  // namespace outrider
