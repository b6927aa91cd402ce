#include <catch2/catch_test_macros.hpp>

#include <arguments.hpp>

#include <vector>

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

    const auto full = command<GenerateArguments>(
        {"generate", "--model", "m", "--drafter", "dir+ngram", "--prompt", "", "--raw", "--max-tokens", "7",
         "--temperature", "0.5", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.1", "--repetition-penalty", "1.1",
         "--seed", "18446744073709551615", "--nodes", "5", "--batch", "3", "--pass-times", "t.json", "--weights", "bf16", "--threads", "2",
         "--stop", "a", "--stop", "b, c", "--json", "out"});
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
    CHECK(compare.decoding.nodes == 0);
    const auto twice = command<CompareArguments>({"compare", "--model", "m", "--drafters", "none", "--prompts", "p", "--json",
                                                  "first", "--drafters", "ngram", "--json", "second"});
    CHECK(twice.json == "second");
    CHECK(twice.drafters == std::vector<std::string>{"none", "ngram"});
    const auto distill = command<DistillArguments>({"distill", "--model", "m", "--prompts", "p", "--output", "o"});
    CHECK(distill.decoding.batch == 32);
    CHECK(distill.decoding.generation.max_tokens == 256);
    const auto train = command<TrainArguments>({"train", "--model", "m", "--kind", "ctc", "--data", "d", "--output", "o",
                                                "--resume", "--minutes", "1.5"});
    CHECK((train.resume && train.minutes == 1.5));
    CHECK(train.feature_layers.empty());
    const auto layers = command<TrainArguments>({"train", "--model", "m", "--kind", "ctc", "--data", "d", "--feature-layers",
                                                 "4,16,27", "--output", "o"});
    CHECK(layers.feature_layers == std::vector<std::int64_t>{4, 16, 27});
    CHECK((layers.data == std::vector<std::string>{"d"} && layers.output == "o"));
    const auto heads = command<TrainArguments>({"train", "--model", "m", "--kind", "hydra", "--data", "d", "--data", "e",
                                                "--output", "o", "--from", "f", "--draft-heads", "3", "--prefix-layer", "off"});
    CHECK(heads.data == std::vector<std::string>{"d", "e"});
    CHECK((heads.from == "f" && heads.draft_heads == 3 && heads.prefix_layer == "off" && !heads.frames));
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
        {"generate", "--model", "m", "--prompt", "a", "--prompts", "b"},
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
