// Whole decodes on the trap device: no host access to device memory, and the tokens of the CPU's tensor path.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ctc/detail/ctc_beam.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/engine/make_policy.hpp>
#include <outrider/target/llama_verifier.hpp>

#include "counted_parts.hpp"
#include "device_fixture.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const at::Device kTrap(at::kPrivateUse1, 0);

const DeviceFolders& folders() {
    static const DeviceFolders all;
    return all;
}

LlamaModel load(at::Device device, Weights weights = Weights::f32) {
    trap::start();
    at::set_num_threads(1);
    return LlamaModel::load(
        folders().target(),
        {.device = device, .weights = weights, .backend = LlamaModel::Backend::device, .cache_tokens = 2000});
}

struct Way {
    std::string drafter = "none", policy = "match";
    DrafterOptions options = {};
    double temperature = 0.0;
    std::int64_t nodes = 8;
    std::size_t sequences = 3;
    std::int64_t tokens = 12;
};

struct Decoded {
    std::vector<std::vector<TokenId>> texts;
    std::int64_t accepted = 0, rounds = 0;  ///< rounds after the first
    std::vector<TokenTree> trees;
    [[nodiscard]] bool operator==(const Decoded& other) const { return texts == other.texts; }
};

/// Counts of the trap device are those of the rounds after the first.
Decoded decode(const LlamaModel& model, const Way& way) {
    SpeculativeDecoder decoder{CountedDraft{folders().drafter(way.drafter, model, way.options)},
                               CountedVerifier{std::make_unique<LlamaVerifier>(model)},
                               CountedPolicy{make_policy(way.policy)}, DecoderOptions{.nodes = way.nodes}};
    const std::vector<std::vector<TokenId>> prompts{{5, 9, 31, 7}, {12}, {100, 101, 100, 101, 100, 101, 100}};
    std::vector<SequenceId> ids;
    for (std::size_t i = 0; i < way.sequences; ++i) {
        GenerationOptions options{.max_tokens = way.tokens, .stop_at_end = false};
        options.temperature = way.temperature, options.seed = 7, options.stream = i;
        ids.push_back(decoder.join({prompts[i % prompts.size()]}, options));
    }
    decoder.step();
    trap::clear_counts();
    decoder.verifier().rounds = 0;
    while (decoder.step()) {
    }
    Decoded all;
    all.rounds = decoder.verifier().rounds;
    all.trees = decoder.drafter().drafted;
    for (const SequenceId id : ids) {
        GenerationResult result = decoder.take(id);
        all.accepted += result.stats.accepted;
        all.texts.push_back(std::move(result.tokens));
    }
    return all;
}

std::vector<Way> every_tree() {
    std::vector<Way> ways{{"none"}, {"ngram"}, {"lm"}, {"ctc+ngram"}, {"medusa+hydra"}};
    for (const CtcTree tree : {CtcTree::best_first, CtcTree::static_tree, CtcTree::per_frame})
        for (const char* name : {"ctc", "ctc_plain", "ctc_narrow"}) ways.push_back({name, "match", {.ctc = {tree}}});
    for (const HeadTree tree : {HeadTree::best_first, HeadTree::static_tree, HeadTree::measured})
        for (const char* name : {"medusa", "hydra"}) ways.push_back({name, "match", {.heads = {tree}}});
    ways.push_back({"lm", "match", {.lm = {.tree = LmTree::chain}}});
    return ways;
}

/// Drafters that draw, for a policy that needs draws.
std::vector<Way> every_draw(const PolicyInfo& policy) {
    std::vector<Way> ways;
    const std::int64_t chains = policy.one_chain ? 1 : 2;
    for (const char* name : {"ctc", "ctc_narrow", "medusa", "hydra", "lm"}) {
        Way way{name, std::string(policy.name)};
        way.options.ctc.tree = CtcTree::sampled, way.options.ctc.chains = chains;
        way.options.heads.tree = HeadTree::sampled, way.options.heads.chains = chains;
        way.options.lm.tree = LmTree::sampled, way.options.lm.chains = chains;
        way.temperature = 0.8;
        ways.push_back(way);
    }
    return ways;
}

}  // namespace

