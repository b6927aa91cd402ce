// The heads' loss against its plain form in tensor operations, whose gradients autograd knows.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>

#include <outrider/core/error.hpp>
#include "train/label_loss.hpp"

#include "../draft/ctc/ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

constexpr std::int64_t K = 3, A = 5, V = 37;
const std::vector<double> kWeights{1.0, 0.7, 0.49};

struct Case {
    at::Tensor logits = noise({K, A, V}, 1, 4.0), teacher = noise({K, A, V}, 2, 4.0);
    at::Tensor labels = at::tensor({3, 0, 36, 5, -1, 7, -1, -1, -1, 9, 9, 9, 1, 2, -1}, at::kInt).view({A, K});
};

/// The same by definition.
at::Tensor plain(const Case& c, const at::Tensor& logits, double share) {
    at::Tensor sum = at::zeros({}, at::kDouble);
    double norm = 0;
    for (std::int64_t k = 0; k < K; ++k)
        for (std::int64_t a = 0; a < A; ++a) {
            const auto label = c.labels[a][k].item<std::int64_t>();
            if (label < 0) continue;
            const at::Tensor q = logits[k][a].log_softmax(0), t = c.teacher[k][a].log_softmax(0);
            const double w = kWeights[static_cast<std::size_t>(k)];
            sum = sum - w * (1 - share) * q[label] + w * share * (t.exp() * (t - q)).sum();
            norm += w;
        }
    return sum / norm;
}

}  // namespace

TEST_CASE("label_loss and its gradient are those of the plain form") {
    const Case c;
    for (const double share : {0.0, 0.35, 1.0}) {
        const at::Tensor x = c.logits.clone().set_requires_grad(true), y = c.logits.clone().set_requires_grad(true);
        LossStats stats;
        ThreadTeam team(2);
        const at::Tensor loss =
            label_loss({x, c.labels, share > 0 ? c.teacher : at::Tensor{}}, {kWeights, share}, stats, team);
        const at::Tensor expected = plain(c, y, share);
        CHECK(loss.item<double>() == Catch::Approx(expected.item<double>()).epsilon(1e-12));
        (3.0 * loss).backward();  // an outer factor must come through
        (3.0 * expected).backward();
        CHECK((x.grad() - y.grad()).abs().max().item<double>() < 1e-14);
        CHECK(x.grad()[1][2].abs().max().item<double>() == 0.0);  // no label there

        CHECK(stats.count == std::vector<std::int64_t>{4, 3, 3});
        CHECK(stats.skipped == 0);
        // The report is the cross-entropy, whatever the teacher's share.
        CHECK(stats.per_token(kWeights) == Catch::Approx(plain(c, c.logits, 0.0).item<double>()).epsilon(1e-12));
    }
}

TEST_CASE("label_loss: float and bfloat16 follow double") {
    Case c;
    c.logits = c.logits.to(at::kBFloat16).to(at::kDouble), c.teacher = c.teacher.to(at::kBFloat16).to(at::kDouble);
    const at::Tensor y = c.logits.clone().set_requires_grad(true);
    const at::Tensor expected = plain(c, y, 0.35);
    expected.backward();
    ThreadTeam team(1);
    for (const auto type : {at::kFloat, at::kBFloat16}) {
        const at::Tensor x = c.logits.to(type).set_requires_grad(true);
        LossStats stats;
        const at::Tensor loss = label_loss({x, c.labels, c.teacher.to(type)}, {kWeights, 0.35}, stats, team);
        CHECK(loss.scalar_type() == at::kFloat);
        CHECK(std::abs(loss.item<double>() - expected.item<double>()) < 2e-6);  // the same inputs, float inside
        loss.backward();
        const double error = (x.grad().to(at::kDouble) - y.grad()).norm().item<double>();
        CHECK(error < (type == at::kFloat ? 1e-6 : 4e-3) * y.grad().norm().item<double>());
    }
}

TEST_CASE("label_loss: a row without finite loss gives no gradient and is counted; misfits are errors") {
    Case c;
    c.logits[0][1][4] = std::nan("");
    const at::Tensor x = c.logits.clone().set_requires_grad(true);
    LossStats stats;
    ThreadTeam team(1);
    const at::Tensor loss = label_loss({x, c.labels, {}}, {kWeights, 0.0}, stats, team);
    CHECK(std::isfinite(loss.item<double>()));
    CHECK(stats.skipped == 1);
    CHECK(stats.count == std::vector<std::int64_t>{3, 3, 3});
    loss.backward();
    CHECK(x.grad()[0][1].abs().max().item<double>() == 0.0);
    CHECK(x.grad()[0][0].abs().max().item<double>() > 0.0);
    CHECK(x.grad().isfinite().all().item<bool>());

    CHECK_THROWS_AS(label_loss({x, c.labels, {}}, {kWeights, 0.5}, stats, team), Error);    // no teacher
    CHECK_THROWS_AS(label_loss({x, c.labels, {}}, {{1.0, 1.0}, 0.0}, stats, team), Error);  // weights
    CHECK_THROWS_AS(label_loss({x, c.labels.clone().fill_(V), {}}, {kWeights, 0.0}, stats, team), Error);
    CHECK_THROWS_AS(label_loss({x.to(at::kHalf), c.labels, {}}, {kWeights, 0.0}, stats, team), Error);
}
