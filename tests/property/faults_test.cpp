// Faults in the middle of every stage: a clear error, the other sequences go on with the text they would have had, and
// nothing is left behind.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <map>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>

#include <outrider/accept/match.hpp>
#include <outrider/core/constraint.hpp>
#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

enum class Part { prefill, resume, verify, commit, release, propose, forget };
constexpr std::array kStages{Part::prefill, Part::resume,  Part::verify, Part::commit,
                             Part::release, Part::propose, Part::forget};
enum class Fault { memory, error, device };

/// Throws at the n-th call of one stage.
struct Bomb {
    Part stage = Part::verify;
    Fault fault = Fault::memory;
    std::int64_t calls = 0;  ///< left until it goes off; below 0: never

    void tick(Part here) {
        if (here != stage || calls < 0 || calls-- > 0) return;
        if (fault == Fault::memory) throw std::bad_alloc();
        if (fault == Fault::device) TORCH_CHECK(false, "CUDA out of memory. Tried to allocate 1 GiB");
        throw std::runtime_error("the stage broke");
    }
};

struct FaultyTarget final : FakeTarget {
    FaultyTarget(FakeLaw law, Bomb& wired) : FakeTarget(law), bomb(wired) { keeps_texts = true; }
    Feedback prefill(std::span<const Prefill> prompts) override {
        bomb.tick(Part::prefill);
        return FakeTarget::prefill(prompts);
    }
    SequenceFeedback resume(const Prefill& prompt) override {
        bomb.tick(Part::resume);
        return FakeTarget::resume(prompt);
    }
    TreeOutput verify(std::span<const SequenceTree> trees) override {
        TreeOutput output = FakeTarget::verify(trees);
        bomb.tick(Part::verify);  // rows have been added
        return output;
    }
    Feedback commit(std::span<const SequenceAcceptance> accepted) override {
        bomb.tick(Part::commit);
        return FakeTarget::commit(accepted);
    }
    void release(SequenceId id) override {
        FakeTarget::release(id);
        bomb.tick(Part::release);
    }
    Bomb& bomb;
};

class FaultyDraft final : public DraftModel {
public:
    FaultyDraft(FakeLaw law, Bomb& bomb) : inner_(law, 3, 0.5), bomb_(bomb) {}
    [[nodiscard]] std::string_view kind() const override { return "faulty"; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        bomb_.tick(Part::propose);
        return inner_.propose(feedback, budget);
    }
    void forget(SequenceId id) override {
        inner_.forget(id);
        bomb_.tick(Part::forget);
    }

private:
    RandomDraft inner_;
    Bomb& bomb_;
};

/// Refuses one sequence in the n-th answer that it gives at one stage.
struct RefusingTarget final : FakeTarget {
    RefusingTarget(FakeLaw law, Part refuses, std::int64_t answers) : FakeTarget(law), stage(refuses), left(answers) {
        keeps_texts = true;
    }

    std::exception_ptr refusal(Part here) {
        if (here != stage || left-- != 0) return nullptr;
        ++refusals;
        return std::make_exception_ptr(Error("the cache is full", ErrorKind::out_of_memory));
    }
    Feedback prefill(std::span<const Prefill> prompts) override {
        Feedback feedback = FakeTarget::prefill(prompts);
        for (SequenceFeedback& one : feedback) refuse(one, Part::prefill);
        return feedback;
    }
    SequenceFeedback resume(const Prefill& prompt) override {
        SequenceFeedback told = FakeTarget::resume(prompt);
        refuse(told, Part::resume);
        return told;
    }
    TreeOutput verify(std::span<const SequenceTree> trees) override {
        std::vector<SequenceTree> taken;
        TreeOutput output;
        output.offsets.push_back(0);
        for (const SequenceTree& tree : trees) {
            output.refused.push_back(refusal(Part::verify));
            if (!output.refused.back()) taken.push_back(tree);
            const auto given = output.refused.back() ? std::int64_t{0} : static_cast<std::int64_t>(tree.tree.size());
            output.offsets.push_back(output.offsets.back() + given);
        }
        if (taken.empty()) return output;
        const TreeOutput told = FakeTarget::verify(taken);
        output.logits = told.logits, output.argmax = told.argmax;
        return output;
    }
    Feedback commit(std::span<const SequenceAcceptance> accepted) override {
        Feedback feedback = FakeTarget::commit(accepted);
        for (SequenceFeedback& one : feedback) refuse(one, Part::commit);
        return feedback;
    }

