// What a host meets first: the default policy, seeds, sinks, refused requests, translated exceptions.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <outrider/core/detail/translate.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const FakeLaw kLaw{.vocabulary = 20, .order = 1000, .levels = 41, .seed = 5};

class Letters final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return std::string(1, static_cast<char>('a' + token));
    }
};

}  // namespace

TEST_CASE("without a policy the decoder matches, greedily or by sampling as the request says", "[front]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}};
    static_assert(std::is_same_v<decltype(decoder), SpeculativeDecoder<NgramDraft, FakeTarget, Match>>);
    SpeculativeDecoder fixed{NgramDraft{}, FakeTarget{kLaw}, DecoderOptions{.nodes = 3}};
    const GenerationOptions sampled{.max_tokens = 30, .temperature = 0.7, .seed = 3};
    CHECK(decoder.generate({{1, 2}}, sampled).tokens == fixed.generate({{1, 2}}, sampled).tokens);
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 30}).tokens != fixed.generate({{1, 2}}, sampled).tokens);
}

TEST_CASE("sampled requests with default options do not repeat each other, and can be asked for again", "[front]") {
    SpeculativeDecoder decoder{NoDraft{}, FakeTarget{kLaw}};
    const GenerationOptions options{.max_tokens = 40, .temperature = 1.0};
    const GenerationResult first = decoder.generate({{1, 2}}, options), second = decoder.generate({{1, 2}}, options);
    CHECK(first.tokens != second.tokens);
    CHECK(first.seed != second.seed);
    GenerationOptions again = options;
    again.seed = first.seed;
    const GenerationResult third = decoder.generate({{1, 2}}, again);
    CHECK(third.tokens == first.tokens);
    CHECK(third.seed == first.seed);
}

TEST_CASE("a sink takes a token, a text or ids, and may return nothing", "[front]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}};
    const Prompt prompt{{1, 2}, {}, std::make_shared<Letters>()};
    const GenerationOptions options{.max_tokens = 12};
    const GenerationResult plain = decoder.generate(prompt, options);
    std::string text;
    std::vector<TokenId> ids, tokens;
    std::vector<SequenceId> sequences;
    (void)decoder.generate(prompt, options, [&](std::string_view piece) { text += piece; });
    (void)decoder.generate(prompt, options,
                           [&](std::span<const TokenId> some) { ids.insert(ids.end(), some.begin(), some.end()); });
    std::string joined;
    const SequenceId id = decoder.join(prompt, options, [&](const EmittedToken& emitted) {
        tokens.push_back(emitted.token), sequences.push_back(emitted.sequence), joined += emitted.text;
        return emitted.token >= 0;
    });
    decoder.run();
    CHECK(decoder.take(id).tokens == plain.tokens);
    CHECK(text == plain.text);
    CHECK(joined == plain.text);
    CHECK(ids == plain.tokens);
    CHECK(tokens == plain.tokens);
    CHECK(sequences == std::vector<SequenceId>(plain.tokens.size(), id));
    int calls = 0;
    CHECK(decoder.generate(prompt, options, [&](const EmittedToken&) { return ++calls < 3; }).tokens.size() == 3);
    CHECK(decoder.generate({{1, 2}}, options, [](const EmittedToken&) {}).tokens ==
          plain.tokens);  // no detokenizer needed
    CHECK(decoder.generate(prompt, options, std::function<bool(std::string_view)>{}).tokens == plain.tokens);
}

TEST_CASE("a request that the policy cannot serve is refused when it joins", "[front]") {
    struct GreedyOnly final : AcceptancePolicy {
        Acceptance accept(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) const override {
            return Match{}.accept(tree, rows, context);
        }
        void check_request(const SamplingOptions& sampling) const override {
            require(sampling.temperature == 0.0, "GreedyOnly: no temperature here");
        }
    };
    SpeculativeDecoder decoder{NoDraft{}, FakeTarget{kLaw}, GreedyOnly{}};
    CHECK_THROWS_WITH(decoder.join({{1}}, {.temperature = 0.5}), ContainsSubstring("no temperature"));
    CHECK(decoder.waiting() == 0);
    CHECK(decoder.generate({{1}}, {.max_tokens = 3}).tokens.size() == 3);
}

TEST_CASE("what stages throw comes out as Error, with a kind", "[front][errors]") {
    struct Broken final : FakeTarget {
        using FakeTarget::FakeTarget;
        std::function<void()> breaks;
        TreeOutput verify(std::span<const SequenceTree> trees) override {
            if (breaks) breaks();
            return FakeTarget::verify(trees);
        }
    };
    Broken target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target)};
    const auto kind_of_failure = [&](std::function<void()> how) {
        target.breaks = std::move(how);
        try {
            (void)decoder.generate({{1}}, {.max_tokens = 3});
        } catch (const Error& error) {
            return error.kind();
        }
        FAIL("nothing was thrown");
        return ErrorKind::internal;
    };
    CHECK(kind_of_failure([] { throw std::bad_alloc(); }) == ErrorKind::out_of_memory);
    CHECK(kind_of_failure([] { TORCH_CHECK(false, "CUDA out of memory. Tried to allocate 2 GiB"); }) ==
          ErrorKind::out_of_memory);
    CHECK(kind_of_failure([] { (void)at::zeros({2, 3}).matmul(at::zeros({2, 3})); }) == ErrorKind::internal);
    CHECK(kind_of_failure([] { fail(ErrorKind::not_supported, "no"); }) == ErrorKind::not_supported);
    target.breaks = nullptr;
    CHECK(decoder.generate({{1}}, {.max_tokens = 3}).tokens.size() == 3);
}

TEST_CASE("a drafter that reads no features is brought none, nor is a merge of such", "[front][features]") {
    struct Asking final : FakeTarget {
        using FakeTarget::FakeTarget;
        std::vector<FeatureRequest> asked;
        Feedback prefill(std::span<const Prefill> prompts) override {
            for (const Prefill& prompt : prompts) asked.push_back(prompt.features);
            return FakeTarget::prefill(prompts);
        }
    };
    struct Reading final : DraftModel {  // of layer 2, and drafts nothing
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
            std::vector<SequenceTree> trees;
            for (const SequenceFeedback& one : feedback)
                trees.push_back({one.sequence, TokenTree::root_only(one.pending)});
            return trees;
        }
        std::string_view kind() const override { return "reading"; }
        FeatureRequest features() const override { return {.wanted = true, .layers = {2}}; }
    };
    Asking target(kLaw);
    const auto decode_with = [&](auto draft) {
        SpeculativeDecoder decoder{std::move(draft), std::ref(target)};
        (void)decoder.generate({{1}}, {.max_tokens = 2});
    };
    decode_with(NoDraft{});
    decode_with(NgramDraft{});
    decode_with(MergedDraft{NgramDraft{}, NgramDraft{{.mode = NgramMode::copy}}});
    CHECK((target.asked == std::vector<FeatureRequest>(3, FeatureRequest::none())));
    decode_with(MergedDraft{NgramDraft{}, Reading{}});  // the negative control
    CHECK(target.asked.back() == Reading{}.features());
}
