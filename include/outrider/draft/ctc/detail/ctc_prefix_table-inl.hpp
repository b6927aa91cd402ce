// What a drafted prefix adds to the scores of the tokens behind it, in tensor operations: the prediction network of a
// beam search.
#pragma once

#include <algorithm>
#include <vector>

#include <outrider/draft/ctc/detail/beam_kernels.hpp>
#include <outrider/draft/ctc/detail/ctc_beam.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>
#include <outrider/draft/nn/detail/device_products.hpp>
#include <outrider/draft/nn/detail/lane_layers.hpp>

namespace outrider::detail {

/// The prediction network. One table holds what the draft vocabulary's tokens add to its state and, behind them, what
/// the round's texts add, so that a state is a sum of three rows.
class CtcPrefixTable final : public CtcBeamScores {
public:
    /// `output`: the target's rows of the draft vocabulary [V, H], of the type that large products are to have.
    /// `scale`: of the embeddings that `start` is given, in place of the head's. `kernels`: where the device has them.
    CtcPrefixTable(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head, const at::Tensor& output,
                   double scale, bool kernels)
        : columns_(std::ssize(config.vocabulary)),
          frames_(config.frames),
          kernels_(kernels && has_beam_kernels(output.device())) {
        const auto floats = [](const at::Tensor& weight) { return weight.detach().to(at::kFloat); };
        const std::int64_t H = config.hidden, R = config.prefix_rank;
        const at::Tensor in = floats(weights.prefix_in), out = floats(weights.prefix_out);
        by_token_ = aten::cat({in.slice(1, 0, H), in.slice(1, H, 2 * H)}) * config.embedding_scale;
        by_feature_ = in.slice(1, 2 * H) * config.feature_scale;
        bias_ = floats(weights.prefix_bias);
        const at::Tensor both = aten::linear(head.embed(config.vocabulary).to(in.options()), by_token_);  // [V, 2 R]
        table_ = aten::cat({both.slice(1, 0, R), both.slice(1, R), aten::zeros({1, R}, in.options())});
        by_token_ = by_token_ * scale;
        const auto typed = [&](const at::Tensor& weight) { return weight.to(output.scalar_type()); };
        const bool of_target = config.prefix_output == HeadOutput::target;
        if (config.prefix_bottleneck > 0) {
            first_ = typed(floats(weights.prefix_narrow));
            rows_ = typed(of_target ? aten::matmul(output.to(at::kFloat), out) : out);
        } else {
            if (of_target) first_ = typed(out);
            rows_ = of_target ? output : typed(out);
        }
    }

    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = table_.nbytes() + by_token_.nbytes() + by_feature_.nbytes();
        for (const at::Tensor& matrix : {first_, rows_})
            if (matrix.defined()) sum += matrix.nbytes();
        return sum;
    }

    /// Changes whenever tables have moved.
    [[nodiscard]] std::int64_t generation() const { return generation_; }

    /// The places of a round's rows in the table. `known` [S]: whether the token before the pending one is.
    void plan(const std::vector<bool>& known, std::int64_t nodes, RoundNumbers& numbers) {
        const auto S = std::ssize(known);
        const std::int64_t texts = 2 * columns_ + 1, tokens = texts + S;
        std::vector<std::int64_t> text, last, before, second, root;
        for (std::int64_t i = 0; i < S; ++i) {
            text.push_back(texts + i), last.push_back(tokens + 2 * i), second.push_back(tokens + 2 * i + 1);
            before.push_back(known[static_cast<std::size_t>(i)] ? tokens + 2 * S + 2 * i + 1 : texts - 1);
            root.insert(root.end(), {text.back(), last.back(), before.back()});
        }
        sequences_ = S;
        if (kernels_) {
            text_at_ = numbers.add(text), last_at_ = numbers.add(last), before_at_ = numbers.add(before);
            second_at_ = numbers.add(second);
        } else {
            root_at_ = numbers.add(root);
            plan_tokens(text, second, nodes, numbers);
        }
        grow(tokens + 4 * S, S * std::max<std::int64_t>(nodes, 1));
    }

