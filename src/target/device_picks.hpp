// Match's picks for whole blocks of rows of logits, in tensor operations: a draw needs no row on the host.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <span>

#include <outrider/target/detail/target_pass.hpp>

namespace outrider {

/// What a forward's segments want picked.
enum class Picks : unsigned char { none, of_all, of_some };  // of_some: top-k, top-p or min-p drop tokens of a row

[[nodiscard]] Picks picks_wanted(std::span<const RowSegment> segments);

/// How one token is picked. Zeros: nobody asks.
struct PickNumber {
    std::int64_t key = 0;  ///< RandomKey::value
    double temperature = 0;
    std::int64_t top_k = 0;  ///< at most V
    double top_p = 0;        ///< 2: all
    double min_p = 0;        ///< temperature ln(min_p); -infinity: all
};

/// Of the token at this position of the text.
[[nodiscard]] PickNumber pick_number(const SamplingOptions& options, std::int64_t position, std::int64_t vocabulary);

/// The same of the token behind each row, [N] each, on the device: int64, and f64 for doubles.
struct PickNumbers {
    at::Tensor key, temperature, top_k, top_p, min_p;
};

class DevicePicks {
public:
    /// `kernels`: of the library. Rows are taken in pieces of about `numbers` logits, which bounds what lies in
    /// between.
    DevicePicks(std::int64_t vocabulary, at::Device device, bool kernels, std::int64_t numbers = std::int64_t{1} << 22);

    /// The token that Match picks of each row of `logits` [N, V] f32, as accept/match.hpp says: [N] int64; -1 where no
    /// score is finite, and where nobody asked. Up to rounding: logarithms are the device's, and top-p adds up in
    /// another order than on the host.
    [[nodiscard]] at::Tensor operator()(const at::Tensor& logits, const PickNumbers& how, Picks wanted) const;

private:
    [[nodiscard]] at::Tensor piece(const at::Tensor& logits, const PickNumbers& how, Picks wanted) const;

    at::Tensor tokens_;  // [1, V] int64 mix64(token), which every key is mixed with
    at::Tensor ranks_;   // [V] int64 0, 1, ..
    bool kernels_;
    std::int64_t rows_;  // of a piece
};

}  // namespace outrider
