#include <catch2/catch_test_macros.hpp>

#include <unordered_map>

#include <outrider/draft/nn/detail/warm_up.hpp>

using namespace outrider;

namespace {

/// Holds the protocol of DraftModel against what warm_up calls.
class Watching final : public DraftEngine<int> {
public:
    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) override {
        REQUIRE(feedback.size() == 1);
        const SequenceFeedback& it = feedback[0];
        auto [known, first] = committed.try_emplace(it.sequence, 0);
        known->second += static_cast<std::int64_t>(it.tokens.size());
        CHECK(it.committed == known->second);
        CHECK(it.features.sizes() == at::IntArrayRef({static_cast<std::int64_t>(it.tokens.size()), 24}));
        CHECK(budget.nodes > 0);
        rows.push_back(static_cast<std::int64_t>(it.tokens.size()));
        return {{it.sequence, TokenTree::root_only(it.pending)}};
    }
    void forget(SequenceId sequence) override { committed.erase(sequence); }
    DraftDraws draws() const override { return DraftDraws::none; }
    const int& config() const override { return nothing; }
    std::size_t weight_bytes() const override { return 0; }

    std::unordered_map<SequenceId, std::int64_t> committed;
    std::vector<std::int64_t> rows;
    int nothing = 0;
};

}  // namespace

TEST_CASE("warm_up drafts for a prompt and for a round, and leaves nothing behind") {
    Watching engine;
    engine.committed[0] = 7;  // a host's own sequence
    warm_up(engine, 24);
    REQUIRE(engine.rows.size() >= 2);
    CHECK(engine.rows.front() > 1);  // many rows at once, as prompts have
    CHECK(engine.rows.back() == 1);
    CHECK(engine.committed == std::unordered_map<SequenceId, std::int64_t>{{0, 7}});
}
