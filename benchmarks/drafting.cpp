// What a draft costs beside the pass that checks it, in the loop's own order: draft, verify, accept, commit.
//     drafting MODEL DRAFTER [NODES = 4,6,16] [ROUNDS = 300]
// One sequence, greedy, a context of 200 tokens that grows; medians and smallest times of a round's parts.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/core/error.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

double microseconds() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Times {
    std::vector<double> of;

    [[nodiscard]] double at(double share) {
        std::sort(of.begin(), of.end());
        return of[static_cast<std::size_t>(share * static_cast<double>(of.size() - 1))];
    }
};

void measure(const LlamaModel& model, DraftModel& drafter, SequenceId sequence, std::int64_t nodes, int rounds) {
    LlamaVerifier verifier(model);
    std::vector<TokenId> prompt;
    for (std::int64_t i = 0; i < 200; ++i)
        prompt.push_back(static_cast<TokenId>((i * 7919 + 13) % model.config().vocabulary));
    const Prefill prefill{sequence, prompt, 17, drafter.features()};
    Feedback feedback = verifier.prefill(std::span(&prefill, 1));
    Times draft, verify, commit;
    std::size_t tokens = 0;
    for (int i = 0; i < rounds; ++i) {
        const double begin = microseconds();
        const std::vector<SequenceTree> trees = drafter.propose(feedback, {nodes});
        const double drafted = microseconds();
        const TreeOutput output = verifier.verify(trees);
        const double verified = microseconds();
        const auto* best = output.argmax.const_data_ptr<std::int64_t>();
        const SequenceAcceptance accepted =
            kept_of(sequence, trees[0].tree,
                    accept_walk(trees[0].tree, [&](NodeIndex node) { return static_cast<TokenId>(best[node]); }));
        feedback = verifier.commit(std::span(&accepted, 1));
        const double committed = microseconds();
        tokens += 1 + accepted.accepted.path.size();
        if (i < 10) continue;  // the first rounds read the prompt and find cold memory
        draft.of.push_back(drafted - begin), verify.of.push_back(verified - drafted);
        commit.of.push_back(committed - verified);
    }
    drafter.forget(sequence);
    fmt::print("{:>5} {:>9.0f} {:>7.0f} {:>9.0f} {:>7.0f} {:>8.0f} {:>9.3f} {:>6.2f}\n", nodes, draft.at(0.5),
               draft.at(0), verify.at(0.5), verify.at(0), commit.at(0.5), draft.at(0.5) / verify.at(0.5),
               static_cast<double>(tokens) / rounds);
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 3) return fmt::print(stderr, "usage: drafting MODEL DRAFTER [NODES = 4,6,16] [ROUNDS = 300]\n"), 2;
    const LlamaModel model = LlamaModel::load(argv[1]);
    const auto drafter = make_drafter(argv[2], model.head());
    fmt::print("{}, us a round\nnodes     draft     min    verify     min   commit  d/verify   beta\n", argv[2]);
    std::stringstream list(argc > 3 ? argv[3] : "4,6,16");
    SequenceId sequence = 0;
    for (std::string nodes; std::getline(list, nodes, ',');)
        measure(model, *drafter, sequence++, std::atoll(nodes.c_str()), argc > 4 ? std::atoi(argv[4]) : 300);
} catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
}
