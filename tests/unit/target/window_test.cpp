// Sliding-window attention against a plain restatement of the forward.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <outrider/target/llama_model.hpp>

#include "golden.hpp"
#include "restatement.hpp"
#include "tiny_copy.hpp"

using namespace outrider;
using namespace outrider::testing;
using Backend = LlamaModel::Backend;

namespace {

constexpr std::int64_t kWindow = 5;
constexpr std::int64_t kLength = 40;

/// The small Hugging Face model as a Mistral with a window.
struct WindowFolder : TinyCopy {
    explicit WindowFolder(std::int64_t window) {
        configure("model_type", "mistral");
        configure("sliding_window", window);
    }
};

std::vector<TokenId> some_ids() {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < kLength; ++i) ids.push_back(static_cast<TokenId>((7 + 37 * i + i * i) % 280));
    return ids;
}

double worst(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

/// A tree deeper than the window, with branches from several depths.
const std::vector<NodeIndex> kParents = {kNoNode, 0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 2, 12, 8, 14};

std::vector<TokenId> tree_tokens() {
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < kParents.size(); ++i) tokens.push_back(static_cast<TokenId>(11 + 13 * i));
    return tokens;
}

/// The tokens from the root to a node.
std::vector<TokenId> path_to(std::size_t node) {
    std::vector<TokenId> path;
    for (auto at = static_cast<NodeIndex>(node); at != kNoNode; at = kParents[static_cast<std::size_t>(at)])
        path.insert(path.begin(), tree_tokens()[static_cast<std::size_t>(at)]);
    return path;
}

at::Tensor run(TargetPass& pass, KvCache& cache, std::span<const TokenId> tokens,
               std::span<const NodeIndex> parents = {}) {
    const RowSegment segment{.cache = &cache, .tokens = tokens, .parents = parents};
    return pass.forward(std::span(&segment, 1), PassFor::logits).logits.clone();
}

}  // namespace

TEST_CASE("A window hides older keys from chains, pieces of a prompt, and trees, by both backends") {
    const Backend backend = GENERATE(Backend::aten, Backend::kernels);
    const WindowFolder folder(kWindow);
    const LlamaModel model =
        LlamaModel::load(folder.path(), {.weights = Weights::f32, .backend = backend, .threads = 2});
    REQUIRE(model.config().window == kWindow);
    const Restatement plain(model, kGoldenFolder / "tiny-hf");
    const std::vector<TokenId> ids = some_ids();
    const at::Tensor expected = plain.logits(ids, kWindow);
    const auto pass = model.make_pass();
    CHECK(worst(all_logits(*pass, ids), expected) < 1e-4);
    CHECK(worst(plain.logits(ids, kLength), expected) > 0.01);  // the window matters
    CHECK(worst(plain.logits(ids, kWindow + 1), expected) > 0.01);

    for (const std::int64_t committed : {2, 17}) {  // a context inside the window, and a longer one
        KvCache cache = pass->make_cache();
        const std::span<const TokenId> all(ids);
        for (std::int64_t done = 0; done < committed; ++done) {
            const at::Tensor logits = run(*pass, cache, all.subspan(static_cast<std::size_t>(done), 1));
            CHECK(worst(logits[0], expected[done]) < 1e-4);
            cache.append(1);
        }
        const at::Tensor rest = run(*pass, cache, all.subspan(static_cast<std::size_t>(committed)));
        CHECK(worst(rest, expected.slice(0, committed)) < 1e-4);
        const at::Tensor tree = run(*pass, cache, tree_tokens(), kParents);
        for (std::size_t node = 0; node < kParents.size(); ++node) {
            CAPTURE(committed, node);
            std::vector<TokenId> text(ids.begin(), ids.begin() + committed);
            for (const TokenId token : path_to(node)) text.push_back(token);
            CHECK(worst(tree[static_cast<std::int64_t>(node)], plain.logits(text, kWindow)[-1]) < 1e-4);
        }
    }
}

TEST_CASE("With a window a tree's rows have the bits of plain decoding") {
    const WindowFolder folder(kWindow);
    const LlamaModel model =
        LlamaModel::load(folder.path(), {.weights = Weights::bf16, .backend = Backend::kernels, .threads = 2});
    const auto pass = model.make_pass();
    const std::vector<TokenId> ids = some_ids();
    KvCache cache = pass->make_cache();
    (void)run(*pass, cache, ids);
    cache.append(kLength);
    const at::Tensor tree = run(*pass, cache, tree_tokens(), kParents);
    for (std::size_t node = 0; node < kParents.size(); ++node) {
        CAPTURE(node);
        KvCache alone = pass->make_cache();
        (void)run(*pass, alone, ids);
        alone.append(kLength);
        at::Tensor last;
        for (const TokenId token : path_to(node)) {
            last = run(*pass, alone, std::span(&token, 1))[0];
            alone.append(1);
        }
        CHECK(at::equal(tree[static_cast<std::int64_t>(node)], last));
    }
}

TEST_CASE("A window as long as the context is no window") {
    const WindowFolder folder(512);
    CHECK(LlamaModel::load(folder.path()).config().window == 0);
    const WindowFolder narrow(511);
    CHECK(LlamaModel::load(narrow.path()).config().window == 511);
    CHECK(LlamaModel::load(narrow.path()).fingerprint() != LlamaModel::load(folder.path()).fingerprint());
}
