#include <outrider/target/llama_model.hpp>

#include <fmt/format.h>

#include <algorithm>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/detail/thread_team.hpp>

#include "checkpoint.hpp"
#include "cuda_module.hpp"
#include "device_pass.hpp"
#include "model_backend.hpp"

namespace outrider {
namespace {

/// Rows of a table as f32, where it lies: the ids alone travel.
at::Tensor rows_of(const at::Tensor& table, std::span<const TokenId> ids) {
    const bool pinned = !table.device().is_cpu();
    const at::Tensor index =
        at::empty({std::ssize(ids)}, at::TensorOptions().dtype(at::kLong).pinned_memory(pinned && !ids.empty()));
    std::copy(ids.begin(), ids.end(), index.data_ptr<std::int64_t>());
    return table.index_select(0, index.to(table.device(), true)).to(at::kFloat);
}

ChatTemplate chat_template_of(const Tokenizer& tokenizer, const LlamaModel::Options& options) {
    require(options.chat_template.empty() || options.chat_template_source.empty(),
            "chat_template and chat_template_source are both given; expected one of them");
    if (!options.chat_template_source.empty()) return ChatTemplate::parse(options.chat_template_source);
    return options.chat_template.empty() ? ChatTemplate::of(tokenizer) : ChatTemplate::by_name(options.chat_template);
}

}  // namespace

struct LlamaModel::State {
    ModelConfig config;
    std::shared_ptr<const WeightSource> source;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<const ModelBackend> backend;
    at::Device device = at::kCPU;
    int threads = 0;
    std::string fingerprint;
    std::optional<ChatTemplate> chat_template;
    std::string no_template;  // why there is none
    std::vector<TokenId> end_ids;
    std::string note;
    at::Tensor norm;  // [H] f32

