#include <outrider/target/llama_verifier.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <unordered_set>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>
#include <outrider/target/detail/features.hpp>
#include <outrider/target/detail/pass_times.hpp>

#include "kv_pool.hpp"
#include "read_text_file.hpp"

namespace outrider {
namespace {

/// Calls, and gives the exception where memory ran out, translated: that refuses one sequence. Others pass through.
template <typename Call>
std::exception_ptr refusal_of(Call&& call) {
    try {
        detail::translate(std::forward<Call>(call));
        return nullptr;
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::out_of_memory) throw;
        return std::current_exception();
    }
}

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

/// Keys and values are of one checkpoint, one arithmetic, one type and one order of slots.
ReaderName reader_of(const LlamaModel& model, const KvCache& cache) {
    return {model.fingerprint(),
            fmt::format("{}, {} of {}", model.weights_description(), cache.key_panels() ? "panels" : "rows",
                        c10::toString(c10::typeMetaToScalarType(cache.options().dtype()))),
            model.config().hidden, model.config().layers};
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
    : model_(std::move(model)),
      options_(options),
      pass_(detail::translate([&] { return model_.make_pass(); })),
      kept_(options.kept_bytes) {
    require(options_.prefill_rows >= 0, "LlamaVerifier: prefill_rows is {}, expected 0 (by device) or more",
            options_.prefill_rows);
    require(options_.kept_bytes == 0 || pass_->make_cache().pooled() == nullptr, ErrorKind::not_supported,
            "LlamaVerifier: kept_bytes is {}, and a device's pool of slots keeps no texts; leave it 0",
            options_.kept_bytes);
    if (options_.prefill_rows == 0) options_.prefill_rows = model_.device().is_cpu() ? 192 : 1024;
}

void LlamaVerifier::check_prefill(std::span<const Prefill> sequences) const {
    check_distinct(sequences, "prefill");
    for (const Prefill& one : sequences) {
        const auto found = sequences_.find(one.sequence);
        require(one.committed > 0 || found == sequences_.end(),
                "LlamaVerifier: prefill of sequence {}, which is known already; "
                "release it first or choose another id",
                one.sequence);
        if (one.committed > 0) check_goes_on(one, found == sequences_.end() ? nullptr : &found->second);
        const auto length = one.committed + static_cast<std::int64_t>(one.tokens.size());
        require(length < context(),
                "LlamaVerifier: the prompt of sequence {} has {} tokens with its pending one, the "
                "model's context holds {}; shorten the prompt",
                one.sequence, length + 1, context());
        OUTRIDER_ASSERT(
            std::ranges::all_of(one.tokens, [&](TokenId token) { return token >= 0 && token < vocabulary(); }));
    }
}

void LlamaVerifier::check_goes_on(const Prefill& piece, const Sequence* known) {
    require(known != nullptr && known->read.cache.committed() == piece.committed,
            "LlamaVerifier: prefill of sequence {} goes on behind {} tokens, {} are committed; give pieces one after "
            "another",
            piece.sequence, piece.committed, known == nullptr ? 0 : known->read.cache.committed());
    require(!known->verified, "LlamaVerifier: prefill of sequence {} between verify and commit; commit it first",
            piece.sequence);
    require(known->read.asked == piece.features,
            "LlamaVerifier: prefill of sequence {} asks for other features than its first piece", piece.sequence);
}

/// What the pieces will have committed.
static Feedback told_of(std::span<const Prefill> sequences) {
    Feedback feedback;
    feedback.reserve(sequences.size());
    for (const Prefill& one : sequences)
        feedback.push_back({.sequence = one.sequence,
                            .tokens = {one.tokens.begin(), one.tokens.end()},
                            .features = {},
                            .pending = one.pending,
                            .committed = one.committed + static_cast<std::int64_t>(one.tokens.size())});
    return feedback;
}

/// Takes the pieces in and runs them; what `run` throws ends their sequences.
template <typename Run>
Feedback LlamaVerifier::with_prompts(std::span<const Prefill> sequences, Run&& run) {
    Feedback feedback = told_of(sequences);
    try {
        for (std::size_t i = 0; i < sequences.size(); ++i) take_in(sequences[i], feedback[i]);
        run(feedback);
    } catch (...) {  // of those that went on, some rows may be committed
        for (const Prefill& one : sequences) sequences_.erase(one.sequence);
        throw;
    }
    for (const SequenceFeedback& told : feedback)
        if (!told.refused) note(sequences_.at(told.sequence), told);
    return feedback;
}

Feedback LlamaVerifier::prefill(std::span<const Prefill> sequences) {
    check_prefill(sequences);
    const at::NoGradGuard no_grad;
    return with_prompts(sequences, [&](Feedback& feedback) { run_prompts(sequences, feedback); });
}

/// Room for the prompt's piece, or a refusal.
void LlamaVerifier::take_in(const Prefill& one, SequenceFeedback& told) {
    told.refused = refusal_of([&] {
        if (one.committed == 0)
            sequences_.emplace(one.sequence,
                               Sequence{.read = {.tokens = {}, .cache = pass_->make_cache(), .asked = one.features}});
        KvCache& cache = sequences_.at(one.sequence).read.cache;
        check_room(cache, std::ssize(one.tokens));
        cache.reserve(std::ssize(one.tokens));
    });
    if (told.refused) sequences_.erase(one.sequence);
}

/// Where caches share a pool: room for the prompt and a little of everybody's text. Throws Error (out of memory).
void LlamaVerifier::check_room(const KvCache& cache, std::int64_t tokens) const {
    constexpr std::int64_t kGrowth = 64;  // tokens of each sequence, a round's tree and some rounds
    const PooledSlots* slots = cache.pooled();
    if (slots == nullptr) return;
    const auto growth = kGrowth * std::ssize(sequences_);
    require(tokens + growth <= slots->pool().free_tokens(), ErrorKind::out_of_memory,
            "LlamaVerifier: the prompt holds {} tokens, and {} are kept free for the texts to grow; the device's cache "
            "has {} of {} left. Decode fewer sequences at once, shorten the prompt, or raise "
            "LlamaModel::Options::cache_tokens ({} bytes a token)",
            tokens, growth, slots->pool().free_tokens(), slots->pool().limits().tokens, slots->pool().token_bytes());
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
        const PassOutput output = pass_->forward(segments, PassFor::features, all.layers);
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
        if (feedback[s].refused) continue;
        std::span<const TokenId> left = sequences[s].tokens;
        KvCache& cache = sequences_.at(sequences[s].sequence).read.cache;
        while (!left.empty()) {
            const auto take =
                std::min<std::size_t>(left.size(), static_cast<std::size_t>(options_.prefill_rows - rows));
            segments.push_back({.cache = &cache, .tokens = left.first(take)});
            owner.push_back(s);
            left = left.subspan(take);
            rows += static_cast<std::int64_t>(take);
            if (rows == options_.prefill_rows) flush();
        }
    }
    flush();
    join_pieces(sequences, pieces, feedback);
}

void LlamaVerifier::join_pieces(std::span<const Prefill> sequences, std::span<const std::vector<at::Tensor>> pieces,
                                Feedback& feedback) const {
    const auto on_device = at::TensorOptions().device(model_.device()).dtype(at::kFloat);
    for (std::size_t s = 0; s < sequences.size(); ++s)
        if (const FeatureRequest& asked = sequences[s].features; asked.wanted && !feedback[s].refused)
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
        const std::int64_t deepest = found->second.read.cache.committed() + one.tree.height();
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
    Feedback none;
    return run_trees(trees, {}, none);
}

MixedOutput LlamaVerifier::verify_beside(std::span<const SequenceTree> trees, std::span<const Prefill> prompts) {
    check_trees(trees);
    check_prefill(prompts);
    const at::NoGradGuard no_grad;
    MixedOutput output;
    output.prompts =
        with_prompts(prompts, [&](Feedback& feedback) { output.trees = run_trees(trees, prompts, feedback); });
    return output;
}

/// One forward over the trees' rows, and those of the prompts that are not refused behind them, without logits.
TreeOutput LlamaVerifier::run_trees(std::span<const SequenceTree> trees, std::span<const Prefill> prompts,
                                    Feedback& feedback) {
    TreeOutput result;
    result.offsets.push_back(0);
    std::vector<RowSegment> segments;
    FeatureRequest all = FeatureRequest::none();
    for (const SequenceTree& one : trees) {
        Sequence& sequence = sequences_.at(one.sequence);
        KvCache& cache = sequence.read.cache;
        const auto nodes = static_cast<std::int64_t>(one.tree.size());
        result.refused.push_back(refusal_of([&] { cache.reserve(nodes); }));
        result.offsets.push_back(result.offsets.back() + (result.refused.back() ? 0 : nodes));
        if (result.refused.back()) continue;
        all = both(all, sequence.read.asked);
        segments.push_back(
            {.cache = &cache, .tokens = one.tree.tokens(), .parents = one.tree.parents(), .picks = one.picks});
    }
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        if (feedback[i].refused) continue;
        Sequence& sequence = sequences_.at(prompts[i].sequence);
        all = both(all, sequence.read.asked);
        if (!prompts[i].tokens.empty())
            segments.push_back({.cache = &sequence.read.cache, .tokens = prompts[i].tokens, .logits = false});
    }
    if (segments.empty()) {
        result.logits = at::empty({0, vocabulary()}, at::TensorOptions().device(model_.device()).dtype(at::kFloat));
        return result;
    }
    const bool read = std::ranges::any_of(trees, &SequenceTree::logits);
    PassOutput output = pass_->forward(segments, read ? PassFor::logits : PassFor::choices, all.layers);
    result.logits = std::move(output.logits);
    result.argmax = std::move(output.argmax);
    result.picks = std::move(output.picks);
    take_rows(trees, prompts, output.features, all, result, feedback);
    return result;
}

