// A target that llama.cpp runs: its C interface (llama.h) behind the three calls of a verifier. A tree is a batch whose
// rows carry a sequence id for every leaf below them; a path is kept by giving its cells to the sequence's own id. The
// ids of leaves go on knowing the committed tokens, so that a round costs what it drafts and not what its text is long.
#pragma once

#include <ATen/ATen.h>
#include <llama.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/decode/measure_passes.hpp>
#include <outrider/target/verifier.hpp>

namespace example {

/// Rows of one llama_decode.
class Rows {
public:
    void add(outrider::TokenId token, std::int64_t position, std::vector<llama_seq_id> ids, bool output) {
        tokens_.push_back(token);
        positions_.push_back(static_cast<llama_pos>(position));
        ids_.push_back(std::move(ids));
        output_.push_back(output ? 1 : 0);
    }

    /// llama_decode's status: 0 done, 1 no room in the cache, and nothing has changed. Throws Error for others.
    [[nodiscard]] int decode(llama_context* context) {
        std::vector<llama_seq_id*> ids;
        std::vector<std::int32_t> counts;
        for (auto& each : ids_) ids.push_back(each.data()), counts.push_back(static_cast<std::int32_t>(each.size()));
        llama_batch batch{};
        batch.n_tokens = static_cast<std::int32_t>(tokens_.size());
        batch.token = tokens_.data(), batch.pos = positions_.data(), batch.logits = output_.data();
        batch.n_seq_id = counts.data(), batch.seq_id = ids.data();
        const int status = llama_decode(context, batch);
        outrider::require(status == 0 || status == 1, outrider::ErrorKind::internal, "llama_decode: status {}", status);
        return status;
    }

    [[nodiscard]] std::int64_t size() const { return std::ssize(tokens_); }

private:
    std::vector<llama_token> tokens_;
    std::vector<llama_pos> positions_;
    std::vector<std::vector<llama_seq_id>> ids_;
    std::vector<std::int8_t> output_;
};

struct LlamaCppOptions {
    int threads = 2;
    std::int64_t tokens = 4096;  ///< that all sequences hold together
    std::int64_t rows = 512;     ///< of one forward
    std::int64_t sequences = 4;  ///< at once
    std::int64_t leaves = 32;    ///< of all trees of one verify
};

class LlamaCppVerifier final : public outrider::Verifier {
public:
    LlamaCppVerifier(std::shared_ptr<llama_model> model, LlamaCppOptions options)
        : model_(std::move(model)), options_(options) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<std::uint32_t>(options_.tokens);
        params.n_batch = params.n_ubatch = static_cast<std::uint32_t>(options_.rows);
        params.n_seq_max = static_cast<std::uint32_t>(options_.sequences + options_.leaves);
        params.n_threads = params.n_threads_batch = options_.threads;
        params.pooling_type = LLAMA_POOLING_TYPE_NONE;
        params.kv_unified = true;  // cells belong to several sequences
        context_.reset(llama_init_from_model(model_.get(), params), llama_free);
        outrider::require(context_ != nullptr, outrider::ErrorKind::out_of_memory, "llama.cpp makes no context");
        for (auto id = static_cast<llama_seq_id>(options_.sequences); id-- > 0;) free_.push_back(id);
        for (std::int64_t leaf = 0; leaf < options_.leaves; ++leaf)
            paths_.push_back({.id = static_cast<llama_seq_id>(options_.sequences + leaf)});
    }

    [[nodiscard]] outrider::Feedback prefill(std::span<const outrider::Prefill> sequences) override {
        outrider::Feedback feedback;
        for (const outrider::Prefill& one : sequences) {
            feedback.push_back({.sequence = one.sequence,
                                .tokens = {one.tokens.begin(), one.tokens.end()},
                                .features = {},
                                .pending = one.pending,
                                .committed = one.committed + std::ssize(one.tokens)});
            if (!read(one, feedback.back())) feedback.back().refused = std::make_exception_ptr(full());
        }
        return feedback;
    }
    [[nodiscard]] bool extends() const override { return true; }

