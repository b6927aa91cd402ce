// Rows of which the argmax alone is asked for, of a model whose vocabulary is most of it.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>

#include "kernels/isa.hpp"
#include "kernels/packed_linear.hpp"
#include <outrider/target/llama_verifier.hpp>
#include "target/checkpoint.hpp"
#include "target/model_backend.hpp"

#include "tiny_copy.hpp"

using namespace outrider;
using namespace outrider::testing;

namespace {

constexpr std::int64_t kVocabulary = 3000, kHidden = 64;

/// The small model with more tokens, some of which share their output row.
struct WideFolder : TinyCopy {
    WideFolder() {
        std::mt19937 random(3);
        std::vector<std::uint16_t> rows(kVocabulary * kHidden);
        std::normal_distribution<float> normal;
        for (std::uint16_t& x : rows)
            x = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16);
        std::vector<std::uint16_t> output = rows;
        for (int i = 0; i < 500; ++i)
            std::copy_n(output.begin() + kHidden * (random() % kVocabulary), kHidden,
                        output.begin() + kHidden * (random() % kVocabulary));
        configure("vocab_size", kVocabulary);
        rewrite([&](std::vector<SafeTensorView>& tensors) {
            for (SafeTensorView& t : tensors) {
                if (t.shape.front() != 280) continue;
                t.shape.front() = kVocabulary;
                t.data = std::as_bytes(std::span(t.name == "lm_head.weight" ? output : rows));
            }
        });
    }
};

std::vector<TokenId> random_tokens(std::mt19937& random, std::size_t count) {
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocabulary);
    return tokens;
}

TokenTree random_tree(std::mt19937& random, std::size_t nodes) {
    TokenTree::Builder builder(4);
    for (std::size_t i = 1; i < nodes; ++i)
        builder.add(static_cast<NodeIndex>(random() % i), static_cast<TokenId>(random() % kVocabulary), -1.0F);
    return std::move(builder).build();
}

/// The pass of the kernels over a model whose configuration is changed after its files were read.
std::unique_ptr<TargetPass> pass_of(
    const std::filesystem::path& folder, Weights weights,
    const std::function<void(ModelConfig&)>& change = [](ModelConfig&) {}) {
    Checkpoint checkpoint = Checkpoint::open(folder, 0);
    change(checkpoint.config);
    const auto backend = make_kernel_backend(checkpoint.source, checkpoint.config, weights, 2);
    return backend->make_pass(backend);
}

/// One forward over a text of its own.
PassOutput forward(TargetPass& pass, std::span<const TokenId> tokens, PassFor use) {
    KvCache cache = pass.make_cache();
    cache.reserve(std::ssize(tokens));
    const RowSegment segment{.cache = &cache, .tokens = tokens};
    return pass.forward(std::span(&segment, 1), use);
}

}  // namespace

TEST_CASE("Rows whose logits nobody reads have the same argmax, on every vector path, for every number of threads") {
    const WideFolder folder;
    const Isa before = active_isa();
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const int threads : {1, 2, 3}) {
            CAPTURE(name(isa), threads);
            std::mt19937 random(23);
            const LlamaModel model = LlamaModel::load(folder.path(), {.weights = Weights::int8, .threads = threads});
            LlamaVerifier verifier(model);
            int without = 0;
            for (SequenceId id = 1; id <= 40; ++id) {
                const std::vector<TokenId> prompt = random_tokens(random, 12);
                const Prefill prefill{.sequence = id, .tokens = prompt, .pending = 4};
                (void)verifier.prefill(std::span(&prefill, 1));
                SequenceTree tree{id, random_tree(random, 1 + random() % 6)};
                const at::Tensor expected = verifier.verify(std::span(&tree, 1)).argmax.clone();
                verifier.release(id);
                (void)verifier.prefill(std::span(&prefill, 1));
                tree.logits = false;
                const TreeOutput output = verifier.verify(std::span(&tree, 1));
                REQUIRE(at::equal(output.argmax, expected));
                if (!output.logits.defined()) ++without;
                verifier.release(id);
            }
            CHECK(without == 40);  // by bounds where the path has them and rows are few, else in memory of its own
        }
    }
    force_isa(before);
}

