#include <catch2/catch_test_macros.hpp>

#include <arguments.hpp>
#include <tree_choice.hpp>

#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/option_ranges.hpp>

using namespace outrider::cli;

namespace {

std::variant<Command, int> parsed(std::vector<const char*> words) {
    words.insert(words.begin(), "outrider");
    return parse(static_cast<int>(words.size()), words.data());
}

template <typename A>
A command(const std::vector<const char*>& words) {
    const auto result = parsed(words);
    REQUIRE(std::holds_alternative<Command>(result));
    return std::get<A>(std::get<Command>(result));
}

int status(const std::vector<const char*>& words) {
    const auto result = parsed(words);
    REQUIRE(std::holds_alternative<int>(result));
    return std::get<int>(result);
}

}  // namespace

TEST_CASE("generate takes what the design names, with its defaults") {
    const auto plain = command<GenerateArguments>({"generate", "--model", "m.gguf"});
    CHECK(plain.model.path == "m.gguf");
    CHECK(plain.model.weights == "auto");
    CHECK(plain.decoding.generation.max_tokens == 128);
    CHECK(plain.decoding.generation.temperature == 0.0);
    CHECK_FALSE(plain.prompt.has_value());
    CHECK_FALSE(plain.decoding.nodes.has_value());
    CHECK(plain.decoding.pass_times == "default");

    const auto full = command<GenerateArguments>({"generate",
                                                  "--model",
                                                  "m",
                                                  "--drafter",
                                                  "dir+ngram",
                                                  "--prompt",
                                                  "",
                                                  "--raw",
                                                  "--max-tokens",
                                                  "7",
                                                  "--temperature",
                                                  "0.5",
                                                  "--top-p",
                                                  "0.9",
                                                  "--top-k",
                                                  "40",
                                                  "--min-p",
                                                  "0.1",
                                                  "--repetition-penalty",
                                                  "1.1",
                                                  "--seed",
                                                  "18446744073709551615",
                                                  "--nodes",
                                                  "5",
                                                  "--batch",
                                                  "3",
                                                  "--pass-times",
                                                  "t.json",
                                                  "--weights",
                                                  "bf16",
                                                  "--threads",
                                                  "2",
                                                  "--stop",
                                                  "a",
                                                  "--stop",
                                                  "b, c",
                                                  "--json",
                                                  "out"});
    CHECK(full.drafter == "dir+ngram");
    CHECK(full.prompt == "");
    CHECK(full.model.raw);
    CHECK(full.model.weights == "bf16");
    CHECK(full.model.threads == 2);
    const auto& g = full.decoding.generation;
    CHECK((g.max_tokens == 7 && g.temperature == 0.5 && g.top_p == 0.9 && g.top_k == 40 && g.min_p == 0.1));
    CHECK((g.repetition_penalty == 1.1 && g.seed == 18446744073709551615ULL));
    CHECK(g.stop == std::vector<std::string>{"a", "b, c"});
    CHECK(full.decoding.nodes == 5);
    CHECK(full.decoding.pass_times == "t.json");
    CHECK_FALSE(command<GenerateArguments>({"generate", "-m", "m", "--nodes", "3", "--nodes", "auto"})
                    .decoding.nodes.has_value());
    CHECK(full.decoding.batch == 3);
    CHECK(full.json == "out");
}