TEST_CASE("Every drafter and tree decodes on the device without a touch by the host, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    std::int64_t accepted = 0;
    for (const double temperature : {0.0, 0.8})
        for (Way way : every_tree()) {
            way.temperature = temperature;
            CAPTURE(way.drafter, temperature, static_cast<int>(way.options.ctc.tree),
                    static_cast<int>(way.options.heads.tree));
            const Decoded expected = decode(cpu, way), got = decode(device, way);
            CHECK(got == expected);
            accepted += got.accepted;
        }
    CHECK(accepted > 100);
}

TEST_CASE("Every policy decodes on the device, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const PolicyInfo& policy : policies()) {
        std::vector<Way> ways = every_draw(policy);
        if (!policy.needs_draws) {
            ways.assign(1, {"hydra", std::string(policy.name)});
            ways[0].temperature = 0.8;
        }
        for (const Way& way : ways) {
            CAPTURE(way.drafter, way.policy);
            CHECK(decode(device, way) == decode(cpu, way));
        }
    }
}

namespace {

void check_logits(const std::filesystem::path& folder) {
    const Weights weights = Weights::f32;
    const double tolerance = 1e-4;
    const LlamaModel device = LlamaModel::load(
        folder, {.device = kTrap, .weights = weights, .backend = LlamaModel::Backend::device, .cache_tokens = 2000});
    const LlamaModel reference =
        LlamaModel::load(folder, {.weights = weights, .backend = LlamaModel::Backend::aten, .threads = 1});
    const auto a = reference.make_pass(), b = device.make_pass();
    const auto vocabulary = static_cast<std::uint64_t>(std::min<std::int64_t>(device.config().vocabulary, 280));
    const trap::Trapping trapping;
    std::vector<KvCache> ours, theirs;
    for (int s = 0; s < 3; ++s) theirs.push_back(a->make_cache()), ours.push_back(b->make_cache());
    std::uint64_t seed = 1;
    for (int round = 0; round < 24; ++round) {
        std::vector<std::vector<TokenId>> tokens(3);
        std::vector<std::vector<NodeIndex>> parents(3);
        std::vector<RowSegment> left, right;
        for (std::size_t s = 0; s < 3; ++s) {
            if ((mix64(++seed) & 3) == 0 && s > 0) continue;  // not all sequences in every round
            const auto rows = static_cast<NodeIndex>(1 + mix64(++seed) % (round == 0 ? 90 : 12));
            for (NodeIndex i = 0; i < rows; ++i) {
                tokens[s].push_back(static_cast<TokenId>(mix64(++seed) % vocabulary));
                parents[s].push_back(i == 0 ? kNoNode : static_cast<NodeIndex>(mix64(++seed) % std::uint64_t(i)));
            }
            const bool chain = round == 0;
            left.push_back({&theirs[s], tokens[s], chain ? std::span<const NodeIndex>{} : parents[s]});
            right.push_back({&ours[s], tokens[s], chain ? std::span<const NodeIndex>{} : parents[s]});
        }
        const std::vector<std::int64_t> layers{1, std::min<std::int64_t>(3, device.config().layers - 1)};
        const PassOutput expected = a->forward(left, true, layers), got = b->forward(right, true, layers);
        CHECK(at::allclose(got.logits.cpu(), expected.logits, tolerance, tolerance));
        CHECK(at::allclose(got.features.cpu(), expected.features, tolerance, tolerance));
        CHECK(at::equal(got.argmax, got.logits.cpu().argmax(-1)));
        for (std::size_t k = 0; k < left.size(); ++k) {
            if (round == 0) {
                left[k].cache->append(std::ssize(left[k].tokens)), right[k].cache->append(std::ssize(left[k].tokens));
                continue;
            }
            std::vector<NodeIndex> path;  // the newest child of each node on the way down
            for (NodeIndex at = 0, next = 0;; at = next) {
                for (NodeIndex i = at + 1; i < static_cast<NodeIndex>(left[k].parents.size()); ++i)
                    if (left[k].parents[static_cast<std::size_t>(i)] == at) next = i;
                if (next == at) break;
                path.push_back(next);
            }
            left[k].cache->keep(path), right[k].cache->keep(path);
            CHECK(left[k].cache->committed() == right[k].cache->committed());
        }
    }
    ours[0].truncate(5), theirs[0].truncate(5);  // as a drafter's language model does
    const std::vector<TokenId> again{3, 4, 5};
    const RowSegment left{&theirs[0], again}, right{&ours[0], again};
    CHECK(at::allclose(b->forward(std::span(&right, 1), true).logits.cpu(),
                       a->forward(std::span(&left, 1), true).logits, tolerance, tolerance));
}

}  // namespace

