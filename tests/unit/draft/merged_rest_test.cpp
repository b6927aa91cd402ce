// A merged drafter's parts where time has a price.
#include <catch2/catch_all.hpp>

#include <array>
#include <map>
#include <memory>
#include <random>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <outrider/core/error.hpp>
#include <outrider/draft/merged.hpp>

using namespace outrider;

namespace {

/// Proposes a chain of one token, takes `seconds` of the tests' own time for it, and checks that it sees every token of
/// every sequence once and in order, with the features that belong to it: those of the token at position p are all p.
class CheckingDraft final : public DraftModel {
public:
    CheckingDraft(TokenId token, float q, double seconds, bool cheap, std::shared_ptr<double> time)
        : token_(token), q_(q), seconds_(seconds), cheap_(cheap), time_(std::move(time)) {}
    [[nodiscard]] std::string_view kind() const override { return "checking"; }
    [[nodiscard]] DraftDraws draws() const override { return DraftDraws::none; }
    [[nodiscard]] bool cheap() const override { return cheap_; }

    std::map<SequenceId, std::int64_t> seen;
    std::int64_t calls = 0;

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        ++calls;
        *time_ += seconds_;
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& f : feedback) {
            const auto tokens = static_cast<std::int64_t>(f.tokens.size());
            REQUIRE(seen[f.sequence] + tokens == f.committed);
            REQUIRE(f.features.size(0) == tokens);
            REQUIRE(
                at::equal(f.features.select(1, 0), at::arange(seen[f.sequence], f.committed, f.features.options())));
            seen[f.sequence] = f.committed;
            TokenTree::Builder tree(f.pending);
            if (budget.nodes > 0) (void)tree.add(0, token_, std::log(q_));
            trees.push_back({f.sequence, std::move(tree).build()});
        }
        return trees;
    }
    void forget(SequenceId sequence) override { seen.erase(sequence); }

private:
    TokenId token_;
    float q_;
    double seconds_;
    bool cheap_;
    std::shared_ptr<double> time_;
};

/// A sequence whose text is one token over and over.
struct Text {
    SequenceId sequence;
    TokenId token;
    std::int64_t committed = 0, fresh = 3;

    SequenceFeedback next() {
        const std::int64_t from = committed;
        committed += fresh;
        SequenceFeedback f{
            sequence, std::vector<TokenId>(static_cast<std::size_t>(fresh), token), {}, token, committed};
        f.features = at::arange(from, committed, at::kFloat).unsqueeze(1).expand({fresh, 4}).contiguous();
        return f;
    }
    void accept(const TokenTree& tree) { fresh = tree.child(0, token) == kNoNode ? 1 : 2; }
};

struct Pair {
    CheckingDraft *dear, *cheap;
    MergedDraft merged;
};

struct Kind {
    TokenId token;
    float q;
    double seconds;
    bool cheap;
};

Pair pair(Kind a, Kind b) {
    auto time = std::make_shared<double>(0.0);
    std::vector<std::unique_ptr<DraftModel>> parts;
    std::array<CheckingDraft*, 2> drafters{};
    for (std::size_t i = 0; const Kind& kind : {a, b}) {
        auto part = std::make_unique<CheckingDraft>(kind.token, kind.q, kind.seconds, kind.cheap, time);
        drafters[i++] = part.get();
        parts.push_back(std::move(part));
    }
    return {drafters[0], drafters[1], MergedDraft(std::move(parts), [time] { return *time; })};
}

Pair pair(float dear_q, float cheap_q, double seconds) {
    return pair(Kind{1, dear_q, seconds, false}, Kind{2, cheap_q, 1e-5, true});
}

/// Rounds with time at `price` tokens a second; how many nodes came true.
std::int64_t play(Pair& drafters, Text text, int rounds, double price) {
    const std::vector<double> trees{0.0, 0.05, 0.1, 0.15, 0.2};
    std::int64_t right = 0;
    for (int i = 0; i < rounds; ++i) {
        const std::vector<SequenceFeedback> feedback{text.next()};
        DraftBudget budget{.nodes = 4};
        if (price > 0) budget.second_price = price, budget.tree_prices = trees;
        text.accept(drafters.merged.propose(feedback, budget).front().tree);
        right += text.fresh - 1;
    }
    return right;
}

}  // namespace

