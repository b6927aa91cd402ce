#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <report.hpp>
#include <text.hpp>

using namespace outrider;
using namespace outrider::cli;

namespace {

Outcome outcome(std::vector<TokenId> tokens, double seconds, std::int64_t rounds) {
    Outcome result{std::move(tokens), {}};
    result.stats.tokens = std::ssize(result.tokens);
    result.stats.rounds = rounds;
    result.stats.seconds.prefill = 100;  // never part of gamma
    result.stats.seconds.verify = 0.75 * seconds;
    result.stats.seconds.other = 0.25 * seconds;
    return result;
}

}  // namespace

TEST_CASE("first_difference") {
    using Ids = std::vector<TokenId>;
    CHECK_FALSE(first_difference(Ids{1, 2}, Ids{1, 2}).has_value());
    CHECK_FALSE(first_difference(Ids{}, Ids{}).has_value());
    CHECK(first_difference(Ids{1, 2}, Ids{1, 3}) == 1);
    CHECK(first_difference(Ids{1, 2}, Ids{1, 2, 3}) == 2);
    CHECK(first_difference(Ids{1, 2, 3}, Ids{1, 2}) == 2);
}

TEST_CASE("gamma is the ratio of decoding times, and its interval holds it") {
    std::vector<Outcome> plain, drafted;
    for (int i = 0; i < 20; ++i) {
        plain.push_back(outcome({1, 2, 3, 4}, 4.0, 4));
        drafted.push_back(outcome({1, 2, 3, 4}, i % 2 == 0 ? 1.0 : 3.0, 2));
    }
    const Gain gain = gain_over(plain, drafted);
    CHECK(gain.gamma == Catch::Approx(2.0));
    CHECK(gain.low < 2.0);
    CHECK(gain.high > 2.0);
    CHECK(gain.low > 1.4);
    CHECK(gain.high < 2.9);
    const Gain again = gain_over(plain, drafted);
    CHECK((again.low == gain.low && again.high == gain.high));
    const Gain self = gain_over(plain, plain);
    CHECK((self.gamma == 1.0 && self.low == 1.0 && self.high == 1.0));
}

TEST_CASE("equal times on every prompt leave no width; the interval covers 95 %") {
    // Independent check of the percentiles: for two prompts with ratios 1 and 4 the resampled ratio takes three values,
    // with probabilities 1/4, 1/2, 1/4, so the 2.5 % and 97.5 % points are the extremes.
    const std::vector<Outcome> plain = {outcome({1}, 4, 1), outcome({1}, 4, 1)};
    const std::vector<Outcome> drafted = {outcome({1}, 1, 1), outcome({1}, 4, 1)};
    const Gain gain = gain_over(plain, drafted);
    CHECK(gain.low == Catch::Approx(1.0));
    CHECK(gain.high == Catch::Approx(4.0));
    CHECK(gain.gamma == Catch::Approx(8.0 / 5.0));
}

TEST_CASE("a row has the fields of the design, sums and differences") {
    const std::vector<std::string> ids = {"a", "b"};
    const std::vector<Outcome> plain = {outcome({1, 2}, 2, 2), outcome({3, 4}, 2, 2)};
    std::vector<Outcome> drafted = {outcome({1, 2}, 1, 1), outcome({3, 5}, 1, 1)};
    drafted[0].stats.accepted_per_depth = {1, 1};
    drafted[1].stats.accepted_per_depth = {1};
    Row row = summarise("dir", "ctc", ids, plain, drafted);
    row.differences.at(0).logit_gap = 0.5;
    const auto json = to_json(row);
    for (const char* field : {"drafter", "kind", "tokens", "rounds", "beta", "drafted", "accepted_per_depth",
                              "tokens_per_second", "gamma", "gamma_low", "gamma_high", "identical", "differences"})
        CHECK(json.contains(field));
    for (const char* stage : {"prefill", "draft", "verify", "accept", "commit", "other"})
        CHECK(json["seconds"].contains(stage));
    CHECK(json["drafter"] == "dir");
    CHECK(json["tokens"] == 4);
    CHECK(json["rounds"] == 2);
    CHECK(json["beta"] == 2.0);
    CHECK(json["accepted_per_depth"] == nlohmann::json({2, 1}));
    CHECK(json["tokens_per_second"] == 2.0);
    CHECK(json["host_share"] == Catch::Approx(0.25));
    CHECK(json["gamma"] == 2.0);
    CHECK(json["identical"] == false);
    CHECK(json["text"] == "same text");
    Row other = row;
    other.promise = TextPromise::lossy;
    CHECK(to_json(other)["identical"].is_null());
    CHECK(to_table(std::vector<Row>{other}).find("lossy, 1 differ") != std::string::npos);
    other.promise = TextPromise::same_law;
    CHECK(to_json(other)["text"] == "same law");
    CHECK(to_table(std::vector<Row>{other}).find("same law") != std::string::npos);
    CHECK(json["differences"][0] == nlohmann::ordered_json({{"id", "b"}, {"position", 1}, {"logit_gap", 0.5}}));
    const std::vector<Row> rows = {summarise("none", "none", ids, plain, plain), row};
    const std::string text = to_table(rows);
    CHECK(text.find("no, 1 differ") != std::string::npos);
    CHECK(text.find("yes") != std::string::npos);
}

TEST_CASE("rows of one drafter say how large its trees are, and each row what it made of each prompt") {
    const std::vector<std::string> ids = {"a", "b"};
    const std::vector<Outcome> plain = {outcome({1, 2}, 2, 2), outcome({3}, 1, 1)};
    Row automatic = summarise("ngram", "ngram", ids, plain, plain), fixed = automatic;
    fixed.nodes = 12;
    CHECK(to_json(automatic)["nodes"] == "auto");
    CHECK(to_json(fixed)["nodes"] == 12);
    const auto has_column = [](const std::vector<Row>& rows) {
        const std::string text = to_table(rows);
        return text.substr(0, text.find('\n')).find(" nodes ") != std::string::npos;
    };
    CHECK(has_column({automatic, fixed}));
    fixed.drafter = "ctc";
    CHECK_FALSE(has_column({automatic, fixed}));
    const auto prompts = prompts_to_json(ids, plain);
    REQUIRE(prompts.size() == 2);
    CHECK(prompts[0] == nlohmann::ordered_json({{"id", "a"}, {"tokens", 2}, {"rounds", 2}, {"seconds", 2.0}}));
    CHECK(prompts[1]["tokens"] == 1);
}

TEST_CASE("quoted text stays on one line and loses nothing") {
    CHECK(quote("a\n\"b\\\t\r") == R"("a\n\"b\\\t\r")");
    CHECK(quote("\x01\x7F") == R"("\u0001\u007f")");
    CHECK(quote("ü€😀") == "\"ü€😀\"");
    CHECK(quote("\xE2\x82 x\xFF") == R"("\xE2\x82 x\xFF")");
    CHECK(quote("") == "\"\"");
}

TEST_CASE("table columns align by characters, not bytes") {
    CHECK(table({{"name", "n"}, {"ü", "100"}}) == "name    n\nü     100\n");
}
