// What a round on a device costs: operations, copies, memory.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "device_ways.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

/// Of plain decoding, where every round has one row a sequence.
double verify_operations(const LlamaModel& model, std::size_t sequences) {
    const Decoded all = decode(model, {.sequences = sequences});
    return Share("verify", all.rounds).operations;
}

LlamaModel load_two_layers() {
    return LlamaModel::load(
        OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-hf",
        {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 2000});
}

}  // namespace

TEST_CASE("A verify is at most 24 operations a layer, and no more for more sequences", "[budget]") {
    const LlamaModel deep = load(kTrap), shallow = load_two_layers();
    const trap::Trapping trapping;
    const double one = verify_operations(deep, 1);
    const double layer = (one - verify_operations(shallow, 1)) / 2, rest = one - 4 * layer;
    CAPTURE(one, layer, rest);
    CHECK(layer > 8);
    CHECK(layer <= 24);
    CHECK(rest <= 40);
    for (const std::size_t sequences : {2, 3, 8}) CHECK(verify_operations(deep, sequences) == one);
}

TEST_CASE("A round is one copy to the device and two back, and asks for no new memory", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"none", "ngram", "medusa", "ctc", "ctc_plain", "ctc_narrow", "hydra", "ctc+ngram"})
        for (const std::size_t sequences : {1, 3}) {
            CAPTURE(name, sequences);
            const Way way{.drafter = name, .sequences = sequences};
            (void)decode(device, way);
            const Decoded all = decode(device, way);
            const Share propose("propose", all.rounds), verify("verify", all.rounds), accept("accept", all.rounds),
                commit("commit", all.rounds);
            CHECK(verify.to_device == 1);
            CHECK(verify.to_host == 1);
            CHECK(verify.to_host_bytes <= 8 * 64);
            CHECK(propose.to_device <= 1);  // where the drafter's own numbers have to travel
            CHECK(propose.to_host <= 1);
            CHECK(propose.blocking + verify.blocking == 0);
            CHECK(accept.to_device + commit.to_device == 0);
            CHECK(accept.operations + accept.to_host + commit.to_host == 0);
            CHECK(commit.operations <= 1);
            CHECK(propose.fresh + verify.fresh + accept.fresh + commit.fresh == 0);
        }
}

TEST_CASE("Sampling copies no row of logits to the host: the device picks", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const bool truncates : {false, true})
        for (const std::size_t sequences : {1, 3}) {
            CAPTURE(truncates, sequences);
            Way way{.drafter = "ctc", .temperature = 0.8, .sequences = sequences};
            if (truncates) way.request = [](std::size_t, GenerationOptions& options) { options.top_k = 40; };
            (void)decode(device, way);
            const Decoded all = decode(device, way);
            const Share verify("verify", all.rounds), accept("accept", all.rounds);
            CHECK(accept.operations + accept.to_host + accept.to_device == 0);
            CHECK(verify.to_device == 1);
            CHECK(verify.to_host == 1);
            CHECK(verify.to_host_bytes <= 2 * 8 * 64);
            CHECK(verify.fresh == 0);
        }
}

TEST_CASE("Medusa drafts in at most 25 operations, and copies no row of scores", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const std::size_t sequences : {1, 3}) {
        const Decoded all = decode(device, {.drafter = "medusa", .sequences = sequences});
        const Share propose("propose", all.rounds);
        CAPTURE(propose.operations, propose.to_host_bytes);
        CHECK(propose.operations <= 25);
        CHECK(propose.to_host_bytes <= double(sequences) * 4 * 8 * 8);  // heads, nodes, a token and its log q
    }
}

TEST_CASE("CTC and Hydra draft in at most 60 operations, and copy nothing back but the trees", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_eight", "ctc_plain", "ctc_narrow", "hydra"})
        for (const std::size_t sequences : {1, 3}) {
            const Decoded all = decode(device, {.drafter = name, .nodes = 16, .sequences = sequences});
            const Share propose("propose", all.rounds);
            CAPTURE(name, sequences, propose.operations, propose.to_device, propose.to_host, propose.to_host_bytes);
            CHECK(propose.operations <= 60);
            CHECK(propose.to_host == 1);
            CHECK(propose.blocking == 0);
            CHECK(propose.to_device <= 1);
            CHECK(propose.to_host_bytes <= double(sequences) * 8 * 2 * 16 * 4);  // levels, psi and place, nodes
        }
}

