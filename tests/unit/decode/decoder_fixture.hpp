// What the decoder's tests share: the text to expect, a detokenizer, parts that break.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include <outrider/core/prompt.hpp>
#include <outrider/draft/drafter.hpp>

#include "../../property/fake_target.hpp"

namespace outrider::test {

/// The independent loop: the target's own greedy text.
inline std::vector<TokenId> plain_greedy(const FakeLaw& law, std::vector<TokenId> text, std::int64_t tokens) {
    const std::size_t prompt = text.size();
    std::vector<float> logits(static_cast<std::size_t>(law.vocabulary));
    for (std::int64_t i = 0; i < tokens; ++i) {
        fake_logits(law, text, logits.data());
        text.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    return {text.begin() + static_cast<std::ptrdiff_t>(prompt), text.end()};
}

/// Token i is one letter.
class Letters final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return std::string(1, static_cast<char>('a' + token));
    }
};

inline std::string letters(const std::vector<TokenId>& tokens) {
    std::string text;
    for (const TokenId t : tokens) text += static_cast<char>('a' + t);
    return text;
}

inline const FakeLaw kLaw{.order = 3};

/// A drafter that throws when it is told to.
class FragileDraft final : public DraftModel {
public:
    explicit FragileDraft(bool& broken) : broken_(broken) {}
    [[nodiscard]] std::string_view kind() const override { return "fragile"; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
        if (broken_) throw std::runtime_error("the drafter broke");
        std::vector<SequenceTree> trees;
        for (const auto& f : feedback) trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
        return trees;
    }

private:
    bool& broken_;
};

}  // namespace outrider::test
