// The search by tensor operations beside the host's, and a round where the frames lie beside one on the host.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <cmath>
#include <limits>
#include <memory>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/ctc/detail/ctc_backend.hpp>
#include <outrider/draft/ctc/detail/ctc_beam.hpp>
#include <outrider/draft/ctc/detail/ctc_search.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>

#include "ctc_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Scores by sequence and last two tokens: [S, V + 1, V + 1, V], places one behind the columns; for so many nodes.
class TableScores final : public outrider::detail::CtcBeamScores {
public:
    TableScores(at::Tensor table, std::int64_t nodes) : table_(std::move(table)), nodes_(nodes) {}
    [[nodiscard]] at::Tensor root() override {
        last_ = at::zeros({table_.size(0), 1}, at::kLong);
        return table_.select(1, 0).select(1, 0);
    }
    [[nodiscard]] at::Tensor longer(const at::Tensor& parent, const at::Tensor& column) override {
        const at::Tensor second = parent.defined() ? last_.gather(1, parent) : last_.expand_as(column);
        last_ = column + 1;
        return rows(last_, second);
    }
    [[nodiscard]] at::Tensor tokens(std::int64_t length) override {
        const std::int64_t P = outrider::detail::beam_width(nodes_, table_.size(3), length - 1);
        return tokens_ = at::empty({table_.size(0), P, length == 1 ? 1 : 2}, at::kLong);
    }
    [[nodiscard]] at::Tensor behind(std::int64_t length) override {
        const at::Tensor last = tokens_.select(2, length == 1 ? 0 : 1) + 1;
        return rows(last, length == 1 ? at::zeros_like(last) : tokens_.select(2, 0) - table_.size(3) + 1);
    }

private:
    [[nodiscard]] at::Tensor rows(const at::Tensor& last, const at::Tensor& second) const {
        std::vector<at::Tensor> all;
        for (std::int64_t s = 0; s < last.size(0); ++s)
            for (std::int64_t p = 0; p < last.size(1); ++p)
                all.push_back(table_[s][last[s][p].item<std::int64_t>()][second[s][p].item<std::int64_t>()]);
        return at::stack(all);
    }

    at::Tensor table_, last_, tokens_;
    std::int64_t nodes_;
};

at::Tensor with_gates(const at::Tensor& logits, const at::Tensor& gate) {
    return at::cat({logits, gate.unsqueeze(1), -gate.unsqueeze(1)}, 1).contiguous();
}

std::span<const float> floats(const at::Tensor& x) {
    return {x.const_data_ptr<float>(), static_cast<std::size_t>(x.numel())};
}

TokenTree host_tree(const at::Tensor& logits, const at::Tensor& gate, const at::Tensor& table, std::int64_t nodes,
                    double least, std::span<const TokenId> vocabulary) {
    const std::int64_t V = logits.size(1);
    const auto score = [&](TeamMember&, std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
        for (std::size_t i = 0; i < prefixes.size(); ++i)
            std::copy_n(table[prefixes[i].last + 1][prefixes[i].last_but_one + 1].const_data_ptr<float>(), V,
                        out + static_cast<std::int64_t>(i) * stride);
    };
    CtcSearch search;
    TeamMember alone;
    search.run(alone, floats(logits), floats(gate), nodes, least, score);
    return search.tree(7, vocabulary);
}

void check_same_paths(const TokenTree& got, const TokenTree& wanted, double tolerance) {
    const auto a = paths_of(got), b = paths_of(wanted);
    CHECK(a.size() == b.size());
    for (const auto& [path, log_psi] : b) {
        REQUIRE(a.contains(path));
        CHECK(std::abs(a.at(path) - log_psi) < tolerance);
    }
}

}  // namespace

