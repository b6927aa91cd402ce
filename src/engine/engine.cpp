#include <outrider/engine.hpp>

#include <algorithm>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

namespace {

CtcTree ctc_tree(TreeKind tree) {
    switch (tree) {
        case TreeKind::fixed: return CtcTree::static_tree;
        case TreeKind::per_frame: return CtcTree::per_frame;
        case TreeKind::sampled: return CtcTree::sampled;
        default: return CtcTree::best_first;
    }
}

HeadTree head_tree(TreeKind tree) {
    switch (tree) {
        case TreeKind::fixed:
        case TreeKind::per_frame: return HeadTree::static_tree;
        case TreeKind::measured: return HeadTree::measured;
        case TreeKind::sampled: return HeadTree::sampled;
        default: return HeadDraftOptions{}.tree;
    }
}

DrafterOptions drafter_options(const EngineOptions& options, const LlamaModel& model) {
    const PolicyInfo& policy = policy_info(options.policy);
    TreeKind tree = options.tree;
    if (tree == TreeKind::automatic && policy.needs_draws) tree = TreeKind::sampled;
    const bool sampled = tree == TreeKind::sampled;
    const std::int64_t chains = options.chains > 0 ? options.chains : policy.one_chain ? 1 : 2;
    DrafterOptions drafter;
    drafter.ctc.tree = ctc_tree(tree), drafter.heads.tree = head_tree(tree);
    drafter.ctc.chains = drafter.heads.chains = drafter.lm.chains = chains;
    drafter.ctc.seed = drafter.heads.seed = drafter.lm.seed = options.draft_seed;
    drafter.ctc.threads = drafter.heads.threads = options.target.threads;
    // Draws are made at the request's temperature, greedy ones too; chosen trees need shares that tell tokens apart.
    if (sampled || options.draft_temperature > 0) drafter.lm.temperature = options.draft_temperature;
    if (sampled) drafter.lm.tree = LmTree::sampled;
    drafter.lm_model.device = options.drafter_device.value_or(model.device());
    drafter.lm_model.threads = options.target.threads;
    return drafter;
}

/// The one that was asked for, else the best that is found.
std::string drafter_name(const EngineOptions& options, const LlamaModel& model) {
    if (!options.drafter.empty()) return options.drafter;
    return default_drafter(options.drafter_places.empty() ? shipped_drafters() : options.drafter_places, model);
}

}  // namespace

std::string default_drafter(std::span<const std::filesystem::path> places, const LlamaModel& model) {
    const auto found = find_drafter(places, model.fingerprint());
    return found ? found->string() + "+ngram" : "ngram";
}

std::unique_ptr<DraftModel> make_drafter(const EngineOptions& options, const LlamaModel& model) {
    return make_drafter(drafter_name(options, model), model.head(options.drafter_device),
                        drafter_options(options, model));
}

Engine Engine::open(EngineOptions options) {
    return detail::translate([&] {
        LlamaModel model = LlamaModel::load(options.model, options.target);
        return Engine(std::move(model), std::move(options));
    });
}

Engine Engine::open(LlamaModel model, EngineOptions options) {
    return detail::translate([&] { return Engine(std::move(model), std::move(options)); });
}

Engine::Engine(LlamaModel model, EngineOptions options) : model_(std::move(model)), options_(std::move(options)) {
    options_.drafter = drafter_name(options_, model_);
    auto drafter = make_drafter(options_, model_);
    auto verifier = std::make_unique<LlamaVerifier>(
        model_, LlamaVerifier::Options{.pass_times_file = options_.pass_times_file, .kept_bytes = options_.kept_bytes});
    verifier_ = verifier.get();
    decoder_ = std::make_unique<AnyDecoder>(std::move(drafter), std::move(verifier),
                                            make_policy(options_.policy, options_.policy_options), options_.decoder);
}

GenerationResult Engine::chat(std::string_view user, GenerationOptions options, Sink sink) {
    return decoder_->generate(model_.chat(user), std::move(options), std::move(sink));
}

GenerationResult Engine::chat(std::span<const ChatMessage> messages, GenerationOptions options, Sink sink) {
    return decoder_->generate(model_.chat(messages), std::move(options), std::move(sink));
}

GenerationResult Engine::complete(std::string_view text, GenerationOptions options, Sink sink) {
    return decoder_->generate(model_.raw(text), std::move(options), std::move(sink));
}

std::int64_t Engine::save(std::span<const TokenId> tokens, const std::filesystem::path& file) {
    return detail::translate([&] { return verifier_->save(tokens, file); });
}

std::vector<TokenId> Engine::load(const std::filesystem::path& file) {
    return detail::translate([&] { return verifier_->load(file); });
}

}  // namespace outrider