TEST_CASE("compare splits drafters at commas, distill has its own defaults") {
    const auto compare = command<CompareArguments>({"compare", "--model", "m", "--drafters", "none,ngram,a/b+ngram",
                                                    "--prompts", "p", "--limit", "5", "--nodes", "0"});
    CHECK(compare.drafters == std::vector<std::string>{"none", "ngram", "a/b+ngram"});
    CHECK(compare.limit == 5);
    using Sizes = std::vector<std::optional<std::int64_t>>;
    CHECK(compare.nodes == Sizes{0});
    const auto twice = command<CompareArguments>({"compare", "--model", "m", "--drafters", "none", "--prompts", "p",
                                                  "--json", "first", "--drafters", "ngram", "--json", "second"});
    CHECK(twice.json == "second");
    CHECK(twice.drafters == std::vector<std::string>{"none", "ngram"});
    CHECK(twice.nodes == Sizes{std::nullopt});
    const auto sized = [](const char* nodes) {
        return std::vector<const char*>{"compare",   "--model", "m",       "--drafters", "ngram",
                                        "--prompts", "p",       "--nodes", nodes};
    };
    CHECK(command<CompareArguments>(sized("auto,2,16,2")).nodes == Sizes{std::nullopt, 2, 16});
    for (const char* wrong : {"2,many", "2,-1", "auto,1025"}) CHECK(status(sized(wrong)) == 2);
    const auto distill = command<DistillArguments>({"distill", "--model", "m", "--prompts", "p", "--output", "o"});
    CHECK(distill.decoding.batch == 32);
    CHECK(distill.decoding.generation.max_tokens == 256);
    CHECK_FALSE(distill.model.raw);
    const auto raw = command<DistillArguments>(
        {"distill", "--model", "m", "--self-prompts", "9", "--output", "o", "--raw", "--prompt-tokens", "7"});
    CHECK((raw.model.raw && raw.self_prompts == 9 && raw.prompt_tokens == 7));
    const auto train = command<TrainArguments>(
        {"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o", "--resume", "--minutes", "1.5"});
    CHECK((train.resume && train.minutes == 1.5));
    CHECK(train.feature_layers.empty());
    const auto layers = command<TrainArguments>(
        {"train", "--model", "m", "--kind", "ctc", "--data", "d", "--feature-layers", "4,16,27", "--output", "o"});
    CHECK(layers.feature_layers == std::vector<std::int64_t>{4, 16, 27});
    CHECK((layers.data == std::vector<std::string>{"d"} && layers.output == "o"));
    const auto heads =
        command<TrainArguments>({"train", "--model", "m", "--kind", "hydra", "--data", "d", "--data", "e", "--output",
                                 "o", "--from", "f", "--draft-heads", "3", "--prefix-layer", "off"});
    CHECK(heads.data == std::vector<std::string>{"d", "e"});
    CHECK((heads.from == "f" && heads.draft_heads == 3 && heads.prefix_layer == "off" && !heads.frames));
}

TEST_CASE("bench takes a model and measures for ten seconds") {
    const auto plain = command<BenchArguments>({"bench", "--model", "m.gguf"});
    CHECK((plain.model.path == "m.gguf" && plain.model.weights == "auto" && plain.model.threads == 0));
    CHECK((plain.drafter.empty() && plain.json.empty() && !plain.brief));
    CHECK(plain.seconds == 10);
    const auto full = command<BenchArguments>({"bench", "-m", "m", "-d", "none", "--weights", "bf16", "--threads", "2",
                                               "--seconds", "1.5", "--brief", "--json", "-"});
    CHECK((full.drafter == "none" && full.model.weights == "bf16" && full.model.threads == 2));
    CHECK((full.seconds == 1.5 && full.brief && full.json == "-"));
}

TEST_CASE("wrong usage is status 2, help and version are 0") {
    const std::vector<std::vector<const char*>> wrong = {
        {},
        {"fly"},
        {"generate"},
        {"generate", "--model", "m", "--nonsense"},
        {"generate", "--model", "m", "--nodes", "many"},
        {"generate", "--model", "m", "--nodes", "-1"},
        {"generate", "--model", "m", "--nodes", "3.5"},
        {"generate", "--model", "m", "--temperature", "-0.1"},
        {"generate", "--model", "m", "--temperature", "nan"},
        {"generate", "--model", "m", "--temperature", "1x"},
        {"generate", "--model", "m", "--top-p", "0"},
        {"generate", "--model", "m", "--top-p", "1.1"},
        {"generate", "--model", "m", "--top-k", "-1"},
        {"generate", "--model", "m", "--batch", "0"},
        {"generate", "--model", "m", "--max-tokens", "0"},
        {"generate", "--model", "m", "--weights", "q3"},
        {"generate", "--model", "m", "--device", "cuda:"},
        {"generate", "--model", "m", "--device", "gpu"},
        {"generate", "--model", "m", "--template", "dialogue"},
        {"generate", "--model", "m", "--raw", "--template", "chatml"},
        {"distill", "--model", "m", "--prompts", "p", "--output", "o", "--raw", "--template", "chatml"},
        {"generate", "--model", "m", "--prompt", "a", "--prompts", "b"},
        {"generate", "--model", "m", "--stop", ""},
        {"generate", "--model", "m", "--stop", "caf\xE9"},
        {"inspect", "--model", "m", "--drafter", "ngram", "--prompt", "a", "--nodes", "auto"},
        {"inspect", "--model", "m", "--drafter", "ngram", "--prompt", "a", "--pass-times", "f"},
        {"compare", "--model", "m", "--prompts", "p"},
        {"compare", "--model", "m", "--drafters", "none"},
        {"train", "--model", "m", "--kind", "oracle", "--data", "d", "--output", "o"},
        {"train", "--model", "m", "--kind", "medusa", "--data", "d", "--output", "o", "--frames", "4"},
        {"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o", "--draft-heads", "4"},
        {"train", "--model", "m", "--kind", "medusa", "--data", "d", "--output", "o", "--feature-layers", "4"},
        {"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o", "--feature-layers", "4,x"},
        {"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o", "--feature-layers", "0"},
        {"generate", "--model", "m", "--raw", "--template-file", "t"},
        {"generate", "--model", "m", "--template", "chatml", "--template-file", "t"},
        {"bench"},
        {"bench", "--model", "m", "--seconds", "0"},
        {"bench", "--model", "m", "--seconds", "0.99"},
        {"bench", "--model", "m", "--seconds", "3601"},
        {"bench", "--model", "m", "--seconds", "nan"},
        {"bench", "--model", "m", "--seconds", "ten"},
        {"bench", "--model", "m", "--threads", "-1"},
        {"bench", "--model", "m", "--weights", "q3"},
        {"bench", "--model", "m", "--nodes", "4"},          // it measures them all
        {"bench", "--model", "m", "--template", "chatml"},  // its prompts are its own
        {"bench", "--model", "m", "--prompt", "a"},
        {"bench", "--model", "m", "--pass-times", "f"},
        {"tokenize"},
        {"tokenize", "--model", "m", "--template", "chatml"},
    };
    for (const auto& words : wrong) {
        CAPTURE(words.size() > 3 ? words[3] : "few words");
        CHECK(status(words) == 2);
    }
    CHECK(status({"--help"}) == 0);
    CHECK(status({"compare", "--help"}) == 0);
    CHECK(status({"--version"}) == 0);
}

