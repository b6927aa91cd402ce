// The pass for devices, beside the reference: logits, graphs, memory.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/draft/ngram.hpp>

#include "device_ways.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

void check_logits(const std::filesystem::path& folder) {
    const Weights weights = Weights::f32;
    const double tolerance = 1e-4;
    const LlamaModel device = LlamaModel::load(
        folder, {.device = kTrap, .weights = weights, .backend = LlamaModel::Backend::device, .cache_tokens = 2000});
    const LlamaModel reference =
        LlamaModel::load(folder, {.weights = weights, .backend = LlamaModel::Backend::aten, .threads = 1});
    const auto a = reference.make_pass(), b = device.make_pass();
    const auto vocabulary = static_cast<std::uint64_t>(std::min<std::int64_t>(device.config().vocabulary, 280));
    const trap::Trapping trapping;
    std::vector<KvCache> ours, theirs;
    for (int s = 0; s < 3; ++s) theirs.push_back(a->make_cache()), ours.push_back(b->make_cache());
    std::uint64_t seed = 1;
    for (int round = 0; round < 24; ++round) {
        std::vector<std::vector<TokenId>> tokens(3);
        std::vector<std::vector<NodeIndex>> parents(3);
        std::vector<RowSegment> left, right;
        for (std::size_t s = 0; s < 3; ++s) {
            if ((mix64(++seed) & 3) == 0 && s > 0) continue;  // not all sequences in every round
            const auto rows = static_cast<NodeIndex>(1 + mix64(++seed) % (round == 0 ? 90 : 12));
            for (NodeIndex i = 0; i < rows; ++i) {
                tokens[s].push_back(static_cast<TokenId>(mix64(++seed) % vocabulary));
                parents[s].push_back(i == 0 ? kNoNode : static_cast<NodeIndex>(mix64(++seed) % std::uint64_t(i)));
            }
            const bool chain = round == 0;
            left.push_back({&theirs[s], tokens[s], chain ? std::span<const NodeIndex>{} : parents[s]});
            right.push_back({&ours[s], tokens[s], chain ? std::span<const NodeIndex>{} : parents[s]});
        }
        const std::vector<std::int64_t> layers{1, std::min<std::int64_t>(3, device.config().layers - 1)};
        const PassOutput expected = a->forward(left, PassFor::logits, layers),
                         got = b->forward(right, PassFor::logits, layers);
        CHECK(at::allclose(got.logits.cpu(), expected.logits, tolerance, tolerance));
        CHECK(at::allclose(got.features.cpu(), expected.features, tolerance, tolerance));
        CHECK(at::equal(got.argmax, got.logits.cpu().argmax(-1)));
        for (std::size_t k = 0; k < left.size(); ++k) {
            if (round == 0) {
                left[k].cache->append(std::ssize(left[k].tokens)), right[k].cache->append(std::ssize(left[k].tokens));
                continue;
            }
            std::vector<NodeIndex> path;  // the newest child of each node on the way down
            for (NodeIndex at = 0, next = 0;; at = next) {
                for (NodeIndex i = at + 1; i < static_cast<NodeIndex>(left[k].parents.size()); ++i)
                    if (left[k].parents[static_cast<std::size_t>(i)] == at) next = i;
                if (next == at) break;
                path.push_back(next);
            }
            left[k].cache->keep(path), right[k].cache->keep(path);
            CHECK(left[k].cache->committed() == right[k].cache->committed());
        }
    }
    ours[0].truncate(5), theirs[0].truncate(5);  // as a drafter's language model does
    const std::vector<TokenId> again{3, 4, 5};
    const RowSegment left{&theirs[0], again}, right{&ours[0], again};
    CHECK(at::allclose(b->forward(std::span(&right, 1), PassFor::logits).logits.cpu(),
                       a->forward(std::span(&left, 1), PassFor::logits).logits, tolerance, tolerance));
}

}  // namespace

TEST_CASE("The pass for devices gives the reference's logits: prompts, trees, batches, a window") {
    trap::start();
    at::set_num_threads(1);
    check_logits(folders().target());
    const testing::DeepFolder windowed;
    windowed.configure("model_type", "mistral");
    windowed.configure("sliding_window", 9);
    check_logits(windowed.path());
}

namespace {

/// Operations of each layer of one forward: those from where one layer stores its keys, by the operation `store`, to
/// where the next one does. The first `others` of that name store something else.
std::vector<std::int64_t> layer_operations(TargetPass& pass, std::size_t sequences, const char* store = "index_copy",
                                           std::size_t others = 1) {
    std::vector<KvCache> caches;
    const std::vector<TokenId> tokens{5, 9, 31, 7, 2};
    for (std::size_t s = 0; s < sequences; ++s) caches.push_back(pass.make_cache());
    std::vector<RowSegment> segments;
    for (KvCache& cache : caches) segments.push_back({.cache = &cache, .tokens = tokens});
    const trap::CaptureLint lint;
    (void)pass.forward(segments, PassFor::logits);
    std::vector<std::int64_t> stores, between;
    for (std::size_t i = 0; i < lint.trace.size(); ++i)
        if (lint.trace[i].find(store) != std::string::npos) stores.push_back(static_cast<std::int64_t>(i));
    for (std::size_t i = others + 1; i < stores.size(); ++i) between.push_back(stores[i] - stores[i - 1]);
    return between;
}

}  // namespace