TEST_CASE("CtcBeam finds the tree of CtcSearch, whatever the frames, nodes and sequences") {
    const std::int64_t S = 2, V = 40;
    std::vector<TokenId> vocabulary;
    for (TokenId c = 0; c < V; ++c) vocabulary.push_back(3 * c + 1);
    std::uint64_t seed = 1;
    const bool kernels = GENERATE(false, true);
    for (const std::int64_t T : {1, 2, 3, 5, 8})
        for (const std::int64_t nodes : {1, 4, 24, 60}) {
            CAPTURE(T, nodes, kernels);
            const at::Tensor logits = noise({S, T, V}, seed, 3).to(at::kFloat),
                             gate = noise({S, T}, seed + 1, 2).to(at::kFloat),
                             table = noise({S, V + 1, V + 1, V}, seed + 2, 2).to(at::kFloat);
            seed += 3;
            outrider::detail::CtcBeam beam(T, V, at::kCPU);
            TableScores scores(table, nodes);
            const at::Tensor found = beam.fetched(
                beam.search(with_gates(logits.view({S * T, V}), gate.view({S * T})), nodes, scores, kernels), nodes);
            for (std::int64_t s = 0; s < S; ++s) {
                const TokenTree wanted = host_tree(logits[s], gate[s], table[s], nodes, 0.0, vocabulary);
                const auto row = floats(found).subspan(static_cast<std::size_t>(s * found.size(1)),
                                                       static_cast<std::size_t>(found.size(1)));
                check_same_paths(outrider::detail::beam_tree(row, nodes, T, 0.0, 7, vocabulary), wanted, 1e-4);
                std::vector<double> falling;
                for (const auto& [path, log_psi] : paths_of(wanted)) falling.push_back(std::exp(log_psi));
                std::sort(falling.begin(), falling.end(), std::greater<>());
                if (falling.size() < 4) continue;
                const double bar = 0.5 * (falling[2] + falling[3]);
                check_same_paths(outrider::detail::beam_tree(row, nodes, T, bar, 7, vocabulary),
                                 host_tree(logits[s], gate[s], table[s], nodes, bar, vocabulary), 1e-4);
            }
        }
}

TEST_CASE("CtcBeam: frames that are surely blank or surely not") {
    const std::int64_t T = 7, V = 30, nodes = 20;
    std::vector<TokenId> vocabulary(V);
    for (TokenId c = 0; c < V; ++c) vocabulary[static_cast<std::size_t>(c)] = c;
    const bool kernels = GENERATE(false, true);
    const double least = 1e-9;  // as far as forward variables of floats reach everywhere
    for (std::uint64_t seed = 1; seed < 40; seed += 3) {
        CAPTURE(seed, kernels);
        const at::Tensor logits = noise({T, V}, seed, 3).to(at::kFloat), gate = noise({T}, seed + 1, 60).to(at::kFloat),
                         table = noise({1, V + 1, V + 1, V}, seed + 2, 2).to(at::kFloat);
        outrider::detail::CtcBeam beam(T, V, at::kCPU);
        TableScores scores(table, nodes);
        const at::Tensor found = beam.fetched(beam.search(with_gates(logits, gate), nodes, scores, kernels), nodes);
        check_same_paths(outrider::detail::beam_tree(floats(found), nodes, T, least, 7, vocabulary),
                         host_tree(logits, gate, table[0], nodes, least, vocabulary), 1e-4);
    }
}

TEST_CASE("CtcBeam: NaN in one sequence drafts nothing there, and leaves the others as they are") {
    const std::int64_t T = 4, V = 20;
    std::vector<TokenId> vocabulary(V);
    for (TokenId c = 0; c < V; ++c) vocabulary[static_cast<std::size_t>(c)] = c;
    const at::Tensor frames = with_gates(noise({T, V}, 1, 3).to(at::kFloat), noise({T}, 2, 2).to(at::kFloat));
    const at::Tensor table = noise({1, V + 1, V + 1, V}, 3, 2).to(at::kFloat);
    const bool kernels = GENERATE(false, true);
    outrider::detail::CtcBeam beam(T, V, at::kCPU);
    TableScores alone(table, 12), both(at::cat({table, table}), 12);
    const at::Tensor first = beam.fetched(beam.search(frames, 12, alone, kernels), 12);
    const TokenTree wanted = outrider::detail::beam_tree(floats(first), 12, T, 0.0, 7, vocabulary);
    const at::Tensor broken = at::full_like(frames, std::numeric_limits<float>::quiet_NaN());
    const at::Tensor found = beam.fetched(beam.search(at::cat({broken, frames}), 12, both, kernels), 12);
    const auto row = [&](std::int64_t s) {
        return floats(found).subspan(static_cast<std::size_t>(s * found.size(1)),
                                     static_cast<std::size_t>(found.size(1)));
    };
    CHECK(outrider::detail::beam_tree(row(0), 12, T, 0.0, 7, vocabulary).drafted() == 0);
    check_same_paths(outrider::detail::beam_tree(row(1), 12, T, 0.0, 7, vocabulary), wanted, 1e-6);
    CHECK(wanted.drafted() == 12);
}

