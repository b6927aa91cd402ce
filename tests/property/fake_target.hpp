// A target without a network: the logits after a prefix are a hash of it, turned into small exact floats. It checks the
// protocol of Verifier as it goes, and breaks the test (std::logic_error) where the loop does.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/target/verifier.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::test {

/// The law of a fake target: everything is a pure function of these and of the prefix.
struct FakeLaw {
    std::int64_t vocabulary = 12;
    std::int64_t order = 1000;  ///< logits depend on this many last tokens; small: the text repeats itself
    std::int64_t levels = 41;   ///< logits are integers below this, times `step`; few levels make ties
    float step = 0.25F;
    std::uint64_t seed = 1;
    std::int64_t context = 4096;
};

inline std::uint64_t prefix_hash(const FakeLaw& law, std::span<const TokenId> prefix) {
    std::uint64_t h = mix64(law.seed);
    const auto n = std::min<std::size_t>(prefix.size(), static_cast<std::size_t>(law.order));
    for (const TokenId token : prefix.last(n)) h = mix64(h ^ static_cast<std::uint64_t>(token + 1));
    return h;
}

/// [V] logits of the token after `prefix`.
inline void fake_logits(const FakeLaw& law, std::span<const TokenId> prefix, float* logits) {
    const std::uint64_t h = prefix_hash(law, prefix);
    for (std::int64_t v = 0; v < law.vocabulary; ++v)
        logits[v] = static_cast<float>(mix64(h ^ mix64(static_cast<std::uint64_t>(v) + 7)) %
                                       static_cast<std::uint64_t>(law.levels)) *
                    law.step;
}

inline constexpr std::int64_t kFakeFeatures = 3;

/// [F] features of the last token of `prefix`: exact floats that name the whole prefix.
inline void fake_features(const FakeLaw& law, std::span<const TokenId> prefix, float* features) {
    std::uint64_t h = mix64(law.seed ^ 99);
    for (const TokenId token : prefix) h = mix64(h ^ static_cast<std::uint64_t>(token + 1));
    for (std::int64_t f = 0; f < kFakeFeatures; ++f) features[f] = static_cast<float>((h >> (20 * f)) & 0xFFFFF);
}

class FakeTarget : public Verifier {
public:
    explicit FakeTarget(FakeLaw law = {}) : law_(law) {}

    [[nodiscard]] Feedback prefill(std::span<const Prefill> sequences) override {
        check(!sequences.empty(), "prefill of nothing");
        Feedback feedback;
        for (const Prefill& p : sequences) {
            check(caches_.contains(p.sequence) == (p.committed > 0), "prefilled twice, or goes on before it began");
            check(p.committed == 0 || takes_pieces, "a piece, where only whole prompts are taken");
            Cache& cache = caches_[p.sequence];
            check(std::ssize(cache.tokens) == p.committed && !cache.verified, "goes on behind other tokens");
            check(p.committed == 0 || p.tokens.empty() || cache.pending == p.tokens[0], "another pending token");
            cache.tokens.insert(cache.tokens.end(), p.tokens.begin(), p.tokens.end());
            cache.pending = p.pending;
            prefilled += std::ssize(p.tokens);
            most_prefilled = std::max(most_prefilled, std::ssize(p.tokens));
            feedback.push_back(told(p.sequence, cache, static_cast<std::size_t>(p.committed)));
        }
        ++calls;
        return feedback;
    }

    [[nodiscard]] bool extends() const override { return takes_pieces; }
    [[nodiscard]] bool mixes() const override { return mixes_prompts; }
    [[nodiscard]] MixedOutput verify_beside(std::span<const SequenceTree> trees,
                                            std::span<const Prefill> prompts) override {
        check(mixes_prompts && !trees.empty() && !prompts.empty(), "a mixed forward that nobody asked for");
        ++mixed;
        return Verifier::verify_beside(trees, prompts);
    }

    [[nodiscard]] bool resumes() const override { return keeps_texts; }
    [[nodiscard]] SequenceFeedback resume(const Prefill& prompt) override {
        check(!caches_.contains(prompt.sequence), "resumed, and known already");
        std::size_t longest = 0;
        const auto common = [&](const std::vector<TokenId>& text) {
            const auto most = static_cast<std::ptrdiff_t>(std::min(text.size(), prompt.tokens.size()));
            return static_cast<std::size_t>(
                std::mismatch(text.begin(), text.begin() + most, prompt.tokens.begin()).first - text.begin());
        };
        for (const std::vector<TokenId>& text : kept) longest = std::max(longest, common(text));
        for (const auto& [id, cache] : caches_) longest = std::max(longest, common(cache.tokens));
        if (longest == 0) return Verifier::resume(prompt);
        Cache& cache = caches_[prompt.sequence];
        cache.tokens.assign(prompt.tokens.begin(), prompt.tokens.begin() + static_cast<std::ptrdiff_t>(longest));
        cache.pending = longest < prompt.tokens.size() ? prompt.tokens[longest] : prompt.pending;
        return told(prompt.sequence, cache, 0);
    }
    void retire(SequenceId sequence) override {
        if (keeps_texts && caches_.contains(sequence)) kept.push_back(caches_[sequence].tokens);
        release(sequence);
    }

    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override {
        check(!trees.empty(), "verify of nothing");
        if (throw_in_verify) throw std::runtime_error("verify broke");
        TreeOutput output;
        output.offsets.push_back(0);
        std::set<SequenceId> seen;
        for (const SequenceTree& t : trees) {
            Cache& cache = known(t.sequence);
            check(seen.insert(t.sequence).second, "a sequence twice in one round");
            check(!cache.verified, "verified again before its commit");
            check(t.tree.token(0) == cache.pending, "the root is not the pending token");
            cache.verified = true;
            cache.tree = std::vector<SequenceTree>{t};
            output.offsets.push_back(output.offsets.back() + static_cast<std::int64_t>(t.tree.size()));
        }
        const std::int64_t n = output.offsets.back();
        output.logits = at::empty({n, law_.vocabulary}, at::kFloat);
        for (std::size_t i = 0; i < trees.size(); ++i) fill(trees[i], output, output.offsets[i]);
        if (gives_argmax) output.argmax = at::argmax(output.logits, 1);
        rows += n;
        ++passes;
        return output;
    }

