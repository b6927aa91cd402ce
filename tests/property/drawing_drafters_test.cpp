// The library's own drafters under the rules that keep the law: what they say of their draws is what they drew.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/engine/make_policy.hpp>

#include "../unit/draft/nn/heads_fixture.hpp"
#include "fake_target.hpp"
#include "plain_loop.hpp"
#include "text_law.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// The fake target with features as wide as a network needs: functions of the prefix still.
class WideTarget final : public Verifier {
public:
    explicit WideTarget(FakeLaw law) : inner_(law) {}

    Feedback prefill(std::span<const Prefill> sequences) override { return widened(inner_.prefill(sequences)); }
    TreeOutput verify(std::span<const SequenceTree> trees) override { return inner_.verify(trees); }
    Feedback commit(std::span<const SequenceAcceptance> accepted) override { return widened(inner_.commit(accepted)); }
    void release(SequenceId sequence) override { inner_.release(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return inner_.vocabulary(); }
    [[nodiscard]] std::int64_t context() const override { return inner_.context(); }

private:
    static Feedback widened(Feedback feedback) {
        for (SequenceFeedback& f : feedback) {
            at::Tensor wide = at::empty({f.features.size(0), kToyHidden}, at::kFloat);
            for (std::int64_t i = 0; i < wide.size(0); ++i) {
                const float* name = f.features.const_data_ptr<float>() + i * kFakeFeatures;
                const RandomKey key(static_cast<std::uint64_t>(name[0]), static_cast<std::uint64_t>(name[1]), 0);
                for (std::int64_t j = 0; j < kToyHidden; ++j)
                    wide.data_ptr<float>()[i * kToyHidden + j] =
                        static_cast<float>(4 * key.uniform(static_cast<std::uint64_t>(j)) - 2);
            }
            f.features = std::move(wide);
        }
        return feedback;
    }

    FakeTarget inner_;
};

/// Names four of the five tokens.
std::unique_ptr<DraftModel> ctc(CtcConditioning conditioning, CtcDraftOptions options) {
    TargetHead head = toy_head();
    head.vocabulary = kLaw.vocabulary;
    CtcConfig config = toy_config(conditioning);
    config.vocabulary = {0, 1, 3, 4};
    options.threads = 1;
    return std::make_unique<CtcDraft>(config, toy_weights(config, head), head, options);
}

/// Name the same four of the five tokens.
std::unique_ptr<DraftModel> medusa(HeadDraftOptions options) {
    TargetHead head = toy_head();
    head.vocabulary = kLaw.vocabulary;
    MedusaConfig config = toy_medusa(HeadOutput::target);
    config.vocabulary = {0, 1, 3, 4};
    options.threads = 1;
    return std::make_unique<MedusaDraft>(config, toy_weights(config, head), head, options);
}
std::unique_ptr<DraftModel> hydra(HeadDraftOptions options) {
    TargetHead head = toy_head();
    head.vocabulary = kLaw.vocabulary;
    HydraConfig config = toy_hydra(true);
    config.vocabulary = {0, 1, 3, 4};
    options.threads = 1;
    return std::make_unique<HydraDraft>(config, toy_weights(config, head), head, options);
}

std::unique_ptr<DraftModel> merged(std::unique_ptr<DraftModel> a, std::unique_ptr<DraftModel> b) {
    std::vector<std::unique_ptr<DraftModel>> parts;
    parts.push_back(std::move(a));
    parts.push_back(std::move(b));
    return std::make_unique<MergedDraft>(std::move(parts));
}

const GenerationOptions kOptions{.temperature = 0.9, .top_k = 4};

void check_law(const char* policy, std::unique_ptr<DraftModel> draft, std::int64_t nodes = 8) {
    CAPTURE(policy, draft->kind(), nodes);
    const Texts texts = texts_of(kOptions, std::move(draft), std::unique_ptr<Verifier>(new WideTarget(kLaw)),
                                 make_policy(policy), 5000, nodes);
    CHECK(texts.excess < 3.5);
    CHECK(texts.control > 10);
    CHECK(texts.accepted > 300);
}

}  // namespace

