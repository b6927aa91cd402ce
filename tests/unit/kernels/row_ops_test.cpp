#include <catch2/catch_test_macros.hpp>

#include <limits>

#include "kernels/row_ops.hpp"

#include "kernel_test.hpp"

using namespace outrider;
using namespace outrider::testing;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("the exponential is within 2e-7 of the true one, and its ends hold") {
    on_every_path([] {
        std::vector<float> x, y;
        for (double v = -87.3; v < 88.3; v += 0.00137) x.push_back(static_cast<float>(v));
        y.resize(x.size());
        exp_row(x.data(), static_cast<std::int64_t>(x.size()), y.data());
        double worst = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double exact = std::exp(static_cast<double>(x[i]));
            worst = std::max(worst, std::abs(y[i] - exact) / exact);
        }
        CHECK(worst < 2e-7);
        std::vector<float> ends{0.0F, -0.0F, -kInf, -88.0F, -1000.0F, kNan, 89.0F, 1000.0F};
        exp_row(ends.data(), 8, ends.data());
        CHECK((ends[0] == 1 && ends[1] == 1 && ends[2] == 0 && ends[3] == 0 && ends[4] == 0));
        CHECK(std::isnan(ends[5]));
        CHECK((ends[6] > 2e38F && ends[7] > 2e38F));
    });
}

TEST_CASE("rms norm, gate, softmax, sum and rotation agree with double precision, for odd lengths too") {
    on_every_path([] {
        for (const std::int64_t n : {1, 3, 16, 31, 64, 100, 576, 1537}) {
            const auto count = static_cast<std::size_t>(n);
            Draws draws(static_cast<std::uint64_t>(n));
            const auto x = draws.normals(n), w = draws.normals(n);
            double squares = 0, most = -1e9, total = 0;
            for (const float v : x) squares += static_cast<double>(v) * v, most = std::max<double>(most, v);
            for (const float v : x) total += std::exp(v - most);
            std::vector<float> norm(count), gate(count), soft = x, sum = x;
            rms_norm_row(x.data(), n, w.data(), 1e-5F, norm.data());
            silu_gate_row(x.data(), w.data(), n, gate.data());
            softmax_row(soft.data(), n);
            add_row(sum.data(), w.data(), n);
            const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
            for (std::size_t i = 0; i < count; ++i) {
                const double a = x[i], b = w[i];
                CHECK(std::abs(norm[i] - a * scale * b) <= 1e-6 * std::abs(a * scale * b));
                CHECK(std::abs(gate[i] - a / (1 + std::exp(-a)) * b) <= 1e-6 * std::abs(a * b));
                CHECK(std::abs(soft[i] - std::exp(a - most) / total) <= 1e-6 * std::exp(a - most) / total);
                CHECK(sum[i] == x[i] + w[i]);
            }
        }
        for (const std::int64_t half : {4, 8, 20, 32, 64}) {
            Draws draws(97);
            std::vector<float> x = draws.normals(6 * half), c(static_cast<std::size_t>(half)), s = c;
            for (std::size_t i = 0; i < c.size(); ++i) {
                const double angle = 6.28 * draws.uniform();
                c[i] = static_cast<float>(std::cos(angle)), s[i] = static_cast<float>(std::sin(angle));
            }
            const auto before = x;
            rotate_heads(x.data(), 3, 2 * half, c.data(), s.data());
            for (std::size_t h = 0; h < 3; ++h)
                for (std::size_t i = 0; i < c.size(); ++i) {
                    const std::size_t at = h * 2 * c.size() + i;
                    const double a = before[at], b = before[at + c.size()];
                    CHECK(std::abs(x[at] - (a * c[i] - b * s[i])) < 1e-6);
                    CHECK(std::abs(x[at + c.size()] - (b * c[i] + a * s[i])) < 1e-6);
                }
        }
    });
}

