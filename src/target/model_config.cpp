#include <outrider/target/model_config.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <outrider/core/error.hpp>

namespace outrider {
namespace {

/// Llama 3.1: long waves are divided by the factor, short ones stay, between them a smooth change.
float llama3_frequency(const RopeConfig& rope, float frequency) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    const double smooth =
        (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    const double kept = std::clamp(smooth, 0.0, 1.0);
    return static_cast<float>(kept * frequency + (1.0 - kept) * frequency / rope.factor);
}

/// The pairs between which yarn goes from kept to divided frequencies: those that turn beta_fast and beta_slow times in
/// the original context.
struct YarnRamp {
    double low, high;

    YarnRamp(const RopeConfig& rope, std::int64_t dimensions) {
        const auto d = static_cast<double>(dimensions);
        const auto pair_of = [&](double turns) {
            return d * std::log(rope.original_context / (turns * 2.0 * std::numbers::pi)) /
                   (2.0 * std::log(rope.theta));
        };
        low = pair_of(rope.beta_fast), high = pair_of(rope.beta_slow);
        if (rope.truncate) low = std::floor(low), high = std::ceil(high);
        low = std::max(low, 0.0), high = std::min(high, d - 1);
        if (low == high) high += 0.001;
    }

    [[nodiscard]] float divided(std::size_t pair) const {
        return static_cast<float>(std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0));
    }
};

}  // namespace

std::vector<float> RopeConfig::frequencies(std::int64_t dimensions) const {
    std::vector<float> result(static_cast<std::size_t>(dimensions / 2));
    const YarnRamp ramp(*this, dimensions);
    for (std::size_t i = 0; i < result.size(); ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(dimensions);
        float frequency = 1.0F / std::pow(static_cast<float>(theta), exponent);
        if (kind == Kind::linear) frequency /= static_cast<float>(factor);
        if (kind == Kind::llama3) frequency = llama3_frequency(*this, frequency);
        if (kind == Kind::yarn) {
            const float divided = ramp.divided(i);
            frequency = frequency / static_cast<float>(factor) * divided + frequency * (1.0F - divided);
        }
        if (!divisors.empty()) frequency /= divisors[i];
        result[i] = frequency;
    }
    return result;
}

double ModelConfig::scale_of_scores() const {
    return score_scale > 0 ? score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

double ModelConfig::scale_of_queries(std::int64_t position) const {
    if (query_growth == 0) return 1.0;
    return 1.0 + query_growth * std::log1p(std::floor(static_cast<double>(position) / query_period));
}

namespace {

void check_rope(const RopeConfig& rope, const ModelConfig& model) {
    require(rope.divisors.empty() || static_cast<std::int64_t>(rope.divisors.size()) == model.rotated / 2,
            ErrorKind::damaged_file,
            "model \"{}\": {} rotary frequency divisors; expected half of the {} rotated dimensions of a head",
            model.name, rope.divisors.size(), model.rotated);
    require(std::isfinite(rope.theta) && rope.theta > 0, ErrorKind::damaged_file,
            "model \"{}\": rope theta {}; expected a positive number", model.name, rope.theta);
    require(rope.factor > 0 && rope.high_freq_factor > rope.low_freq_factor && rope.original_context > 0 &&
                rope.beta_fast > 0 && rope.beta_slow > 0 && std::isfinite(rope.magnitude) && rope.magnitude > 0,
            ErrorKind::damaged_file,
            "model \"{}\": rope scaling factor {}, low {}, high {}, original context {}, betas {} and {}, magnitude {} "
            "make no sense",
            model.name, rope.factor, rope.low_freq_factor, rope.high_freq_factor, rope.original_context, rope.beta_fast,
            rope.beta_slow, rope.magnitude);
}

}  // namespace

void ModelConfig::check() const {
    const auto positive = [&](std::int64_t value, const char* what) {
        require(value > 0 && value < (std::int64_t{1} << 31), ErrorKind::damaged_file,
                "model \"{}\": {} is {}, expected a positive number", name, what, value);
    };
    positive(layers, "number of layers");
    positive(hidden, "hidden size");
    positive(heads, "number of attention heads");
    positive(kv_heads, "number of key-value heads");
    positive(head_dim, "size of a head");
    positive(feed_forward, "feed-forward size");
    positive(vocabulary, "vocabulary size");
    positive(context, "context length");
    require(window >= 0, ErrorKind::damaged_file,
            "model \"{}\": a sliding attention window of {} tokens; expected a positive number", name, window);
    require(heads % kv_heads == 0, ErrorKind::damaged_file,
            "model \"{}\": {} attention heads over {} key-value heads; expected a multiple", name, heads, kv_heads);
    require(head_dim % 2 == 0, ErrorKind::damaged_file, "model \"{}\": heads of {} dimensions; expected an even number",
            name, head_dim);
    require(rotated > 0 && rotated <= head_dim && rotated % 2 == 0, ErrorKind::damaged_file,
            "model \"{}\": rotary embedding of {} of {} dimensions; expected an even number of them", name, rotated,
            head_dim);
    for (const auto* list : {&windowed, &unrotated})
        require(list->empty() || static_cast<std::int64_t>(list->size()) == layers, ErrorKind::damaged_file,
                "model \"{}\": {} layers, and a list that says for {} whether they have a window or a rotary embedding",
                name, layers, list->size());
    require(std::isfinite(norm_eps) && norm_eps >= 0, ErrorKind::damaged_file,
            "model \"{}\": RMS norm epsilon {}; expected a small number", name, norm_eps);
    for (const double scale : {embedding_scale, residual_scale, logit_scale, query_period, scale_of_scores()})
        require(std::isfinite(scale) && scale > 0, ErrorKind::damaged_file,
                "model \"{}\": a scale of {}; expected a positive number", name, scale);
    for (const double cap : {score_cap, logit_cap, query_growth})
        require(std::isfinite(cap) && cap >= 0, ErrorKind::damaged_file,
                "model \"{}\": a soft cap or growth of {}; expected a positive number", name, cap);
    check_rope(rope, *this);
    if (local_rope) check_rope(*local_rope, *this);
}

}  // namespace outrider