TEST_CASE("sampled CTC drafts keep the target's law under every rule", "[property][law]") {
    for (const CtcConditioning conditioning : {CtcConditioning::none, CtcConditioning::prefix}) {
        for (const char* policy : {"rejection", "block"})
            check_law(policy, ctc(conditioning, {.tree = CtcTree::sampled, .chains = 1}));
        for (const char* policy : {"multi_step", "kseq", "traversal", "unified"})
            check_law(policy, ctc(conditioning, {.tree = CtcTree::sampled, .chains = 2}));
    }
    check_law("rejection", ctc(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 1}), 2);  // cut chains
}

TEST_CASE("sampled heads keep the target's law under every rule", "[property][law]") {
    for (const auto& make : {medusa, hydra}) {
        for (const char* policy : {"rejection", "block"}) check_law(policy, make({.tree = HeadTree::sampled}));
        for (const char* policy : {"multi_step", "kseq", "traversal", "unified"})
            check_law(policy, make({.tree = HeadTree::sampled, .chains = 2}));
        check_law("rejection", make({.tree = HeadTree::sampled, .top_k = 2}), 2);  // cut chains, few tokens
    }
}

TEST_CASE("a drafter that is certain keeps the target's law under every rule", "[property][law]") {
    for (const char* policy : {"rejection", "block", "multi_step", "kseq", "traversal", "unified"})
        check_law(policy, std::make_unique<NgramDraft>());
}

TEST_CASE("merged drafts pass the draws on, and lose nodes without bias", "[property][law]") {
    for (const std::int64_t nodes : {3, 8})
        for (const char* policy : {"rejection", "block", "unified"})
            check_law(policy,
                      merged(std::make_unique<NgramDraft>(),
                             ctc(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 1})),
                      nodes);
    check_law(
        "traversal",
        merged(ctc(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 2}), ctc(CtcConditioning::none, {})),
        5);
}

TEST_CASE("draw policies give the greedy text with the library's drafters", "[property]") {
    const FakeLaw law{.vocabulary = 5, .order = 2, .seed = 8};
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}, make_policy("match")};
    const GenerationOptions forty{.max_tokens = 40};
    const auto expected = plain.generate({kPrompt}, forty).tokens;
    for (const PolicyInfo& policy : policies()) {
        if (promise_at(policy, 0.0) != TextPromise::same_text) continue;
        CAPTURE(policy.name);
        for (int kind = 0; kind < 3; ++kind) {
            const auto chain = [] { return ctc(CtcConditioning::prefix, {.tree = CtcTree::sampled, .chains = 1}); };
            std::unique_ptr<DraftModel> draft = kind == 0 ? std::make_unique<NgramDraft>() : chain();
            if (kind == 2) draft = merged(std::make_unique<NgramDraft>(), chain());
            // A fixed size: beside a target that costs nothing the automatic one may rightly draft nothing.
            AnyDecoder decoder{
                std::move(draft), std::make_unique<WideTarget>(law), make_policy(policy.name), {.nodes = 4}};
            const GenerationResult result = decoder.generate({kPrompt}, forty);
            CHECK(result.tokens == expected);
            if (kind != 1) CHECK(result.stats.accepted > 0);
        }
    }
}

TEST_CASE("a best-first draft does not fit a rule that needs draws, and says so before the first round", "[property]") {
    for (const PolicyInfo& policy : policies()) {
        CAPTURE(policy.name);
        const auto decoder = [&](CtcDraftOptions options) {
            return AnyDecoder{ctc(CtcConditioning::prefix, options), std::make_unique<WideTarget>(kLaw),
                              make_policy(policy.name)};
        };
        if (policy.needs_draws)
            CHECK_THROWS_WITH(decoder({}), Catch::Matchers::ContainsSubstring("drafter that samples"));
        else
            CHECK_NOTHROW(decoder({}));
        if (policy.one_chain)
            CHECK_THROWS_WITH(decoder({.tree = CtcTree::sampled, .chains = 2}),
                              Catch::Matchers::ContainsSubstring("one sampled chain"));
        CHECK_NOTHROW(decoder({.tree = CtcTree::sampled, .chains = 1}));
    }
}