TEST_CASE("merged lets a dear drafter rest that does not pay, and the cheap one goes on", "[merged]") {
    Pair drafters = pair(0.3F, 0.6F, 1e-3);
    CHECK(play(drafters, {1, 2}, 300, 1000.0) == 300);  // a call costs a token at least, and adds none
    CHECK(drafters.cheap->calls == 300);
    CHECK(drafters.dear->calls < 40);
    CHECK(drafters.dear->calls > 0);  // that much it may lose
}

TEST_CASE("merged asks a dear drafter that pays, and everybody where time has no price", "[merged]") {
    Pair paying = pair(0.8F, 0.05F, 1e-4);
    CHECK(play(paying, {1, 1}, 100, 1.0) > 90);  // for next to nothing
    CHECK(paying.dear->calls > 94);
    Pair free = pair(0.01F, 0.9F, 1e-3);
    (void)play(free, {1, 2}, 60, 0.0);
    CHECK(free.dear->calls == 60);
}

TEST_CASE("what a drafter adds is beside the choice made without it, so that contradicting loses nothing", "[merged]") {
    std::mt19937 engine(3);
    std::vector<double> trees;
    for (int n = 0; n <= 40; ++n) trees.push_back(0.02 * n);
    const auto chain = [](TokenId token, double q, int length) {
        TokenTree::Builder tree(7);
        NodeIndex last = 0;
        for (int i = 0; i < length; ++i) last = tree.add(last, token, static_cast<float>(std::log(q)));
        return std::move(tree).build();
    };
    for (const bool chains : {false, true}) {
        const DraftBudget budget{.nodes = 40, .tree_prices = trees, .chains = chains};
        DraftTrie trie(7);
        CHECK(trie.choice(budget).empty());
        trie.join(chain(1, 0.99, 40), 1);
        trie.weigh({});
        const std::vector<NodeIndex> chosen = trie.choice(budget);
        CHECK(chosen.size() == 40);
        const double promised = trie.worth(chosen, budget);
        CHECK(promised > 30);
        trie.join(chain(2, 0.7, 1), 2);  // and half of that promise is gone
        trie.weigh({});
        CHECK(trie.worth(chosen, budget) < 0.7 * promised);
        const double added = trie.worth(trie.choice(budget), budget) - trie.worth(chosen, budget);
        CHECK((added >= 0 && added < 1));

        // Whatever joins, the choice made before it is none better than the one after it.
        for (int step = 0; step < 200; ++step) {
            const std::vector<NodeIndex> before = trie.choice(budget);
            const auto token = static_cast<TokenId>(engine() % 5);
            trie.join(chain(token, 0.05 + 0.9 * double(engine() % 100) / 100, 1 + static_cast<int>(engine() % 4)),
                      static_cast<DraftTrie::Drafters>(1U << engine() % 3));
            trie.weigh({});
            CHECK(trie.worth(trie.choice(budget), budget) >= trie.worth(before, budget) - 1e-12);
        }
    }
}

TEST_CASE("a part of a merged drafter that rests is given what waits for it before that is much", "[merged]") {
    Pair drafters = pair(0.3F, 0.6F, 1e-3);
    const std::vector<double> trees{0.0, 0.05, 0.1, 0.15, 0.2};
    Text text{1, 2};
    std::int64_t most = 0;
    for (int i = 0; i < 300; ++i) {
        const std::vector<SequenceFeedback> feedback{text.next()};
        const DraftBudget budget{.nodes = 4, .second_price = 1000.0, .tree_prices = trees, .owed_tokens = 20};
        text.accept(drafters.merged.propose(feedback, budget).front().tree);
        most = std::max(most, text.committed - drafters.dear->seen[1]);
    }
    CHECK(most <= 20);
    CHECK(most > 15);  // and not at every round
    CHECK(drafters.dear->calls < 100);
}