    [[nodiscard]] outrider::TreeOutput verify(std::span<const outrider::SequenceTree> trees) override {
        outrider::TreeOutput output;
        output.refused.resize(trees.size());
        end_round();                                        // one that nobody committed
        for (std::size_t taken = trees.size();; --taken) {  // where the cache is full, the last tree is refused
            output.offsets.assign(1, 0);
            Rows rows;
            for (std::size_t i = 0; i < trees.size(); ++i) {
                if (i < taken) add(trees[i], rows);
                output.offsets.push_back(rows.size());
            }
            if (taken == 0 || rows.decode(context_.get()) == 0) return finish(std::move(output));
            end_round();
            output.refused[taken - 1] = std::make_exception_ptr(full());
        }
    }

    [[nodiscard]] outrider::Feedback commit(std::span<const outrider::SequenceAcceptance> accepted) override {
        outrider::Feedback feedback;
        for (const outrider::SequenceAcceptance& one : accepted) {
            Sequence& sequence = sequences_.at(one.sequence);
            const auto& path = one.accepted.path;
            const auto kept = static_cast<llama_pos>(sequence.committed + 1 + std::ssize(path));
            const auto end = path.empty() ? std::size_t{0} : static_cast<std::size_t>(path.back());
            const auto from = static_cast<llama_pos>(sequence.committed);
            if (const llama_seq_id leaf = sequence.through[end]; leaf == sequence.id) {
                llama_memory_seq_rm(memory(), sequence.id, kept, -1);
            } else {
                llama_memory_seq_rm(memory(), sequence.id, from, -1);
                llama_memory_seq_cp(memory(), leaf, sequence.id, from, kept);
            }
            sequence.committed = kept;
            feedback.push_back({.sequence = one.sequence,
                                .tokens = one.tokens,
                                .features = features_of(sequence, path),
                                .pending = one.accepted.pending,
                                .committed = kept});
        }
        end_round();
        return feedback;
    }

    void release(outrider::SequenceId id) override {
        const auto found = sequences_.find(id);
        if (found == sequences_.end()) return;
        for (Path& path : paths_)
            if (path.of == found->second.id) forget(path);
        llama_memory_seq_rm(memory(), found->second.id, -1, -1);
        free_.push_back(found->second.id);
        sequences_.erase(found);
    }

    [[nodiscard]] std::int64_t vocabulary() const override {
        return llama_vocab_n_tokens(llama_model_get_vocab(model_.get()));
    }
    [[nodiscard]] std::int64_t context() const override {
        return std::min<std::int64_t>(options_.tokens, llama_model_n_ctx_train(model_.get()));
    }
    [[nodiscard]] outrider::VerifierLimits limits() const override {
        return {.rows = options_.rows,
                .leaves = options_.leaves,
                .sequences = options_.sequences,
                .tokens = options_.tokens};
    }
    [[nodiscard]] std::vector<outrider::PassTime> pass_times() override { return outrider::measure_passes(*this); }

private:
    struct Sequence {
        llama_seq_id id = 0;
        std::int64_t committed = 0;
        bool features = false;                   // its drafter reads the final hidden states
        std::vector<llama_seq_id> through = {};  // of the tree that was verified: an id whose path leads through a node
        std::int64_t row = 0;                    // and its first row
    };

    /// A sequence id for a leaf.
    struct Path {
        llama_seq_id id = 0, of = -1;  ///< of: the sequence whose committed tokens it knows; -1: none
        llama_pos known = 0;           ///< how many of them
        bool used = false;             ///< in this round
    };

    static outrider::Error full() {
        return outrider::Error("llama.cpp's cache is full; decode fewer or shorter sequences at once",
                               outrider::ErrorKind::out_of_memory);
    }
    [[nodiscard]] llama_memory_t memory() const { return llama_get_memory(context_.get()); }

    /// False: there is no room.
    [[nodiscard]] bool read(const outrider::Prefill& one, outrider::SequenceFeedback& told) {
        if (one.committed == 0) {
            if (free_.empty()) return false;
            sequences_[one.sequence] = {.id = free_.back(), .features = one.features.wanted};
            free_.pop_back();
        }
        Sequence& sequence = sequences_.at(one.sequence);
        if (sequence.features) llama_set_embeddings(context_.get(), features_ = true);
        std::vector<at::Tensor> features;
        for (std::size_t begin = 0; begin < one.tokens.size(); begin += static_cast<std::size_t>(options_.rows)) {
            Rows rows;
            const auto piece =
                one.tokens.subspan(begin, std::min(static_cast<std::size_t>(options_.rows), one.tokens.size() - begin));
            for (const outrider::TokenId token : piece)
                rows.add(token, sequence.committed++, {sequence.id}, sequence.features);
            if (rows.decode(context_.get()) != 0) return false;
            if (sequence.features) features.push_back(hidden(rows.size()).clone());
        }
        if (sequence.features)
            told.features = features.empty() ? at::empty({0, llama_model_n_embd(model_.get())}) : at::cat(features);
        return true;
    }