TEST_CASE("A round where the frames lie drafts the host search's trees, step by step and in a batch") {
    const TargetHead head = toy_head();
    const auto [conditioning, output, bottleneck] =
        GENERATE(table<CtcConditioning, HeadOutput, std::int64_t>({{CtcConditioning::none, HeadOutput::own, 0},
                                                                   {CtcConditioning::prefix, HeadOutput::own, 0},
                                                                   {CtcConditioning::prefix, HeadOutput::target, 0},
                                                                   {CtcConditioning::prefix, HeadOutput::own, 8},
                                                                   {CtcConditioning::prefix, HeadOutput::target, 8}}));
    const std::int64_t layers = GENERATE(1, 2);
    const bool kernels = GENERATE(false, true);
    CAPTURE(static_cast<int>(conditioning), static_cast<int>(output), bottleneck, layers, kernels);
    CtcConfig config = toy_config(conditioning);
    config.prefix_output = output, config.prefix_bottleneck = bottleneck, config.layers = layers;
    config.embedding_scale = 0.7, config.feature_scale = 1.3;
    const CtcWeights weights = toy_weights(config, head);
    CtcDraft host(config, weights, head, {.threads = 1, .kernels = false});
    const CtcBodies lanes = make_ctc_lanes(config, weights, head, {.kernels = kernels});
    REQUIRE(lanes.backend->searches(12));
    std::vector<std::unique_ptr<CtcCache>> caches;
    for (int s = 0; s < 3; ++s) caches.push_back(lanes.backend->make_cache());
    const std::vector<Text> texts{Text(400, 1), Text(400, 2), Text(400, 3)};
    const std::vector<std::vector<std::int64_t>> ends{{5, 6, 9, 13, 300}, {0, 1, 4, 20, 21}, {7, 9, 11, 12, 13}};
    for (std::size_t step = 0; step < 5; ++step) {
        std::vector<CtcRound> rounds;
        std::vector<TokenTree> wanted;
        for (std::size_t s = 0; s < 3; ++s) {
            const std::int64_t known = step == 0 ? 0 : ends[s][step - 1], end = ends[s][step];
            const SequenceFeedback feedback = texts[s].feedback(known, end, static_cast<SequenceId>(s + 1));
            wanted.push_back(one(host, feedback));
            CtcRound round{caches[s].get(), end, {}, feedback.features, feedback.pending, kNoToken};
            for (std::int64_t j = known; j < end; ++j)
                round.next.push_back(texts[s].tokens[static_cast<std::size_t>(j + 1)]);
            if (end > 0) round.before = texts[s].tokens[static_cast<std::size_t>(end - 1)];
            REQUIRE(lanes.backend->has_room(*caches[s], end));
            rounds.push_back(round);
        }
        if (step == 1) {  // no nodes wanted: the state must follow all the same
            CtcRoundScores none;
            lanes.backend->run(rounds, false, {}, none);
            continue;
        }
        const std::vector<TokenTree> got = lanes.backend->search(rounds, 12, 0.0);
        for (std::size_t s = 0; s < 3; ++s) {
            CAPTURE(step, s);
            check_same_paths(got[s], wanted[s], 1e-3);
            CHECK(got[s].drafted() == 12);
        }
    }
}