TEST_CASE("gelu by tanh and soft caps agree with double precision, for odd lengths and at the ends") {
    on_every_path([] {
        for (const std::int64_t n : {1, 3, 16, 31, 100, 1537}) {
            Draws draws(static_cast<std::uint64_t>(n) + 7);
            auto x = draws.normals(n), w = draws.normals(n);
            for (float& v : x) v *= 3;
            std::vector<float> gate(x.size()), capped = x, scaled = x;
            gelu_gate_row(x.data(), w.data(), n, gate.data());
            soft_cap_row(capped.data(), n, 2.5F);
            scale_row(scaled.data(), n, 0.3F);
            for (std::size_t i = 0; i < x.size(); ++i) {
                const double a = x[i], b = w[i];
                const double inner = std::sqrt(2 / 3.14159265358979323846) * (a + 0.044715 * a * a * a);
                CHECK(std::abs(gate[i] - 0.5 * a * (1 + std::tanh(inner)) * b) <= 1e-6 * std::abs(a * b));
                CHECK(std::abs(capped[i] - 2.5 * std::tanh(a / 2.5)) <= 1e-6);
                CHECK(scaled[i] == x[i] * 0.3F);
            }
        }
        std::vector<float> gate{-1e30F, -200.0F, 200.0F, 1e30F, 0.0F, kNan}, up(6, 1.0F), y(6);
        gelu_gate_row(gate.data(), up.data(), 6, y.data());
        CHECK((std::abs(y[1]) < 1e-35F && y[2] == 200.0F && y[3] == 1e30F && y[4] == 0));
        CHECK(std::isnan(y[5]));
        std::vector<float> ends{-kInf, -1e30F, 1e30F, kInf, 0.0F, kNan};
        soft_cap_row(ends.data(), 6, 30.0F);
        CHECK((ends[0] == -30 && ends[1] == -30 && ends[2] == 30 && ends[3] == 30 && ends[4] == 0));
        CHECK(std::isnan(ends[5]));
    });
}

TEST_CASE("extreme gates and scores stay finite or say NaN") {
    on_every_path([] {
        std::vector<float> gate{-1e30F, -200.0F, 200.0F, 1e30F, -kInf, 0.0F, kNan}, up(7, 1.0F), y(7);
        silu_gate_row(gate.data(), up.data(), 7, y.data());
        CHECK((y[1] <= 0 && y[1] > -1e-35F && y[2] == 200.0F && y[3] == 1e30F && y[5] == 0));
        CHECK(std::isnan(y[6]));
        std::vector<float> scores{-kInf, 1000.0F, -kInf, 999.0F, -1000.0F};
        softmax_row(scores.data(), 5);
        CHECK((scores[0] == 0 && scores[2] == 0 && scores[4] == 0));
        CHECK(std::abs(scores[1] + scores[3] - 1) < 1e-6F);
        std::vector<float> one{-3.0F};
        softmax_row(one.data(), 1);
        CHECK(one[0] == 1);
    });
}

TEST_CASE("argmax takes the lowest index among equals and passes over NaN") {
    on_every_path([] {
        Draws draws(101);
        for (const std::int64_t n : {1, 2, 7, 16, 33, 1000}) {
            for (int trial = 0; trial < 30; ++trial) {
                std::vector<float> x(static_cast<std::size_t>(n));
                for (float& v : x) v = static_cast<float>(draws.below(trial + 1)) - 5;
                if (trial % 3 == 0) x[static_cast<std::size_t>(draws.below(n))] = kNan;
                std::int64_t best = -1;
                for (std::int64_t i = 0; i < n; ++i) {
                    const float v = x[static_cast<std::size_t>(i)];
                    if (!std::isnan(v) && (best < 0 || v > x[static_cast<std::size_t>(best)])) best = i;
                }
                CHECK(argmax_row(x.data(), n) == std::max<std::int64_t>(best, 0));
            }
        }
        std::vector<float> x(40, -kInf);
        CHECK(argmax_row(x.data(), 40) == 0);
        x[39] = -1e30F;
        CHECK(argmax_row(x.data(), 40) == 39);
    });
}

TEST_CASE("picks of parts of a row are the pick of the whole row: ties, NaN and infinities among them") {
    on_every_path([] {
        Draws draws(97);
        for (int kind = 0; kind < 6; ++kind)
            for (const std::int64_t n : {1, 2, 15, 16, 17, 64, 333})
                for (int trial = 0; trial < 20; ++trial) {
                    std::vector<float> x(static_cast<std::size_t>(n));
                    for (float& v : x) {
                        v = static_cast<float>(draws.below(kind == 0 ? 1 : 4));  // all equal, or many ties
                        if (kind >= 2 && draws.below(3) == 0) v = kind == 2 ? kInf : -kInf;
                        if (kind >= 3 && draws.below(2) == 0) v = kNan;
                        if (kind == 4) v = kNan;
                        if (kind == 5 && !std::isnan(v)) v = -kInf;
                    }
                    const std::int64_t cut = draws.below(n + 1);
                    RowPick front, back, whole;
                    for (std::int64_t at = 0; at < n;) {
                        const std::int64_t size = draws.below((at < cut ? cut : n) - at + 1);
                        (at < cut ? front : back).take(x.data() + at, size, at);
                        at += size;
                    }
                    whole.take(front), whole.take(back);
                    CHECK(whole.index == argmax_row(x.data(), n));
                    CHECK(std::isnan(whole.value) == std::isnan(x[static_cast<std::size_t>(whole.index)]));
                }
    });
}
