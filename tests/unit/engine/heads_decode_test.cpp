// A small Llama with Medusa and Hydra: the text is that of plain decoding, whatever they draft.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <outrider/accept/match.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/engine.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "../target/deep_folder.hpp"
#include "../temporary_folder.hpp"
#include "drafters_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

std::vector<std::vector<TokenId>> texts(const LlamaModel& model, std::unique_ptr<DraftModel> drafter, bool greedy,
                                        std::int64_t nodes, std::int64_t& accepted) {
    std::unique_ptr<AcceptancePolicy> policy;
    if (greedy)
        policy = std::make_unique<Match>();
    else
        policy = std::make_unique<Match>();
    AnyDecoder decoder(std::move(drafter), std::make_unique<LlamaVerifier>(model), std::move(policy), {.nodes = nodes});
    const std::vector<std::vector<TokenId>> prompts{{5, 9, 31, 7}, {12}, {100, 101, 100, 101, 100, 101, 100}};
    std::vector<SequenceId> ids;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        GenerationOptions options{.max_tokens = 40, .stop_at_end = false};
        if (!greedy) options.temperature = 0.8, options.seed = 7, options.stream = i;
        ids.push_back(decoder.join({prompts[i]}, options));
    }
    while (decoder.step()) {
    }
    std::vector<std::vector<TokenId>> all;
    for (const SequenceId id : ids) {
        const GenerationResult result = decoder.take(id);
        accepted += result.stats.accepted;
        all.push_back(result.tokens);
    }
    return all;
}

}  // namespace

TEST_CASE("Medusa and Hydra do not change a word, in a batch, greedy and sampled") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    for (const bool greedy : {true, false}) {
        std::int64_t none = 0, accepted = 0;
        const auto expected = texts(model, std::make_unique<NoDraft>(), greedy, 8, none);
        for (const std::int64_t nodes : {3, 16})
            for (auto& drafter : drafters(model.head())) {
                INFO(drafter->kind() << ", " << nodes << " nodes, greedy " << greedy);
                CHECK(texts(model, std::move(drafter), greedy, nodes, accepted) == expected);
            }
        CHECK(none == 0);
        CHECK(accepted > 0);
    }
}

TEST_CASE("Making drafters leaves a const model's forward as it was, bit by bit", "[features]") {
    const testing::DeepFolder folder;
    const LlamaModel model = LlamaModel::load(folder.path(), {.threads = 1});
    const std::vector<TokenId> text{5, 9, 31, 7, 100, 101, 100, 8};
    const auto forward = [&](const std::vector<std::int64_t>& layers) {
        const auto pass = model.make_pass();
        KvCache cache = pass->make_cache();
        const RowSegment segment{.cache = &cache, .tokens = text};
        return pass->forward(std::span(&segment, 1), PassFor::logits, layers);
    };
    const auto same = [](const PassOutput& a, const PassOutput& b) {
        return at::equal(a.logits, b.logits) && at::equal(a.features, b.features);
    };
    const PassOutput before = forward({});
    const auto first = ctc(model.head(), {1, 3}), second = ctc(model.head(), {2});
    const auto heads = drafters(model.head());
    CHECK(same(forward({}), before));
    CHECK_FALSE(same(forward({1, 3}), before));  // the negative control: what a drafter asks for is another forward
    CHECK(same(forward({}), before));
}