namespace {

/// Whether the library takes the options with `set` called on them.
template <typename Options, typename Set>
bool taken(const Set& set) {
    Options options;
    set(options);
    try {
        outrider::check_options(options);
        return true;
    } catch (const outrider::Error&) {
        return false;
    }
}

/// The command line must say the same of `option VALUE`, before anything is loaded. How many values were taken.
template <typename Options, typename Set>
int agree(std::vector<const char*> words, const std::vector<double>& values, const Set& set) {
    int count = 0;
    words.push_back("");
    for (const double value : values) {
        const std::string text = fmt::format("{}", value);
        words.back() = text.c_str();
        CAPTURE(words[words.size() - 2], text);
        const bool right = taken<Options>([&](Options& o) { set(o, value); });
        CHECK(std::holds_alternative<Command>(parsed(words)) == right);
        count += right ? 1 : 0;
    }
    return count;
}

}  // namespace

TEST_CASE("one range for one option: the command line asks the library's") {
    using G = outrider::GenerationOptions;
    const std::vector<double> values = {
        -1e300, -1, -1e-9, 0,      1e-320, 1e-300,  1e-38, 1e-7, 1e-6,    1e-5, 9.9e-5, 1e-4,     0.5,       0.99, 1,
        1.01,   2,  100,   9999.5, 1e4,    1e4 + 1, 1e5,   1e6,  1e6 + 1, 1e30, 1e300,  INFINITY, -INFINITY, NAN};
    for (const char* command : {"generate", "compare", "inspect", "distill"}) {
        std::vector<const char*> base = {command, "--model", "m"};
        const std::string_view name = command;
        if (name == "compare") base.insert(base.end(), {"--drafters", "none", "--prompts", "p"});
        if (name == "inspect") base.insert(base.end(), {"--drafter", "none", "--prompt", "p"});
        if (name == "distill") base.insert(base.end(), {"--prompts", "p", "--output", "o"});
        const auto with = [&](const char* option) {
            auto words = base;
            words.push_back(option);
            return words;
        };
        CHECK(agree<G>(with("--temperature"), values, [](G& o, double x) { o.temperature = x; }) == 10);
        CHECK(agree<G>(with("--top-p"), values, [](G& o, double x) { o.top_p = x; }) == 11);
        CHECK(agree<G>(with("--min-p"), values, [](G& o, double x) { o.min_p = x; }) == 12);
        CHECK(agree<G>(with("--repetition-penalty"), values, [](G& o, double x) { o.repetition_penalty = x; }) == 15);
        for (const char* top_k : {"-1", "1.5", "x", "9223372036854775808", ""}) {
            auto words = with("--top-k");
            words.push_back(top_k);
            CHECK(status(words) == 2);
        }
    }
    using P = outrider::PolicyOptions;
    const auto policy = [](const char* name, const char* option) {
        return std::vector<const char*>{"generate", "--model", "m", "--accept", name, option};
    };
    CHECK(agree<P>(policy("lossy_typical", "--typical-eps"), values, [](P& o, double x) { o.typical.eps = x; }) == 12);
    CHECK(agree<P>(policy("lossy_typical", "--typical-delta"), values, [](P& o, double x) { o.typical.delta = x; }) ==
          24);
    CHECK(agree<P>(policy("lossy_top_beta", "--accept-gap"), values, [](P& o, double x) { o.top_beta.tau = x; }) == 24);
}