    Part stage;
    std::int64_t left;
    int refusals = 0;

private:
    void refuse(SequenceFeedback& one, Part here) {
        if (std::exception_ptr why = refusal(here))
            one = {.sequence = one.sequence, .tokens = {}, .features = {}, .refused = std::move(why)};
    }
};

/// Forbids nothing. From an answer of `length` tokens on, one of its functions throws at every call.
class BrokenConstraint final : public Constraint {
public:
    BrokenConstraint(int where, std::int64_t length) : where_(where), length_(length) {}
    [[nodiscard]] State begin(const ConstraintScope&) const override {
        return std::make_shared<const std::int64_t>(std::int64_t{0});
    }
    [[nodiscard]] State next(const State& state, TokenId) const override {
        check(0, state);
        return std::make_shared<const std::int64_t>(length_of(state) + 1);
    }
    void mask(const State& state, std::span<float>) const override { check(1, state); }
    [[nodiscard]] bool allows(const State& state, TokenId) const override { return check(2, state), true; }
    [[nodiscard]] std::vector<TokenId> expected(const State& state) const override {
        return check(3, state), std::vector<TokenId>{};
    }

private:
    static std::int64_t length_of(const State& state) { return *static_cast<const std::int64_t*>(state.get()); }
    void check(int here, const State& state) const {
        if (here == where_ && length_of(state) >= length_) throw std::runtime_error("the constraint is broken");
    }
    int where_;
    std::int64_t length_;
};

/// Forbids nothing, and throws at the n-th call of one function.
class FaultyConstraint final : public Constraint {
public:
    FaultyConstraint(int where, std::int64_t calls) : where_(where), calls_(calls) {}
    [[nodiscard]] State begin(const ConstraintScope&) const override { return std::make_shared<const int>(0); }
    [[nodiscard]] State next(const State& state, TokenId) const override { return tick(0), state; }
    void mask(const State&, std::span<float>) const override { tick(1); }
    [[nodiscard]] bool allows(const State&, TokenId) const override { return tick(2), true; }
    [[nodiscard]] std::vector<TokenId> expected(const State&) const override { return tick(3), std::vector<TokenId>{}; }

private:
    void tick(int here) const {
        if (here == where_ && calls_-- == 0) throw std::runtime_error("the constraint broke");
    }
    int where_;
    mutable std::int64_t calls_;
};

/// Steps until all have ended; the errors that came up.
template <typename Decoder>
int run_through(Decoder& decoder, std::string& last) {
    int errors = 0;
    for (;;) try {
            if (!decoder.step()) return errors;
        } catch (const std::exception& error) {
            ++errors, last = error.what();
        }
}

void check_prefix(const FakeLaw& law, const std::vector<TokenId>& prompt, const GenerationResult& result) {
    std::vector<TokenId> expected = plain_loop(law, prompt, {}, 15);
    if (result.finish == FinishReason::failed) {
        REQUIRE_FALSE(result.error.empty());
        REQUIRE(result.tokens.size() <= expected.size());
        expected.resize(result.tokens.size());
    } else {
        REQUIRE(result.finish == FinishReason::length);
    }
    REQUIRE(result.tokens == expected);
}

}  // namespace