TEST_CASE("merged that drafts nothing hands what it is told to its parts once that is much", "[merged]") {
    Pair drafters = pair(0.8F, 0.05F, 1e-4);
    Text text{1, 1};
    const DraftBudget nothing{.nodes = 0, .owed_tokens = 5};
    const auto told = [&](const DraftBudget& budget) {
        return drafters.merged.propose(std::vector{text.next()}, budget).front().tree.drafted();
    };
    CHECK(told(nothing) == 0);
    CHECK(drafters.dear->seen[1] == 0);
    CHECK(told(nothing) == 0);
    CHECK(drafters.dear->seen[1] == 6);
    CHECK(told(nothing) == 0);
    CHECK(drafters.dear->seen[1] == 6);
    CHECK(told({.nodes = 4}) > 0);
    CHECK(drafters.dear->seen[1] == 12);
}

TEST_CASE("merged starts with its cheap part whatever the order, and learns what others cost", "[merged]") {
    // Neither says that it is cheap: the first is asked first, until it is known to be slow.
    Pair drafters = pair(Kind{1, 0.5F, 2e-3, false}, Kind{2, 0.5F, 1e-5, false});
    CHECK(play(drafters, {1, 2}, 200, 1000.0) > 150);
    CHECK(drafters.cheap->calls > 150);
    CHECK(drafters.dear->calls < 60);
}

TEST_CASE("every part of a merged drafter sees every token once, whenever it is asked", "[merged]") {
    std::mt19937 engine(5);
    Pair drafters = pair(0.5F, 0.4F, 1e-4);
    std::vector<Text> texts;
    SequenceId next = 1;
    const std::vector<double> trees(9, 0.0);
    for (int round = 0; round < 600; ++round) {
        if (texts.size() < 5 && engine() % 3 == 0) texts.push_back({next++, engine() % 2 == 0 ? 1 : 2});
        std::vector<SequenceFeedback> feedback;
        std::vector<std::size_t> asked;
        for (std::size_t i = 0; i < texts.size(); ++i)  // a round may leave sequences out
            if (engine() % 4 != 0) feedback.push_back(texts[i].next()), asked.push_back(i);
        DraftBudget budget{.nodes = static_cast<std::int64_t>(engine() % 9)};
        if (const auto kind = engine() % 4; kind != 0)  // nothing pays, or all does, or time has no price
            budget.second_price = kind == 1 ? 1e-6 : 1e9, budget.tree_prices = trees;
        const std::vector<SequenceTree> proposed = drafters.merged.propose(feedback, budget);
        for (std::size_t i = 0; i < asked.size(); ++i) texts[asked[i]].accept(proposed[i].tree);
        if (!texts.empty() && engine() % 10 == 0) {
            drafters.merged.forget(texts.front().sequence);
            CHECK_FALSE(drafters.dear->seen.contains(texts.front().sequence));
            texts.erase(texts.begin());
        }
    }
    CHECK(drafters.dear->calls > 100);
    CHECK(drafters.dear->calls < 450);  // both rest where nothing pays
    CHECK(drafters.cheap->calls < 450);
    DraftBudget all{.nodes = 2};
    std::vector<SequenceFeedback> feedback;
    for (Text& text : texts) feedback.push_back(text.next());
    (void)drafters.merged.propose(feedback, all);
    for (const Text& text : texts) CHECK(drafters.dear->seen[text.sequence] == text.committed);
}

