// The obvious way: every alignment of a small CTC draft, one by one. Slow, and independent of the forward variables.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>

namespace outrider::reference {

/// Candidate indices of a prefix.
using Prefix = std::vector<std::int32_t>;

/// f_l(c); empty: unconditioned. f_l(other) is f_l(C) where a test says so (`with_other`), else 1.
using Factor = std::function<double(const Prefix&, std::size_t c)>;

/// Probabilities of collapsed drafts.
struct Law {
    std::map<Prefix, double> exact;  ///< P(the draft is exactly l, or l and then a token that is no candidate)
    std::map<Prefix, double> psi;    ///< P(the draft starts with l)
};

/// pi_t(c | l) by its definition.
template <typename Scalar>
double conditional(const BasicCtcFrames<Scalar>& frames, const Factor& factor, std::size_t t, const Prefix& prefix,
                   std::size_t c, bool with_other) {
    if (!factor) return frames.pi(t, c);
    double mass = double(frames.other(t)) * (with_other ? factor(prefix, frames.candidates()) : 1.0);
    for (std::size_t i = 0; i < frames.candidates(); ++i) mass += double(frames.pi(t, i)) * factor(prefix, i);
    if (mass == 0) return 0.0;
    return (1.0 - double(frames.blank(t))) * double(frames.pi(t, c)) * factor(prefix, c) / mass;
}

/// Walks all alignments from frame t on; `previous` is the last symbol (-1: blank or none).
template <typename Scalar>
void walk(const BasicCtcFrames<Scalar>& frames, const Factor& factor, std::size_t t, std::int32_t previous,
          const Prefix& prefix, double weight, bool with_other, Law& law) {
    if (t == frames.frames()) {
        law.exact[prefix] += weight;
        return;
    }
    double rest = 1.0 - double(frames.blank(t));
    walk(frames, factor, t + 1, -1, prefix, weight * double(frames.blank(t)), with_other, law);
    for (std::size_t c = 0; c < frames.candidates(); ++c) {
        const double p = conditional(frames, factor, t, prefix, c, with_other);
        rest -= p;
        const auto symbol = static_cast<std::int32_t>(c);
        Prefix next = prefix;
        if (symbol != previous) next.push_back(symbol);
        walk(frames, factor, t + 1, symbol, next, weight * p, with_other, law);
    }
    if (rest > 1e-9) law.exact[prefix] += weight * rest;  // a token that is no candidate ends the draft
}

template <typename Scalar>
Law enumerate(const BasicCtcFrames<Scalar>& frames, const Factor& factor = {}, bool with_other = false) {
    Law law;
    walk(frames, factor, 0, -1, {}, 1.0, with_other, law);
    for (const auto& [sequence, weight] : law.exact)
        for (std::size_t k = 0; k <= sequence.size(); ++k)
            law.psi[Prefix(sequence.begin(), sequence.begin() + static_cast<std::ptrdiff_t>(k))] += weight;
    return law;
}

/// A stream of uniform numbers for making cases.
class Random {
public:
    explicit Random(std::uint64_t seed) : key_(seed, 0x7e57, 0, 99) {}
    double uniform() { return key_.uniform(next_++); }
    double uniform(double low, double high) { return low + (high - low) * uniform(); }
    double normal() { return std::sqrt(-2.0 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }
    std::size_t below(std::size_t n) { return static_cast<std::size_t>(uniform() * double(n)); }

private:
    RandomKey key_;
    std::uint64_t next_ = 0;
};

/// What random_frames makes.
struct Shape {
    std::size_t frames = 4, candidates = 3;
    double spread = 1.0;  ///< standard deviation of the logits
    double other = 0.0;   ///< largest mass of tokens that are no candidates
    double zeros = 0.0;   ///< share of probabilities that are exactly zero
};

/// Random posteriors; candidate c has token id 10 + 3 c.
template <typename Scalar>
BasicCtcFrames<Scalar> random_frames(Random& random, const Shape& shape) {
    std::vector<TokenId> tokens;
    for (std::size_t c = 0; c < shape.candidates; ++c) tokens.push_back(static_cast<TokenId>(10 + 3 * c));
    std::vector<Scalar> pi, blank;
    for (std::size_t t = 0; t < shape.frames; ++t) {
        std::vector<double> weight;
        double sum = 0;
        for (std::size_t c = 0; c <= shape.candidates; ++c) {
            const bool zero = c > 0 && random.uniform() < shape.zeros;
            weight.push_back(zero ? 0.0 : std::exp(shape.spread * random.normal()));
            sum += weight.back();
        }
        sum /= 1.0 - shape.other * random.uniform();
        blank.push_back(static_cast<Scalar>(weight[0] / sum));
        for (std::size_t c = 1; c <= shape.candidates; ++c) pi.push_back(static_cast<Scalar>(weight[c] / sum));
    }
    return BasicCtcFrames<Scalar>::from_probabilities(tokens, std::span<const Scalar>(pi),
                                                      std::span<const Scalar>(blank));
}

/// Factors that depend on the whole prefix, in no simple way.
inline Factor prefix_factor(std::uint64_t seed, double spread = 1.0) {
    return [=](const Prefix& prefix, std::size_t c) {
        std::uint64_t hash = mix64(seed);
        for (const std::int32_t symbol : prefix) hash = mix64(hash ^ static_cast<std::uint64_t>(symbol + 1));
        return std::exp(spread * (2.0 * RandomKey(hash, 0, 0, 98).uniform(c) - 1.0));
    };
}

/// Factors that depend on the last label alone.
inline Factor label_factor(std::uint64_t seed) {
    return [inner = prefix_factor(seed, 1.5)](const Prefix& prefix, std::size_t c) {
        return inner(prefix.empty() ? Prefix{} : Prefix{prefix.back()}, c);
    };
}

/// The same factors as the library's callable.
template <typename Scalar>
auto condition_of(const Factor& factor) {
    return [factor](const PrefixContext& prefix, std::span<Scalar> out) {
        const Prefix path(prefix.candidates.begin(), prefix.candidates.end());
        for (std::size_t c = 0; c < out.size(); ++c) out[c] = static_cast<Scalar>(factor(path, c));
    };
}

/// And with f_l(C) returned as the factor of tokens that are no candidates.
template <typename Scalar>
auto condition_with_other(const Factor& factor) {
    return [factor](const PrefixContext& prefix, std::span<Scalar> out) {
        condition_of<Scalar>(factor)(prefix, out);
        return factor(Prefix(prefix.candidates.begin(), prefix.candidates.end()), out.size());
    };
}

}  // namespace outrider::reference