TEST_CASE("a fault at any call of any stage: clear errors, the others go on, nothing is left", "[property][faults]") {
    int failed = 0, whole = 0;
    for (const Part stage : kStages)
        for (const Fault fault : {Fault::memory, Fault::error, Fault::device})
            for (std::int64_t at = 0; at < 12; ++at) {
                CAPTURE(static_cast<int>(stage), static_cast<int>(fault), at);
                const FakeLaw law{.order = 3};
                Bomb bomb{stage, fault, at};
                FaultyTarget target(law, bomb);
                target.mixes_prompts = at % 2 == 1;
                std::map<SequenceId, std::vector<TokenId>> prompts;
                std::string last;
                {
                    SpeculativeDecoder decoder{FaultyDraft{law, bomb},
                                               std::ref(target),
                                               Match{},
                                               {.nodes = 5, .max_batch = 3, .prefill_rows = 4}};
                    for (TokenId i = 0; i < 6; ++i) {
                        std::vector<TokenId> prompt{i, 1, 2, 3, 4, 5, 6, 7, i};
                        prompts[decoder.join({prompt}, {.max_tokens = 15})] = prompt;
                    }
                    const int errors = run_through(decoder, last);
                    REQUIRE(errors <= 1);
                    if (errors == 1 && fault != Fault::error) REQUIRE(last.find("emory") != std::string::npos);
                    for (const auto& [id, prompt] : prompts) {
                        const GenerationResult result = decoder.take(id);
                        check_prefix(law, prompt, result);
                        ++(result.finish == FinishReason::failed ? failed : whole);
                    }
                    bomb.calls = -1;
                    const GenerationResult after = decoder.generate({{1, 2}}, {.max_tokens = 15});
                    check_prefix(law, {1, 2}, after);  // and it goes on
                }
                REQUIRE(target.held() == 0);
            }
    CHECK(failed > 100);
    CHECK(whole > failed);
}

TEST_CASE("hooks, constraints and callbacks that throw end their own sequence alone", "[property][faults]") {
    int failed = 0;
    for (int where = 0; where < 6; ++where)
        for (std::int64_t at = 0; at < 10; ++at) {
            CAPTURE(where, at);
            const FakeLaw law{.order = 3};
            FakeTarget target(law);
            SpeculativeDecoder decoder{RandomDraft{law, 3, 0.5}, std::ref(target), Match{}, {.nodes = 5}};
            GenerationOptions options{.max_tokens = 15};
            std::int64_t calls = at;
            if (where < 4) options.constraint = std::make_shared<const FaultyConstraint>(where, at);
            if (where == 4)
                options.logit_hook = [&](std::span<const TokenId>, std::span<float>) {
                    if (calls-- == 0) throw std::runtime_error("the hook broke");
                };
            const SequenceId before = decoder.join({{1}}, {.max_tokens = 15});
            const SequenceId broken = decoder.join({{2}}, options, [&](std::span<const TokenId>) {
                if (where == 5 && calls-- == 0) throw std::runtime_error("the callback broke");
            });
            const SequenceId behind = decoder.join({{3}}, {.max_tokens = 15});
            std::string last;
            REQUIRE(run_through(decoder, last) <= 1);
            CHECK(decoder.take(before).tokens == plain_loop(law, {1}, {}, 15));
            CHECK(decoder.take(behind).tokens == plain_loop(law, {3}, {}, 15));
            const GenerationResult result = decoder.take(broken);
            check_prefix(law, {2}, result);
            failed += result.finish == FinishReason::failed ? 1 : 0;
            CHECK(target.held() == 0);
        }
    CHECK(failed >=
          10);  // every callback. What fails once beside a draft need not: it is asked again at the root alone
}

