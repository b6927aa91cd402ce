// A target that takes no branches: every drafter proposes one path, and the texts are the same.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>

#include <memory>
#include <string>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "drafters_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

bool is_chain(const TokenTree& tree) { return static_cast<std::size_t>(tree.height()) == tree.drafted(); }

/// The small Llama as such a target.
class ChainsOnly final : public Verifier {
public:
    explicit ChainsOnly(const LlamaModel& model) : inner_(model) {}
    [[nodiscard]] VerifierLimits limits() const override { return {.chains_only = true}; }
    [[nodiscard]] Feedback prefill(std::span<const Prefill> prompts) override { return inner_.prefill(prompts); }
    [[nodiscard]] TreeOutput verify(std::span<const SequenceTree> trees) override {
        for (const SequenceTree& one : trees) CHECK(is_chain(one.tree));
        return inner_.verify(trees);
    }
    [[nodiscard]] Feedback commit(std::span<const SequenceAcceptance> kept) override { return inner_.commit(kept); }
    void release(SequenceId sequence) override { inner_.release(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return inner_.vocabulary(); }
    [[nodiscard]] std::int64_t context() const override { return inner_.context(); }

private:
    LlamaVerifier inner_;
};

/// What comes out of a drafter before the decoder cuts it.
class Watched final : public DraftModel {
public:
    explicit Watched(std::unique_ptr<DraftModel> inner) : inner_(std::move(inner)) {}
    [[nodiscard]] std::string_view kind() const override { return inner_->kind(); }
    [[nodiscard]] DraftDraws draws() const override { return inner_->draws(); }
    [[nodiscard]] FeatureRequest features() const override { return inner_->features(); }
    void forget(SequenceId sequence) override { inner_->forget(sequence); }
    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override {
        CHECK((budget.chains || budget.nodes == 0));
        std::vector<SequenceTree> trees = inner_->propose(feedback, budget);
        for (const SequenceTree& one : trees) CHECK(is_chain(one.tree));
        return trees;
    }

private:
    std::unique_ptr<DraftModel> inner_;
};

std::vector<std::unique_ptr<DraftModel>> all_drafters(const TargetHead& head) {
    std::vector<std::unique_ptr<DraftModel>> all = drafters(head);
    all.push_back(ctc(head, {}));
    const DrafterOptions options{.lm_model = {.threads = 1}};
    const std::string lm = "lm:" + kTiny;
    for (const char* name : {"ngram", "ngram:copy", "ngram:maxgram", lm.c_str()})
        all.push_back(make_drafter(name, head, options));
    all.push_back(make_drafter(lm + "+ngram", head, options));
    std::vector<std::unique_ptr<DraftModel>> parts;
    parts.push_back(ctc(head, {}));
    parts.push_back(make_drafter("ngram", head));
    all.push_back(std::make_unique<MergedDraft>(std::move(parts)));
    return all;
}

}  // namespace

TEST_CASE("Texts of a target that takes chains alone are the same with every drafter, which propose chains") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    const std::vector<std::vector<TokenId>> prompts{{5, 9, 31, 7}, {100, 101, 100, 101, 100, 101, 100}};
    const auto options = [](std::size_t i) {
        GenerationOptions made{.max_tokens = 40, .stop_at_end = false};
        if (i % 2 == 1) made.temperature = 0.8, made.seed = 7;
        return made;
    };
    std::vector<std::vector<TokenId>> expected;
    SpeculativeDecoder plain{NoDraft{}, LlamaVerifier{model}, Match{}, {.nodes = 0}};
    for (std::size_t i = 0; i < 4; ++i) expected.push_back(plain.generate({prompts[i / 2]}, options(i)).tokens);
    for (const std::int64_t nodes : {std::int64_t{6}, kAutoNodes})
        for (auto& drafter : all_drafters(model.head())) {
            CAPTURE(drafter->kind(), nodes);
            SpeculativeDecoder decoder{Watched{std::move(drafter)}, ChainsOnly{model}, Match{}, {.nodes = nodes}};
            std::vector<SequenceId> ids;
            for (std::size_t i = 0; i < 4; ++i) ids.push_back(decoder.join({prompts[i / 2]}, options(i)));
            decoder.run();
            for (std::size_t i = 0; i < 4; ++i) CHECK(decoder.take(ids[i]).tokens == expected[i]);
        }
}
