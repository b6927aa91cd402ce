#include "device_picks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <outrider/core/detail/rng.hpp>

#include "device_kernels.hpp"

namespace outrider {
namespace {

std::int64_t signed_bits(std::uint64_t x) { return static_cast<std::int64_t>(x); }

/// x ^= x >> by, of the bits as they are: the tensor library shifts signs in.
void fold(at::Tensor& x, std::int64_t by) {
    x.bitwise_xor_(x.bitwise_right_shift(by).bitwise_and_(signed_bits(~std::uint64_t{0} >> by)));
}

/// -RandomKey::gumbel, [n, V], of keys [n, 1] and mixed tokens [n or 1, V].
at::Tensor negated_noise(const at::Tensor& key, const at::Tensor& tokens) {
    at::Tensor x = at::bitwise_xor(key, tokens);  // and mix64 of it
    x.add_(signed_bits(0x9e3779b97f4a7c15ULL));
    fold(x, 30), x.mul_(signed_bits(0xbf58476d1ce4e5b9ULL));
    fold(x, 27), x.mul_(signed_bits(0x94d049bb133111ebULL));
    fold(x, 31);
    x = x.bitwise_right_shift_(12).bitwise_and_((std::int64_t{1} << 52) - 1).to(at::kDouble);
    return x.add_(0.5).mul_(0x1.0p-52).log_().neg_().log_();
}

/// The columns of the largest scores; -1 for a row where that is not finite.
at::Tensor largest_of(const at::Tensor& scores) {
    const auto [top, column] = scores.max(-1);
    return column.masked_fill(top.sub(top).ne(0), -1);  // NaN differs from 0
}

}  // namespace

Picks picks_wanted(std::span<const RowSegment> segments) {
    Picks wanted = Picks::none;
    for (const RowSegment& segment : segments)
        if (segment.picks != nullptr)
            wanted = std::max(wanted, segment.picks->truncates() ? Picks::of_some : Picks::of_all);
    return wanted;
}

PickNumber pick_number(const SamplingOptions& options, std::int64_t position, std::int64_t vocabulary) {
    const RandomKey key(options.seed, options.stream, position, static_cast<std::uint64_t>(RandomPurpose::pick));
    return {.key = signed_bits(key.value()),
            .temperature = options.temperature,
            .top_k = options.top_k > 0 ? std::min(options.top_k, vocabulary) : vocabulary,
            .top_p = options.top_p < 1.0 ? options.top_p : 2.0,
            .min_p = options.min_p > 0.0 ? options.temperature * std::log(options.min_p) : -INFINITY};
}

DevicePicks::DevicePicks(std::int64_t vocabulary, at::Device device, bool kernels, std::int64_t numbers)
    : ranks_(at::arange(vocabulary, at::TensorOptions().dtype(at::kLong).device(device))),
      kernels_(kernels),
      rows_(std::max<std::int64_t>(1, numbers / vocabulary)) {
    const at::Tensor tokens = at::empty({1, vocabulary}, at::kLong);
    auto* const mixed = tokens.mutable_data_ptr<std::int64_t>();
    for (std::int64_t t = 0; t < vocabulary; ++t) mixed[t] = signed_bits(mix64(static_cast<std::uint64_t>(t)));
    tokens_ = tokens.to(device);
}

at::Tensor DevicePicks::operator()(const at::Tensor& logits, const PickNumbers& how, Picks wanted) const {
    if (kernels_ && wanted == Picks::of_all) return picked_columns(logits, how.key, how.temperature);
    const std::int64_t N = logits.size(0);
    std::vector<at::Tensor> pieces;
    for (std::int64_t begin = 0; begin < N; begin += rows_) {
        const auto of = [&](const at::Tensor& all) { return all.narrow(0, begin, std::min(rows_, N - begin)); };
        const auto column = [&](const at::Tensor& all) { return of(all).unsqueeze(1); };
        pieces.push_back(piece(of(logits),
                               {.key = column(how.key),
                                .temperature = column(how.temperature),
                                .top_k = column(how.top_k),
                                .top_p = column(how.top_p),
                                .min_p = column(how.min_p)},
                               wanted));
    }
    return pieces.size() == 1 ? pieces[0] : at::cat(pieces);
}

/// Of rows [n, V], and of numbers [n, 1].
at::Tensor DevicePicks::piece(const at::Tensor& logits, const PickNumbers& how, Picks wanted) const {
    if (wanted == Picks::of_all)
        return largest_of(logits.to(at::kDouble).div_(how.temperature).sub_(negated_noise(how.key, tokens_)));
    const auto [sorted, token] = logits.sort(true, -1, true);  // equal ones by their ids
    const at::Tensor exact = sorted.to(at::kDouble), floor = exact.narrow(1, 0, 1) + how.min_p;
    const at::Tensor scaled = exact.div(how.temperature).masked_fill_(ranks_.ge(how.top_k), -INFINITY);
    const at::Tensor share = scaled.softmax(-1), before = share.cumsum(-1).sub_(share);
    const at::Tensor dropped = before.ge(how.top_p).logical_or_(exact.lt(floor));
    const at::Tensor noise = negated_noise(how.key, tokens_.expand_as(token).gather(1, token));
    const at::Tensor place = largest_of(at::sub(scaled, noise).masked_fill_(dropped, -INFINITY)).unsqueeze(1);
    return token.gather(1, place.clamp_min(0)).masked_fill_(place.lt(0), -1).squeeze(1);
}

}  // namespace outrider