TEST_CASE("merged trusts a token otherwise where another drafter differs than where it knows nothing", "[merged]") {
    struct Fixed final : DraftModel {
        explicit Fixed(TokenId says) : token(says) {}
        [[nodiscard]] std::string_view kind() const override { return "fixed"; }
        [[nodiscard]] DraftDraws draws() const override { return DraftDraws::none; }
        TokenId token;
        bool silent = false;

        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
            TokenTree::Builder tree(feedback[0].pending);
            if (!silent) (void)tree.add(0, token, std::log(0.5F));
            std::vector<SequenceTree> trees;
            trees.push_back({feedback[0].sequence, std::move(tree).build()});
            return trees;
        }
        void forget(SequenceId) override {}
    };
    auto always = std::make_unique<Fixed>(2), sometimes = std::make_unique<Fixed>(3);
    Fixed& other = *sometimes;
    std::vector<std::unique_ptr<DraftModel>> parts;
    parts.push_back(std::move(always));
    parts.push_back(std::move(sometimes));
    MergedDraft merged(std::move(parts));
    // Token 2 follows where the other says nothing, and never where it says 3.
    TokenId pending = 1;
    std::int64_t committed = 0;
    std::array<double, 2> chance{};
    for (int round = 0; round < 200; ++round) {
        other.silent = round % 2 == 0;
        committed += 1;
        const SequenceFeedback feedback{1, {pending}, at::full({1, 4}, 0.0), round % 2 == 0 ? 3 : 2, committed};
        pending = feedback.pending;
        const std::vector<SequenceTree> trees = merged.propose(std::span(&feedback, 1), {4});
        const NodeIndex child = trees[0].tree.child(0, 2);
        REQUIRE(child != kNoNode);
        chance[round % 2] = std::exp(double(trees[0].tree.log_q()[static_cast<std::size_t>(child)]));
    }
    CHECK(chance[0] > 0.9);
    CHECK(chance[1] < 0.1);
}

TEST_CASE("merged refuses to be without a clock", "[merged]") {
    std::vector<std::unique_ptr<DraftModel>> parts;
    parts.push_back(std::make_unique<CheckingDraft>(1, 0.5F, 0.0, true, std::make_shared<double>(0.0)));
    CHECK_THROWS_WITH(MergedDraft(std::move(parts), nullptr), Catch::Matchers::ContainsSubstring("no clock"));
}

TEST_CASE("merged asks nobody for nothing, and learns nothing of it", "[merged]") {
    Pair drafters = pair(0.3F, 0.6F, 1e-4);
    const std::vector<double> trees{0.0, 0.1};
    CHECK(drafters.merged.propose({}, {1, 100.0, trees}).empty());
    CHECK(drafters.merged.propose({}, {1}).empty());
    CHECK(drafters.cheap->calls + drafters.dear->calls == 0);
    CHECK(play(drafters, {1, 2}, 40, 1.0) == 40);
}

TEST_CASE("a drafter that is certain of a path is asked wherever others draft, and rests where nobody does",
          "[merged]") {
    struct Certain final : DraftModel {
        std::int64_t calls = 0;
        std::shared_ptr<double> time;
        [[nodiscard]] std::string_view kind() const override { return "certain"; }
        [[nodiscard]] DraftDraws draws() const override { return DraftDraws::certain; }
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
            ++calls;
            *time += 1e-3;
            std::vector<SequenceTree> trees;
            for (const SequenceFeedback& f : feedback) {
                trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
                trees.back().samples = std::make_shared<const DraftSamples>(DraftSamples::chosen(trees.back().tree));
            }
            return trees;
        }
    };
    for (const double price : {1e3, 1e9}) {  // the other one pays, or nobody does
        auto time = std::make_shared<double>(0.0);
        auto certain = std::make_unique<Certain>();
        certain->time = time;
        Certain& asked = *certain;
        std::vector<std::unique_ptr<DraftModel>> parts;
        auto cheap = std::make_unique<CheckingDraft>(1, 0.5F, 1e-5, true, time);
        const CheckingDraft& other = *cheap;
        parts.push_back(std::move(cheap));
        parts.push_back(std::move(certain));
        MergedDraft merged(std::move(parts), [time] { return *time; });
        Text text{1, 1};
        const std::vector<double> prices(5, 0.0);
        for (int i = 0; i < 100; ++i) {
            const std::vector<SequenceFeedback> feedback{text.next()};
            const auto tree = merged.propose(feedback, {4, price, prices});
            CHECK((tree.front().samples != nullptr || tree.front().tree.drafted() == 0));
            text.accept(tree.front().tree);
        }
        CHECK(asked.calls >= other.calls);
        CHECK((price < 1e6 ? other.calls == 100 : other.calls < 20));
    }
}