TEST_CASE("The pass for devices gives the reference's logits: prompts, trees, batches, a window") {
    trap::start();
    at::set_num_threads(1);
    check_logits(folders().target());
    const testing::DeepFolder windowed;
    windowed.configure("model_type", "mistral");
    windowed.configure("sliding_window", 9);
    check_logits(windowed.path());
}

namespace {

const std::vector<std::string> kFamilies = {"qwen2",    "qwen3", "gemma3", "gemma2",  "smollm3", "mistral",
                                            "mistral3", "phi3",  "glm4",   "granite", "olmo2",   "olmo3"};

std::filesystem::path family(const std::string& name) {
    return std::filesystem::path(OUTRIDER_SOURCE_DIR "/tests/golden/families") / name / "hf";
}

/// Operations of each layer of one forward: those from where one layer stores its keys, by the operation `store`, to
/// where the next one does. The first `others` of that name store something else.
std::vector<std::int64_t> layer_operations(TargetPass& pass, std::size_t sequences, const char* store = "index_copy",
                                           std::size_t others = 1) {
    std::vector<KvCache> caches;
    const std::vector<TokenId> tokens{5, 9, 31, 7, 2};
    for (std::size_t s = 0; s < sequences; ++s) caches.push_back(pass.make_cache());
    std::vector<RowSegment> segments;
    for (KvCache& cache : caches) segments.push_back({.cache = &cache, .tokens = tokens});
    const trap::CaptureLint lint;
    (void)pass.forward(segments, true);
    std::vector<std::int64_t> stores, between;
    for (std::size_t i = 0; i < lint.trace.size(); ++i)
        if (lint.trace[i].find(store) != std::string::npos) stores.push_back(static_cast<std::int64_t>(i));
    for (std::size_t i = others + 1; i < stores.size(); ++i) between.push_back(stores[i] - stores[i - 1]);
    return between;
}

}  // namespace

TEST_CASE("Every family's logits on the device are the reference's") {
    trap::start();
    at::set_num_threads(1);
    for (const std::string& name : kFamilies) {
        CAPTURE(name);
        check_logits(family(name));
    }
}

TEST_CASE("Every family's verify is at most 24 operations a layer, for any number of sequences", "[budget]") {
    trap::start();
    for (const std::string& name : kFamilies) {
        const LlamaModel model = LlamaModel::load(
            family(name),
            {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 500});
        const auto pass = model.make_pass();
        const trap::Trapping trapping;
        const std::vector<std::int64_t> one = layer_operations(*pass, 1);
        CAPTURE(name, one);
        REQUIRE(std::ssize(one) == model.config().layers - 1);
        for (const std::int64_t operations : one) CHECK((operations >= 10 && operations <= 24));
        CHECK(layer_operations(*pass, 5) == one);
    }
}

namespace {

/// While one lives, passes that are made use the library's kernels.
struct WithKernels {
    WithKernels() { (void)setenv("OUTRIDER_KERNELS", "1", 1); }
    ~WithKernels() { (void)unsetenv("OUTRIDER_KERNELS"); }
};

}  // namespace

TEST_CASE("With kernels the logits are the reference's, and a Llama's layer is 10 launches") {
    trap::start();
    at::set_num_threads(1);
    const WithKernels kernels;
    check_logits(folders().target());
    for (const std::string& name : kFamilies) {
        CAPTURE(name);
        check_logits(family(name));
    }
    const auto pass = load(kTrap).make_pass();
    const trap::Trapping trapping;
    for (const std::size_t sequences : {1, 5})
        CHECK(layer_operations(*pass, sequences, "::rope_store", 0) == std::vector<std::int64_t>{10, 10, 10});
}

namespace {

at::Tensor prompt_logits(Weights weights, bool kernels) {
    std::optional<WithKernels> on;
    if (kernels) on.emplace();
    const auto pass = load(kTrap, weights).make_pass();
    KvCache cache = pass->make_cache();
    const std::vector<TokenId> tokens{5, 9, 31, 7, 100, 101, 100, 12, 8, 250, 3, 77};
    const RowSegment segment{.cache = &cache, .tokens = tokens};
    return pass->forward(std::span(&segment, 1), true).logits.cpu();
}

}  // namespace