TEST_CASE("Where one tree's logits are read they are there for all") {
    const WideFolder folder;
    const LlamaModel model = LlamaModel::load(folder.path(), {.weights = Weights::int8, .threads = 2});
    LlamaVerifier verifier(model);
    const std::vector<TokenId> prompt{1, 2, 3};
    const std::vector<Prefill> prompts{{.sequence = 1, .tokens = prompt, .pending = 4},
                                       {.sequence = 2, .tokens = prompt, .pending = 5}};
    (void)verifier.prefill(prompts);
    std::vector<SequenceTree> trees{{1, TokenTree::root_only(4)}, {2, TokenTree::root_only(5)}};
    trees[0].logits = false;
    const TreeOutput output = verifier.verify(trees);
    REQUIRE(output.logits.defined());
    CHECK(at::equal(output.argmax, output.logits.argmax(-1)));
}

// The choice is right without bounds too, so it says nothing of them.
TEST_CASE("Few rows are chosen for by bounds that leave few panels, on every vector path that has them") {
    constexpr std::int64_t kPanels = (kVocabulary + PackedLinear::kPanel - 1) / PackedLinear::kPanel;
    const WideFolder folder;
    const Isa before = active_isa();
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        CAPTURE(name(isa));
        std::mt19937 random(29);
        const auto pass = pass_of(folder.path(), Weights::int8), whole = pass_of(folder.path(), Weights::int8);
        std::int64_t bounded = 0, left = 0;
        int pause = 0;  // forwards without bounds, after one where they left much
        for (std::size_t i = 0; i < 60; ++i) {
            const std::vector<TokenId> tokens = random_tokens(random, 1 + i % 4);
            const PassOutput output = forward(*pass, tokens, PassFor::choices);
            REQUIRE(at::equal(output.argmax, forward(*whole, tokens, PassFor::logits).argmax));
            REQUIRE(output.panels_left.has_value() == (PackedLinear::path_chooses() && pause == 0));
            pause = std::max(pause - 1, 0);
            if (!output.panels_left) continue;
            ++bounded, left += *output.panels_left;
            pause = *output.panels_left > kPanels / 5 ? 7 : 0;
        }
        if (!PackedLinear::path_chooses()) continue;
        CHECK(bounded > 20);
        CHECK(left >= bounded);
        CHECK(left < bounded * kPanels / 4);
    }
    force_isa(before);
}

TEST_CASE("No bounds where all logits are needed, or could be changed behind the product, or few would be saved") {
    const WideFolder wide;
    const TinyCopy small;
    const std::vector<TokenId> four{1, 2, 3, 4}, five{1, 2, 3, 4, 5};
    const auto bounds = [](TargetPass& pass, std::span<const TokenId> tokens, PassFor use) {
        return forward(pass, tokens, use).panels_left.has_value();
    };
    const auto pass = pass_of(wide.path(), Weights::int8);
    CHECK_FALSE(bounds(*pass, four, PassFor::logits));
    CHECK_FALSE(bounds(*pass, four, PassFor::features));
    CHECK_FALSE(bounds(*pass, five, PassFor::choices));
    CHECK(bounds(*pass, four, PassFor::choices) == PackedLinear::path_chooses());
    const auto scaled = pass_of(wide.path(), Weights::int8, [](ModelConfig& config) { config.logit_scale = 0.5; });
    const auto capped = pass_of(wide.path(), Weights::int8, [](ModelConfig& config) { config.logit_cap = 30; });
    const auto rounded = pass_of(wide.path(), Weights::bf16), few = pass_of(small.path(), Weights::int8);
    for (TargetPass* other : {scaled.get(), capped.get(), rounded.get(), few.get()})
        CHECK_FALSE(bounds(*other, four, PassFor::choices));
}