    /// An id that knows the sequence's committed tokens, one that knew most of them before all.
    [[nodiscard]] llama_seq_id lease(const Sequence& sequence) {
        const auto fit = [&](const Path& path) {
            return path.used ? 3 : path.of == sequence.id ? 0 : path.of < 0 ? 1 : 2;
        };
        Path& path = *std::ranges::min_element(paths_, {}, fit);
        outrider::require(!path.used, outrider::ErrorKind::internal, "more leaves than {}", options_.leaves);
        if (path.of != sequence.id) forget(path);
        const auto committed = static_cast<llama_pos>(sequence.committed);
        llama_memory_seq_cp(memory(), sequence.id, path.id, path.known, committed);
        path = {.id = path.id, .of = sequence.id, .known = committed, .used = true};
        return path.id;
    }
    void forget(Path& path) {
        llama_memory_seq_rm(memory(), path.id, -1, -1);
        path = {.id = path.id};
    }

    /// The first leaf's path has the sequence's own id; every other one an id that knows the same committed tokens.
    void add(const outrider::SequenceTree& one, Rows& rows) {
        const outrider::TokenTree& tree = one.tree;
        Sequence& sequence = sequences_.at(one.sequence);
        std::vector<bool> is_parent(tree.size());
        for (std::size_t node = 1; node < tree.size(); ++node)
            is_parent[static_cast<std::size_t>(tree.parents()[node])] = true;
        std::vector<std::vector<llama_seq_id>> ids(tree.size());
        bool first = true;
        for (std::size_t node = 0; node < tree.size(); ++node) {
            if (is_parent[node]) continue;
            const llama_seq_id id = std::exchange(first, false) ? sequence.id : lease(sequence);
            for (auto at = static_cast<outrider::NodeIndex>(node); at >= 0;
                 at = tree.parents()[static_cast<std::size_t>(at)])
                ids[static_cast<std::size_t>(at)].push_back(id);
        }
        sequence.through.clear();
        sequence.row = rows.size();
        for (std::size_t node = 0; node < tree.size(); ++node) {
            sequence.through.push_back(ids[node].front());
            const auto depth = tree.depth(static_cast<outrider::NodeIndex>(node));
            rows.add(tree.tokens()[node], sequence.committed + depth, std::move(ids[node]), true);
        }
    }

    /// The logits where llama.cpp has them: they live until its next decode.
    [[nodiscard]] outrider::TreeOutput finish(outrider::TreeOutput output) {
        if (const std::int64_t rows = output.offsets.back(); rows > 0) {
            output.logits = at::from_blob(llama_get_logits(context_.get()), {rows, vocabulary()}, at::kFloat);
            if (features_) hidden_ = hidden(rows);
        }
        return output;
    }

    /// [rows, hidden] after the final norm, of the last decode's rows.
    [[nodiscard]] at::Tensor hidden(std::int64_t rows) const {
        return at::from_blob(llama_get_embeddings(context_.get()), {rows, llama_model_n_embd(model_.get())},
                             at::kFloat);
    }
    [[nodiscard]] at::Tensor features_of(const Sequence& sequence, std::span<const outrider::NodeIndex> path) const {
        if (!sequence.features) return {};
        std::vector<std::int64_t> rows{sequence.row};
        for (const outrider::NodeIndex node : path) rows.push_back(sequence.row + node);
        return hidden_.index_select(0, at::tensor(rows));
    }

    /// The ids of leaves forget the tree.
    void end_round() {
        for (Path& path : paths_)
            if (std::exchange(path.used, false)) llama_memory_seq_rm(memory(), path.id, path.known, -1);
    }

    std::shared_ptr<llama_model> model_;
    LlamaCppOptions options_;
    std::shared_ptr<llama_context> context_;
    std::map<outrider::SequenceId, Sequence> sequences_;
    std::vector<llama_seq_id> free_;  ///< of sequences
    std::vector<Path> paths_;         ///< ids of leaves
    bool features_ = false;           ///< some drafter reads hidden states
    at::Tensor hidden_;               ///< then: of the last verify
};

}  // namespace example
