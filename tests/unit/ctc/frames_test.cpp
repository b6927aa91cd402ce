#include "alignment_reference.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/frames.hpp>

#include <algorithm>
#include <limits>
#include <set>

using namespace outrider;
using reference::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Dense {
    std::size_t vocabulary;
    std::vector<float> scores, blank;

    [[nodiscard]] DenseFrames view(DenseFrames::Kind kind = DenseFrames::Kind::gated_logits) const {
        return {scores, blank, vocabulary, {}, kind};
    }
};

Dense random_dense(Random& random, std::size_t frames, std::size_t vocabulary) {
    Dense dense{vocabulary, {}, {}};
    for (std::size_t i = 0; i < frames * vocabulary; ++i)
        dense.scores.push_back(static_cast<float>(3 * random.normal()));
    for (std::size_t t = 0; t < frames; ++t) dense.blank.push_back(static_cast<float>(random.normal()));
    return dense;
}

/// softmax over the whole row times the gate, in double.
double full_probability(const Dense& dense, std::size_t t, std::size_t column) {
    double sum = 0;
    for (std::size_t v = 0; v < dense.vocabulary; ++v) sum += std::exp(double(dense.scores[t * dense.vocabulary + v]));
    return std::exp(double(dense.scores[t * dense.vocabulary + column])) / sum / (1 + std::exp(double(dense.blank[t])));
}

std::set<std::size_t> union_of_top(const Dense& dense, std::size_t k) {
    std::set<std::size_t> columns;
    for (std::size_t t = 0; t < dense.blank.size(); ++t) {
        std::vector<std::pair<float, std::size_t>> row;
        for (std::size_t v = 0; v < dense.vocabulary; ++v) row.emplace_back(-dense.scores[t * dense.vocabulary + v], v);
        std::sort(row.begin(), row.end());
        for (std::size_t i = 0; i < std::min(k, row.size()); ++i) columns.insert(row[i].second);
    }
    return columns;
}

double row_sum(const CtcFrames& frames, std::size_t t) {
    double sum = double(frames.blank(t)) + double(frames.other(t));
    for (std::size_t c = 0; c < frames.candidates(); ++c) sum += double(frames.pi(t, c));
    return sum;
}

}  // namespace

TEST_CASE("frames built from gated logits: the union of top-k, ascending, gate kept, mass renormalised") {
    Random random(2);
    FrameBuilder builder;
    for (const std::size_t k : {1U, 4U, 16U}) {
        const Dense dense = random_dense(random, 6, 500);
        const CtcFrames frames = builder.build(dense.view(), {.top_k = k});
        const auto columns = union_of_top(dense, k);
        REQUIRE(std::equal(frames.tokens().begin(), frames.tokens().end(), columns.begin(), columns.end(),
                           [](TokenId token, std::size_t column) { return token == static_cast<TokenId>(column); }));
        CHECK(frames.spoiled() == 0);
        for (std::size_t t = 0; t < 6; ++t) {
            CHECK(double(frames.blank(t)) == Catch::Approx(1 / (1 + std::exp(-double(dense.blank[t])))).epsilon(1e-5));
            CHECK(row_sum(frames, t) == Catch::Approx(1.0).epsilon(1e-5));
            CHECK(frames.other(t) == 0.0F);
            double kept = 0;
            for (const std::size_t column : columns) kept += full_probability(dense, t, column);
            const double gate = 1 / (1 + std::exp(double(dense.blank[t])));
            for (std::size_t c = 0; c < frames.candidates(); ++c) {
                const auto column = static_cast<std::size_t>(frames.tokens()[c]);
                CHECK(double(frames.pi(t, c)) ==
                      Catch::Approx(full_probability(dense, t, column) / kept * gate).epsilon(1e-4));
            }
            for (std::size_t c = frames.candidates(); c < frames.stride(); ++c) CHECK(frames.pi(t, c) == 0.0F);
        }
    }
}

TEST_CASE("without renormalisation frames hold true probabilities, and the rest is `other`") {
    Random random(3);
    FrameBuilder builder;
    Dense dense = random_dense(random, 4, 300);
    const CtcFrames frames = builder.build(dense.view(), {.top_k = 5, .renormalise = false});
    const auto check = [&](const CtcFrames& made) {
        for (std::size_t t = 0; t < 4; ++t) {
            CHECK(row_sum(made, t) == Catch::Approx(1.0).epsilon(1e-5));
            CHECK(made.other(t) > 0.01F);
            for (std::size_t c = 0; c < made.candidates(); ++c)
                CHECK(double(made.pi(t, c)) ==
                      Catch::Approx(full_probability(dense, t, static_cast<std::size_t>(made.tokens()[c])))
                          .epsilon(1e-4));
        }
    };
    check(frames);

    // The same frames as log-probabilities give the same probabilities.
    Dense logs = dense;
    for (std::size_t t = 0; t < 4; ++t) {
        logs.blank[t] = static_cast<float>(-std::log1p(std::exp(-double(dense.blank[t]))));
        for (std::size_t v = 0; v < 300; ++v)
            logs.scores[t * 300 + v] = static_cast<float>(std::log(full_probability(dense, t, v)));
    }
    check(builder.build(logs.view(DenseFrames::Kind::log_probabilities), {.top_k = 5, .renormalise = false}));
    const CtcFrames a = builder.build(logs.view(DenseFrames::Kind::log_probabilities), {.top_k = 5});
    const CtcFrames b = builder.build(dense.view(), {.top_k = 5});
    REQUIRE(a.candidates() == b.candidates());
    for (std::size_t t = 0; t < 4; ++t)
        for (std::size_t c = 0; c < a.candidates(); ++c)
            CHECK(double(a.pi(t, c)) == Catch::Approx(double(b.pi(t, c))).epsilon(1e-4));
}

