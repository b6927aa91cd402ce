// The residual stream of one row, and its RMS norm.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

/// stream += scale branch, or scale norm(branch) branch_norm; then out = norm(stream) weight, where norm(x) is
/// x / sqrt(mean(x^2) + eps). Sums in f32; the stream is rounded to T before its norm is taken, everything else once.
template <typename T>
struct NormAdd {
    T* stream;             ///< [rows, width]
    const T* branch;       ///< [rows, width]; null: nothing is added
    const T* branch_norm;  ///< [width]; null: the branch as it is
    const T* weight;       ///< [width]; null with `out`
    T* out;                ///< [rows, width]; null: the sum is all that is wanted
    std::int64_t width;
    float scale, eps;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        T* x = stream + row * width;
        const T* add = branch == nullptr ? nullptr : branch + row * width;
        const float of_branch = add == nullptr || branch_norm == nullptr ? 1.0F : size(block, add);
        if (add != nullptr)
            for (std::int64_t i = block.thread(); i < width; i += block.threads()) {
                const float by =
                    scale * of_branch * (branch_norm == nullptr ? 1.0F : static_cast<float>(branch_norm[i]));
                x[i] = T(static_cast<float>(x[i]) + by * static_cast<float>(add[i]));
            }
        if (out == nullptr) return;
        const float of_stream = size(block, x);  // a thread reads what it wrote itself
        for (std::int64_t i = block.thread(); i < width; i += block.threads())
            out[row * width + i] = T(static_cast<float>(x[i]) * of_stream * static_cast<float>(weight[i]));
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }

private:
    template <typename Block>
    [[nodiscard]] OUTRIDER_BODY float size(const Block& block, const T* of) const {
        float sum = 0;
        for (std::int64_t i = block.thread(); i < width; i += block.threads()) {
            const float value = static_cast<float>(of[i]);
            sum += value * value;
        }
        return 1.0F / sqrtf(block.sum(sum) / static_cast<float>(width) + eps);
    }
};

}  // namespace outrider::cuda
