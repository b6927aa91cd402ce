// A decoder without tensors: what AsyncDecoder needs of one, and nothing else. Its texts are functions of their
// prompts.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <outrider/core/constraint.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/request.hpp>

namespace outrider::test {

inline constexpr TokenId kToyVocabulary = 1000;

/// A token is one printable character.
class ToyDetokenizer final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return std::string(1, static_cast<char>(' ' + token % 95));
    }
    [[nodiscard]] std::string all(const std::vector<TokenId>& tokens) const {
        std::string text;
        for (const TokenId token : tokens) text += bytes(token);
        return text;
    }
};

/// The first `n` tokens of the text that follows a prompt; with a constraint, each is the next one that it allows.
inline std::vector<TokenId> toy_text(const std::vector<TokenId>& prompt, std::int64_t n,
                                     const Constraint* constraint = nullptr) {
    std::uint64_t hash = 7;
    for (const TokenId token : prompt) hash = mix64(hash ^ static_cast<std::uint64_t>(token));
    Constraint::State state = constraint ? constraint->begin({.vocabulary = kToyVocabulary}) : nullptr;
    std::vector<TokenId> text;
    for (std::int64_t i = 0; i < n && !(constraint && constraint->finished(state)); ++i) {
        auto token = static_cast<TokenId>((hash = mix64(hash)) % kToyVocabulary);
        while (constraint && !constraint->allows(state, token)) token = (token + 1) % kToyVocabulary;
        if (constraint) state = constraint->next(state, token);
        text.push_back(token);
    }
    return text;
}

/// Every sequence gets one to three tokens a round. A prompt that begins with kBadPrompt cannot join; one that begins
/// with kBreaks fails in its first round. Throws where two threads use it.
class ToyDecoder {
public:
    static constexpr TokenId kBadPrompt = -1, kBreaks = -2;
    static constexpr std::int64_t kContext = 100'000;
    struct Target {
        [[nodiscard]] std::int64_t context() const { return kContext; }
    };
    struct Outcome {
        bool more = false;
        std::exception_ptr error = {};
    };

    explicit ToyDecoder(std::size_t max_batch = 8) : max_batch_(max_batch) {}

    SequenceId join(Prompt prompt, GenerationOptions options, Sink sink) {
        one_thread();
        require(!prompt.tokens.empty() && prompt.tokens[0] != kBadPrompt, "ToyDecoder: no such prompt");
        const SequenceId id = ++last_;
        order_.push_back(prompt.tokens[0]);
        active_.emplace(id, One{toy_text(prompt.tokens, options.max_tokens, options.constraint.get()), prompt.tokens[0],
                                std::move(sink)});
        most_active = std::max<std::size_t>(most_active, active_.size());
        return id;
    }

    Outcome try_step() {
        one_thread();
        std::this_thread::sleep_for(pause);
        Outcome outcome;
        for (auto& [id, one] : active_) {
            try {
                advance(id, one);
            } catch (...) {
                outcome.error = one.result.exception = std::current_exception();
                one.result.finish = FinishReason::failed;
            }
        }
        leave();
        outcome.more = !active_.empty();
        return outcome;
    }

    bool cancel(SequenceId id) {
        one_thread();
        const auto found = active_.find(id);
        if (found == active_.end()) return false;
        found->second.result.finish = FinishReason::cancelled;
        leave();
        return true;
    }

    [[nodiscard]] std::vector<SequenceId> ended() const {
        std::vector<SequenceId> ids;
        for (const auto& [id, result] : ended_) ids.push_back(id);
        return ids;
    }
    [[nodiscard]] GenerationResult take(SequenceId id) { return std::move(ended_.extract(id).mapped()); }
    [[nodiscard]] std::size_t max_batch() const { return max_batch_; }
    [[nodiscard]] Target verifier() const { return {}; }
    /// First tokens of the prompts in the order of joining.
    [[nodiscard]] const std::vector<TokenId>& order() const { return order_; }

    std::chrono::microseconds pause{0};  ///< of every step
    std::size_t most_active = 0;

private:
    struct One {
        std::vector<TokenId> text;
        TokenId first;
        Sink sink;
        GenerationResult result = {};
    };

    void one_thread() {
        if (owner_ == std::thread::id{}) owner_ = std::this_thread::get_id();
        if (owner_ != std::this_thread::get_id()) throw std::logic_error("ToyDecoder: used by two threads");
    }

    static void advance(SequenceId id, One& one) {
        if (one.first == kBreaks) throw std::runtime_error("this one broke");
        std::vector<TokenId>& tokens = one.result.tokens;
        for (std::size_t i = 0; i <= static_cast<std::size_t>(id) % 3 && tokens.size() < one.text.size(); ++i) {
            tokens.push_back(one.text[tokens.size()]);
            const std::string text = ToyDetokenizer().bytes(tokens.back());
            one.result.text += text;
            if (!one.sink({id, tokens.back(), text})) one.result.finish = FinishReason::cancelled;
            if (one.result.finish != FinishReason::running) return;
        }
        if (tokens.size() == one.text.size()) one.result.finish = FinishReason::length;
    }

    void leave() {
        for (auto it = active_.begin(); it != active_.end();) {
            if (it->second.result.finish == FinishReason::running) {
                ++it;
                continue;
            }
            it->second.result.stats.tokens = static_cast<std::int64_t>(it->second.result.tokens.size());
            ended_.emplace(it->first, std::move(it->second.result));
            it = active_.erase(it);
        }
    }

    std::size_t max_batch_;
    SequenceId last_ = 0;
    std::thread::id owner_;
    std::map<SequenceId, One> active_;
    std::map<SequenceId, GenerationResult> ended_;
    std::vector<TokenId> order_;
};

}  // namespace outrider::test
