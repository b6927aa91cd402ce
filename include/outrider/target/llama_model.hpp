// A dense decoder as target (docs/models.md): configuration, weights, tokenizer and chat template of one checkpoint.
// And as a drafter's language model.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/causal_model.hpp>
#include <outrider/target/detail/target_pass.hpp>
#include <outrider/target/model_config.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/text/tokenizer.hpp>

namespace outrider {

/// A cheap handle: copies share one checkpoint, which lives as long as any of them, or any function of head(), or any
/// pass. It never changes. Safe to use from several threads.
class OUTRIDER_API LlamaModel {
public:
    /// What computes the forward.
    enum class Backend {
        automatic,  ///< kernels on the CPU (heads of a multiple of 16 dimensions, else `aten`), `device` elsewhere
        kernels,    ///< the library's own: a row's bits do not depend on other rows
        aten,       ///< plain tensor operations, on every device: the reference
        device,     ///< few tensor operations of fixed shapes; on the CPU for tests
    };

    struct Options {
        at::Device device = at::kCPU;
        Weights weights = Weights::automatic;
        Backend backend = Backend::automatic;
        int threads = 0;                        ///< of the kernels; 0: one per physical core
        std::int64_t context = 0;               ///< most positions that will be used; 0: all that the checkpoint has
        std::string chat_template = {};         ///< name of a built-in one; empty: the checkpoint's own
        std::string chat_template_source = {};  ///< Jinja, instead of either
        /// Of `device`: what the caches of one pass (a verifier's, or a drafter's language model's) hold, allocated
        /// with it. A sequence that does not fit is refused with an Error (out of memory).
        std::int64_t cache_tokens = 0;      ///< of all sequences together; 0: eight contexts, as far as 4 GiB hold them
        std::int64_t cache_sequences = 64;  ///< at once
    };

    /// `path`: a GGUF file, or a Hugging Face folder: config.json, weights (model*.safetensors, else
    /// pytorch_model*.bin), and tokenizer.json or tokenizer.model. Throws Error for unsupported architectures and
    /// features, and for missing, extra or misshaped tensors, by name.
    [[nodiscard]] static LlamaModel load(const std::filesystem::path& path, const Options& options);
    [[nodiscard]] static LlamaModel load(const std::filesystem::path& path) { return load(path, Options{}); }

    [[nodiscard]] const ModelConfig& config() const;
    [[nodiscard]] const Tokenizer& tokenizer() const;
    [[nodiscard]] at::Device device() const;
    /// Of the kernels.
    [[nodiscard]] int threads() const;
    /// The one in use, never `automatic`.
    [[nodiscard]] Weights weights() const;
    /// "f32", "bf16", "stored (q4_1, q8_0)", ...
    [[nodiscard]] std::string weights_description() const;
    /// Memory held for weights, mapped file pages apart.
    [[nodiscard]] std::size_t weight_bytes() const;
    /// What a user should know of the checkpoint: where its files disagree, and which of them counts. Empty: nothing.
    [[nodiscard]] const std::string& note() const;
    /// Tells checkpoints apart; the same for all weight formats, devices and threads.
    [[nodiscard]] const std::string& fingerprint() const;

    /// The prompt that asks for the assistant's answer, by the checkpoint's chat template or the one of the options.
    /// Text of messages is never read as special tokens. `variables`: see Chat. Throws Error when there is no template,
    /// when it cannot be run, and when it refuses the conversation.
    [[nodiscard]] Prompt chat(std::string_view user) const;
    [[nodiscard]] Prompt chat(std::span<const ChatMessage> messages, std::string_view variables = {}) const;
    [[nodiscard]] Prompt chat(std::initializer_list<ChatMessage> messages, std::string_view variables = {}) const {
        return chat(std::span(messages.begin(), messages.size()), variables);
    }
    /// The conversation up to where the user's words come next: what follows, the target writes as the user (see
    /// train/distill.hpp). Throws Error like chat.
    [[nodiscard]] UserTurn user_turn() const;
    /// The text itself, special tokens in it read as such, after the begin token where the model has one.
    [[nodiscard]] Prompt raw(std::string_view text) const;

    /// What a text begins with, nothing more: what raw() puts first, or for models without such tokens the one that
    /// ends texts, which is what stood before each of them in training. A base model writes texts from it. Throws Error
    /// for a model that has neither.
    [[nodiscard]] Prompt text_start() const;

    /// What a trained drafter borrows that computes on `device`; on the model's own unless said otherwise. On another
    /// one rows are read from the checkpoint.
    [[nodiscard]] TargetHead head(std::optional<at::Device> device = std::nullopt) const;

    /// A pass with its own scratch memory and threads.
    [[nodiscard]] std::unique_ptr<TargetPass> make_pass() const;

private:
    struct State;
    explicit LlamaModel(std::shared_ptr<const State> state) : state_(std::move(state)) {}

    std::shared_ptr<const State> state_;
};

/// A dense decoder as a drafter's language model: see CausalModel. Not for use by several threads at once.
class OUTRIDER_API LlamaCausalModel final : public CausalModel {
public:
    explicit LlamaCausalModel(LlamaModel model);

    [[nodiscard]] at::Tensor forward(std::span<const Rows> rows, bool with_logits) override;
    [[nodiscard]] at::Tensor forward_for(std::span<const Rows> rows, std::span<const std::int64_t> asked) override;
    void keep(SequenceId sequence, std::int64_t rows) override;
    void truncate(SequenceId sequence, std::int64_t length) override;
    void release(SequenceId sequence) override { caches_.erase(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return model_.config().vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return model_.config().context; }
    [[nodiscard]] std::size_t weight_bytes() const override { return model_.weight_bytes(); }
    [[nodiscard]] const std::string& tokenizer() const override { return tokenizer_; }

    /// Sequences known.
    [[nodiscard]] std::size_t active() const noexcept { return caches_.size(); }

private:
    KvCache& cache_of(SequenceId sequence);
    at::Tensor run(std::span<const Rows> rows, bool with_logits);

    LlamaModel model_;
    std::string tokenizer_;
    std::unique_ptr<TargetPass> pass_;
    std::unordered_map<SequenceId, KvCache> caches_;
};

}  // namespace outrider