TEST_CASE("whole numbers are read whole, in decimal notation, and in range") {
    const auto seed = [](const char* text) {
        return std::vector<const char*>{"generate", "--model", "m", "--seed", text};
    };
    for (const char* text : {"-1", "18446744073709551616", "99999999999999999999", "", " ", "1.5", "1e3", "0x10", "+1",
                             "1 ", " 1", "1_000", "1'000", "seed"}) {
        CAPTURE(text);
        CHECK(status(seed(text)) == 2);
        CHECK(status({"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o", "--seed", text}) == 2);
        CHECK(status({"generate", "--model", "m", "--threads", text}) == 2);
        CHECK(status({"generate", "--model", "m", "--nodes", text}) == 2);
    }
    CHECK(command<GenerateArguments>(seed("0")).decoding.generation.seed == 0);
    CHECK(command<GenerateArguments>(seed("010")).decoding.generation.seed == 10);  // and not eight
    CHECK(command<GenerateArguments>(seed("18446744073709551615")).decoding.generation.seed == 18446744073709551615ULL);
    for (const auto& [nodes, right] :
         {std::pair{"0", true}, {"1024", true}, {"1025", false}, {"4096", false}, {"Auto", false}}) {
        CAPTURE(nodes);
        CHECK(std::holds_alternative<Command>(parsed({"generate", "--model", "m", "--nodes", nodes})) == right);
        CHECK(std::holds_alternative<Command>(
                  parsed({"inspect", "--model", "m", "--drafter", "d", "--prompt", "p", "--nodes", nodes})) == right);
    }
    for (const auto& [threads, right] : {std::pair{"0", true}, {"1024", true}, {"1025", false}})
        CHECK(std::holds_alternative<Command>(parsed({"generate", "--model", "m", "--threads", threads})) == right);
}

TEST_CASE("training's numbers have its own ranges") {
    const auto right = [](const char* kind, const char* option, const char* value) {
        return std::holds_alternative<Command>(
            parsed({"train", "--model", "m", "--kind", kind, "--data", "d", "--output", "o", option, value}));
    };
    const std::vector<std::tuple<const char*, const char*, const char*, const char*>> table = {
        // kind, option, a value inside, one outside
        {"ctc", "--limit", "0", "-1"},
        {"ctc", "--most-tokens", "4", "3"},
        {"ctc", "--held-out", "1", "0"},
        {"ctc", "--vocabulary", "0", "-1"},
        {"ctc", "--label-decay", "1", "0"},
        {"ctc", "--learning-rate", "0", "1.1"},
        {"ctc", "--warmup", "1", "1.1"},
        {"ctc", "--final-rate", "0", "-0.1"},
        {"ctc", "--weight-decay", "0", "2"},
        {"ctc", "--clip", "1e9", "0"},
        {"ctc", "--ema", "0.9999", "1"},
        {"ctc", "--batch-anchors", "1", "0"},
        {"ctc", "--group-anchors", "0", "-1"},
        {"ctc", "--minutes", "0.01", "0"},
        {"ctc", "--anchors", "0", "-1"},
        {"ctc", "--report-seconds", "0", "-1"},
        {"ctc", "--checkpoint-minutes", "0", "nan"},
        {"ctc", "--evaluate-minutes", "1", "inf"},
        {"ctc", "--evaluate-conversations", "1", "0"},
        {"ctc", "--teacher", "1", "1.1"},
        {"ctc", "--frames", "64", "65"},
        {"ctc", "--labels", "15", "16"},
        {"ctc", "--feature-layers", "1,4096", "4097"},
        {"ctc", "--layers", "16", "17"},
        {"ctc", "--prefix-rank", "1", "0"},
        {"ctc", "--prefix-bottleneck", "0", "-1"},
        {"medusa", "--draft-heads", "15", "16"},
        {"medusa", "--blocks", "64", "65"},
        {"hydra", "--attention-heads", "0", "-1"},
        {"hydra", "--kv-heads", "8", "1048577"},
        {"hydra", "--intermediate", "64", "-64"},
    };
    for (const auto& [kind, option, inside, outside] : table) {
        CAPTURE(option);
        CHECK(right(kind, option, inside));
        CHECK_FALSE(right(kind, option, outside));
    }
}

