// outrider inspect with a prompt: each round's draft tree, drawn, accepted path marked. The loop stands here once more,
// stage by stage, because what it shows is what lies between the stages.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>

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

/// What the verifier commits.
SequenceAcceptance kept_of(const TokenTree& tree, const Acceptance& accepted) {
    SequenceAcceptance kept{0, accepted, {tree.token(0)}};
    for (const NodeIndex node : accepted.path) kept.tokens.push_back(tree.token(node));
    return kept;
}

void write_page(ReportFile& page, const InspectArguments& arguments, nlohmann::ordered_json rounds) {
    page.write_line(inspect_page({{"model", arguments.model.path},
                                  {"drafter", arguments.drafter},
                                  {"prompt", arguments.prompt},
                                  {"rounds", std::move(rounds)}}));
    page.finish();
}

/// Calls, and adds the time that it took.
template <typename Call>
auto timed(double& seconds, Call&& call) {
    const double start = now_seconds();
    auto result = call();
    seconds += now_seconds() - start;
    return result;
}

}  // namespace

int run(const InspectArguments& arguments) {
    if (arguments.prompt.empty() && arguments.drafter.empty()) {
        print(describe_model(arguments.model));
        return 0;
    }
    refuse_inputs("--html", arguments.html, {arguments.model.path});
    ReportFile page("--html", arguments.html, ReportFile::Partial::removed);
    const LlamaModel model = load_model(arguments.model);
    const Prompt prompt =
        make_prompt(model, {.id = "prompt", .text = arguments.prompt, .messages = {}}, arguments.model.raw);
    const auto drafter = load_drafter(arguments.drafter, model, arguments.model, arguments.decoding);
    check_tree(arguments.decoding.tree, drafter->kind());
    const auto policy = make_policy(arguments.decoding.accept, arguments.decoding.policy);
    policy->check_draws(drafter->draws());
    const GenerationOptions options = options_for(arguments.decoding, prompt, 0);  // as generate decodes it
    const SamplingOptions sampling = options.sampling();
    LlamaVerifier verifier(model);
    check_request(prompt, options, {}, verifier.vocabulary(), verifier.context());

    std::vector<TokenId> text = prompt.tokens;
    const auto limit = std::min(options.max_tokens, verifier.context() - std::ssize(text));
    TokenStream answer(0, prompt, options, limit, {});
    const Prefill prefill{0, std::span(text).first(text.size() - 1), text.back(), drafter->features()};
    Feedback feedback = verifier.prefill(std::span(&prefill, 1));
    auto rounds = nlohmann::ordered_json::array();
    for (std::int64_t round = 1; !answer.ended(); ++round) {
        const auto room = answer.left() - 1;
        StageSeconds seconds;
        const DraftBudget budget{room > 0 ? arguments.nodes : 0};
        auto trees = timed(seconds.draft, [&] { return drafter->propose(feedback, budget); });
        trees[0].tree = subtree(std::move(trees[0].tree),
                                [&](const TokenTree& whole, NodeIndex node) { return whole.depth(node) <= room; });
        const TokenTree& tree = trees[0].tree;
        const TreeOutput output = timed(seconds.verify, [&] { return verifier.verify(trees); });
        const SequenceContext context{0, &sampling, text, trees[0].samples.get()};
        const Acceptance accepted =
            timed(seconds.accept, [&] { return policy->accept(tree, rows_of(output, 0), context); });
        const std::size_t before = text.size();
        for (const TokenId token : emitted(tree, accepted)) {
            text.push_back(token);
            if (!answer.push(token)) break;
        }
        const std::span<const TokenId> emits = std::span(text).subspan(before);
        if (arguments.html.empty()) draw(round, tree, accepted, emits, model.tokenizer());
        const SequenceAcceptance kept = kept_of(tree, accepted);
        feedback = timed(seconds.commit, [&] { return verifier.commit(std::span(&kept, 1)); });
        if (arguments.html.empty()) continue;
        const auto piece = [&](TokenId token) { return model.tokenizer().piece(token); };
        rounds.push_back(page_round(tree, accepted.path, emits, seconds, piece));
    }
    if (arguments.html.empty())
        print(fmt::format("text: {}\n", quote(answer.text())));
    else
        write_page(page, arguments, std::move(rounds));
    return 0;
}

}  // namespace outrider::cli
