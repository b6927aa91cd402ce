#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/frames.hpp>

#include <algorithm>
#include <map>

using namespace outrider;
using Tokens = std::vector<TokenId>;

TEST_CASE("collapse merges neighbours, then drops blanks") {
    CHECK(collapse(Tokens{}) == Tokens{});
    CHECK(collapse(Tokens{kBlank, kBlank}) == Tokens{});
    CHECK(collapse(Tokens{5, 5, kBlank, 5, 7}) == Tokens{5, 5, 7});
    CHECK(collapse(Tokens{5, 7, 5, 5}) == Tokens{5, 7, 5});
    CHECK(collapse(Tokens{kBlank, 0, kBlank, kBlank, 0, 0}) == Tokens{0, 0});
}

TEST_CASE("frames_needed is the length of the shortest alignment, over all alignments of five frames") {
    // For each label: the least number of frames before which trailing blanks only follow.
    std::map<Tokens, std::size_t> shortest;
    for (int code = 0; code < 1024; ++code) {
        Tokens alignment;
        for (int rest = code, t = 0; t < 5; ++t, rest /= 4) alignment.push_back(rest % 4 - 1);
        const Tokens label = collapse(alignment);
        while (!alignment.empty() && alignment.back() == kBlank) alignment.pop_back();
        const auto [at, fresh] = shortest.emplace(label, alignment.size());
        if (!fresh) at->second = std::min(at->second, alignment.size());
    }
    CHECK(shortest.size() > 100);
    for (const auto& [label, frames] : shortest) CHECK(frames_needed(label) == frames);
    // And nothing that fits is missing: all labels over three tokens that need at most five frames.
    std::size_t feasible = 0;
    for (std::size_t length = 0; length <= 5; ++length) {
        int labels = 1;
        for (std::size_t i = 0; i < length; ++i) labels *= 3;
        for (int code = 0; code < labels; ++code) {
            Tokens label;
            for (std::size_t i = 0, rest = static_cast<std::size_t>(code); i < length; ++i, rest /= 3)
                label.push_back(static_cast<TokenId>(rest % 3));
            feasible += frames_needed(label) <= 5;
        }
    }
    CHECK(feasible == shortest.size());
}
