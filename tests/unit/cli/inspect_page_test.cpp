#include <catch2/catch_test_macros.hpp>

#include <inspect_page.hpp>

#include <cmath>
#include <string>
#include <vector>

using namespace outrider;

TEST_CASE("a page holds its rounds, and no text of a model can leave its place") {
    TokenTree::Builder builder(1);
    const NodeIndex a = builder.add(0, 2, std::log(0.5F));
    builder.add(0, 3, std::log(0.25F));
    const TokenTree tree = std::move(builder).build();
    const std::vector<TokenId> emitted{2, 4};
    const auto piece = [](TokenId token) { return token == 4 ? std::string("</script>\xff") : std::string("t"); };
    const StageSeconds seconds{.draft = 0.25, .verify = 0.5};
    const auto round = cli::page_round(tree, std::vector<NodeIndex>{a}, emitted, seconds, piece);
    CHECK(round["accepted"] == 1);
    CHECK(round["nodes"].size() == 3);
    CHECK(round["nodes"][1]["kept"] == true);
    CHECK(round["nodes"][2]["kept"] == false);
    CHECK(round["nodes"][2]["parent"] == 0);
    CHECK(round["seconds"]["verify"] == 0.5);
    const std::string page =
        cli::inspect_page({{"model", "m"}, {"drafter", "d"}, {"prompt", "<!--"}, {"rounds", {round}}});
    const auto count = [&](const std::string& what) {
        int n = 0;
        for (std::size_t at = page.find(what); at != std::string::npos; at = page.find(what, at + 1)) ++n;
        return n;
    };
    CHECK(count("</script>") == 2);
    CHECK(count("<!--") == 0);
    CHECK(count("http://") == 2);  // names of SVG, nothing that is loaded
    CHECK(count("%STORY%") == 0);
}