TEST_CASE("unusable frames become all blank and are counted; others are untouched") {
    Random random(4);
    FrameBuilder builder;
    const Dense sound = random_dense(random, 3, 100);
    const CtcFrames expected = builder.build(sound.view(), {.top_k = 100});
    const auto spoil = [&](auto&& change) {
        Dense dense = sound;
        change(dense);
        const CtcFrames frames = builder.build(dense.view(), {.top_k = 100});
        CHECK(frames.spoiled() == 1);
        CHECK(frames.blank(1) == 1.0F);
        CHECK(frames.emit(1) == 0.0F);
        for (std::size_t c = 0; c < frames.candidates(); ++c) CHECK(frames.pi(1, c) == 0.0F);
        for (const std::size_t t : {0U, 2U})
            for (std::size_t c = 0; c < frames.candidates(); ++c) CHECK(frames.pi(t, c) == expected.pi(t, c));
    };
    spoil([](Dense& d) { d.scores[150] = kNan; });
    spoil([](Dense& d) { d.scores[100] = kInf; });
    spoil([](Dense& d) { std::fill_n(d.scores.begin() + 100, 100, -kInf); });
    spoil([](Dense& d) { d.blank[1] = kNan; });
}

TEST_CASE("masked tokens are no candidates, extreme gates are probabilities, large k and no frames are fine") {
    FrameBuilder builder;
    Dense dense{4, {1, -kInf, 2, 3, 1, -kInf, 2, 3}, {kInf, -kInf}};
    const CtcFrames frames = builder.build(dense.view(), {.top_k = 50});
    CHECK(std::vector<TokenId>(frames.tokens().begin(), frames.tokens().end()) == std::vector<TokenId>{0, 2, 3});
    CHECK(frames.blank(0) == 1.0F);
    CHECK(frames.emit(0) == 0.0F);
    CHECK(frames.blank(1) == 0.0F);
    CHECK(double(frames.pi(1, 2)) == Catch::Approx(1 / (1 + std::exp(-1.0) + std::exp(-2.0))));

    Dense none{4, {}, {}};
    CHECK(builder.build(none.view()).frames() == 0);
    Dense empty_vocabulary{0, {}, {0.0F}};
    const CtcFrames nothing = builder.build(empty_vocabulary.view());
    CHECK(nothing.candidates() == 0);
    CHECK(nothing.blank(0) == 1.0F);
    CHECK(nothing.spoiled() == 1);

    // Scores far outside the range of exp.
    Dense huge{3, {3e38F, -3e38F, 1e30F}, {1e30F}};
    CHECK(row_sum(builder.build(huge.view()), 0) == Catch::Approx(1.0));
}

TEST_CASE("token ids of the draft vocabulary are what candidates carry") {
    FrameBuilder builder;
    Dense dense{3, {0, 5, 1}, {0}};
    const std::vector<TokenId> ids{700, 20, 31};
    DenseFrames view = dense.view();
    view.token_ids = ids;
    const CtcFrames frames = builder.build(view, {.top_k = 2});
    CHECK(std::vector<TokenId>(frames.tokens().begin(), frames.tokens().end()) == std::vector<TokenId>{20, 31});
    CHECK(frames.pi(0, 0) > frames.pi(0, 1));
}

TEST_CASE("sizes and probabilities that cannot be right are refused") {
    FrameBuilder builder;
    Dense dense{3, {0, 1, 2, 3}, {0}};
    CHECK_THROWS_AS(builder.build(dense.view()), Error);
    dense.scores.resize(3);
    CHECK_NOTHROW(builder.build(dense.view()));
    CHECK_THROWS_AS(builder.build(dense.view(), {.top_k = 0}), Error);
    const std::vector<TokenId> ids{1, 2};
    DenseFrames view = dense.view();
    view.token_ids = ids;
    CHECK_THROWS_AS(builder.build(view), Error);

    const auto made = [](std::vector<TokenId> tokens, std::vector<double> pi, std::vector<double> blank) {
        return BasicCtcFrames<double>::from_probabilities(tokens, pi, blank);
    };
    CHECK(made({1, 2}, {0.2, 0.3}, {0.25}).other(0) == Catch::Approx(0.25));
    CHECK_THROWS_AS(made({1, 2}, {0.2, 0.3, 0.1}, {0.25}), Error);
    CHECK_THROWS_AS(made({1, 1}, {0.2, 0.3}, {0.5}), Error);
    CHECK_THROWS_AS(made({1, -1}, {0.2, 0.3}, {0.5}), Error);
    CHECK_THROWS_AS(made({1, 2}, {0.2, 0.4}, {0.5}), Error);
    CHECK_THROWS_AS(made({1, 2}, {-0.1, 0.4}, {0.5}), Error);
    CHECK_THROWS_AS(made({1, 2}, {std::nan(""), 0.4}, {0.5}), Error);
}