TEST_CASE("In bfloat16 kernels are as near to f32 as tensor operations are") {
    const at::Tensor exact = prompt_logits(Weights::f32, false);
    const auto error = [&](bool kernels) {
        return (prompt_logits(Weights::bf16, kernels) - exact).abs().mean().item<double>();
    };
    const double operations = error(false), with = error(true);
    CAPTURE(operations, with);
    CHECK(operations > 0);
    CHECK(with < 1.5 * operations);
}

TEST_CASE("With kernels every drafter decodes the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"none", "ctc", "hydra", "lm"}) {
        CAPTURE(name);
        const Decoded expected = decode(cpu, {name});
        const WithKernels kernels;
        CHECK(decode(device, {name}) == expected);
    }
}

TEST_CASE("bfloat16 decodes on the device, the CPU's tokens") {
    const LlamaModel cpu = load(at::kCPU, Weights::bf16), device = load(kTrap, Weights::bf16);
    const trap::Trapping trapping;
    for (const char* name : {"none", "ctc", "hydra"}) {
        CAPTURE(name);
        CHECK(decode(device, {name}) == decode(cpu, {name}));
    }
}

namespace {

/// A drafter with the fault that the device is for: it reads the features where they lie.
class Careless final : public DraftModel {
public:
    [[nodiscard]] std::string_view kind() const override { return "careless"; }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
        std::vector<SequenceTree> trees;
        for (const SequenceFeedback& it : feedback) {
            const float first = static_cast<const float*>(it.features.storage().data())[0];
            trees.push_back({it.sequence, TokenTree::root_only(first > 1e30F ? 0 : it.pending)});
        }
        return trees;
    }
    void forget(SequenceId) override {}
};

}  // namespace

TEST_CASE("A drafter that reads device memory on the host is caught in its stage") {
    const LlamaModel device = load(kTrap);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        const trap::Trapping trapping;
        SpeculativeDecoder decoder{CountedDraft{std::make_unique<Careless>()},
                                   CountedVerifier{std::make_unique<LlamaVerifier>(device)},
                                   CountedPolicy{make_policy("match")}, DecoderOptions{.nodes = 4}};
        (void)decoder.generate({{5, 9, 31, 7}}, {.max_tokens = 4});
        _exit(0);
    }
    close(ends[1]);
    std::string said(4096, '\0');
    said.resize(static_cast<std::size_t>(std::max<ssize_t>(0, read(ends[0], said.data(), said.size()))));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == trap::kFaultStatus));
    CHECK(said.find("in stage propose") != std::string::npos);
}

namespace {

/// Counts of one stage, a round.
struct Share {
    double operations = 0, to_device = 0, blocking = 0, to_host = 0, to_host_bytes = 0, fresh = 0;

