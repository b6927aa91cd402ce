// The objective against brute force over all alignments, and its gradients against finite differences.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <utility>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include "train/ctc_loss.hpp"

using namespace outrider;
using Catch::Approx;

namespace {

/// Noise in (-scale, scale), the same for every run.
at::Tensor noise(std::int64_t rows, std::int64_t columns, std::uint64_t seed, double scale) {
    at::Tensor x = at::empty({rows, columns}, at::kDouble);
    const RandomKey key(seed, 0, 0);
    for (std::int64_t i = 0; i < rows * columns; ++i)
        x.data_ptr<double>()[i] = scale * (2 * key.uniform(static_cast<std::uint64_t>(i)) - 1);
    return x;
}

/// Small dense double batch with labels that hold repeats, an early end and an infeasible tail.
struct Case {
    static constexpr std::int64_t A = 4, T = 4, V = 5, U = 3;
    at::Tensor logits, gate, prefix, labels, others, other_shares;

    /// Two more tokens of each label: another one, the label itself, the label before it (which needs a blank between),
    /// of uneven shares, and one without any.
    void add_teacher() {
        others = at::zeros({A, U, 2}, at::kInt), other_shares = at::zeros({A, U, 2});
        for (std::int32_t i = 0; i < A * U; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const std::int32_t own = labels.data_ptr<std::int32_t>()[at];
            const std::int32_t before = i % U > 0 ? labels.data_ptr<std::int32_t>()[at - 1] : 4;
            others.data_ptr<std::int32_t>()[2 * at] = i % 2 == 0 ? std::max(own, 0) : std::max(before, 0);
            others.data_ptr<std::int32_t>()[2 * at + 1] = (i + 2) % V;
            other_shares.data_ptr<float>()[2 * at] = 0.25F * static_cast<float>(1 + i % 2);
            other_shares.data_ptr<float>()[2 * at + 1] = i % 3 == 0 ? 0.0F : 0.125F;
        }
    }

    Case(bool conditioned, CtcLossKind kind, std::uint64_t seed) {
        logits = noise(A * T, V, seed, 2.0);
        gate = noise(A, T, seed + 1, 1.5).flatten();
        if (conditioned) prefix = noise(A * prefix_rows(kind, U), V, seed + 2, 1.0);
        labels = at::empty({A, U}, at::kInt);
        const std::int32_t y[A * U] = {0, 1, 2, 3, 3, 4, 2, -1, -1, 1, 1, 1};  // the last one needs 5 frames for 3
        std::copy(y, y + A * U, labels.data_ptr<std::int32_t>());
    }
};

/// P(collapsed alignment starts with y) and P(collapsed == y) of one anchor, over all (V + 1)^T alignments; a frame's
/// law depends on what was collapsed before it, or on the label itself where it is repeated.
struct Enumeration {
    const Case& c;
    std::int64_t anchor, rows;
    std::vector<int> y;
    double starts = 0, equals = 0;

    double pi(std::int64_t t, std::int64_t length, std::int64_t token) const {
        const double* a = c.logits.data_ptr<double>() + (anchor * Case::T + t) * Case::V;
        const double* s =
            c.prefix.defined() ? c.prefix.data_ptr<double>() + (anchor * rows + length) * Case::V : nullptr;
        double z = 0;
        for (std::int64_t v = 0; v < Case::V; ++v) z += std::exp(a[v] + (s ? s[v] : 0.0));
        const double g = c.gate.data_ptr<double>()[anchor * Case::T + t];
        return std::exp(a[token] + (s ? s[token] : 0.0)) / z / (1 + std::exp(g));
    }

    /// Follows y only: an alignment that leaves it can never start with it, one that completed it may go on as it
    /// likes for `starts` (its further mass sums to one).
    void walk(std::int64_t t, std::size_t done, bool last_is_label, double p) {
        if (t == Case::T) {
            if (done == y.size()) equals += p;
            return;
        }
        const double g = c.gate.data_ptr<double>()[anchor * Case::T + t];
        walk(t + 1, done, false, p / (1 + std::exp(-g)));
        if (last_is_label && done > 0) {
            const auto length = static_cast<std::int64_t>(done);
            if (done < y.size() || !c.prefix.defined() || length < rows)
                walk(t + 1, done, true, p * pi(t, length, y[done - 1]));
        }
        if (done < y.size() && !(last_is_label && done > 0 && y[done] == y[done - 1])) {
            const double q = p * pi(t, static_cast<std::int64_t>(done), y[done]);
            if (done + 1 == y.size()) starts += q;
            walk(t + 1, done + 1, true, q);
        }
    }
};

double run(const Case& c, CtcLossKind kind, LossStats& stats, at::ScalarType type = at::kDouble,
           Case* gradients = nullptr) {
    ThreadTeam team(2);
    const CtcLossOptions options{kind, {1.0, 0.8, 0.64}};
    const auto real = type == at::kDouble ? at::kDouble : at::kFloat;
    const bool grad = gradients != nullptr;
    CtcLossBatch batch{c.logits.to(type).detach().set_requires_grad(grad),
                       c.gate.to(real).detach().set_requires_grad(grad),
                       c.prefix.defined() ? c.prefix.to(type).detach().set_requires_grad(grad) : at::Tensor{},
                       c.labels,
                       c.others,
                       c.other_shares};
    const at::Tensor loss = ctc_loss(batch, options, stats, team);
    if (grad) {
        (2.0 * loss).backward();  // an outer factor must come through
        gradients->logits = batch.logits.grad().to(at::kDouble) / 2,
        gradients->gate = batch.gate.grad().to(at::kDouble) / 2;
        if (c.prefix.defined()) gradients->prefix = batch.prefix.grad().to(at::kDouble) / 2;
    }
    return loss.item<double>();
}

}  // namespace