/// What a forward of trees and prompts leaves with the sequences: `features` are the rows of both.
void LlamaVerifier::take_rows(std::span<const SequenceTree> trees, std::span<const Prefill> prompts,
                              const at::Tensor& features, const FeatureRequest& all, const TreeOutput& result,
                              Feedback& feedback) {
    for (std::size_t i = 0; i < trees.size(); ++i) {
        if (result.refused[i]) continue;
        Sequence& sequence = sequences_.at(trees[i].sequence);
        sequence.verified = true;
        if (sequence.read.asked.wanted)
            sequence.features =
                take_features(features.slice(0, result.offsets[i], result.offsets[i + 1]), all, sequence.read.asked);
    }
    std::int64_t begin = result.offsets.back();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        if (feedback[i].refused) continue;
        Sequence& sequence = sequences_.at(prompts[i].sequence);
        const std::int64_t rows = std::ssize(prompts[i].tokens);
        sequence.read.cache.append(rows);
        if (sequence.read.asked.wanted) {
            const at::Tensor own = take_features(features.slice(0, begin, begin + rows), all, sequence.read.asked);
            feedback[i].features = join_rows(std::span(&own, 1));  // not clone: see there
        }
        begin += rows;
    }
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
        sequence.read.cache.keep(one.accepted.path);
        features.push_back(std::exchange(sequence.features, {}));
        feedback.push_back({.sequence = one.sequence,
                            .tokens = one.tokens,
                            .features = {},
                            .pending = one.accepted.pending,
                            .committed = sequence.read.cache.committed()});
    }
    if (!model_.device().is_cpu()) features = take_paths(features, accepted);
    for (std::size_t i = 0; i < accepted.size(); ++i) {
        if (!features[i].defined()) continue;
        feedback[i].features =
            model_.device().is_cpu() ? take_path(features[i], accepted[i].accepted.path) : features[i];
    }
    for (std::size_t i = 0; i < accepted.size(); ++i) note(sequences_.at(accepted[i].sequence), feedback[i]);
    return feedback;
}