TEST_CASE("Drafters with feature layers and without stand beside each other, and change no word", "[features]") {
    const testing::DeepFolder folder;
    const auto fresh = [&] { return LlamaModel::load(folder.path(), {.threads = 1}); };
    const auto medusa = [](const TargetHead& head) {
        return std::make_unique<MedusaDraft>(medusa_for(head), stirred(init_medusa_weights(medusa_for(head), head, 1)),
                                             head, HeadDraftOptions{.threads = 1});
    };
    const auto hydra = [](const TargetHead& head) {
        return std::make_unique<HydraDraft>(hydra_for(head), stirred(init_hydra_weights(hydra_for(head), head, 1)),
                                            head, HeadDraftOptions{.threads = 1});
    };
    const std::vector<TokenId> prompt{5, 9, 31, 7, 100, 101, 100};
    const auto first_tree = [&](DraftModel& draft, LlamaVerifier& verifier) {
        const Prefill one{.sequence = 1, .tokens = prompt, .pending = 8, .features = draft.features()};
        const Feedback feedback = verifier.prefill(std::span(&one, 1));
        verifier.release(1);
        TokenTree tree = draft.propose(feedback, {12}).at(0).tree;
        draft.forget(1);
        return tree;
    };
    // Each alone on a model of its own.
    const LlamaModel a = fresh(), b = fresh(), c = fresh();
    LlamaVerifier with_a(a), with_b(b), with_c(c);
    const auto ctc_alone = ctc(a.head(), {1, 3});
    const auto medusa_alone = medusa(b.head());
    const auto hydra_alone = hydra(c.head());
    // All on one model and one verifier, in any order.
    const LlamaModel shared = fresh();
    LlamaVerifier with_all(shared);
    const auto first = ctc(shared.head(), {2, 3});
    const auto ctc_beside = ctc(shared.head(), {1, 3});
    const auto medusa_beside = medusa(shared.head());
    const auto hydra_beside = hydra(shared.head());
    const TokenTree expected = first_tree(*ctc_alone, with_a);
    CHECK(expected.size() == 13);
    CHECK(test::same(first_tree(*ctc_beside, with_all), expected));
    CHECK(!test::same(first_tree(*first, with_all), expected));
    CHECK(test::same(first_tree(*medusa_beside, with_all), first_tree(*medusa_alone, with_b)));
    CHECK(test::same(first_tree(*hydra_beside, with_all), first_tree(*hydra_alone, with_c)));

    for (const bool greedy : {true, false}) {
        std::int64_t none = 0, accepted = 0;
        const auto plain = texts(fresh(), std::make_unique<NoDraft>(), greedy, 8, none);
        const LlamaModel model = fresh();
        std::vector<std::unique_ptr<DraftModel>> parts;
        parts.push_back(medusa(model.head()));
        parts.push_back(ctc(model.head(), {1, 2}));
        parts.push_back(ctc(model.head(), {3}));
        parts.push_back(hydra(model.head()));
        CHECK(texts(model, std::make_unique<MergedDraft>(std::move(parts)), greedy, 16, accepted) == plain);
        CHECK(texts(model, ctc(model.head(), {2, 3}), greedy, 12, accepted) == plain);
        CHECK(accepted > 0);
    }
}

TEST_CASE("make_drafter tells drafters' folders apart") {
    namespace fs = std::filesystem;
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    const TargetHead head = model.head();
    const test::TemporaryFolder own;
    const fs::path folder = own.path();
    write_medusa_config(folder / "m", medusa_for(head));
    write_medusa_weights(folder / "m", init_medusa_weights(medusa_for(head), head, 1));
    write_hydra_config(folder / "h", hydra_for(head));
    write_hydra_weights(folder / "h", init_hydra_weights(hydra_for(head), head, 1));
    const DrafterOptions options{.heads = {.threads = 1}};
    CHECK(make_drafter((folder / "m").string(), head, options)->kind() == "medusa");
    CHECK(make_drafter((folder / "h").string() + "+ngram", head, options)->kind() == "hydra+ngram");
    // As published: no kind in config.json, or no config.json.
    fs::create_directories(folder / "p");
    MedusaWeights weights = init_medusa_weights(medusa_for(head), head, 1);
    std::vector<at::Tensor> kept;
    std::vector<SafeTensorView> views;
    for (std::size_t i = 0; i < weights.heads.size(); ++i)
        for (const auto& [name, tensor] : {std::pair{".0.linear.weight", weights.heads[i][0].weight},
                                           std::pair{".0.linear.bias", weights.heads[i][0].bias}}) {
            kept.push_back(tensor.contiguous());
            views.push_back({std::to_string(i) + name,
                             SafeDtype::f32,
                             kept.back().sizes().vec(),
                             {static_cast<const std::byte*>(kept.back().const_data_ptr()),
                              static_cast<std::size_t>(kept.back().nbytes())}});
        }
    write_safetensors(folder / "p" / "medusa_lm_head.safetensors", views, {});
    CHECK(make_drafter((folder / "p").string(), head, options)->kind() == "medusa");
    CHECK(make_drafter((folder / "p" / "medusa_lm_head.safetensors").string(), head, options)->kind() == "medusa");
    fs::remove_all(folder);
}
