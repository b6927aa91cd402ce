// The text never depends on the drafter, for every family of targets: random trees over the small models of
// tests/golden/families against plain decoding, alone and in a batch, greedy and sampled.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <map>
#include <random>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

using Texts = std::map<std::vector<TokenId>, std::vector<TokenId>>;

/// Random trees of any shape. It knows each prompt's plain text, and some of its nodes are right.
class HalfRightDraft final : public DraftModel {
public:
    HalfRightDraft(const Texts* texts, std::int64_t vocabulary, std::uint64_t seed)
        : texts_(texts), vocabulary_(vocabulary), engine_(seed) {}
    [[nodiscard]] std::string_view kind() const override { return "test"; }
    [[nodiscard]] FeatureRequest features() const override { return FeatureRequest::none(); }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            State& state = states_[f.sequence];
            if (state.prompt.empty()) {  // the first pending token is the prompt's last
                state.prompt.assign(f.tokens.begin(), f.tokens.end());
                state.prompt.push_back(f.pending);
            }
            const std::vector<TokenId>& truth = texts_->at(state.prompt);
            const auto done = static_cast<std::size_t>(f.committed) - state.prompt.size();
            trees.push_back({f.sequence, grow(truth, done, f.pending, budget.nodes)});
        }
        return trees;
    }
    void forget(SequenceId sequence) override { states_.erase(sequence); }

private:
    struct State {
        std::vector<TokenId> prompt;
    };

    std::int64_t pick(std::int64_t count) { return std::uniform_int_distribution<std::int64_t>(0, count - 1)(engine_); }

    TokenTree grow(const std::vector<TokenId>& truth, std::size_t done, TokenId pending, std::int64_t nodes) {
        TokenTree::Builder tree(pending);
        for (std::int64_t i = 0; i < nodes; ++i) {
            const auto size = static_cast<std::int64_t>(tree.size());
            const auto parent = static_cast<NodeIndex>(pick(2) == 0 ? size - 1 : pick(size));
            const std::size_t at = done + 1 + static_cast<std::size_t>(tree.view().depth(parent));
            const bool right = pick(3) > 0 && at < truth.size();
            (void)tree.add(parent, right ? truth[at] : static_cast<TokenId>(pick(vocabulary_)), -1.0F);
        }
        return std::move(tree).build();
    }

    const Texts* texts_;
    std::int64_t vocabulary_;
    std::mt19937_64 engine_;
    std::map<SequenceId, State> states_;
};

GenerationOptions options_of(std::uint64_t seed) {
    GenerationOptions options{.max_tokens = 40};
    if (seed % 2 == 1) options.temperature = 0.8, options.seed = seed;
    return options;
}

}  // namespace

TEST_CASE("every family's text is that of plain decoding, under random trees, batches and seeds", "[property]") {
    const std::string name = GENERATE("llama", "qwen2", "qwen3", "gemma3", "gemma2", "smollm3", "mistral", "mistral3",
                                      "phi3", "glm4", "granite", "olmo2", "olmo3");
    const Weights weights = GENERATE(Weights::bf16, Weights::int8);
    CAPTURE(name, name_of(weights));
    const LlamaModel model = LlamaModel::load(std::string(OUTRIDER_SOURCE_DIR "/tests/golden/families/") + name + "/hf",
                                              {.weights = weights, .threads = 2});
    const std::int64_t vocabulary = model.config().vocabulary;
    std::int64_t accepted = 0, rounds = 0;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        std::vector<std::vector<TokenId>> prompts;
        for (std::int64_t p = 0; p < 3; ++p) {
            prompts.emplace_back();
            for (std::int64_t i = 0; i < 5 + 9 * p; ++i)
                prompts.back().push_back(static_cast<TokenId>((3 + 7 * i + i * i * (p + 2)) % vocabulary));
        }
        Texts texts;
        SpeculativeDecoder plain{NoDraft{}, LlamaVerifier{model}};
        for (const auto& prompt : prompts) texts[prompt] = plain.generate({prompt}, options_of(seed)).tokens;
        SpeculativeDecoder drafted{HalfRightDraft{&texts, vocabulary, seed},
                                   LlamaVerifier{model},
                                   Match{},
                                   {.nodes = 6 + static_cast<std::int64_t>(seed)}};
        std::vector<SequenceId> ids;
        for (const auto& prompt : prompts) ids.push_back(drafted.join({prompt}, options_of(seed)));
        while (drafted.step()) {
        }
        for (std::size_t p = 0; p < prompts.size(); ++p) {
            CAPTURE(seed, p);
            const GenerationResult result = drafted.take(ids[p]);
            CHECK(result.tokens == texts[prompts[p]]);
            accepted += result.stats.accepted, rounds += result.stats.rounds;
        }
    }
    CHECK(accepted > rounds / 4);
}
