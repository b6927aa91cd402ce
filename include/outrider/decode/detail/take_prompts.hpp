// A step's share of the prompts that enter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/options.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// What kept texts hold of prompts need not be read again.
template <typename V>
void resume_prompts(Stage<V>& verify, SequenceBook& book, const FeatureRequest& features) {
    if constexpr (detail::Resumes<HeldType<V>>) {
        if (!verify.part().resumes()) return;
        book.prompts().begin(
            features, [&](const Prefill& prompt) { return verify->resume(prompt); },
            [&](Session& session) { book.fail_stage(session); });
    }
}

/// Whether the verifier takes prompts and trees in one forward.
template <typename V>
[[nodiscard]] bool mixes(Stage<V>& verify) {
    if constexpr (detail::Mixes<HeldType<V>>) return verify.part().mixes();
    return false;
}

/// How many tokens of prompts a step takes: all where the verifier takes whole prompts alone. Rows of trees in the same
/// forward count, as many as there were last, but half of `rows` are the prompts'.
template <typename V>
[[nodiscard]] std::int64_t prompt_rows(Stage<V>& verify, const SequenceBook& book, std::int64_t rows) {
    if (!detail::takes_pieces(verify.part())) return std::numeric_limits<std::int64_t>::max();
    if (book.active().empty()) return std::max(rows, kRowsAlone);
    if (!mixes(verify)) return rows;
    std::int64_t trees = 0;
    for (const auto& session : book.active()) trees += 1 + session->drafted();
    return std::max({rows - trees, rows / 2, std::int64_t{1}});
}

/// The next pieces of prompts: prefilled, or returned where the round's forward takes them.
template <typename V>
[[nodiscard]] std::vector<Prefill> next_pieces(Stage<V>& verify, SequenceBook& book, const FeatureRequest& features,
                                               std::int64_t rows, const SequenceBook::Release& release) {
    book.admit(release);
    resume_prompts(verify, book, features);
    book.leave(release);
    std::vector<Prefill> pieces = book.prompts().pieces(prompt_rows(verify, book, rows), features);
    if (pieces.empty() || (!book.active().empty() && mixes(verify))) return pieces;
    try {
        Feedback told = verify->prefill(pieces);
        book.took(std::move(told), verify.lap());
        book.activate();
    } catch (...) {
        book.fail_prompts();
    }
    book.leave(release);
    return {};
}

/// Those that wait begin to enter, and the next pieces of all prompts are prefilled in one ragged batch, `rows` tokens
/// beside those that are decoded. Sequences whose prompts are through become active. Where the round's forward can
/// take the pieces, they are returned for it instead. Throws nothing: a fault here ends those that enter.
template <typename V>
[[nodiscard]] std::vector<Prefill> take_prompts(Stage<V>& verify, SequenceBook& book, const FeatureRequest& features,
                                                std::int64_t rows, const SequenceBook::Release& release) {
    try {
        return next_pieces(verify, book, features, rows, release);
    } catch (...) {
        book.fail_intake();
        book.leave(release);
        return {};
    }
}

/// The forward of a round's trees, with the pieces of prompts where there are any. What it took is shared between both
/// by their rows.
template <typename V>
[[nodiscard]] TreeOutput run_forward(Stage<V>& verify, SequenceBook& book, const std::vector<SequenceTree>& trees,
                                     std::span<const Prefill> beside, StageSeconds& times) {
    times.prefill = 0;
    if (beside.empty()) {
        TreeOutput output = verify->verify(trees);
        times.verify = verify.lap();
        return output;
    }
    if constexpr (detail::Mixes<HeldType<V>>) {
        try {
            MixedOutput output = verify->verify_beside(trees, beside);
            const double took = verify.lap();
            double rows = 0, pieces = 0;
            for (const SequenceTree& one : trees) rows += double(one.tree.size());
            for (const Prefill& one : beside) pieces += double(one.tokens.size());
            times.prefill = took * pieces / (rows + pieces), times.verify = took - times.prefill;
            book.took(std::move(output.prompts), times.prefill);
            return std::move(output.trees);
        } catch (...) {
            book.fail_prompts();
            throw;
        }
    }
    return {};  // not reached: `mixes` was false
}

}  // namespace outrider
