// outrider inspect with a prompt: each round's draft tree, drawn, accepted path marked. The loop stands here once more,
// stage by stage, because what it shows is what lies between the stages.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/detail/clock.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/decode/detail/token_stream.hpp>
#include <outrider/engine/make_policy.hpp>
#include <outrider/tree/detail/subtree.hpp>

#include "arguments.hpp"
#include "describe_model.hpp"
#include "engine.hpp"
#include "inspect_page.hpp"
#include "output.hpp"
#include "text.hpp"
#include "tree_choice.hpp"
#include "tree_drawing.hpp"

namespace outrider::cli {
namespace {

/// The tokens of one round in text order: the accepted path's, then the new pending one.
std::vector<TokenId> emitted(const TokenTree& tree, const Acceptance& accepted) {
    std::vector<TokenId> tokens;
    for (const NodeIndex node : accepted.path) tokens.push_back(tree.token(node));
    tokens.push_back(accepted.pending);
    return tokens;
}

/// A round as it is drawn: `tokens` are those that it emits.
void draw(std::int64_t round, const TokenTree& tree, const Acceptance& accepted, std::span<const TokenId> tokens,
          const Tokenizer& tokenizer) {
    const auto piece = [&](TokenId token) { return quote(tokenizer.piece(token)); };
    std::string words;
    for (const TokenId token : tokens) words += ' ' + piece(token);
    print(fmt::format("round {}: {} of {} nodes accepted, emits{}\n{}\n", round, accepted.path.size(), tree.drafted(),
                      words, draw_tree(tree, accepted.path, piece)));
    flush_output();
}

/// Calls, and adds the time that it took.
template <typename Call>
auto timed(double& seconds, Call&& call) {
    const double start = now_seconds();
    auto result = call();
    seconds += now_seconds() - start;
    return result;
}

/// One prompt decoded round by round, as `generate` decodes it, with every part in sight.
class Inspection {
public:
    Inspection(const InspectArguments& arguments, const LlamaModel& model)
        : arguments_(arguments),
          model_(model),
          prompt_(make_prompt(model, {.id = "prompt", .text = arguments.prompt, .messages = {}}, arguments.model.raw)),
          drafter_(load_drafter(arguments.drafter, model, arguments.model, arguments.decoding)),
          policy_(make_policy(arguments.decoding.accept, arguments.decoding.policy)),
          options_(options_for(arguments.decoding, prompt_, 0)),
          sampling_(options_.sampling()),
          verifier_(model),
          text_(prompt_.tokens) {
        check_tree(arguments.decoding.tree, drafter_->kind());
        policy_->check_draws(drafter_->draws());
        check_request(prompt_, options_, {}, verifier_.vocabulary(), verifier_.context());
        answer_.emplace(0, prompt_, options_, std::min(options_.max_tokens, verifier_.context() - std::ssize(text_)),
                        Sink());
        const Prefill prefill{0, std::span(text_).first(text_.size() - 1), text_.back(), drafter_->features()};
        feedback_ = none_refused(verifier_.prefill(std::span(&prefill, 1)));
    }

    [[nodiscard]] bool ended() const { return answer_->ended(); }

    /// Decodes one, and draws it or keeps it for the page.
    void round() {
        StageSeconds seconds;
        const std::vector<SequenceTree> trees = timed(seconds.draft, [&] { return draft(); });
        const TokenTree& tree = trees[0].tree;
        const TreeOutput output = timed(seconds.verify, [&] { return none_refused(verifier_.verify(trees)); });
        const SequenceContext context{0, &sampling_, text_, trees[0].samples.get()};
        const Acceptance accepted =
            timed(seconds.accept, [&] { return policy_->accept(tree, rows_of(output, 0), context); });
        const std::size_t before = text_.size();
        for (const TokenId token : emitted(tree, accepted)) {
            text_.push_back(token);
            if (!answer_->push(token)) break;
        }
        const std::span<const TokenId> emits = std::span(text_).subspan(before);
        ++round_;
        if (arguments_.html.empty()) draw(round_, tree, accepted, emits, model_.tokenizer());
        const SequenceAcceptance kept = kept_of(0, tree, accepted);
        feedback_ = timed(seconds.commit, [&] { return verifier_.commit(std::span(&kept, 1)); });
        const auto piece = [&](TokenId token) { return model_.tokenizer().piece(token); };
        if (!arguments_.html.empty()) rounds_.push_back(page_round(tree, accepted.path, emits, seconds, piece));
    }

    void finish(ReportFile& page) {
        if (arguments_.html.empty()) return print(fmt::format("text: {}\n", quote(answer_->text())));
        page.write_line(inspect_page({{"model", arguments_.model.path},
                                      {"drafter", arguments_.drafter},
                                      {"prompt", arguments_.prompt},
                                      {"rounds", std::move(rounds_)}}));
        page.finish();
    }

private:
    /// Without the nodes that the answer has no room for.
    [[nodiscard]] std::vector<SequenceTree> draft() {
        const auto room = answer_->left() - 1;
        auto trees = drafter_->propose(feedback_, DraftBudget{room > 0 ? arguments_.nodes : 0});
        trees[0].tree = subtree(std::move(trees[0].tree),
                                [&](const TokenTree& whole, NodeIndex node) { return whole.depth(node) <= room; });
        return trees;
    }

    const InspectArguments& arguments_;
    const LlamaModel& model_;
    Prompt prompt_;
    std::unique_ptr<DraftModel> drafter_;
    std::unique_ptr<AcceptancePolicy> policy_;
    GenerationOptions options_;
    SamplingOptions sampling_;
    LlamaVerifier verifier_;
    std::vector<TokenId> text_;
    std::optional<TokenStream> answer_;
    Feedback feedback_;
    std::int64_t round_ = 0;
    nlohmann::ordered_json rounds_ = nlohmann::ordered_json::array();
};

}  // namespace

int run(const InspectArguments& arguments) {
    if (arguments.prompt.empty() && arguments.drafter.empty()) {
        print(describe_model(arguments.model));
        return 0;
    }
    refuse_inputs("--html", arguments.html, {arguments.model.path});
    ReportFile page("--html", arguments.html, ReportFile::Partial::removed);
    const LlamaModel model = load_model(arguments.model);
    Inspection inspection(arguments, model);
    while (!inspection.ended()) inspection.round();
    inspection.finish(page);
    return 0;
}

}  // namespace outrider::cli
