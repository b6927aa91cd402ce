// One level of the CTC beam search (draft/ctc/detail/ctc_beam.hpp): what follows each prefix, and the best of them all.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

/// One block: one prefix. The state of the prediction network: silu of a sum of three rows of a table, one of the text,
/// one of the prefix's last token and one of the token before it.
struct BeamStates {
    const float* table;          ///< [rows, width]
    const std::int64_t* base;    ///< [S] the text's row
    const std::int64_t* second;  ///< [S, Q] the row of the token before, less `offset`, by the prefix without its last
    const std::int64_t* parent;  ///< [S, P] which of the Q that is; null: the first
    const std::int64_t* last;    ///< [S, P] the last token's row
    float* state;                ///< [S P, width]
    std::int64_t width, P, Q, offset;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t prefix) const {
        const std::int64_t sequence = prefix / P, above = parent == nullptr ? 0 : parent[prefix];
        const float* a = table + base[sequence] * width;
        const float* b = table + last[prefix] * width;
        const float* c = table + (offset + second[sequence * Q + above]) * width;
        for (std::int64_t i = block.thread(); i < width; i += block.threads()) {
            const float x = a[i] + b[i] + c[i];
            state[prefix * width + i] = x / (1.0F + expf(-x));
        }
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

/// One block: one prefix. Its likeliest continuations, in falling order, and where their last token is entered. Frames
/// or scores of NaN make continuations of NaN.
struct BeamExpand {
    const float* frames;       ///< [S T, columns + 2] logits, the gate's, and its negative
    const float* scores;       ///< [S P, columns] what the prefix adds; null: nothing
    const float* entry;        ///< [S P, T] where the prefix's own last token is entered; null: empty prefixes
    const std::int64_t* last;  ///< [S P] that token's column; null with `entry`
    float* joint;              ///< [S P, columns] scratch
    float* psi;                ///< [S P, keep]
    std::int64_t* column;      ///< [S P, keep]
    float* entries;            ///< [S P, keep, T]
    std::int64_t T, P, columns, keep;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t prefix) const {
        float *top = block.shared(), *fresh = top + T, *repeat = fresh + T;
        for (std::int64_t t = 0; t < T; ++t) {
            float most = -INFINITY, sum = 0;
            for (std::int64_t c = block.thread(); c < columns; c += block.threads())
                most = fmaxf(most, at(prefix, t, c));
            most = block.max(most);
            for (std::int64_t c = block.thread(); c < columns; c += block.threads())
                sum += expf(at(prefix, t, c) - most);
            sum = block.sum(sum);
            if (block.thread() == 0) top[t] = most, fresh[t] = sum;
        }
        if (block.thread() == 0) weigh(prefix, top, fresh, repeat);
        block.sync();
        for (std::int64_t c = block.thread(); c < columns; c += block.threads()) {
            const float* weight = last != nullptr && c == last[prefix] ? repeat : fresh;
            float sum = 0;
            for (std::int64_t t = 0; t < T; ++t) sum += weight[t] * expf(at(prefix, t, c) - top[t]);
            joint[prefix * columns + c] = sum;
        }
        block.sync();
        choose(block, prefix, top, fresh, repeat);
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 3 * T; }

private:
    [[nodiscard]] OUTRIDER_BODY const float* frame(std::int64_t prefix, std::int64_t t) const {
        return frames + (prefix / P * T + t) * (columns + 2);
    }
    [[nodiscard]] OUTRIDER_BODY float at(std::int64_t prefix, std::int64_t t, std::int64_t c) const {
        return frame(prefix, t)[c] + (scores == nullptr ? 0.0F : scores[prefix * columns + c]);
    }

    /// The forward variables of the prefix; fresh holds the sums of exponentials and is overwritten.
    OUTRIDER_BODY void weigh(std::int64_t prefix, const float* top, float* fresh, float* repeat) const {
        float blank = entry == nullptr ? 1.0F : 0.0F, label = 0;
        for (std::int64_t t = 0; t < T; ++t) {
            const float gate = frame(prefix, t)[columns], e = expf(-fabsf(gate));
            const float stays = (gate >= 0 ? 1.0F : e) / (1.0F + e), emits = (gate >= 0 ? e : 1.0F) / (1.0F + e);
            const float scale = emits / fresh[t], exact = blank + label;
            fresh[t] = scale * exact, repeat[t] = scale * blank;
            if (entry != nullptr)
                label = entry[prefix * T + t] + scale * expf(at(prefix, t, last[prefix]) - top[t]) * label;
            blank = stays * exact;
        }
    }

    template <typename Block>
    OUTRIDER_BODY void choose(const Block& block, std::int64_t prefix, const float* top, const float* fresh,
                              const float* repeat) const {
        Best before{INFINITY, -1};
        for (std::int64_t k = 0; k < keep; ++k) {
            Best mine;
            for (std::int64_t c = block.thread(); c < columns; c += block.threads()) {
                const Best here{joint[prefix * columns + c], c};
                const bool open = k == 0 || before.beats(here);
                if (open && here.beats(mine)) mine = here;
            }
            before = block.best(mine);
            const std::int64_t c = before.place == INT64_MAX ? 0 : before.place;
            if (block.thread() == 0) {
                psi[prefix * keep + k] = before.place == INT64_MAX ? 0.0F : before.value;
                column[prefix * keep + k] = c;
            }
            const float* weight = last != nullptr && c == last[prefix] ? repeat : fresh;
            for (std::int64_t t = block.thread(); t < T; t += block.threads())
                entries[(prefix * keep + k) * T + t] = weight[t] * expf(at(prefix, t, c) - top[t]);
        }
    }
};

/// One block: one sequence. The `width` best of all continuations of its P prefixes, of equals the earlier one.
struct BeamMerge {
    const float* psi;            ///< of BeamExpand
    const std::int64_t* column;  ///< of BeamExpand
    const float* entries;        ///< of BeamExpand
    float* best;                 ///< [S, width] Psi
    std::int64_t* place;         ///< [S, width] parent columns + column
    std::int64_t* parent;        ///< [S, width]
    std::int64_t* token;         ///< [S, width] column
    float* entry;                ///< [S, width, T]
    std::int64_t T, P, columns, keep, width;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t sequence) const {
        Best before{INFINITY, -1};
        for (std::int64_t k = 0; k < width; ++k) {
            Best mine;
            for (std::int64_t i = block.thread(); i < P * keep; i += block.threads()) {
                const Best here{psi[sequence * P * keep + i], i};
                if ((k == 0 || before.beats(here)) && here.beats(mine)) mine = here;
            }
            before = block.best(mine);
            const std::int64_t from = sequence * P * keep + (before.place == INT64_MAX ? 0 : before.place);
            const std::int64_t to = sequence * width + k;
            if (block.thread() == 0) {
                best[to] = before.place == INT64_MAX ? 0.0F : before.value;
                token[to] = column[from], parent[to] = (from - sequence * P * keep) / keep;
                place[to] = parent[to] * columns + token[to];
            }
            for (std::int64_t t = block.thread(); t < T; t += block.threads())
                entry[to * T + t] = entries[from * T + t];
        }
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

}  // namespace outrider::cuda