    /// `embedded` [2 S, H] of the pending tokens, then of those before them; `features` [S, H]. f32.
    void start(const at::Tensor& embedded, const at::Tensor& features, const RoundNumbers& numbers) {
        const std::int64_t S = sequences_, R = table_.size(1), texts = 2 * columns_ + 1;
        at::Tensor base = table_.narrow(0, texts, S), tokens = table_.narrow(0, texts + S, 4 * S).view({2 * S, 2 * R});
        aten::addmm_out(base, bias_, features, by_feature_.t());
        aten::mm_out(tokens, embedded, by_token_.t());
        if (!kernels_) {
            root_ = numbers[root_at_], tokens_.clear();
            for (const RoundNumbers::Part part : tokens_at_) tokens_.push_back(numbers[part].view({S, -1, 3}));
            return;
        }
        text_ = numbers[text_at_], last_ = numbers[last_at_].view({S, 1}), before_ = numbers[before_at_].view({S, 1});
        second_ = numbers[second_at_].view({S, 1}), offset_ = 0;
    }

    [[nodiscard]] at::Tensor root() override {
        return scores(kernels_ ? beam_states(table_, text_, before_, {}, last_, 0) : sums(root_));
    }

    [[nodiscard]] at::Tensor longer(const at::Tensor& parent, const at::Tensor& column) override {
        const at::Tensor state = beam_states(table_, text_, second_, parent, column, offset_);
        second_ = column, offset_ = columns_;
        return scores(state);
    }

    [[nodiscard]] at::Tensor tokens(std::int64_t length) override {
        const at::Tensor& rows = tokens_[static_cast<std::size_t>(length) - 1];
        return length == 1 ? rows.narrow(2, 1, 1) : rows.narrow(2, 0, 2);
    }
    [[nodiscard]] at::Tensor behind(std::int64_t length) override {
        return scores(sums(tokens_[static_cast<std::size_t>(length) - 1].view({-1})));
    }

private:
    /// The three rows of all prefixes of each length. The search writes those of a prefix's own tokens; before the
    /// first token stands the pending one.
    void plan_tokens(const std::vector<std::int64_t>& text, const std::vector<std::int64_t>& second, std::int64_t nodes,
                     RoundNumbers& numbers) {
        tokens_at_.clear();
        for (std::int64_t length = 1; length < beam_levels(nodes, frames_); ++length) {
            std::vector<std::int64_t> rows;
            for (std::size_t i = 0; i < text.size(); ++i)
                for (std::int64_t p = 0; p < beam_width(nodes, columns_, length - 1); ++p)
                    rows.insert(rows.end(), {length == 1 ? second[i] : 0, 0, text[i]});
            tokens_at_.push_back(numbers.add(rows));
        }
    }

    void grow(std::int64_t rows, std::int64_t states) {
        if (rows > table_.size(0))
            ++generation_,
                table_ =
                    aten::cat({table_, aten::zeros({2 * rows - table_.size(0), table_.size(1)}, table_.options())});
        if (!begins_.defined() || states > begins_.size(0))
            ++generation_, begins_ = aten::arange(0, 6 * states, 3, table_.options().dtype(at::kLong));
    }

    /// silu of sums of three rows of the table each.
    [[nodiscard]] at::Tensor sums(const at::Tensor& rows) const {
        at::Tensor state = aten::embedding_sums(table_, rows, begins_.narrow(0, 0, rows.size(0) / 3));
        return aten::silu_(state);
    }

    [[nodiscard]] at::Tensor scores(const at::Tensor& state) const {
        const at::Tensor typed = state.to(rows_.scalar_type());
        return product_in_f32(first_.defined() ? aten::mm(typed, first_.t()) : typed, rows_);
    }

    std::int64_t columns_, frames_, sequences_ = 0, generation_ = 0;
    bool kernels_;
    at::Tensor by_token_;    // [2 R, H] of the last token, then of the one before
    at::Tensor by_feature_;  // [R, H]
    at::Tensor bias_;        // [R]
    at::Tensor table_;       // [2 V + 1 + .., R] last tokens, those before, zeros; then a round's features [S] and its
                             // pending tokens and those before them, [2 S] with two rows each: as last, as one before
    at::Tensor first_, rows_;  // [width, R] or undefined; [V, width]
    at::Tensor begins_;        // 0, 3, 6, ..
    // Rows of the table, of a round. For kernels: of the texts [S]; of the pending tokens [S, 1], and of those before
    // them; and of what comes before the last token of the next prefixes [S, P], less the offset.
    at::Tensor text_, last_, before_, second_;
    std::int64_t offset_ = 0;
    RoundNumbers::Part text_at_, last_at_, before_at_, second_at_;
    // For tensor operations: the three of each prefix. Of the empty ones [3 S], and of those of each length [S, P, 3].
    at::Tensor root_;
    std::vector<at::Tensor> tokens_;
    RoundNumbers::Part root_at_;
    std::vector<RoundNumbers::Part> tokens_at_;
};

}  // namespace outrider::detail
