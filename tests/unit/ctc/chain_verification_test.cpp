// Drafts of the CTC layer are lossless to verify: the exact law of the emitted tokens under rule V2, by enumeration and
// by simulation, with the mistakes that are easy to make as negative controls.
#include "alignment_reference.hpp"
#include "chi_square.hpp"

#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/prefix_forward.hpp>

#include <algorithm>
#include <numeric>

using namespace outrider;
using namespace outrider::reference;

namespace {

enum class Rule {
    v2,          // accept with min(1, p/q), q sub-normalised; on rejection or end x ~ norm (p - q)+
    v1,          // accept with min(1, p/q~), q~ = q / (1 - q_end); on rejection x ~ norm (p - q~)+; on end x ~ p
    mixed_ends,  // biased: sub-normalised q in the ratio, but x ~ p on end
};

/// A target over C tokens as a table: one random distribution for every prefix, some entries zero.
class Target {
public:
    Target(std::uint64_t seed, std::size_t tokens, double zeros) : seed_(seed), tokens_(tokens), zeros_(zeros) {}

    std::vector<double> operator()(const Prefix& prefix) const {
        std::uint64_t hash = mix64(seed_);
        for (const std::int32_t c : prefix) hash = mix64(hash ^ static_cast<std::uint64_t>(c + 1));
        const RandomKey key(hash, 0, 0, 97);
        std::vector<double> p(tokens_);
        for (std::size_t c = 0; c < tokens_; ++c)
            p[c] = c > 0 && key.uniform(100 + c) < zeros_ ? 0.0 : 0.05 + key.uniform(c);
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        for (double& x : p) x /= sum;
        return p;
    }

    /// Adds the law of the completion of `prefix` to `length` tokens.
    void complete(const Prefix& prefix, std::size_t length, double weight, std::map<Prefix, double>& out) const {
        if (weight == 0) return;
        if (prefix.size() == length) {
            out[prefix] += weight;
            return;
        }
        const auto p = (*this)(prefix);
        for (std::size_t c = 0; c < tokens_; ++c) {
            Prefix next = prefix;
            next.push_back(static_cast<std::int32_t>(c));
            complete(next, length, weight * p[c], out);
        }
    }

private:
    std::uint64_t seed_;
    std::size_t tokens_;
    double zeros_;
};

/// The exact law of the first T + 1 tokens when one collapsed alignment is drafted and verified.
template <typename Condition>
class ExactVerification {
public:
    ExactVerification(const BasicCtcFrames<double>& frames, const Target& target, Rule rule, Condition condition)
        : frames_(frames), target_(target), rule_(rule), condition_(std::move(condition)) {
        forward_.start(frames);
        visit(forward_.root(condition_), {}, 1.0);
    }

    std::map<Prefix, double> law;
    double accepted = 0;

private:
    void visit(std::int32_t state, const Prefix& prefix, double weight) {
        const std::size_t length = frames_.frames() + 1;
        const auto p = target_(prefix);
        std::vector<double> q(frames_.stride());
        forward_.children(state, q.data());
        double end = forward_.end(state), stop = 0;
        if (rule_ != Rule::v2) target_.complete(prefix, length, weight * end, law);
        if (rule_ == Rule::v2) stop = end;
        if (rule_ == Rule::v1) {
            if (end > 1 - 1e-12) return;
            for (double& x : q) x /= 1 - end;
            weight *= 1 - end;
        }
        double residual = 0;
        for (std::size_t c = 0; c < p.size(); ++c) residual += std::max(p[c] - q[c], 0.0);
        for (std::size_t c = 0; c < p.size(); ++c) {
            if (q[c] == 0) continue;
            const double accept = std::min(1.0, p[c] / q[c]);
            stop += q[c] * (1 - accept);
            if (accept == 0) continue;
            accepted += weight * q[c] * accept;
            Prefix next = prefix;
            next.push_back(static_cast<std::int32_t>(c));
            visit(forward_.expand(state, static_cast<std::int32_t>(c), condition_), next, weight * q[c] * accept);
        }
        for (std::size_t c = 0; c < p.size() && residual > 0; ++c) {
            Prefix next = prefix;
            next.push_back(static_cast<std::int32_t>(c));
            target_.complete(next, length, weight * stop * std::max(p[c] - q[c], 0.0) / residual, law);
        }
    }

