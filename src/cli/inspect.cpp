// outrider inspect: each round's draft tree, drawn, accepted path marked. The loop stands here once more, stage by
// stage, because what it shows is what lies between the stages.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>


#include <outrider/tree/subtree.hpp>
#include <outrider/engine/make_policy.hpp>

#include "arguments.hpp"
#include "engine.hpp"
#include "text.hpp"
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

}  // namespace

int run(const InspectArguments& arguments) {
    const LlamaModel model = load_model(arguments.model);
    const Prompt prompt = make_prompt(model, {"prompt", arguments.prompt, {}}, arguments.model.raw);
    const auto drafter = load_drafter(arguments.drafter, model, arguments.model, arguments.decoding);
    const auto policy = make_policy(arguments.decoding.accept, arguments.decoding.policy);
    policy->check_draws(drafter->draws());
    const SamplingOptions sampling = arguments.decoding.generation.sampling();
    const auto piece = [&](TokenId token) { return quote(model.tokenizer().piece(token)); };
    LlamaVerifier verifier(model);

    std::vector<TokenId> text = prompt.tokens;
    const auto limit = std::min(verifier.context(), std::ssize(text) + arguments.decoding.generation.max_tokens);
    const Prefill prefill{0, std::span(text).first(text.size() - 1), text.back(), drafter->features()};
    Feedback feedback = verifier.prefill(std::span(&prefill, 1));
    const auto ended = [&](TokenId token) { return std::ranges::find(prompt.end_ids, token) != prompt.end_ids.end(); };

    for (std::int64_t round = 1; std::ssize(text) < limit && !ended(text.back()); ++round) {
        const auto room = limit - std::ssize(text) - 1;
        const DraftBudget budget{room > 0 ? arguments.decoding.nodes.value_or(DraftBudget{}.nodes) : 0};
        auto trees = drafter->propose(feedback, budget);
        trees[0].tree = subtree(std::move(trees[0].tree),
                                [&](const TokenTree& whole, NodeIndex node) { return whole.depth(node) <= room; });
        const TokenTree& tree = trees[0].tree;
        const TreeOutput output = verifier.verify(trees);
        const Acceptance accepted = policy->accept(tree, rows_of(output, 0), {0, &sampling, text, trees[0].samples.get()});
        std::string words;
        for (const TokenId token : emitted(tree, accepted)) {
            text.push_back(token), words += ' ' + piece(token);
            if (ended(token)) break;
        }
        fmt::print("round {}: {} of {} nodes accepted, emits{}\n{}\n", round, accepted.path.size(), tree.drafted(), words,
                   draw_tree(tree, accepted.path, piece));
        SequenceAcceptance kept{0, accepted, {tree.token(0)}};
        for (const NodeIndex node : accepted.path) kept.tokens.push_back(tree.token(node));
        feedback = verifier.commit(std::span(&kept, 1));
    }
    const auto answer = std::span(text).subspan(prompt.tokens.size());
    fmt::print("text: {}\n", quote(model.tokenizer().decode(answer, TextPlace::middle)));
    return 0;
}

}  // namespace outrider::cli