std::vector<PassTime> LlamaVerifier::pass_times() {
    if (!pass_times_.empty()) return pass_times_;
    const std::string key = pass_times_key(model_);
    const std::filesystem::path& file = options_.pass_times_file;
    const std::optional<std::vector<PassTime>> remembered = read_pass_times(file, key);
    if (remembered && agrees_with_passes(*remembered, model_, *pass_)) return pass_times_ = *remembered;
    static std::mutex mutex;
    static std::unordered_map<std::string, std::vector<PassTime>> measured;  // for the next verifier of this process
    const std::scoped_lock lock(mutex);
    if (const auto known = measured.find(key); known != measured.end() && !remembered)
        return pass_times_ = known->second;
    const MeasuredPasses now = measure_pass_times(model_, *pass_);
    if (now.steady) {
        measured[key] = now.times;
        write_pass_times(file, key, now.times);
    }
    return pass_times_ = now.times;
}

void LlamaVerifier::release(SequenceId sequence) { sequences_.erase(sequence); }

// Features are noted as they were handed out: the drafter reads the same rows, nothing is copied.
void LlamaVerifier::note(Sequence& sequence, const SequenceFeedback& told) const {
    if (options_.kept_bytes == 0) return;
    ReadText& read = sequence.read;
    read.tokens.insert(read.tokens.end(), told.tokens.begin(), told.tokens.end());
    if (told.features.defined()) read.features.push_back(told.features);
}