    const BasicCtcFrames<double>& frames_;
    const Target& target_;
    Rule rule_;
    Condition condition_;
    BasicPrefixForward<double> forward_;
};

double total_variation(const std::map<Prefix, double>& a, const std::map<Prefix, double>& b) {
    double sum = 0;
    for (const auto& [key, p] : a) sum += std::abs(p - (b.contains(key) ? b.at(key) : 0.0));
    for (const auto& [key, p] : b)
        if (!a.contains(key)) sum += p;
    return sum / 2;
}

struct Outcome {
    double distance, accepted;
};

Outcome verify(const BasicCtcFrames<double>& frames, const Factor& factor, const Target& target, Rule rule) {
    std::map<Prefix, double> expected;
    target.complete({}, frames.frames() + 1, 1.0, expected);
    if (factor) {
        const ExactVerification run(frames, target, rule, condition_of<double>(factor));
        return {total_variation(run.law, expected), run.accepted};
    }
    const ExactVerification run(frames, target, rule, Unconditioned{});
    return {total_variation(run.law, expected), run.accepted};
}

}  // namespace

TEST_CASE("rules V1 and V2 leave the target's law exactly; mixing their treatment of the end does not") {
    Random random(50);
    int biased = 0, cases = 0;
    double v1_accepted = 0, v2_accepted = 0, worst = 0;
    for (const auto& [frames, tokens, zeros] : std::vector<std::tuple<std::size_t, std::size_t, double>>{
             {2, 2, 0}, {3, 2, 0}, {3, 3, 0}, {4, 2, 0}, {4, 3, 0}, {3, 3, .3}, {4, 2, .3}})
        for (int kind = 0; kind < 4; ++kind) {
            const auto made = random_frames<double>(random, {frames, tokens, 1.0, kind == 3 ? 0.5 : 0.0, 0.0});
            const Factor factor = kind == 1 ? label_factor(8) : kind == 2 ? prefix_factor(9) : Factor{};
            const Target target(static_cast<std::uint64_t>(cases), tokens, zeros);
            const Outcome v1 = verify(made, factor, target, Rule::v1), v2 = verify(made, factor, target, Rule::v2);
            CHECK(v1.distance < 1e-12);
            CHECK(v2.distance < 1e-12);
            CHECK(v2.accepted >= v1.accepted - 1e-12);
            v1_accepted += v1.accepted, v2_accepted += v2.accepted;
            const Outcome bad = verify(made, factor, target, Rule::mixed_ends);
            worst = std::max(worst, bad.distance);
            biased += bad.distance > 1e-6;
            ++cases;
        }
    CHECK(cases == 28);
    CHECK(v2_accepted > 1.02 * v1_accepted);
    CHECK(biased >= 26);
    CHECK(worst > 0.05);
}

namespace {

/// Draws from weights that need not be normalised.
std::size_t pick(const std::vector<double>& weights, double u) {
    u *= std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t i = 0; i < weights.size(); ++i)
        if ((u -= weights[i]) < 0) return i;
    return weights.size() - 1;
}

struct Mistakes {
    bool ends_sample_p = false;    ///< x ~ p when the draft has ended by chance
    bool cut_is_an_end = false;    ///< x ~ (p - q)+ where the chain was cut
    bool wrong_condition = false;  ///< q of plain frames for a draft of conditioned ones
};