TEST_CASE("Every family's logits on the device are the reference's") {
    trap::start();
    at::set_num_threads(1);
    for (const std::string& name : kFamilies) {
        CAPTURE(name);
        check_logits(family(name));
    }
}

TEST_CASE("Every family's verify is at most 24 operations a layer, for any number of sequences", "[budget]") {
    trap::start();
    for (const std::string& name : kFamilies) {
        const LlamaModel model = LlamaModel::load(
            family(name),
            {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 500});
        const auto pass = model.make_pass();
        const trap::Trapping trapping;
        const std::vector<std::int64_t> one = layer_operations(*pass, 1);
        CAPTURE(name, one);
        REQUIRE(std::ssize(one) == model.config().layers - 1);
        for (const std::int64_t operations : one) CHECK((operations >= 10 && operations <= 24));
        CHECK(layer_operations(*pass, 5) == one);
    }
}

TEST_CASE("With kernels the logits are the reference's, and a layer of every family is 10 launches") {
    trap::start();
    at::set_num_threads(1);
    const WithKernels kernels;
    check_logits(folders().target());
    std::vector<std::filesystem::path> models{folders().target()};
    for (const std::string& name : kFamilies) {
        CAPTURE(name);
        check_logits(family(name));
        models.push_back(family(name));
    }
    for (const std::filesystem::path& path : models) {
        CAPTURE(path.string());
        const LlamaModel model = LlamaModel::load(
            path,
            {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 500});
        const auto pass = model.make_pass();
        const trap::Trapping trapping;
        const std::vector<std::int64_t> ten(static_cast<std::size_t>(model.config().layers - 1), 10);
        for (const std::size_t sequences : {1, 5}) CHECK(layer_operations(*pass, sequences, "::place_rows", 0) == ten);
    }
}

namespace {

at::Tensor prompt_logits(Weights weights, bool kernels) {
    std::optional<WithKernels> on;
    if (kernels) on.emplace();
    const auto pass = load(kTrap, weights).make_pass();
    KvCache cache = pass->make_cache();
    const std::vector<TokenId> tokens{5, 9, 31, 7, 100, 101, 100, 12, 8, 250, 3, 77};
    const RowSegment segment{.cache = &cache, .tokens = tokens};
    return pass->forward(std::span(&segment, 1), PassFor::logits).logits.cpu();
}

}  // namespace

TEST_CASE("In bfloat16 kernels are as near to f32 as tensor operations are") {
    const at::Tensor exact = prompt_logits(Weights::f32, false);
    const auto error = [&](bool kernels) {
        return (prompt_logits(Weights::bf16, kernels) - exact).abs().mean().item<double>();
    };
    const double operations = error(false), with = error(true);
    CAPTURE(operations, with);
    CHECK(operations > 0);
    CHECK(with < 1.5 * operations);
}

namespace {

/// Sequences with so many committed tokens, and a tree of so many rows for each.
struct Round {
    std::size_t sequences = 1;
    std::int64_t committed = 4, rows = 5;
    const SamplingOptions* picks = nullptr;
};

/// What each of four rounds of one shape did, of which each commits three tokens where the trees have as many.
std::vector<std::vector<std::string>> traces_of(TargetPass& pass, const Round& shape) {
    const std::vector<TokenId> prompt(static_cast<std::size_t>(shape.committed), TokenId{9}),
        tokens(static_cast<std::size_t>(shape.rows), TokenId{20});
    std::vector<NodeIndex> parents, path;
    for (NodeIndex i = 0; i < static_cast<NodeIndex>(shape.rows); ++i)  // the root has two children
        parents.push_back(i == 0 ? kNoNode : i < 3 ? 0 : i - 1);
    if (shape.rows > 3) path = {2, 3};
    std::vector<KvCache> caches;
    for (std::size_t s = 0; s < shape.sequences; ++s) {
        caches.push_back(pass.make_cache());
        const RowSegment first{.cache = &caches.back(), .tokens = prompt};
        (void)pass.forward(std::span(&first, 1), PassFor::features);
        caches.back().append(shape.committed);
    }
    std::vector<std::vector<std::string>> traces;
    for (int i = 0; i < 4; ++i) {
        std::vector<RowSegment> segments;
        for (KvCache& cache : caches)
            segments.push_back({.cache = &cache, .tokens = tokens, .parents = parents, .picks = shape.picks});
        trap::CaptureLint lint;
        (void)pass.forward(segments, PassFor::logits);
        for (KvCache& cache : caches) cache.keep(path);
        traces.push_back(std::move(lint.trace));
        if (i == 0) continue;  // makes its memory
        // The tokens go back when the graph has ended: the last thing that happens.
        REQUIRE(lint.faults.size() == 1);
        CHECK(lint.faults[0].find("a copy to the host") != std::string::npos);
        CHECK(traces.back().back().starts_with("copy"));
    }
    return traces;
}

}  // namespace