const ReadText* LlamaVerifier::longest(std::span<const TokenId> tokens, const FeatureRequest& wanted) {
    const ReadText* best = kept_.find(tokens, wanted);
    std::int64_t most = best == nullptr ? 0 : common_beginning(best->tokens, tokens);
    for (const auto& [id, sequence] : sequences_) {
        if (!sequence.read.serves(wanted)) continue;
        const std::int64_t common = common_beginning(sequence.read.tokens, tokens);
        if (common > most) most = common, best = &sequence.read;
    }
    return best;
}

SequenceFeedback LlamaVerifier::resume(const Prefill& prompt) {
    require(!sequences_.contains(prompt.sequence),
            "LlamaVerifier: resume of sequence {}, which is known already; release it first or choose another id",
            prompt.sequence);
    const ReadText* found = resumes() ? longest(prompt.tokens, prompt.features) : nullptr;
    if (found == nullptr) return Verifier::resume(prompt);
    const at::NoGradGuard no_grad;
    const std::int64_t common = common_beginning(found->tokens, prompt.tokens);
    const auto count = static_cast<std::size_t>(common);
    Sequence sequence{.read = {.tokens = {}, .cache = found->cache.copy(common), .asked = prompt.features}};
    SequenceFeedback told{.sequence = prompt.sequence,
                          .tokens = {prompt.tokens.begin(), prompt.tokens.begin() + common},
                          .features = found->first_features(common, prompt.features),
                          .pending = count < prompt.tokens.size() ? prompt.tokens[count] : prompt.pending,
                          .committed = common};
    note(sequence, told);
    sequences_.emplace(prompt.sequence, std::move(sequence));
    return told;
}

void LlamaVerifier::retire(SequenceId sequence) {
    auto node = sequences_.extract(sequence);
    if (!node.empty() && options_.kept_bytes > 0) kept_.keep(std::move(node.mapped().read));
}

std::int64_t LlamaVerifier::save(std::span<const TokenId> tokens, const std::filesystem::path& path) {
    const ReadText* found = longest(tokens, FeatureRequest::none());
    require(found != nullptr,
            "LlamaVerifier: nothing is kept of these tokens to save; set Options::kept_bytes, and "
            "decode a text that begins with them");
    const std::int64_t common = common_beginning(found->tokens, tokens);
    write_read_text(path, *found, common, reader_of(model_, found->cache));
    return common;
}

std::vector<TokenId> LlamaVerifier::load(const std::filesystem::path& path) {
    require(options_.kept_bytes > 0, "LlamaVerifier: a text to keep, and Options::kept_bytes is 0; set it");
    KvCache empty = pass_->make_cache();
    const ReaderName reader = reader_of(model_, empty);
    ReadText text = read_read_text(path, std::move(empty), reader);
    require(text.bytes() <= options_.kept_bytes,
            "LlamaVerifier: {} holds {} bytes, Options::kept_bytes is {}; set it higher", path.string(), text.bytes(),
            options_.kept_bytes);
    std::vector<TokenId> tokens = text.tokens;
    require(std::ranges::all_of(tokens, [&](TokenId token) { return token >= 0 && token < vocabulary(); }),
            ErrorKind::damaged_file, "{}: tokens outside the vocabulary", path.string());
    kept_.keep(std::move(text));
    return tokens;
}

std::size_t LlamaVerifier::cache_bytes() const {
    std::size_t sum = 0;
    for (const auto& [id, sequence] : sequences_) sum += sequence.read.cache.bytes();
    return sum;
}

}  // namespace outrider
