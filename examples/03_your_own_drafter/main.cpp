// A drafter of a host's own: one class with one function from feedback to trees. It knows phrases that the host expects
// (here of a story; elsewhere the keys of a JSON schema, boilerplate, names) and drafts the rest of each one that the
// text has begun. It derives from nothing: any type with a matching `propose` is a Drafter.
#include <fmt/format.h>
#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "markov_verifier.hpp"

namespace {

class PhraseDraft {
public:
    explicit PhraseDraft(std::vector<std::string> phrases) : phrases_(std::move(phrases)) {}

    /// One tree for each sequence, its root the pending token.
    std::vector<outrider::SequenceTree> propose(std::span<const outrider::SequenceFeedback> feedback,
                                                outrider::DraftBudget budget) {
        std::vector<outrider::SequenceTree> trees;
        for (const outrider::SequenceFeedback& f : feedback) {
            std::string& text = texts_[f.sequence];
            for (const outrider::TokenId token : f.tokens) text += static_cast<char>(token);
            trees.push_back({f.sequence, tree_for(text + static_cast<char>(f.pending), f.pending, budget)});
        }
        return trees;
    }

    /// Called when a sequence has ended, because it is there.
    void forget(outrider::SequenceId sequence) { texts_.erase(sequence); }

private:
    /// The rest of every phrase whose beginning ends the text, as branches of one tree.
    [[nodiscard]] outrider::TokenTree tree_for(const std::string& text, outrider::TokenId pending,
                                               outrider::DraftBudget budget) const {
        outrider::TokenTree::Builder tree(pending);
        for (const std::string& phrase : phrases_) {
            const std::size_t begun = longest_beginning(text, phrase);
            outrider::NodeIndex node = 0;
            for (std::size_t i = begun; begun > 0 && i < phrase.size(); ++i) {
                if (static_cast<std::int64_t>(tree.size()) > budget.nodes) break;
                node =
                    tree.add(node, static_cast<unsigned char>(phrase[i]), -0.5F);  // a phrase shared is a node shared
            }
        }
        return std::move(tree).build();
    }

    /// Length of the longest beginning of `phrase` (not all of it) with which `text` ends.
    static std::size_t longest_beginning(std::string_view text, std::string_view phrase) {
        for (std::size_t n = std::min(text.size(), phrase.size() - 1); n > 0; --n)
            if (text.ends_with(phrase.substr(0, n))) return n;
        return 0;
    }

    std::vector<std::string> phrases_;
    std::unordered_map<outrider::SequenceId, std::string> texts_;
};

template <typename Draft>
outrider::GenerationResult tell(Draft draft) {
    auto model = std::make_shared<example::MarkovModel>(example::kReading);
    // Trees of a given size: a pass of this toy costs next to nothing, so that the automatic size would rightly draft
    // nothing.
    outrider::SpeculativeDecoder decoder{std::move(draft), example::MarkovVerifier{model},
                                         outrider::DecoderOptions{.nodes = 16}};
    return decoder.generate(example::prompt_of("in the "), {.max_tokens = 240});
}

}  // namespace

int main() {
    const auto plain = tell(outrider::NoDraft{});
    const auto drafted = tell(PhraseDraft({"the rider ", "the river", "went ahead of the wagon", "went along the "}));
    fmt::print("in the {}\n\nplain: {:.2f} bytes a round, with phrases: {:.2f}; {}\n", plain.text, plain.stats.beta(),
               drafted.stats.beta(), plain.text == drafted.text ? "the same text" : "THE TEXTS DIFFER");
    return plain.text == drafted.text && drafted.stats.beta() > 1.2 ? 0 : 1;
}