TEST_CASE("ctc_loss equals the enumeration of all alignments") {
    for (const bool conditioned : {false, true})
        for (const CtcLossKind kind : {CtcLossKind::prefix, CtcLossKind::ctc}) {
            const Case c(conditioned, kind, 7);
            LossStats stats;
            const double loss = run(c, kind, stats);
            const std::vector<std::vector<int>> labels = {{0, 1, 2}, {3, 3, 4}, {2}, {1, 1}};
            const double w[] = {1.0, 0.8, 0.64};
            double expected = 0, norm = 0;
            for (std::size_t i = 0; i < labels.size(); ++i) {
                double before = 1.0;
                for (std::size_t k = 1; k <= labels[i].size(); ++k) {
                    Enumeration e{c,
                                  static_cast<std::int64_t>(i),
                                  prefix_rows(kind, Case::U),
                                  {labels[i].begin(), labels[i].begin() + static_cast<std::ptrdiff_t>(k)}};
                    e.walk(0, 0, false, 1.0);
                    if (kind == CtcLossKind::prefix) expected -= w[k - 1] * std::log(e.starts / before);
                    if (kind == CtcLossKind::ctc && k == labels[i].size()) expected -= std::log(e.equals);
                    before = e.starts;
                    norm += kind == CtcLossKind::prefix ? w[k - 1] : 1.0;
                }
            }
            INFO("conditioned " << conditioned << ", kind " << static_cast<int>(kind));
            CHECK(loss == Approx(expected / norm).epsilon(1e-12));
            CHECK(stats.count == std::vector<std::int64_t>{4, 3, 2});
            CHECK(stats.skipped == 0);
        }
}

TEST_CASE("ctc_loss: a teacher's tokens share each label, by the enumeration") {
    for (const bool conditioned : {false, true}) {
        Case c(conditioned, CtcLossKind::prefix, 7);
        c.add_teacher();
        LossStats stats;
        const double loss = run(c, CtcLossKind::prefix, stats);
        const std::vector<std::vector<int>> labels = {{0, 1, 2}, {3, 3, 4}, {2}, {1, 1}};
        const double w[] = {1.0, 0.8, 0.64};
        double expected = 0, norm = 0, plain = 0;
        for (std::size_t i = 0; i < labels.size(); ++i) {
            const auto starts = [&](std::vector<int> y) {
                Enumeration e{c, static_cast<std::int64_t>(i), prefix_rows(CtcLossKind::prefix, Case::U), std::move(y)};
                e.walk(0, 0, false, 1.0);
                return e.starts;
            };
            std::vector<int> prefix;
            double before = 1.0;
            for (std::size_t k = 0; k < labels[i].size(); ++k) {
                double left = 1.0;
                for (std::size_t m = 0; m < 2; ++m) {
                    const std::size_t at = 2 * (i * Case::U + k) + m;
                    const double share = c.other_shares.data_ptr<float>()[at];
                    left -= share;
                    std::vector<int> other = prefix;
                    other.push_back(c.others.data_ptr<std::int32_t>()[at]);
                    const double mass = starts(other);
                    if (mass > 0) expected -= w[k] * share * std::log(mass / before);
                }
                prefix.push_back(labels[i][k]);
                const double mass = starts(prefix);
                expected -= w[k] * left * std::log(mass / before);
                plain -= std::log(mass / before);
                before = mass;
                norm += w[k];
            }
        }
        INFO("conditioned " << conditioned);
        CHECK(loss == Approx(expected / norm).epsilon(1e-12));
        double seen = 0;
        for (const double nll : stats.nll) seen += nll;
        CHECK(seen == Approx(plain).epsilon(1e-12));
    }
}

