// Records rounds for the tests of the budget (tests/golden/rounds/README.md): at every position of a text the drafter
// drafts, some of its likeliest nodes are verified, and one token is kept.
//     rounds MODEL PROMPTS.jsonl TOKENS WEIGHTS DRAFTER...
// DRAFTER: as make_drafter names them, with a short name for the recording before it: ctc=examples/drafters/... A
// prompt goes through all drafters in turn, `none` first. The recording goes to standard output.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <outrider/budget/detail/scored_nodes.hpp>
#include <outrider/core/error.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

constexpr std::int64_t kNodes = 8;
constexpr const char* kDigits = "0123456789abcdefghijklmnopqrstuv";

double microseconds() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Position {
    std::int64_t verified = 0;
    double draft = 0, pass = 0;
    TokenTree tree = TokenTree::root_only(0);
    TokenId next = kNoToken;  ///< what the target said
};

/// One text, up to `tokens` tokens. No drafter: passes of the root alone.
std::vector<Position> walk(LlamaVerifier& verifier, DraftModel* drafter, SequenceId sequence, const Prompt& prompt,
                           std::int64_t tokens, std::mt19937& engine) {
    const std::span<const TokenId> text(prompt.tokens);
    const FeatureRequest features = drafter != nullptr ? drafter->features() : FeatureRequest::none();
    const Prefill prefill{sequence, text.first(text.size() - 1), text.back(), features};
    Feedback feedback = verifier.prefill(std::span(&prefill, 1));
    std::vector<Position> positions;
    for (std::int64_t i = 0; i < tokens; ++i) {
        Position p;
        std::vector<SequenceTree> trees;
        const double start = microseconds();
        if (drafter != nullptr)
            trees = drafter->propose(feedback, {kNodes});
        else
            trees.push_back({sequence, TokenTree::root_only(feedback[0].pending)});
        p.draft = drafter != nullptr ? microseconds() - start : 0;
        p.tree = trees[0].tree;
        const std::vector<budget::Candidate> nodes = budget::likeliest_first(trees, budget::HitRates{});
        const auto count = std::min(nodes.size(), static_cast<std::size_t>(engine() % (kNodes + 1)));
        trees = budget::keep(std::move(trees), std::span(nodes).first(count));
        p.verified = std::ssize(trees[0].tree.tokens()) - 1;
        const double drafted = microseconds();
        const TreeOutput output = verifier.verify(trees);
        p.next = static_cast<TokenId>(output.argmax.const_data_ptr<std::int64_t>()[0]);
        const SequenceAcceptance root = kept_of(sequence, trees[0].tree, {{}, p.next});
        feedback = verifier.commit(std::span(&root, 1));
        p.pass = microseconds() - drafted;
        positions.push_back(std::move(p));
        if (std::find(prompt.end_ids.begin(), prompt.end_ids.end(), positions.back().next) != prompt.end_ids.end())
            break;
    }
    verifier.release(sequence);
    if (drafter != nullptr) drafter->forget(sequence);
    return positions;
}

/// Three characters a node: its parent, in capitals where it lies on the text, and its probability in thousandths.
std::string drawn(const std::vector<Position>& positions, std::size_t at) {
    const TokenTree& tree = positions[at].tree;
    std::vector<bool> hit(tree.size(), false);
    hit[0] = true;
    std::string line;
    for (std::size_t i = 1; i < tree.size(); ++i) {
        const std::size_t there = at + static_cast<std::size_t>(tree.depths()[i]) - 1;
        hit[i] = hit[static_cast<std::size_t>(tree.parents()[i])] && there < positions.size() &&
                 positions[there].next == tree.tokens()[i];
        const auto share =
            static_cast<std::size_t>(std::clamp(std::lround(1000 * std::exp(tree.log_q()[i])), 0L, 1000L));
        line += static_cast<char>((hit[i] ? 'A' : 'a') + tree.parents()[i]);
        line += kDigits[share / 32], line += kDigits[share % 32];
    }
    return line;
}

int run(int argc, char** argv) {
    require(argc >= 6, "usage: rounds MODEL PROMPTS.jsonl TOKENS WEIGHTS NAME=DRAFTER...");
    const LlamaModel model = LlamaModel::load(argv[1], {.weights = weights_by_name(argv[4])});
    LlamaVerifier verifier(model);
    std::vector<std::pair<std::string, std::unique_ptr<DraftModel>>> drafters;
    drafters.emplace_back("none", nullptr);
    for (int i = 5; i < argc; ++i) {
        const std::string word = argv[i];
        const std::size_t split = word.find('=');
        require(split != std::string::npos, "rounds: '{}'; expected NAME=DRAFTER", word);
        drafters.emplace_back(word.substr(0, split), make_drafter(word.substr(split + 1), model.head()));
    }
    std::ifstream file(argv[2]);
    require(file.good(), "rounds: cannot read {}", argv[2]);
    std::mt19937 engine(1);
    SequenceId sequence = 0;
    for (std::string line; std::getline(file, line);) {
        const auto row = nlohmann::json::parse(line);
        const std::string words = row.contains("turns") ? row["turns"][0] : row.at("prompt");
        const Prompt prompt = model.chat(words);
        for (const auto& [name, drafter] : drafters) {
            const auto positions = walk(verifier, drafter.get(), ++sequence, prompt, std::atoll(argv[3]), engine);
            fmt::print("= {} {}\n", name, (sequence - 1) / std::ssize(drafters) + 1);
            for (std::size_t i = 0; i < positions.size(); ++i)
                fmt::print("{} {:.0f} {:.0f}{}{}\n", positions[i].verified, positions[i].draft, positions[i].pass,
                           positions[i].tree.drafted() > 0 ? " " : "", drawn(positions, i));
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) try { return run(argc, argv); } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
}
