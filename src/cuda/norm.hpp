// Residual sum and RMS norm of one row.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

/// stream += scale branch, and out = stream / sqrt(mean(stream^2) + eps) * weight. Sums in f32; the stream is rounded
/// to T before its norm is taken, the norm once.
template <typename T>
struct NormAdd {
    T* stream;        ///< [rows, width]
    const T* branch;  ///< [rows, width]; null: nothing is added
    const T* weight;  ///< [width]
    T* out;           ///< [rows, width]
    std::int64_t width;
    float scale, eps;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        T* x = stream + row * width;
        float sum = 0;
        for (std::int64_t i = block.thread(); i < width; i += block.threads()) {
            if (branch != nullptr)
                x[i] = T(static_cast<float>(x[i]) + scale * static_cast<float>(branch[row * width + i]));
            const float value = static_cast<float>(x[i]);
            sum += value * value;
        }
        const float size = 1.0F / sqrtf(block.sum(sum) / static_cast<float>(width) + eps);
        for (std::int64_t i = block.thread(); i < width; i += block.threads())
            out[row * width + i] = T(static_cast<float>(x[i]) * size * static_cast<float>(weight[i]));
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

}  // namespace outrider::cuda
