// The gate of a feed-forward, and the likeliest token of a row of logits.
#pragma once

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

}  // namespace outrider::cuda
