// Every drafter that is a header, ahead of a model of the host's own, from folders that this program writes: the text
// is that of plain decoding, greedy and sampled, two sequences at once.
#include "everything.hpp"

#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "recurrent_verifier.hpp"

outrider::NgramDraft drafter_of_the_other_unit();

namespace {

namespace fs = std::filesystem;
using namespace outrider;
using consumer::Recurrent;

std::vector<TokenId> every_token() {
    std::vector<TokenId> all;
    for (TokenId token = 0; token < Recurrent::kVocabulary; ++token) all.push_back(token);
    return all;
}

template <typename Config>
Config named(Config config) {
    config.hidden = Recurrent::kHidden, config.vocabulary = every_token();
    config.target_fingerprint = "recurrent", config.target_name = "a recurrent network";
    return config;
}

fs::path write_ctc(const fs::path& folder, const TargetHead& head, CtcConditioning conditioning, HeadOutput output) {
    CtcConfig config;
    config.heads = 2, config.kv_heads = 1, config.head_dim = 16, config.intermediate = 48, config.frames = 4;
    config.conditioning = conditioning, config.prefix_rank = 16, config.prefix_output = output;
    config = named(config);
    write_ctc_config(folder, config);
    write_ctc_weights(folder, init_ctc_weights(config, head, 5));
    return folder;
}

fs::path write_medusa(const fs::path& folder, const TargetHead& head) {
    MedusaConfig config;
    config.heads = 3, config = named(config);
    write_medusa_config(folder, config);
    write_medusa_weights(folder, init_medusa_weights(config, head, 5));
    return folder;
}

fs::path write_hydra(const fs::path& folder, const TargetHead& head, bool prefix_layer) {
    HydraConfig config;
    config.heads = 3, config.prefix_layer = prefix_layer;
    if (prefix_layer) config.attention_heads = 2, config.kv_heads = 1, config.head_dim = 16, config.intermediate = 48;
    config = named(config);
    write_hydra_config(folder, config);
    write_hydra_weights(folder, init_hydra_weights(config, head, 5));
    return folder;
}

struct Told {
    std::vector<std::vector<TokenId>> texts;
    DecodeStats stats;
};

Told tell(std::unique_ptr<DraftModel> drafter, const std::shared_ptr<const Recurrent>& model, double temperature) {
    SpeculativeDecoder decoder{std::move(drafter), consumer::RecurrentVerifier{model}, Match{}, {.nodes = 8}};
    std::vector<SequenceId> ids;
    for (std::uint64_t stream = 0; stream < 2; ++stream)
        ids.push_back(decoder.join({.tokens = {3, 1, 4, 1, 5, static_cast<TokenId>(9 + stream)}},
                                   {.max_tokens = 60, .temperature = temperature, .seed = 7, .stream = stream}));
    decoder.run();
    Told told;
    for (const SequenceId id : ids) {
        GenerationResult result = decoder.take(id);
        told.texts.push_back(std::move(result.tokens));
        told.stats += result.stats;
    }
    return told;
}

struct Entry {
    const char* name;
    std::function<std::unique_ptr<DraftModel>()> make;
};

std::vector<Entry> drafters(const fs::path& folder, const TargetHead& head) {
    const auto ctc = write_ctc(folder / "ctc", head, CtcConditioning::prefix, HeadOutput::own);
    const auto of_target = write_ctc(folder / "ctc-target", head, CtcConditioning::prefix, HeadOutput::target);
    const auto plain = write_ctc(folder / "ctc-plain", head, CtcConditioning::none, HeadOutput::own);
    const auto medusa = write_medusa(folder / "medusa", head);
    const auto hydra = write_hydra(folder / "hydra", head, false), plus = write_hydra(folder / "hydra++", head, true);
    return {{"ngram", [] { return std::make_unique<NgramDraft>(drafter_of_the_other_unit()); }},
            {"ctc", [=] { return std::make_unique<CtcDraft>(CtcDraft::load(ctc, head)); }},
            {"ctc, the target's rows", [=] { return std::make_unique<CtcDraft>(CtcDraft::load(of_target, head)); }},
            {"ctc, plain frames", [=] { return std::make_unique<CtcDraft>(CtcDraft::load(plain, head)); }},
            {"ctc, static tree",
             [=] { return std::make_unique<CtcDraft>(CtcDraft::load(ctc, head, {.tree = CtcTree::static_tree})); }},
            {"ctc, sampled",
             [=] { return std::make_unique<CtcDraft>(CtcDraft::load(ctc, head, {.tree = CtcTree::sampled})); }},
            {"medusa", [=] { return std::make_unique<MedusaDraft>(MedusaDraft::load(medusa, head)); }},
            {"hydra", [=] { return std::make_unique<HydraDraft>(HydraDraft::load(hydra, head)); }},
            {"hydra++", [=] { return std::make_unique<HydraDraft>(HydraDraft::load(plus, head)); }},
            {"ctc+ngram", [=] { return std::make_unique<MergedDraft>(CtcDraft::load(ctc, head), NgramDraft{}); }}};
}

bool refuses_archives(const fs::path& folder, const TargetHead& head) {
    fs::create_directories(folder);
    const fs::path file = folder / "medusa_lm_head.pt";
    std::fclose(std::fopen(file.c_str(), "wb"));
    try {
        (void)MedusaDraft::load(file, head);
    } catch (const Error& error) {
        return std::string(error.what()).find("outrider::outrider") != std::string::npos;
    }
    return false;
}

int run(const fs::path& folder) {
    const auto model = std::make_shared<const Recurrent>(11);
    const TargetHead head = model->head();
    int failures = 0;
    for (const Entry& entry : drafters(folder, head)) {
        std::int64_t accepted = 0;  // untrained drafters are right by luck alone, so of both temperatures together
        for (const double temperature : {0.0, 0.8}) {
            const Told plain = tell(std::make_unique<NoDraft>(), model, temperature),
                       drafted = tell(entry.make(), model, temperature);
            const bool fine = plain.texts == drafted.texts && plain.texts[0].size() == 60 && drafted.stats.drafted > 0;
            failures += fine ? 0 : 1;
            accepted += drafted.stats.accepted;
            std::printf("%-24s temperature %.1f: %lld of %lld drafted tokens accepted, %s\n", entry.name, temperature,
                        static_cast<long long>(drafted.stats.accepted), static_cast<long long>(drafted.stats.drafted),
                        fine ? "the same text" : "FAILED");
        }
        if (accepted == 0) ++failures, std::printf("%-24s nothing was accepted\n", entry.name);
    }
    if (!refuses_archives(folder / "archive", head))
        ++failures, std::printf("an archive of torch.save is not refused by name\n");
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main() {
    const fs::path folder = fs::temp_directory_path() / ("outrider-headers-" + std::to_string(std::random_device{}()));
    int result = 1;
    try {
        result = run(folder);
    } catch (const std::exception& error) {
        std::printf("%s\n", error.what());
    }
    fs::remove_all(folder);
    return result;
}