    [[nodiscard]] Feedback commit(std::span<const SequenceAcceptance> accepted) override {
        check(!accepted.empty(), "commit of nothing");
        if (throw_in_commit) throw std::runtime_error("commit broke");
        Feedback feedback;
        for (const SequenceAcceptance& a : accepted) {
            Cache& cache = known(a.sequence);
            check(cache.verified, "committed without a verify");
            cache.verified = false;
            const TokenTree& tree = cache.tree.front().tree;
            const std::size_t before = cache.tokens.size();
            cache.tokens.push_back(tree.token(0));
            NodeIndex at = 0;
            for (const NodeIndex node : a.accepted.path) {
                check(tree.parent(node) == at, "the accepted path is no path");
                cache.tokens.push_back(tree.token(at = node));
            }
            check(std::equal(a.tokens.begin(), a.tokens.end(),
                             cache.tokens.begin() + static_cast<std::ptrdiff_t>(before), cache.tokens.end()),
                  "the accepted tokens are not those of the path");
            cache.pending = a.accepted.pending;
            feedback.push_back(told(a.sequence, cache, before));
        }
        return feedback;
    }

    void release(SequenceId sequence) override { caches_.erase(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return law_.vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return law_.context; }

    [[nodiscard]] std::vector<PassTime> pass_times() override { return times; }

    /// Sequences whose caches are held.
    [[nodiscard]] std::size_t held() const { return caches_.size(); }
    [[nodiscard]] const FakeLaw& law() const { return law_; }

    std::vector<PassTime> times;  ///< what it says passes cost
    bool gives_argmax = true;
    bool takes_pieces = true;    ///< of prompts
    bool mixes_prompts = false;  ///< into the forward of trees
    std::int64_t mixed = 0;      ///< forwards of both
    bool keeps_texts = false;    ///< of sequences that have ended
    std::vector<std::vector<TokenId>> kept;
    std::int64_t prefilled = 0;         ///< tokens of prompts, all calls together
    std::ptrdiff_t most_prefilled = 0;  ///< tokens of one prompt in one call
    bool throw_in_verify = false, throw_in_commit = false;
    TokenId nan_after = kNoToken;  ///< rows after this token are NaN
    std::int64_t calls = 0, passes = 0, rows = 0;

private:
    struct Cache {
        std::vector<TokenId> tokens;  ///< committed, and nothing else (I1)
        TokenId pending = kNoToken;
        bool verified = false;
        std::vector<SequenceTree> tree;  ///< the one of the last verify
    };

    static void check(bool holds, const char* what) {
        if (!holds) throw std::logic_error(std::string("FakeTarget: ") + what);
    }

    Cache& known(SequenceId sequence) {
        const auto it = caches_.find(sequence);
        check(it != caches_.end(), "an unknown sequence");
        return it->second;
    }

    void fill(const SequenceTree& t, TreeOutput& output, std::int64_t first) {
        const Cache& cache = known(t.sequence);
        const std::vector<std::int64_t> places = positions(t.tree, static_cast<std::int64_t>(cache.tokens.size()));
        for (NodeIndex node = 0; static_cast<std::size_t>(node) < t.tree.size(); ++node) {
            std::vector<TokenId> prefix = cache.tokens;
            prefix.push_back(t.tree.token(0));
            for (const NodeIndex above : path_to(t.tree, node)) prefix.push_back(t.tree.token(above));
            const std::int64_t place = places[static_cast<std::size_t>(node)];
            check(place == static_cast<std::int64_t>(prefix.size()) - 1, "position is not committed + depth (I2)");
            check(place < law_.context, "a node lies beyond the context");
            float* logits = output.logits.data_ptr<float>() + (first + node) * law_.vocabulary;
            fake_logits(law_, prefix, logits);
            if (prefix.back() == nan_after) std::fill(logits, logits + law_.vocabulary, NAN);
        }
    }

    /// Feedback of the tokens from `before` on.
    SequenceFeedback told(SequenceId sequence, const Cache& cache, std::size_t before) const {
        SequenceFeedback f;
        f.sequence = sequence;
        f.tokens.assign(cache.tokens.begin() + static_cast<std::ptrdiff_t>(before), cache.tokens.end());
        f.features = at::empty({static_cast<std::int64_t>(f.tokens.size()), kFakeFeatures}, at::kFloat);
        for (std::size_t i = before; i < cache.tokens.size(); ++i)
            fake_features(law_, std::span(cache.tokens).first(i + 1),
                          f.features.data_ptr<float>() + static_cast<std::int64_t>(i - before) * kFakeFeatures);
        f.pending = cache.pending;
        f.committed = static_cast<std::int64_t>(cache.tokens.size());
        return f;
    }

    FakeLaw law_;
    std::map<SequenceId, Cache> caches_;
};

}  // namespace outrider::test
