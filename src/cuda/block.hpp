// What bodies of device kernels are written against: a block of threads, which on the CPU is one thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define OUTRIDER_BODY __device__
#else
#define OUTRIDER_BODY
#endif

namespace outrider::cuda {

/// bfloat16: the upper half of a float, rounded to the nearest, ties to even. NaN stays NaN.
struct Bf16 {
    std::uint16_t bits = 0;

    Bf16() = default;
    OUTRIDER_BODY explicit Bf16(float x) {
        std::uint32_t all = 0;
        memcpy(&all, &x, sizeof all);
        bits = x != x ? std::uint16_t{0x7fc0} : static_cast<std::uint16_t>((all + 0x7fffU + ((all >> 16) & 1U)) >> 16);
    }
    OUTRIDER_BODY explicit operator float() const {
        const std::uint32_t all = static_cast<std::uint32_t>(bits) << 16;
        float x = 0;
        memcpy(&x, &all, sizeof x);
        return x;
    }
};

/// The larger value, of equals the lower place; NaN is larger than all.
template <typename T>
struct BestOf {
    T value = -INFINITY;
    std::int64_t place = INT64_MAX;

    [[nodiscard]] OUTRIDER_BODY bool beats(const BestOf& other) const {
        const bool nan = value != value, theirs = other.value != other.value;
        if (nan != theirs) return nan;
        return (!nan && value != other.value) ? value > other.value : place < other.place;
    }
};
using Best = BestOf<float>;

// A block has: thread(), threads(); sync(); shared(), floats that all its threads see, as many as the body's
// `shared_floats` says; sum, max and best of what the threads bring, in an order that depends on nothing but threads().

/// One thread alone.
class SerialBlock {
public:
    explicit SerialBlock(float* shared) : shared_(shared) {}
    [[nodiscard]] OUTRIDER_BODY int thread() const { return 0; }
    [[nodiscard]] OUTRIDER_BODY int threads() const { return 1; }
    [[nodiscard]] OUTRIDER_BODY float* shared() const { return shared_; }
    OUTRIDER_BODY void sync() const {}
    [[nodiscard]] OUTRIDER_BODY float sum(float x) const { return x; }
    [[nodiscard]] OUTRIDER_BODY float max(float x) const { return x; }
    template <typename T>
    [[nodiscard]] OUTRIDER_BODY BestOf<T> best(BestOf<T> x) const {
        return x;
    }

private:
    float* shared_;
};

}  // namespace outrider::cuda
