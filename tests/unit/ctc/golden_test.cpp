// Exact values made by tests/oracle/make_ctc_golden.py with rational arithmetic.
#include "alignment_reference.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/ctc/static_tree.hpp>
#include <outrider/tree/token_tree.hpp>

#include <fstream>
#include <map>
#include <set>

using namespace outrider;
using reference::Factor;
using reference::Prefix;

namespace {

nlohmann::json read_golden() {
    std::ifstream file(OUTRIDER_SOURCE_DIR "/tests/golden/ctc/ctc.json");
    REQUIRE(file.good());
    return nlohmann::json::parse(file);
}

template <typename Scalar>
BasicCtcFrames<Scalar> frames_of(const nlohmann::json& entry) {
    std::vector<TokenId> tokens;
    std::vector<Scalar> pi;
    for (const auto& row : entry.at("pi"))
        for (const auto& p : row) pi.push_back(p.get<Scalar>());
    for (std::size_t c = 0; c < entry.at("pi").at(0).size(); ++c) tokens.push_back(static_cast<TokenId>(c));
    const auto blank = entry.at("blank").get<std::vector<Scalar>>();
    return BasicCtcFrames<Scalar>::from_probabilities(tokens, std::span<const Scalar>(pi),
                                                      std::span<const Scalar>(blank));
}

/// Table of factors; prefixes that cannot occur are not in it, and asking for one is an error.
Factor factors_of(const nlohmann::json& entry) {
    std::map<Prefix, std::vector<double>> table;
    for (const auto& row : entry.at("factors"))
        table[row.at("l").get<Prefix>()] = row.at("f").get<std::vector<double>>();
    return [table](const Prefix& prefix, std::size_t c) { return table.at(prefix)[c]; };
}

template <typename Scalar, typename Condition>
void check_case(const nlohmann::json& entry, double tolerance, Condition&& condition) {
    const auto frames = frames_of<Scalar>(entry);
    for (const auto& golden : entry.at("prefixes")) {
        const auto prefix = golden.at("l").get<std::vector<TokenId>>();
        const auto found = prefix_probability(frames, std::span<const TokenId>(prefix), condition);
        const double psi = std::exp(found.log_psi);
        CHECK(psi == Catch::Approx(golden.at("psi").get<double>()).epsilon(tolerance));
        CHECK(std::abs(found.end * psi - golden.at("exact").get<double>()) < tolerance);
    }
    BasicPrefixTreeSearch<Scalar> search;
    const auto best = entry.at("best_psi").get<std::vector<double>>();
    const auto nodes = search.search(frames, entry.at("nodes").get<std::int64_t>(), condition);
    REQUIRE(nodes.size() == best.size());
    double sum = 0;
    for (std::size_t i = 0; i < best.size(); ++i) {
        CHECK(nodes[i].psi == Catch::Approx(best[i]).epsilon(tolerance));
        sum += nodes[i].psi;
    }
    CHECK(sum == Catch::Approx(entry.at("best_sum").get<double>()).epsilon(tolerance));
    // All prefixes of positive probability, no more and no fewer, when the budget allows.
    CHECK(search.search(frames, 100000, condition).size() + 1 == entry.at("prefixes").size());
}

}  // namespace

TEST_CASE("golden prefixes, ends and best trees, in double and in float") {
    const auto all = read_golden();
    std::size_t cases = 0;
    for (const auto& entry : all.at("cases")) {
        ++cases;
        INFO("case " << cases << ", " << entry.at("kind"));
        if (entry.at("kind") == "plain") {
            check_case<double>(entry, 1e-12, Unconditioned{});
            check_case<float>(entry, 2e-6, Unconditioned{});
        } else {
            const Factor factor = factors_of(entry);
            check_case<double>(entry, 1e-12, reference::condition_of<double>(factor));
            check_case<float>(entry, 2e-6, reference::condition_of<float>(factor));
        }
    }
    CHECK(cases == 24);
}

TEST_CASE("golden static trees") {
    const auto golden = read_golden();
    const auto all = golden.at("choices").get<std::vector<TreeTemplate::Choice>>();
    const TreeTemplate shape(all, 3, 4);
    std::size_t cases = 0;
    for (const auto& entry : golden.at("cases")) {
        if (!entry.contains("static")) continue;
        ++cases;
        const TokenTree tree = StaticPrefixTree{}.tree(0, frames_of<float>(entry), shape, 100);
        std::set<std::vector<TokenId>> found;
        for (NodeIndex node = 1; node < static_cast<NodeIndex>(tree.size()); ++node) {
            std::vector<TokenId> path;
            for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
            found.insert(path);
        }
        CHECK(found == entry.at("static").get<std::set<std::vector<TokenId>>>());
    }
    CHECK(cases == 8);
}