TEST_CASE("Drafts of one shape are one graph: nothing in them waits, and their addresses are the same", "[budget]") {
    const LlamaModel model = load(kTrap);
    for (const char* name : {"ctc", "ctc_plain", "ctc_narrow", "hydra", "medusa"})
        for (const auto& [sequences, nodes] :
             {std::pair<SequenceId, std::int64_t>{1, 12}, {2, 12}, {1, 1}, {3, 40}, {5, 16}}) {
            CAPTURE(name, sequences, nodes);
            const auto drafter = folders().drafter(name, model, {});
            const std::int64_t H = model.config().hidden, width = H * (1 + std::ssize(drafter->features().layers));
            const at::Tensor features = noise({40, width}, 5, 1.0).to(at::kFloat).to(kTrap);
            const trap::Trapping trapping;
            std::vector<std::vector<std::string>> traces;
            std::int64_t known = 0;
            for (int round = 0; round < 5; ++round) {  // a prompt, then rounds that keep three tokens each
                const std::int64_t rows = round == 0 ? 7 : 3;
                std::vector<SequenceFeedback> feedback;
                for (SequenceId id = 1; id <= sequences; ++id)
                    feedback.push_back({.sequence = id,
                                        .tokens = std::vector<TokenId>(static_cast<std::size_t>(rows), TokenId{8}),
                                        .features = features.narrow(0, known, rows),
                                        .pending = 8,
                                        .committed = known + rows});
                trap::CaptureLint lint;
                (void)drafter->propose(feedback, {.nodes = nodes});
                known += rows;
                traces.push_back(std::move(lint.trace));
                if (round < 2) continue;  // make their memory
                // The trees go back when all is done: the last thing that happens.
                REQUIRE(lint.faults.size() == 1);
                CHECK(lint.faults[0].find("a copy to the host") != std::string::npos);
                CHECK(traces.back().back().starts_with("copy"));
            }
            const auto later = [&](const std::vector<std::string>& trace) {  // behind the features, which lie elsewhere
                std::size_t first = 0;
                while (first < trace.size() && (trace[first].starts_with("copy") || trace[first].starts_with("cat")))
                    ++first;
                return std::vector<std::string>(trace.begin() + static_cast<std::ptrdiff_t>(first), trace.end());
            };
            CHECK(later(traces[2]).size() > 8);
            CHECK(later(traces[2]) == later(traces[3]));
            CHECK(later(traces[3]) == later(traces[4]));
        }
}

TEST_CASE("Sequences that find no room in a drafter's lanes are not drafted for, and their texts are the same",
          "[memory]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "hydra"}) {
        CAPTURE(name);
        const Decoded plain = decode(device, {.sequences = 3});
        Way way{.drafter = name, .sequences = 3};
        const Decoded all = decode(device, way);
        const std::int64_t bytes = name == std::string("ctc") ? 256 * 2 * 1 * 32 * 4 : 256 * 2 * 1 * 16 * 4;  // a lane
        way.options.ctc.lane_bytes = way.options.heads.lane_bytes =
            5 * bytes;  // nobody's and one more, while they grow
        const Decoded few = decode(device, way);
        CHECK(few == plain);
        CHECK(all == plain);
        const auto drafted = [](const Decoded& of) {
            return std::ranges::count_if(of.trees, [](const TokenTree& tree) { return tree.drafted() > 0; });
        };
        CHECK(drafted(few) > 0);
        CHECK(drafted(few) < drafted(all));
    }
}

TEST_CASE("A language model's draft copies the rows that it looks at", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const std::size_t sequences : {1, 3}) {
        const Decoded all = decode(device, {.drafter = "lm", .nodes = 16, .sequences = sequences});
        const Share propose("propose", all.rounds);
        const auto row = static_cast<double>(device.config().vocabulary) * 4;
        const double most = double(sequences) * (1 + 4 * 4) * row;  // the pending token's, and four of four levels
        CAPTURE(sequences, propose.to_host_bytes, most);
        CHECK(propose.to_host_bytes <= most + 5 * 8 * 64);  // and the tokens of the largest logits
    }
}