/// Many rounds of sampling and rule V2 as a library would run them, on float frames.
std::map<Prefix, double> simulate(const CtcFrames& frames, const Factor& factor, const Target& target, int rounds,
                                  std::size_t max_depth, Mistakes mistakes) {
    AlignmentSampler sampler;
    std::map<Prefix, double> counts;
    std::map<Prefix, std::vector<double>> q_of;  // conditionals by node, from the float recursion
    const auto conditionals = [&](const Prefix& prefix) -> const std::vector<double>& {
        auto [at, fresh] = q_of.try_emplace(prefix);
        if (!fresh) return at->second;
        PrefixForward forward;
        forward.start(frames);
        const auto fill = [&](auto&& condition) {
            auto state = forward.root(condition);
            for (const std::int32_t c : prefix) state = forward.expand(state, c, condition);
            std::vector<float> q(frames.stride());
            forward.children(state, q.data());
            at->second.assign(q.begin(), q.begin() + static_cast<std::ptrdiff_t>(frames.candidates()));
        };
        if (factor && !mistakes.wrong_condition)
            fill(condition_of<float>(factor));
        else
            fill(Unconditioned{});
        return at->second;
    };
    const std::size_t length = std::min(max_depth, frames.frames()) + 1;
    for (int round = 0; round < rounds; ++round) {
        const RandomKey draft_key(51, 0, round, static_cast<std::uint64_t>(RandomPurpose::draft));
        const RandomKey accept_key(51, 0, round, static_cast<std::uint64_t>(RandomPurpose::accept));
        const SampledDraft draft = factor
                                       ? sampler.draw(0, frames, 1, max_depth, draft_key, condition_of<float>(factor))
                                       : sampler.draw(0, frames, 1, max_depth, draft_key);
        const auto& chain = draft.chains[0];
        Prefix text;
        bool stopped = false;
        for (std::size_t k = 0; !stopped; ++k) {
            auto p = target(text);
            const auto& q = conditionals(text);
            const bool ended = k == chain.nodes.size();
            const bool all_accepted = ended && chain.cut && !mistakes.cut_is_an_end;
            std::size_t token = 0;
            if (!ended) {
                const auto at =
                    std::find(frames.tokens().begin(), frames.tokens().end(), draft.tree.token(chain.nodes[k]));
                token = static_cast<std::size_t>(at - frames.tokens().begin());
            }
            if (ended || accept_key.uniform(2 * k) >= p[token] / q[token]) {
                if (!all_accepted && !(ended && mistakes.ends_sample_p))
                    for (std::size_t c = 0; c < p.size(); ++c) p[c] = std::max(p[c] - q[c], 0.0);
                token = pick(p, accept_key.uniform(2 * k + 1));
                stopped = true;
            }
            text.push_back(static_cast<std::int32_t>(token));
        }
        for (std::size_t k = text.size(); k < length; ++k)
            text.push_back(static_cast<std::int32_t>(pick(target(text), accept_key.uniform(100 + k))));
        counts[text] += 1;
    }
    return counts;
}

}  // namespace

TEST_CASE("sampled drafts verified by V2 give the target's law in simulation; each mistake is noticed") {
    Random random(52);
    constexpr int rounds = 40000;
    for (const bool conditioned : {false, true}) {
        const auto frames = random_frames<float>(random, {4, 3, 1.0, 0.2, 0.0});
        const Factor factor = conditioned ? prefix_factor(10, 1.5) : Factor{};
        const Target target(77, 3, 0.0);
        for (const std::size_t max_depth : {2U, 8U}) {
            std::map<Prefix, double> law;
            target.complete({}, std::min<std::size_t>(max_depth, 4) + 1, 1.0, law);
            const auto statistic = [&](Mistakes mistakes) {
                return chi_square(simulate(frames, factor, target, rounds, max_depth, mistakes), law);
            };
            CHECK(statistic({}).plausible());
            CHECK_FALSE(statistic({.ends_sample_p = true}).plausible());
            if (max_depth == 2) CHECK_FALSE(statistic({.cut_is_an_end = true}).plausible());
            if (conditioned) CHECK_FALSE(statistic({.wrong_condition = true}).plausible());
        }
    }
}