TEST_CASE("an option that would be ignored is wrong usage") {
    const std::vector<const char*> generate = {"generate", "--model", "m"},
                                   compare = {"compare", "--model", "m", "--drafters", "none", "--prompts", "p"},
                                   inspect = {"inspect", "--model", "m", "--drafter", "d", "--prompt", "p"},
                                   self = {"distill", "--model", "m", "--output", "o", "--self-prompts", "3"},
                                   file = {"distill", "--model", "m", "--output", "o", "--prompts", "p"};
    const auto train = [](const char* kind) {
        return std::vector<const char*>{"train", "--model", "m", "--kind", kind, "--data", "d", "--output", "o"};
    };
    const std::vector<std::tuple<std::vector<const char*>, std::vector<const char*>, std::vector<const char*>>> table =
        {
            // command, the option, and what makes it mean something (empty: nothing does)
            {generate, {"--limit", "3"}, {"--prompts", "p"}},
            {generate, {"--typical-eps", "0.1"}, {"--accept", "lossy_typical"}},
            {generate, {"--typical-delta", "0.1"}, {"--accept", "lossy_typical"}},
            {generate, {"--accept-top", "2"}, {"--accept", "lossy_top_k"}},
            {compare, {"--accept-top", "2"}, {"--accept", "lossy_top_beta"}},
            {compare, {"--accept-gap", "2"}, {"--accept", "lossy_top_beta"}},
            {inspect, {"--accept-distance", "2"}, {"--accept", "lossy_distance"}},
            {inspect, {"--minimum-block", "2"}, {"--accept", "lossy_top_k"}},
            {generate, {"--chains", "2"}, {"--tree", "sampled"}},
            {compare, {"--chains", "2"}, {"--accept", "multi_step"}},
            {inspect, {"--chains", "1", "--tree", "static"}, {}},
            {file, {"--prompt-temperature", "0.5"}, {}},
            {file, {"--exclude", "x"}, {}},
            {self, {"--prompt-tokens", "8"}, {"--raw"}},
            {file, {"--prompt-tokens", "8", "--raw"}, {}},
            {self, {"--limit", "3"}, {}},
            {train("ctc"), {"--vocabulary", "64", "--from", "f"}, {}},
            {train("ctc"), {"--minutes", "5", "--anchors", "500"}, {}},
            {train("ctc"), {"--features-only", "--stored-features"}, {}},
            {train("ctc"), {"--resume", "--force"}, {}},
            {train("ctc"), {"--prefix-rank", "8", "--conditioning", "none"}, {}},
            {train("ctc"), {"--prefix-bottleneck", "8", "--conditioning", "none"}, {}},
            {train("ctc"), {"--output-rows", "own", "--conditioning", "none"}, {}},
            {train("ctc"), {"--output-rows", "shared"}, {}},
            {train("ctc"), {"--teacher", "0.5", "--loss", "ctc"}, {}},
            {train("hydra"), {"--output-bias"}, {"--output-rows", "own"}},
            {train("hydra"), {"--output-bias", "--output-rows", "target"}, {}},
            {train("hydra"), {"--attention-heads", "2", "--prefix-layer", "off"}, {}},
            {train("hydra"), {"--intermediate", "64", "--prefix-layer", "off"}, {}},
        };
    for (const auto& [base, option, needed] : table) {
        auto words = base;
        words.insert(words.end(), option.begin(), option.end());
        CAPTURE(base.front(), option.front());
        CHECK(status(words) == 2);
        words.insert(words.end(), needed.begin(), needed.end());
        if (!needed.empty()) CHECK(std::holds_alternative<Command>(parsed(words)));
    }
    CHECK(command<InspectArguments>(inspect).nodes == 16);
}

TEST_CASE("a tree that no drafter makes is an error") {
    for (const auto& [tree, kinds] : {std::pair{"static", "ngram"},
                                      {"per-frame", "medusa+ngram"},
                                      {"measured", "ctc"},
                                      {"sampled", "none"},
                                      {"static", "lm"},
                                      {"sampled", "ngram+ngram"}}) {
        CAPTURE(tree, kinds);
        CHECK_THROWS_AS(check_tree(tree, kinds), outrider::Error);
    }
    for (const auto& [tree, kinds] : {std::pair{"auto", "none"},
                                      {"best-first", "ngram"},
                                      {"static", "none+ctc+ngram"},
                                      {"per-frame", "ctc"},
                                      {"measured", "none+hydra"},
                                      {"sampled", "lm"}}) {
        CAPTURE(tree, kinds);
        CHECK_NOTHROW(check_tree(tree, kinds));
    }
}
