// What devices train with, on the CPU: losses in tensor operations against the host's loops, AdamW against the host's.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>

#include "train/adamw.hpp"
#include "train/tensor_adamw.hpp"
#include "train/tensor_loss.hpp"

#include "../draft/ctc/ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Approx;

namespace {

std::vector<double> weights_of(std::int64_t labels) {
    std::vector<double> weights;
    for (std::int64_t k = 0; k < labels; ++k) weights.push_back(std::pow(0.8, static_cast<double>(k)));
    return weights;
}

/// Labels that repeat, that are cut off, that the frames cannot hold, and none at all.
at::Tensor some_labels(std::int64_t anchors, std::int64_t labels, std::int64_t columns, std::uint64_t seed) {
    at::Tensor y = at::empty({anchors, labels}, at::kInt);
    for (std::int64_t a = 0; a < anchors; ++a)
        for (std::int64_t k = 0; k < labels; ++k) {
            const std::uint64_t draw = mix64(seed ^ mix64(static_cast<std::uint64_t>(a * labels + k)));
            auto& at = y.data_ptr<std::int32_t>()[a * labels + k];
            at = static_cast<std::int32_t>(draw % static_cast<std::uint64_t>(columns));
            if (k > 0 && draw % 3 == 0) at = std::max(y.data_ptr<std::int32_t>()[a * labels + k - 1], 0);
            if (a % 5 == 1 && k >= a % labels) at = -1;
            if (a % 5 == 2 && k > 0) at = y.data_ptr<std::int32_t>()[a * labels];
        }
    y.select(0, 0).fill_(-1);
    return y;
}

struct CtcSizes {
    std::int64_t anchors, frames, labels, columns, others;
    bool conditioned;
    CtcLossKind kind;
};

CtcLossBatch ctc_batch(const CtcSizes& s, at::ScalarType type, std::uint64_t seed) {
    const auto real = type == at::kDouble ? at::kDouble : at::kFloat;
    CtcLossBatch batch;
    batch.logits = noise({s.anchors * s.frames, s.columns}, seed, 3.0).to(type).set_requires_grad(true);
    batch.gate = noise({s.anchors * s.frames}, seed + 1, 2.0).to(real).set_requires_grad(true);
    if (s.conditioned)
        batch.prefix = noise({s.anchors * prefix_rows(s.kind, s.labels), s.columns}, seed + 2, 2.0)
                           .to(type)
                           .set_requires_grad(true);
    batch.labels = some_labels(s.anchors, s.labels, s.columns, seed);
    if (s.others > 0) {
        batch.others = some_labels(s.anchors, s.labels * s.others, s.columns, seed + 3)
                           .clamp_min(0)
                           .view({s.anchors, s.labels, s.others});
        batch.other_shares = noise({s.anchors, s.labels, s.others}, seed + 4, 1.0)
                                 .abs()
                                 .div(2.0 * static_cast<double>(s.others))
                                 .to(at::kFloat);
    }
    return batch;
}

void check_near(const at::Tensor& got, const at::Tensor& expected, double bound) {
    REQUIRE(got.sizes() == expected.sizes());
    const double size = expected.to(at::kDouble).norm().item<double>();
    CHECK((got.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>() <= bound * size + 1e-15);
}

void check_same_stats(const LossStats& got, const LossStats& expected) {
    CHECK(got.count == expected.count);
    CHECK(got.skipped == expected.skipped);
    for (std::size_t k = 0; k < expected.nll.size(); ++k) CHECK(got.nll[k] == Approx(expected.nll[k]).epsilon(1e-5));
}

}  // namespace

TEST_CASE("ctc_tensor_loss is ctc_loss, with its gradients") {
    for (const CtcSizes& s : std::vector<CtcSizes>{{7, 4, 3, 11, 0, true, CtcLossKind::prefix},
                                                   {7, 4, 3, 11, 0, false, CtcLossKind::prefix},
                                                   {6, 5, 4, 37, 0, true, CtcLossKind::ctc},
                                                   {6, 5, 4, 37, 0, false, CtcLossKind::ctc},
                                                   {9, 8, 6, 67, 3, true, CtcLossKind::prefix},
                                                   {9, 8, 6, 67, 2, false, CtcLossKind::prefix},
                                                   {5, 1, 1, 5, 0, true, CtcLossKind::prefix},
                                                   {5, 1, 2, 5, 1, true, CtcLossKind::prefix},
                                                   {5, 2, 1, 5, 0, true, CtcLossKind::ctc}})
        for (const auto& [type, bound] : {std::pair{at::kDouble, 1e-9}, std::pair{at::kFloat, 1e-5}}) {
            INFO("frames " << s.frames << ", labels " << s.labels << ", others " << s.others << ", conditioned "
                           << s.conditioned << ", kind " << static_cast<int>(s.kind));
            CtcLossBatch batch = ctc_batch(s, type, 17);
            const std::vector<double> weights = weights_of(s.labels);
            ThreadTeam team(1);
            LossStats expected;
            const at::Tensor loss = ctc_loss(batch, {s.kind, weights}, expected, team);
            loss.backward();
            const TensorLoss got = ctc_tensor_loss(batch, s.kind, at::tensor(weights, at::kDouble));
            CHECK(got.value.item<double>() == Approx(loss.item<double>()).epsilon(bound));
            check_same_stats(read_stats(got.stats), expected);
            REQUIRE(got.inputs.size() == (s.conditioned ? 3 : 2));
            for (std::size_t i = 0; i < got.inputs.size(); ++i) {
                CAPTURE(i);
                CHECK(got.gradients[i].scalar_type() == got.inputs[i].scalar_type());
                check_near(got.gradients[i], got.inputs[i].grad(), bound);
            }
        }
}

TEST_CASE("ctc_tensor_loss: anchors without finite loss or without labels give no gradient") {
    const CtcSizes s{6, 4, 3, 11, 0, true, CtcLossKind::prefix};
    CtcLossBatch batch = ctc_batch(s, at::kFloat, 5);
    batch.labels.select(0, 3).copy_(at::tensor({1, 2, 3}, at::kInt));
    {
        const at::NoGradGuard no_grad;
        batch.logits.select(0, 3 * s.frames).fill_(std::nan(""));
        batch.prefix.select(0, 0).fill_(std::nan(""));  // of the anchor without labels
    }
    ThreadTeam team(1);
    LossStats expected;
    (void)ctc_loss(batch, {s.kind, weights_of(s.labels)}, expected, team);
    CHECK(expected.skipped == 1);
    const TensorLoss got = ctc_tensor_loss(batch, s.kind, at::tensor(weights_of(s.labels), at::kDouble));
    CHECK(std::isfinite(got.value.item<double>()));
    check_same_stats(read_stats(got.stats), expected);
    for (const at::Tensor& gradient : got.gradients) CHECK(gradient.isfinite().all().item<bool>());
    CHECK(got.gradients[0].slice(0, 3 * s.frames, 4 * s.frames).abs().max().item<double>() == 0.0);
    CHECK(got.gradients[0].abs().max().item<double>() > 0.0);

    batch.labels.fill_(-1);
    const TensorLoss none = ctc_tensor_loss(batch, s.kind, at::tensor(weights_of(s.labels), at::kDouble));
    CHECK(none.value.item<double>() == 0.0);
    for (const at::Tensor& gradient : none.gradients) CHECK(gradient.abs().max().item<double>() == 0.0);
    CHECK_THROWS_AS(ctc_tensor_loss(batch, s.kind, at::ones({2}, at::kDouble)), Error);
}

TEST_CASE("label_tensor_loss is label_loss, with its gradient") {
    const std::int64_t K = 3, A = 9, V = 37;
    for (const double share : {0.0, 0.35, 1.0})
        for (const auto& [type, bound] : {std::pair{at::kDouble, 1e-10}, std::pair{at::kFloat, 1e-5}}) {
            CAPTURE(share);
            const at::Tensor logits = noise({K, A, V}, 1, 4.0).to(type).set_requires_grad(true);
            const at::Tensor teacher = share > 0 ? noise({K, A, V}, 2, 4.0).to(type) : at::Tensor{};
            const LabelLossBatch batch{logits, some_labels(A, K, V, 3), teacher};
            ThreadTeam team(1);
            LossStats expected;
            const at::Tensor loss = label_loss(batch, {weights_of(K), share}, expected, team);
            loss.backward();
            const TensorLoss got = label_tensor_loss(batch, at::tensor(weights_of(K), at::kDouble), share);
            CHECK(got.value.item<double>() == Approx(loss.item<double>()).epsilon(bound));
            check_same_stats(read_stats(got.stats), expected);
            check_near(got.gradients.at(0), logits.grad(), bound);
        }
}

TEST_CASE("label_tensor_loss: a row without finite loss is left out and counted") {
    const std::int64_t K = 2, A = 4, V = 13;
    at::Tensor logits = noise({K, A, V}, 1, 4.0).to(at::kFloat);
    logits[1][3][2] = std::nan("");
    const at::Tensor labels = at::arange(A * K, at::kInt).view({A, K});
    ThreadTeam team(1);
    LossStats expected;
    (void)label_loss({logits, labels, {}}, {weights_of(K), 0.0}, expected, team);
    CHECK(expected.skipped == 1);
    const TensorLoss got = label_tensor_loss({logits, labels, {}}, at::tensor(weights_of(K), at::kDouble), 0.0);
    check_same_stats(read_stats(got.stats), expected);
    CHECK(got.gradients[0][1][3].abs().max().item<double>() == 0.0);
    CHECK(got.gradients[0].isfinite().all().item<bool>());
    CHECK_THROWS_AS(label_tensor_loss({logits, labels, {}}, at::ones({K}, at::kDouble), 0.5), Error);
}

TEST_CASE("TensorAdamW takes AdamW's steps") {
    const std::vector<std::vector<std::int64_t>> shapes{{5}, {6, 7}, {3, 2}, {1}};
    std::vector<at::Tensor> weights, copies;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        weights.push_back(noise(shapes[i], 1 + i, 1).to(at::kFloat).set_requires_grad(true));
        copies.push_back(weights.back().detach().clone());
    }
    const AdamWOptions options{.weight_decay = 0.1, .clip = 1.5, .ema = 0.6};
    AdamW host(weights, options);
    TensorAdamW tensors(copies, options, at::kCPU);
    ThreadTeam team(1);
    const at::Tensor some = at::ones({}, at::kDouble);
    const auto check_same = [&] {
        const OptimiserState a = tensors.state(), b = host.state();
        CHECK(a.steps == b.steps);
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            check_near(a.weights[i], b.weights[i].detach(), 1e-6);
            check_near(a.first[i], b.first[i], 1e-6);
            check_near(a.second[i], b.second[i], 1e-6);
            check_near(a.average[i], b.average[i], 1e-6);
        }
    };
    for (std::uint64_t step = 0; step < 6; ++step) {
        std::vector<at::Tensor> gradients;
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            gradients.push_back(noise(shapes[i], 50 + 10 * step + i, step % 2 == 0 ? 1.0 : 0.01).to(at::kFloat));
            if (step == 3 && i == 1) gradients.back().fill_(std::nan(""));
            weights[i].mutable_grad() = gradients.back();
        }
        const double norm = host.step(0.01, team);
        tensors.step(gradients, 0.01, some);
        if (std::isfinite(norm)) CHECK(tensors.report()[0].item<double>() == Approx(norm).epsilon(1e-5));
        check_same();
    }
    CHECK(tensors.report()[1].item<double>() == 1.0);
    const OptimiserState before = tensors.state();
    tensors.step({at::zeros({5}), at::Tensor{}, at::zeros({3, 2}), at::zeros({1})}, 0.01, at::zeros({}, at::kDouble));
    CHECK(tensors.state().steps == before.steps + 1);  // as the host counts a batch without labels
    for (std::size_t i = 0; i < shapes.size(); ++i) CHECK(at::equal(tensors.state().weights[i], before.weights[i]));

    TensorAdamW other(copies, options, at::kCPU);
    other.restore(before);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        CHECK(at::equal(other.state().second[i], before.second[i]));
        CHECK(at::equal(other.leaves()[i].detach(), before.weights[i]));
    }
}