    Share(const std::string& stage, std::int64_t rounds) {
        const trap::Counts all = trap::counts_of(stage);
        const auto n = static_cast<double>(std::max<std::int64_t>(rounds, 1));
        operations = static_cast<double>(all.operations) / n, to_device = static_cast<double>(all.to_device) / n;
        blocking = static_cast<double>(all.blocking_to_device) / n, to_host = static_cast<double>(all.to_host) / n;
        to_host_bytes = static_cast<double>(all.to_host_bytes) / n, fresh = static_cast<double>(all.fresh) / n;
    }
};

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
    for (const char* name : {"none", "ngram", "medusa"})
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
            CHECK(accept.to_device + commit.to_device + propose.to_device == 0);
            CHECK(verify.blocking == 0);
            CHECK(accept.operations + accept.to_host + commit.to_host == 0);
            CHECK(propose.to_host <= 1);
            CHECK(commit.operations <= 1);
            CHECK(propose.fresh + verify.fresh + accept.fresh + commit.fresh == 0);
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

TEST_CASE("Trees that are found on the device are the host search's") {
    const LlamaModel cpu = load(at::kCPU), device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_eight", "ctc_plain", "ctc_narrow", "hydra"})
        for (const std::size_t sequences : {1, 3}) {
            CAPTURE(name, sequences);
            Way way{.drafter = name, .nodes = 16, .sequences = sequences};
            way.options.ctc.top_k = 1000;  // the host's search of plain frames looks at all tokens, too
            const Decoded expected = decode(cpu, way), got = decode(device, way);
            REQUIRE(got.trees.size() == expected.trees.size());
            for (std::size_t i = 0; i < got.trees.size(); ++i) {
                const auto a = paths_of(got.trees[i]), b = paths_of(expected.trees[i]);
                CHECK(a.size() == b.size());
                for (const auto& [path, log_psi] : b) {
                    CHECK(a.contains(path));
                    if (a.contains(path)) CHECK(std::abs(a.at(path) - log_psi) < 1e-3);
                }
            }
        }
}

TEST_CASE("CTC and Hydra draft in few operations, and copy nothing back but the trees", "[budget]") {
    const LlamaModel device = load(kTrap);
    const trap::Trapping trapping;
    for (const char* name : {"ctc", "ctc_eight", "ctc_plain", "hydra"})
        for (const std::size_t sequences : {1, 3}) {
            const Decoded all = decode(device, {.drafter = name, .nodes = 16, .sequences = sequences});
            const Share propose("propose", all.rounds);
            CAPTURE(name, sequences, propose.operations, propose.to_device, propose.to_host, propose.to_host_bytes);
            CHECK(propose.operations <= (sequences == 1 ? 60 : 75));  // and for any number of sequences
            CHECK(propose.to_host == 1);
            CHECK(propose.blocking == 0);
            CHECK(propose.to_device <= 2);
            CHECK(propose.to_host_bytes <= double(sequences) * 8 * 2 * 16 * 4);  // levels, psi and place, nodes
        }
}

namespace {

/// Scores of no meaning, the same on every device.
struct FixedScores final : outrider::detail::CtcBeamScores {
    explicit FixedScores(const at::Tensor& all) : scores(all) {}
    [[nodiscard]] at::Tensor root() override { return scores.narrow(0, 0, 1); }
    [[nodiscard]] at::Tensor longer(const at::Tensor&, const at::Tensor& column) override {
        return scores.narrow(0, 1, column.size(1));
    }
    at::Tensor scores;  // [1 + P, V]
};

}  // namespace

TEST_CASE("The CTC search is 2 launches a level with kernels, and at most 16 operations without", "[budget]") {
    trap::start();
    const std::int64_t T = 6, V = 50, nodes = 16;
    const at::Tensor frames = noise({T, V + 2}, 1, 3).to(at::kFloat),
                     scores = noise({1 + nodes, V}, 2, 2).to(at::kFloat);
    frames.select(1, V + 1).copy_(-frames.select(1, V));
    FixedScores on_host(scores), on_device(scores.to(kTrap));
    outrider::detail::CtcBeam host(T, V, at::kCPU), beam(T, V, kTrap);
    const at::Tensor there = frames.to(kTrap), wanted = host.search(frames, nodes, on_host, false);
    for (const bool kernels : {false, true}) {
        trap::clear_counts();
        const trap::Trapping trapping;
        const at::Tensor found = beam.search(there, nodes, on_device, kernels);
        CHECK(at::allclose(found, wanted, 1e-4, 1e-4));
        const trap::Counts all = trap::counts_of("outside");
        CAPTURE(kernels, all.operations);
        CHECK(all.operations <= (kernels ? 2 : 16) * T + 5);
        CHECK(all.to_host == 1);
        CHECK(all.to_device == 0);
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

TEST_CASE("Forwards of one shape are one graph", "[budget]") {
    const LlamaModel device = load(kTrap);
    const auto pass = device.make_pass();
    const trap::Trapping trapping;
    KvCache cache = pass->make_cache();
    const std::vector<TokenId> prompt{5, 9, 31, 7}, tokens{8, 20, 21, 22, 23};
    const std::vector<NodeIndex> parents{kNoNode, 0, 0, 1, 2}, path{2, 4};
    const RowSegment first{.cache = &cache, .tokens = prompt};
    (void)pass->forward(std::span(&first, 1), false);
    cache.append(std::ssize(prompt));
    std::vector<std::vector<std::string>> traces;
    for (int i = 0; i < 4; ++i) {
        trap::CaptureLint lint;
        const RowSegment segment{.cache = &cache, .tokens = tokens, .parents = parents};
        (void)pass->forward(std::span(&segment, 1), true);
        cache.keep(path);
        traces.push_back(std::move(lint.trace));
        if (i == 0) continue;  // makes its memory
        // The tokens go back when the graph has ended: the last thing that happens.
        REQUIRE(lint.faults.size() == 1);
        CHECK(lint.faults[0].find("a copy to the host") != std::string::npos);
        CHECK(traces.back().back().starts_with("copy"));
    }
    CHECK(traces[1].size() > 80);
    CHECK(traces[1] == traces[2]);
    CHECK(traces[2] == traces[3]);
}

TEST_CASE("A cache that is full refuses a sequence, says why, and decodes the others on", "[memory]") {
    trap::start();
    const LlamaModel model = LlamaModel::load(
        folders().target(),
        {.weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 300, .cache_sequences = 3});
    const std::vector<TokenId> shorter(20, TokenId{7}), longer(200, TokenId{7});
    LlamaVerifier verifier(model);
    const auto prefill = [&](SequenceId id, const std::vector<TokenId>& tokens) {
        const Prefill one{.sequence = id, .tokens = tokens, .pending = 5};
        return verifier.prefill(std::span(&one, 1));
    };
    (void)prefill(1, shorter);
    for (int i = 0; i < 3; ++i) {
        try {
            (void)none_refused(prefill(2, longer));
            FAIL("it was admitted");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::out_of_memory);
            CHECK(std::string(error.what()).find("cache_tokens") != std::string::npos);
        }
    }
    CHECK(verifier.active() == 1);
    const SequenceTree root{1, TokenTree::root_only(5)};
    CHECK(verifier.verify(std::span(&root, 1)).argmax.size(0) == 1);
    const SequenceAcceptance accepted{1, {{}, 9}, {5}};
    CHECK(verifier.commit(std::span(&accepted, 1)).at(0).committed == 21);
    verifier.release(1);
    CHECK(verifier.cache_bytes() == 0);
    (void)none_refused(prefill(2, longer));  // what was released serves again
    verifier.release(2);
    // A pool that fills up while texts grow ends the one that finds no room, and the other goes on to its end.
    const auto request = [](TokenId first) { return Prompt{.tokens = std::vector<TokenId>(20, first)}; };
    SpeculativeDecoder decoder{NgramDraft{}, std::ref(verifier), Match{}, {.nodes = 4, .max_batch = 2}};
    std::vector<SequenceId> ids;
    for (const TokenId first : {7, 8})
        ids.push_back(decoder.join(request(first), {.max_tokens = 200, .stop_at_end = false}));
    int errors = 0;
    for (bool more = true; more;) {
        const StepOutcome outcome = decoder.try_step();
        more = outcome.more, errors += outcome.error != nullptr;
    }
    CHECK(errors == 1);
    std::vector<GenerationResult> results;
    for (const SequenceId id : ids) results.push_back(decoder.take(id));
    const std::size_t refused = results[0].finish == FinishReason::failed ? 0 : 1;
    CHECK(results[refused].finish == FinishReason::failed);
    CHECK(results[refused].error.find("cache") != std::string::npos);
    CHECK(results[1 - refused].finish == FinishReason::length);
    CHECK(results[1 - refused].tokens.size() == 200);
    CHECK(verifier.cache_bytes() == 0);
    // Lanes run out as well.
    const LlamaModel narrow = LlamaModel::load(
        folders().target(),
        {.weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 300, .cache_sequences = 1});
    const auto pass = narrow.make_pass();
    {
        const KvCache only = pass->make_cache();
        CHECK_THROWS_AS(pass->make_cache(), Error);
    }
    CHECK_NOTHROW(pass->make_cache());
}

TEST_CASE("A row that holds NaN has no token, and the error names its node") {
    trap::start();
    const testing::TinyCopy broken;
    broken.rewrite([](std::vector<SafeTensorView>& tensors) {
        static std::vector<std::uint16_t> norm;
        for (SafeTensorView& t : tensors)
            if (t.name == "model.norm.weight") {
                norm.assign(t.data.size() / 2, 0x7fc0);  // bfloat16 NaN
                t.data = std::as_bytes(std::span(norm));
            }
    });
    const LlamaModel model = LlamaModel::load(
        broken.path(),
        {.device = kTrap, .weights = Weights::f32, .backend = LlamaModel::Backend::device, .cache_tokens = 100});
    const trap::Trapping trapping;
    SpeculativeDecoder decoder{CountedDraft{folders().drafter("none", model, {})},
                               CountedVerifier{std::make_unique<LlamaVerifier>(model)},
                               CountedPolicy{make_policy("match")}, DecoderOptions{.nodes = 0}};
    CHECK_THROWS_AS(decoder.generate({{5, 9}}, {.max_tokens = 4}), Error);
}
