// A step's share of the prompts that enter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include <outrider/decode/decoder_options.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// What kept texts hold of prompts need not be read again.
template <typename V>
void resume_prompts(Stage<V>& verify, SequenceBook& book, const FeatureRequest& features) {
    if constexpr (requires { verify.part().resumes(); }) {
        if (!verify.part().resumes()) return;
        book.prompts().begin(
            features, [&](const Prefill& prompt) { return verify->resume(prompt); },
            [&](Session& session) { book.fail_stage(session); });
    }
}

/// How many tokens of prompts a step takes: all where the verifier takes whole prompts alone.
template <typename V>
[[nodiscard]] std::int64_t prompt_rows(Stage<V>& verify, const SequenceBook& book, std::int64_t rows) {
    bool pieces = false;
    if constexpr (requires { verify.part().extends(); }) pieces = verify.part().extends();
    if (!pieces) return std::numeric_limits<std::int64_t>::max();
    return book.active().empty() ? std::max(rows, kRowsAlone) : rows;
}

/// Those that wait begin to enter, and the next pieces of all prompts are prefilled in one ragged batch, `rows` tokens
/// beside those that are decoded. Sequences whose prompts are through become active.
template <typename V>
void take_prompts(Stage<V>& verify, SequenceBook& book, const FeatureRequest& features, std::int64_t rows,
                  const SequenceBook::Release& release) {
    book.admit(release);
    resume_prompts(verify, book, features);
    book.leave(release);
    const std::vector<Prefill> pieces = book.prompts().pieces(prompt_rows(verify, book, rows), features);
    if (pieces.empty()) return;
    try {
        Feedback told = verify->prefill(pieces);
        book.entered(std::move(told), verify.lap());
    } catch (...) {
        book.fail_prompts();
    }
    book.leave(release);
}

}  // namespace outrider
