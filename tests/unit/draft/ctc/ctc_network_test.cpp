// The network: fast loops against tensor operations in float64, in value and gradient; batches against single anchors.
#include <catch2/catch_test_macros.hpp>

#include <outrider/core/detail/rng.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>

#include <outrider/draft/nn/detail/attention.hpp>
#include "ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// |a - b| over |b|, both as vectors.
double distance(const at::Tensor& a, const at::Tensor& b) {
    return ((a.to(at::kDouble) - b.to(at::kDouble)).norm() / b.to(at::kDouble).norm()).item<double>();
}

/// Gradients of sum(y * direction) by all inputs, and y itself.
template <typename F>
std::vector<at::Tensor> value_and_gradients(std::vector<at::Tensor> inputs, at::ScalarType type, F&& f) {
    for (at::Tensor& x : inputs)
        if (x.is_floating_point()) x = x.to(type).detach().set_requires_grad(true);
    const at::Tensor y = f(inputs);
    (y.to(at::kDouble) * noise(y.sizes().vec(), 99, 1.0)).sum().backward();
    std::vector<at::Tensor> results{y.detach()};
    for (const at::Tensor& x : inputs)
        if (x.is_floating_point()) results.push_back(x.grad());
    return results;
}

template <typename F>
void compare(const std::vector<at::Tensor>& inputs, at::ScalarType type, double tolerance, F&& f) {
    std::vector<at::Tensor> rounded = inputs;
    for (at::Tensor& x : rounded)
        if (x.is_floating_point()) x = x.to(type).to(at::kDouble);
    const auto expected = value_and_gradients(rounded, at::kDouble, f), got = value_and_gradients(rounded, type, f);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        INFO("result " << i << ", type " << toString(type));
        CHECK(distance(got[i], expected[i]) < tolerance);
    }
}

}  // namespace

TEST_CASE("CTC network: loops of the layer agree with tensor operations in float64") {
    const at::Tensor committed = at::tensor(std::vector<std::int64_t>{3, 20, 11, 1}, at::kLong);
    const auto attention = [](const std::vector<at::Tensor>& x) {
        return ctc_attention(x[0], x[1], x[2], x[3], x[4], x[5]);
    };
    const std::vector<at::Tensor> inputs{noise({4, 3, 6, 16}, 1, 2), noise({4, 3, 2, 16}, 2, 2),
                                         noise({4, 3, 2, 16}, 3, 2), noise({20, 2, 16}, 4, 2),
                                         noise({20, 2, 16}, 5, 2),   committed};
    compare(inputs, at::kFloat, 2e-6, attention);
    compare(inputs, at::kBFloat16, 2e-2, attention);

    const auto gate = [](const std::vector<at::Tensor>& x) { return ctc_silu_gate(x[0]); };
    compare({noise({5, 64}, 6, 4)}, at::kFloat, 2e-6, gate);
    compare({noise({5, 64}, 6, 4)}, at::kBFloat16, 1e-2, gate);

    const at::Tensor angle = noise({5, 1, 16}, 7, 3);
    const auto rotate = [&](const std::vector<at::Tensor>& x) {
        const auto real = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        return ctc_rotate(x[0], angle.cos().to(real), angle.sin().to(real));
    };
    compare({noise({5, 3, 32}, 8, 2)}, at::kFloat, 2e-6, rotate);
    compare({noise({5, 3, 32}, 8, 2)}, at::kBFloat16, 1e-2, rotate);

    const auto norm = [](const std::vector<at::Tensor>& x) {
        return ctc_rms_norm(x[0], x[1], 1e-5, x[0].scalar_type());
    };
    compare({noise({7, 48}, 9, 3), noise({48}, 10, 2)}, at::kFloat, 2e-6, norm);
}

TEST_CASE("CTC network: an anchor's frames do not see keys beyond its committed tokens, nor other anchors") {
    const at::Tensor q = noise({2, 3, 4, 16}, 1, 2).to(at::kFloat), k = noise({2, 3, 2, 16}, 2, 2).to(at::kFloat),
                     v = noise({2, 3, 2, 16}, 3, 2).to(at::kFloat);
    const at::Tensor keys = noise({9, 2, 16}, 4, 2).to(at::kFloat), values = noise({9, 2, 16}, 5, 2).to(at::kFloat);
    const auto run = [&](std::int64_t first, std::int64_t end, std::vector<std::int64_t> n, std::int64_t rows) {
        return ctc_attention(q.slice(0, first, end), k.slice(0, first, end), v.slice(0, first, end),
                             keys.slice(0, 0, rows), values.slice(0, 0, rows), at::tensor(n, at::kLong));
    };
    const at::Tensor both = run(0, 2, {4, 9}, 9);
    CHECK(distance(both.slice(0, 0, 3), run(0, 1, {4}, 4)) < 1e-6);
    CHECK(distance(both.slice(0, 3, 6), run(1, 2, {9}, 9)) < 1e-6);
    CHECK(distance(both.slice(0, 0, 3), run(0, 1, {5}, 9)) > 1e-3);
}

TEST_CASE("CTC network: float32 and bfloat16 scores follow float64") {
    const TargetHead head = toy_head();
    const CtcConfig config = toy_config(CtcConditioning::prefix);
    const CtcWeights weights = toy_weights(config, head);
    const at::Tensor next = at::arange(7, 19, at::kLong), features = noise({12, config.hidden}, 1, 2),
                     positions = at::arange(12, at::kLong);
    const at::Tensor row = at::tensor(std::vector<std::int64_t>{11, 4, 0}, at::kLong),
                     last = at::tensor(std::vector<std::int64_t>{19, 3, 12, -1, 8, 9}, at::kLong).view({3, 2});
    const auto scores = [&](at::ScalarType compute) {
        const auto real = compute == at::kDouble ? at::kDouble : at::kFloat;
        CtcWeights w = weights;
        for (auto& [name, weight] : w.named()) *weight = weight->to(real);
        const CtcTables tables = make_ctc_tables(config, head, compute, at::kCPU);
        const CtcContext context = ctc_context(config, w, tables, next, features.to(real), positions, compute);
        const CtcFrameScores frames = ctc_frames(config, w, tables, context.fused.index_select(0, row), row + 1,
                                                 {{{context.layers[0].keys, context.layers[0].values, 3}}}, compute);
        const at::Tensor prefix =
            ctc_prefix_scores(config, w, tables, last, last.flip(1), features.index_select(0, row).to(real), compute);
        return std::vector<at::Tensor>{frames.logits, frames.gate, prefix};
    };
    const auto expected = scores(at::kDouble), in_float = scores(at::kFloat), in_bf16 = scores(at::kBFloat16);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        INFO("result " << i);
        CHECK(distance(in_float[i], expected[i]) < 1e-5);
        CHECK(distance(in_bf16[i], expected[i]) < 5e-2);
    }
}

TEST_CASE("CTC network: mixed_linear gives the products' gradients") {
    const auto f = [](const std::vector<at::Tensor>& x) { return mixed_linear(x[0], x[1], x[0].scalar_type()); };
    compare({noise({5, 12}, 1, 2), noise({7, 12}, 2, 2)}, at::kFloat, 1e-6, f);
    compare({noise({5, 12}, 1, 2), noise({7, 12}, 2, 2)}, at::kBFloat16, 2e-2, f);
}