TEST_CASE("ctc_loss: a teacher that does not fit is an error") {
    LossStats stats;
    Case c(true, CtcLossKind::prefix, 7);
    c.add_teacher();
    c.others.data_ptr<std::int32_t>()[3] = Case::V;
    CHECK_THROWS_AS(run(c, CtcLossKind::prefix, stats), Error);
    c.add_teacher();
    c.other_shares.data_ptr<float>()[0] = 1.5F;
    CHECK_THROWS_AS(run(c, CtcLossKind::prefix, stats), Error);
    c.add_teacher();
    c.other_shares = c.other_shares.slice(2, 0, 1).contiguous();
    CHECK_THROWS_AS(run(c, CtcLossKind::prefix, stats), Error);
    Case paper(true, CtcLossKind::ctc, 7);
    paper.add_teacher();
    CHECK_THROWS_AS(run(paper, CtcLossKind::ctc, stats), Error);
}

TEST_CASE("ctc_loss: gradients agree with central differences") {
    for (const bool conditioned : {false, true})
        for (const auto& [kind, teacher] : {std::pair{CtcLossKind::prefix, false}, std::pair{CtcLossKind::prefix, true},
                                            std::pair{CtcLossKind::ctc, false}}) {
            Case c(conditioned, kind, 11);
            if (teacher) c.add_teacher();
            Case g(conditioned, kind, 11);
            LossStats stats;
            run(c, kind, stats, at::kDouble, &g);
            const auto compare = [&](const at::Tensor& value, const at::Tensor& gradient) {
                double* x = value.data_ptr<double>();
                for (std::int64_t i = 0; i < value.numel(); ++i) {
                    const double kept = x[i], h = 1e-5;
                    x[i] = kept + h;
                    const double up = run(c, kind, stats);
                    x[i] = kept - h;
                    const double down = run(c, kind, stats);
                    x[i] = kept;
                    CHECK(std::abs(gradient.data_ptr<double>()[i] - (up - down) / (2 * h)) < 1e-8);
                }
            };
            compare(c.logits, g.logits);
            compare(c.gate, g.gate);
            if (conditioned) compare(c.prefix, g.prefix);
        }
}

TEST_CASE("ctc_loss: float and bfloat16 follow double") {
    const std::int64_t A = 3, T = 6, V = 77, U = 5;
    Case c(false, CtcLossKind::prefix, 3);
    c.logits = noise(A * T, V, 1, 6.0).to(at::kBFloat16).to(at::kDouble);
    c.gate = noise(A, T, 2, 2.0).flatten().to(at::kFloat).to(at::kDouble);
    c.prefix = noise(A * U, V, 3, 4.0).to(at::kBFloat16).to(at::kDouble);
    c.labels = at::arange(A * U, at::kInt).view({A, U}).mul(5).remainder(V).to(at::kInt);
    ThreadTeam team(1);
    const CtcLossOptions options{CtcLossKind::prefix, {1, 1, 1, 1, 1}};
    std::vector<at::Tensor> losses, gradients;
    for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
        const auto real = type == at::kDouble ? at::kDouble : at::kFloat;
        CtcLossBatch batch{c.logits.to(type).detach().set_requires_grad(true), c.gate.to(real),
                           c.prefix.to(type).detach().set_requires_grad(true), c.labels};
        LossStats stats;
        const at::Tensor loss = ctc_loss(batch, options, stats, team);
        loss.backward();
        losses.push_back(loss.to(at::kDouble));
        gradients.push_back(at::cat({batch.logits.grad(), batch.prefix.grad()}).to(at::kDouble));
    }
    CHECK(std::abs(losses[1].item<double>() - losses[0].item<double>()) < 2e-6);
    CHECK(std::abs(losses[2].item<double>() - losses[0].item<double>()) < 2e-6);  // the same inputs, float inside
    CHECK((gradients[1] - gradients[0]).abs().max().item<double>() < 1e-7);
    CHECK((gradients[2] - gradients[0]).abs().max().item<double>() < 1e-3);  // gradients rounded to 8 bits
    CHECK((gradients[2] - gradients[0]).norm().item<double>() < 4e-3 * gradients[0].norm().item<double>());
}

TEST_CASE("ctc_loss: an anchor without finite loss gives no gradient and is counted") {
    Case c(true, CtcLossKind::prefix, 5);
    c.logits.data_ptr<double>()[1] = std::nan("");
    Case g(true, CtcLossKind::prefix, 5);
    LossStats stats;
    const double loss = run(c, CtcLossKind::prefix, stats, at::kDouble, &g);
    CHECK(std::isfinite(loss));
    CHECK(stats.skipped == 1);
    CHECK(stats.count == std::vector<std::int64_t>{3, 2, 1});
    CHECK(g.logits.slice(0, 0, Case::T).abs().max().item<double>() == 0.0);
    CHECK(g.logits.slice(0, Case::T).abs().max().item<double>() > 0.0);
    CHECK(g.logits.isfinite().all().item<bool>());
}
