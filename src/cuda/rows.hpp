// The gate of a feed-forward, and the token of a row of logits: the likeliest one, or the one that sampling picks.
#pragma once

#include <outrider/core/detail/rng.hpp>

#include "block.hpp"

namespace outrider::cuda {

/// out = act(gate) up of one row.
template <typename T>
struct Gate {
    const T* gate_up;  ///< [rows, 2 width] gates, then ups
    T* out;            ///< [rows, width]
    std::int64_t width;
    bool gelu;  ///< the tanh form of GELU; else SiLU

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        const T *gate = gate_up + row * 2 * width, *up = gate + width;
        for (std::int64_t i = block.thread(); i < width; i += block.threads()) {
            const float x = static_cast<float>(gate[i]);
            const float act =
                gelu ? 0.5F * x * (1.0F + tanhf(0.7978845608F * (x + 0.044715F * x * x * x))) : x / (1.0F + expf(-x));
            out[row * width + i] = T(act * static_cast<float>(up[i]));
        }
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

/// The column of a row's largest logit, of equals the lowest; -1 where one is NaN.
template <typename T>
struct ArgmaxRow {
    const T* logits;      ///< [rows, columns]
    std::int64_t* token;  ///< [rows]
    std::int64_t columns;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        Best mine;
        for (std::int64_t c = block.thread(); c < columns; c += block.threads()) {
            const Best here{static_cast<float>(logits[row * columns + c]), c};
            if (here.beats(mine)) mine = here;
        }
        const Best all = block.best(mine);
        if (block.thread() == 0) token[row] = all.value != all.value ? -1 : all.place;
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

/// The token that Match picks of a row at a temperature: of the largest logit / temperature + Gumbel noise, as
/// gumbel_pick (accept/detail/gumbel.hpp); -1 where that is not finite.
struct PickRow {
    const float* logits;        ///< [rows, columns]
    const std::int64_t* key;    ///< [rows] RandomKey::value
    const double* temperature;  ///< [rows]
    std::int64_t* token;        ///< [rows]
    std::int64_t columns;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        const RandomKey random = RandomKey::of(static_cast<std::uint64_t>(key[row]));
        BestOf<double> mine;
        for (std::int64_t c = block.thread(); c < columns; c += block.threads()) {
            const double scaled = static_cast<double>(logits[row * columns + c]) / temperature[row];
            // Whether the noise can reach what is needed, by the bits of it: see gumbel-inl.hpp. One bit of slack.
            const double needed = (mine.value - scaled) * 1.4426950408889634 - 1.0;
            const auto place = static_cast<std::uint64_t>(c);
            if (needed >= 1.0 && ~random.bits(place) > ~std::uint64_t{0} >> static_cast<int>(needed < 53 ? needed : 53))
                continue;
            const BestOf<double> here{scaled - log(-log(random.uniform(place))), c};
            if (here.beats(mine)) mine = here;
        }
        const BestOf<double> all = block.best(mine);
        if (block.thread() == 0) token[row] = all.value - all.value == 0 ? all.place : -1;
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

}  // namespace outrider::cuda