TEST_CASE("hooks, constraints and callbacks that stay broken end the text where they end it without drafts",
          "[property][faults]") {
    int failed = 0;
    for (int where = 0; where < 6; ++where)
        for (std::int64_t length = 0; length < 10; ++length)
            for (const double right : {0.0, 0.6, 1.0}) {
                CAPTURE(where, length, right);
                const FakeLaw law{.order = 3};
                const auto decoded = [&](auto drafter, std::int64_t nodes) {
                    FakeTarget target(law);
                    SpeculativeDecoder decoder{std::move(drafter), std::ref(target), Match{}, {.nodes = nodes}};
                    GenerationOptions options{.max_tokens = 15};
                    if (where < 4) options.constraint = std::make_shared<const BrokenConstraint>(where, length);
                    if (where == 4)
                        options.logit_hook = [&](std::span<const TokenId> text, std::span<float>) {
                            if (std::ssize(text) - 1 >= length) throw std::runtime_error("the hook is broken");
                        };
                    std::int64_t emitted = 0;
                    const SequenceId id = decoder.join({{2}}, options, [&](std::span<const TokenId>) {
                        if (where == 5 && emitted++ >= length) throw std::runtime_error("the callback is broken");
                    });
                    const SequenceId beside = decoder.join({{3}}, {.max_tokens = 15});
                    std::string last;
                    REQUIRE(run_through(decoder, last) <= 1);
                    CHECK(decoder.take(beside).tokens == plain_loop(law, {3}, {}, 15));
                    CHECK(target.held() == 0);
                    return decoder.take(id);
                };
                const GenerationResult plain = decoded(NoDraft{}, 0);
                const GenerationResult drafted = decoded(OracleDraft{law, 5, right, true}, 6);
                CHECK(drafted.tokens == plain.tokens);
                CHECK(drafted.finish == plain.finish);
                CHECK(drafted.error == plain.error);
                check_prefix(law, {2}, drafted);
                failed += drafted.finish == FinishReason::failed ? 1 : 0;
            }
    CHECK(failed == 5 * 10 * 3);  // all but `expected`, without which a text is as well
}

TEST_CASE("a target refuses one sequence: it alone ends, with that error, at any stage", "[property][faults]") {
    int refused = 0;
    for (const Part stage : {Part::prefill, Part::resume, Part::verify, Part::commit})
        for (std::int64_t at = 0; at < 20; ++at)
            for (const std::size_t batch : {std::size_t{1}, std::size_t{3}}) {
                CAPTURE(static_cast<int>(stage), at, batch);
                const FakeLaw law{.order = 3};
                RefusingTarget target(law, stage, at);
                target.mixes_prompts = at % 2 == 1;
                std::map<SequenceId, std::vector<TokenId>> prompts;
                std::string last;
                int failed = 0;
                {
                    SpeculativeDecoder decoder{OracleDraft{law, 3, 0.7, true},
                                               std::ref(target),
                                               Match{},
                                               {.nodes = 5, .max_batch = batch, .prefill_rows = 4}};
                    for (TokenId i = 0; i < 6; ++i) {
                        std::vector<TokenId> prompt{i, 1, 2, 3, 4, 5, 6, 7, i};
                        prompts[decoder.join({prompt}, {.max_tokens = 15})] = prompt;
                    }
                    const int errors = run_through(decoder, last);
                    REQUIRE(errors == target.refusals);
                    for (const auto& [id, prompt] : prompts) {
                        const GenerationResult result = decoder.take(id);
                        check_prefix(law, prompt, result);
                        if (result.finish != FinishReason::failed) continue;
                        ++failed;
                        CHECK(result.error == "the cache is full");
                        try {
                            std::rethrow_exception(result.exception);
                        } catch (const Error& error) {
                            CHECK(error.kind() == ErrorKind::out_of_memory);
                        }
                    }
                    CHECK(failed == target.refusals);
                    target.left = 0, target.stage = Part::verify;
                    CHECK_THROWS_AS(decoder.generate({{1, 2}}, {.max_tokens = 15}), Error);
                    check_prefix(law, {1, 2}, decoder.generate({{1, 2}}, {.max_tokens = 15}));
                }
                REQUIRE(target.held() == 0);
                refused += failed;
            }
    CHECK(refused > 100);
}

TEST_CASE("a cache that is full ends the text, and leaves the others", "[property][faults]") {
    const FakeLaw law{.order = 3, .context = 12};
    FakeTarget target(law);
    SpeculativeDecoder decoder{RandomDraft{law, 1, 0.7}, std::ref(target), Match{}, {.nodes = 9}};
    const SequenceId full = decoder.join({{1, 2, 3, 4, 5, 6, 7, 8}}, {.max_tokens = 100});
    const SequenceId fits = decoder.join({{1}}, {.max_tokens = 9});
    CHECK_THROWS_AS(decoder.join({std::vector<TokenId>(12, 1)}), Error);
    decoder.run();
    const GenerationResult result = decoder.take(full);
    CHECK(result.finish == FinishReason::length);
    CHECK(result.tokens.size() == 4);
    CHECK(decoder.take(fits).tokens == plain_loop(law, {1}, {}, 9));
}