    void choose_backend(const Options& options);
    void choose_template(const Options& options);
};

/// Throws Error for options that do not go together.
void LlamaModel::State::choose_backend(const Options& options) {
    const bool kernels = options.backend == Backend::kernels ||
                         (options.backend == Backend::automatic && options.device.is_cpu() && kernels_fit(config));
    require(options.threads >= 0, "threads is {}, expected 0 (one per physical core) or more", options.threads);
    require(!kernels || options.device.is_cpu(), "the kernels run on the CPU, not on {}; use Backend::automatic",
            options.device.str());
    threads = options.threads > 0 ? options.threads : ThreadTeam::physical_cores();
    Weights weights = options.weights;
    if (!kernels && weights == Weights::automatic) weights = options.device.is_cpu() ? Weights::f32 : Weights::bf16;
    const bool by_device =
        options.backend == Backend::device || (options.backend == Backend::automatic && !options.device.is_cpu());
    if (kernels)
        backend = make_kernel_backend(source, config, weights, options.threads);
    else if (by_device)
        backend = make_device_backend(*source, config, options.device, weights,
                                      {options.cache_tokens, options.cache_sequences});
    else
        backend = make_aten_backend(*source, config, options.device, weights);
}

/// One that cannot be read counts as none, unless it was asked for: prompts without a template need none.
void LlamaModel::State::choose_template(const Options& options) {
    try {
        chat_template = chat_template_of(*tokenizer, options);
    } catch (const Error& reason) {
        if (!options.chat_template.empty() || !options.chat_template_source.empty()) throw;
        no_template = reason.what();
    }
}

LlamaModel LlamaModel::load(const std::filesystem::path& path, const Options& options) {
    return detail::translate([&] {
        open_device(options.device);
        require(options.context >= 0, "context is {}, expected 0 (all that the checkpoint has) or more",
                options.context);
        Checkpoint checkpoint = Checkpoint::open(path, options.context);
        const auto state = std::make_shared<State>();
        state->config = std::move(checkpoint.config);
        state->source = std::move(checkpoint.source);
        state->tokenizer = std::move(checkpoint.tokenizer);
        state->device = options.device;
        state->note = std::move(checkpoint.note);

        // Before the matrices are packed, which lets their file pages go.
        state->fingerprint = state->source->fingerprint(state->config);
        state->choose_backend(options);
        state->norm = at::tensor(state->source->floats("norm")).to(options.device);
        state->end_ids = state->tokenizer->end_ids();
        state->choose_template(options);
        return LlamaModel(state);
    });
}

const ModelConfig& LlamaModel::config() const { return state_->config; }
const Tokenizer& LlamaModel::tokenizer() const { return *state_->tokenizer; }
at::Device LlamaModel::device() const { return state_->device; }
int LlamaModel::threads() const { return state_->threads; }
Weights LlamaModel::weights() const { return state_->backend->weights(); }
std::string LlamaModel::weights_description() const { return state_->backend->description(); }
std::size_t LlamaModel::weight_bytes() const { return state_->backend->bytes(); }
const std::string& LlamaModel::note() const { return state_->note; }
const std::string& LlamaModel::fingerprint() const { return state_->fingerprint; }
std::unique_ptr<TargetPass> LlamaModel::make_pass() const { return state_->backend->make_pass(state_->backend); }

Prompt LlamaModel::chat(std::string_view user) const {
    const ChatMessage message{.role = "user", .content = std::string(user)};
    return chat(std::span(&message, 1));
}

Prompt LlamaModel::chat(std::span<const ChatMessage> messages, std::string_view variables) const {
    require(state_->chat_template.has_value(), "{}", state_->no_template);
    return {.tokens = state_->chat_template->encode(messages, *state_->tokenizer, variables),
            .end_ids = state_->end_ids,
            .text = state_->tokenizer};
}

UserTurn LlamaModel::user_turn() const {
    require(state_->chat_template.has_value(), "{}", state_->no_template);
    UserTurn turn{.prompt = {.tokens = state_->chat_template->encode_user_opening(*state_->tokenizer),
                             .end_ids = state_->end_ids,
                             .text = state_->tokenizer}};
    const UserEnding ending = state_->chat_template->user_ending(*state_->tokenizer);
    if (ending.token) turn.prompt.end_ids.push_back(*ending.token);
    if (!ending.text.empty()) turn.stop.push_back(ending.text);
    return turn;
}

Prompt LlamaModel::raw(std::string_view text) const {
    Prompt prompt{.tokens = state_->tokenizer->encode(text, SpecialText::parse),
                  .end_ids = state_->end_ids,
                  .text = state_->tokenizer};
    const std::vector<TokenId>& leading = state_->tokenizer->leading_ids();
    if (prompt.tokens.size() < leading.size() || !std::equal(leading.begin(), leading.end(), prompt.tokens.begin()))
        prompt.tokens.insert(prompt.tokens.begin(), leading.begin(), leading.end());
    require(!prompt.tokens.empty(), "the prompt is empty; expected some text");
    return prompt;
}

Prompt LlamaModel::text_start() const {
    Prompt prompt{.tokens = state_->tokenizer->leading_ids(), .end_ids = state_->end_ids, .text = state_->tokenizer};
    if (const auto end = state_->tokenizer->eos(); prompt.tokens.empty() && end) prompt.tokens.push_back(*end);
    require(!prompt.tokens.empty(),
            "the model has no token that begins or ends a text, so that none can be made up; give beginnings of texts "
            "(--prompts FILE)");
    return prompt;
}

TargetHead LlamaModel::head(std::optional<at::Device> asked) const {
    const at::Device device = asked.value_or(state_->device);
    open_device(device);
    const bool here = device.type() == state_->device.type();
    const auto reader = [state = state_, device, here](const char* table, double scale = 1.0) {
        return [state, table, scale, device, here](std::span<const TokenId> ids) {
            const at::NoGradGuard no_grad;
            const at::Tensor held = here ? state->backend->table(table) : at::Tensor();
            if (held.defined()) {
                const at::Tensor rows = rows_of(held, ids);
                return scale == 1.0 ? rows : rows * scale;
            }
            at::Tensor rows = at::empty({static_cast<std::int64_t>(ids.size()), state->config.hidden}, at::kFloat);
            state->source->read_rows(table, ids, rows.data_ptr<float>());
            if (scale != 1.0) rows.mul_(scale);
            return rows.to(device);
        };
    };
    const auto lent = [&](const char* table) {  // the CPU's drafters hold rows of their own
        return here && !device.is_cpu() ? state_->backend->table(table) : at::Tensor();
    };
    return {.fingerprint = state_->fingerprint,
            .hidden = state_->config.hidden,
            .vocabulary = state_->config.vocabulary,
            .embed = reader("embed", state_->config.embedding_scale),
            .output_rows = reader(state_->config.tied_output ? "embed" : "output"),
            .final_norm = detail::translate([&] { return state_->norm.to(device); }),
            .norm_eps = state_->config.norm_eps,
            .tokenizer = tokenizer_fingerprint(tokenizer()),
            .feature_layers = state_->config.layers - 1,
            .team = state_->backend->shared_team(),
            .embedding = lent("embed"),
            .output = lent("output"),
            .embedding_scale = state_->config.embedding_scale};
}

}  // namespace outrider