TEST_CASE("Forwards of one shape are one graph, whatever the shape", "[budget]") {
    const LlamaModel device = load(kTrap);
    const auto pass = device.make_pass();
    const trap::Trapping trapping;
    for (const std::size_t sequences : {1, 2, 3, 5})
        for (const std::int64_t committed : {4, 70, 200})
            for (const std::int64_t rows : {1, 5, 12, 20, 40, 100}) {
                CAPTURE(sequences, committed, rows);
                const auto traces = traces_of(*pass, {sequences, committed, rows});
                CHECK(traces[1].size() > 80);
                CHECK(traces[1] == traces[2]);
                CHECK(traces[2] == traces[3]);
            }
}

TEST_CASE("Forwards that pick tokens are one graph too", "[budget]") {
    const LlamaModel device = load(kTrap);
    const SamplingOptions all{.temperature = 0.8, .seed = 3}, some{.temperature = 0.8, .top_p = 0.9, .seed = 3};
    const auto pass = device.make_pass();
    const trap::Trapping trapping;
    for (const SamplingOptions* picks : {&all, &some})
        for (const std::size_t sequences : {1, 3}) {
            const auto plain = traces_of(*pass, {sequences, 70, 12}),
                       traces = traces_of(*pass, {sequences, 70, 12, picks});
            CAPTURE(sequences, plain[1].size(), traces[1].size());
            CHECK(traces[1].size() > plain[1].size());
            CHECK(traces[1].size() <= plain[1].size() + (picks == &all ? 30 : 50));
            CHECK(traces[1] == traces[2]);
            CHECK(traces[2] == traces[3]);
        }
}

TEST_CASE("A cache that is full refuses a sequence, says why, and decodes the others on", "[memory]") {
    trap::start();
    const LlamaModel model = LlamaModel::load(
        folders().target(),
        {.weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 300, .cache_sequences = 3});
    const std::vector<TokenId> shorter(20, TokenId{7}), longer(200, TokenId{7});
    LlamaVerifier verifier(model);
    const auto prefill = [&](SequenceId id, const std::vector<TokenId>& tokens) {
        const Prefill one{.sequence = id, .tokens = tokens, .pending = 5};
        return verifier.prefill(std::span(&one, 1));
    };
    (void)prefill(1, shorter);
    for (int i = 0; i < 3; ++i) {
        try {
            (void)none_refused(prefill(2, longer));
            FAIL("it was admitted");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::out_of_memory);
            CHECK(std::string(error.what()).find("cache_tokens") != std::string::npos);
        }
    }
    CHECK(verifier.active() == 1);
    const SequenceTree root{1, TokenTree::root_only(5)};
    CHECK(verifier.verify(std::span(&root, 1)).argmax.size(0) == 1);
    const SequenceAcceptance accepted{1, {{}, 9}, {5}};
    CHECK(verifier.commit(std::span(&accepted, 1)).at(0).committed == 21);
    verifier.release(1);
    CHECK(verifier.cache_bytes() == 0);
    (void)none_refused(prefill(2, longer));  // what was released serves again
    verifier.release(2);
    // A pool that fills up while texts grow ends the one that finds no room, and the other goes on to its end.
    const auto request = [](TokenId first) { return Prompt{.tokens = std::vector<TokenId>(20, first)}; };
    SpeculativeDecoder decoder{NgramDraft{}, std::ref(verifier), Match{}, {.nodes = 4, .max_batch = 2}};
    std::vector<SequenceId> ids;
    for (const TokenId first : {7, 8})
        ids.push_back(decoder.join(request(first), {.max_tokens = 200, .stop_at_end = false}));
    int errors = 0;
    for (bool more = true; more;) {
        const StepOutcome outcome = decoder.try_step();
        more = outcome.more, errors += outcome.error != nullptr;
    }
    CHECK(errors == 1);
    std::vector<GenerationResult> results;
    for (const SequenceId id : ids) results.push_back(decoder.take(id));
    const std::size_t refused = results[0].finish == FinishReason::failed ? 0 : 1;
    CHECK(results[refused].finish == FinishReason::failed);
    CHECK(results[refused].error.find("cache") != std::string::npos);
    CHECK(results[1 - refused].finish == FinishReason::length);
    CHECK(results[1 - refused].tokens.size() == 200);
    CHECK(verifier.cache_bytes() == 0);
    // Lanes run out as well.
    const LlamaModel narrow = LlamaModel::load(
        folders().target(),
        {.weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 300, .cache_sequences = 1});
    const auto pass = narrow.make_pass();
    {
        const KvCache only = pass->make_cache();
        CHECK_THROWS_AS(pass->make_cache(), Error);
    }
    CHECK_NOTHROW(pass->make_cache());
}
