// A target, a drafter and a policy by name, in one call.
//
//     auto engine = outrider::Engine::open({.model = "SmolLM2-135M-Instruct.Q4_1.gguf"});
//     engine.chat("Why is the sky blue?", {.max_tokens = 128}, [](std::string_view text) { fmt::print("{}", text); });
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/result.hpp>
#include <outrider/decode/request.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/draft/lm.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/engine/make_policy.hpp>
#include <outrider/target/llama_model.hpp>
#include <outrider/target/llama_verifier.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider {

/// What each kind is made with, where a name asks for it.
struct DrafterOptions {
    NgramOptions ngram = {};
    CtcDraftOptions ctc = {};
    HeadDraftOptions heads = {};  ///< of Medusa and Hydra
    LmDraftOptions lm = {};
    LlamaModel::Options lm_model = {};  ///< how the checkpoint of an lm drafter is loaded
};

/// `name`: "none", "ngram", "ngram:copy", "ngram:maxgram", "lm:" and a checkpoint of the target's tokenizer, the folder
/// of a trained drafter, or several joined with '+' ("drafters/mine+ngram"; their trees are merged). `target` is what a
/// trained drafter borrows from (LlamaModel::head()); none and ngram never look at it. Throws Error for an unknown
/// name, and for a drafter of another target.
[[nodiscard]] OUTRIDER_API std::unique_ptr<DraftModel> make_drafter(std::string_view name, const TargetHead& target,
                                                                    const DrafterOptions& options = {});

/// The folder in one of `places`, or the place itself, of a drafter that was trained for the target with this
/// fingerprint; of several, the one with the highest beta in its training record; nullopt when there is none. Other
/// folders are passed over. Throws Error for a place that is no folder.
[[nodiscard]] OUTRIDER_API std::optional<std::filesystem::path> find_drafter(
    std::span<const std::filesystem::path> places, std::string_view fingerprint);

/// How drafts become trees, where a drafter can do several things.
enum class TreeKind : unsigned char {
    automatic,  ///< the drafter's best, or drawn chains where the policy needs draws
    best,       ///< the most probable nodes
    fixed,      ///< a static shape
    per_frame,  ///< CTC: the static shape without collapse; Medusa and Hydra: as `fixed`
    measured,   ///< Medusa and Hydra: a shape from measured accuracies
    sampled,    ///< drawn chains
};

struct EngineOptions {
    std::filesystem::path model = {};  ///< a GGUF file, or a Hugging Face folder
    /// See make_drafter. Empty: the best drafter for the model in `drafter_places`, joined with n-grams; n-grams alone
    /// where there is none.
    std::string drafter = {};
    std::vector<std::filesystem::path> drafter_places = {};  ///< empty: shipped_drafters()
    std::string policy = "match";                            ///< see make_policy
    PolicyOptions policy_options = {};
    TreeKind tree = TreeKind::automatic;
    std::int64_t chains = 0;       ///< of drawn drafts; 0: as many as the policy takes, up to 2
    std::uint64_t draft_seed = 0;  ///< of drawn drafts
    double draft_temperature = 0;  ///< what requests will mostly ask for: drawn drafts, and drafts of a language model
    LlamaModel::Options target = {};  ///< weights, device, threads, chat template
    /// Where trained drafters and language models as drafters compute; nullopt: on the target's device. On the CPU
    /// beside a target on a GPU trained drafters run the CPU's kernels.
    std::optional<at::Device> drafter_device = std::nullopt;
    DecoderOptions decoder = {};
    std::size_t kept_bytes = 0;  ///< of texts that ended, for prompts that begin as they do: see LlamaVerifier::Options
    /// Where the costs of passes are remembered between runs; empty: nowhere, they are measured (about a second) when a
    /// decoder first drafts.
    std::filesystem::path pass_times_file = {};
};

/// The drafter of such an engine alone. Throws Error.
[[nodiscard]] OUTRIDER_API std::unique_ptr<DraftModel> make_drafter(const EngineOptions& options,
                                                                    const LlamaModel& model);

/// Folders of drafters that are there: the one that the environment variable OUTRIDER_DRAFTERS names,
/// PREFIX/share/outrider/drafters of an installed tree, and examples/drafters of a source folder. The tree is the one
/// around the program, around this library or around the LibTorch in use. Only looks; writes nothing.
[[nodiscard]] OUTRIDER_API std::vector<std::filesystem::path> shipped_drafters();

/// The best drafter for the model in these places, joined with n-grams; "ngram" where there is none.
[[nodiscard]] OUTRIDER_API std::string default_drafter(std::span<const std::filesystem::path> places,
                                                       const LlamaModel& model);

/// Owns a decoder over a model that may be shared. Movable; as the decoder, for one thread.
class OUTRIDER_API Engine {
public:
    /// Loads the model and the drafter and reconciles drafter, trees, policy, threads and temperature. Throws Error: a
    /// file that is damaged or not supported, a drafter of another target, a policy that can decide for none of its
    /// trees.
    [[nodiscard]] static Engine open(EngineOptions options);
    /// The same over a model that is loaded already; `options.model` and `options.target` stay unread.
    [[nodiscard]] static Engine open(LlamaModel model, EngineOptions options);

    [[nodiscard]] const LlamaModel& model() const noexcept { return model_; }
    /// For several requests at once: join, step, take.
    [[nodiscard]] AnyDecoder& decoder() noexcept { return *decoder_; }
    /// The drafter's name, the one that was found where none was asked for.
    [[nodiscard]] const std::string& drafter() const noexcept { return options_.drafter; }

    /// The assistant's answer, decoded to its end. Throws Error.
    GenerationResult chat(std::string_view user, GenerationOptions options = {}, Sink sink = {});
    GenerationResult chat(std::span<const ChatMessage> messages, GenerationOptions options = {}, Sink sink = {});
    /// chat({{"system", "Be brief."}, {"user", "Why is the sky blue?"}})
    GenerationResult chat(std::initializer_list<ChatMessage> messages, GenerationOptions options = {}, Sink sink = {}) {
        return chat(std::span(messages.begin(), messages.size()), std::move(options), std::move(sink));
    }
    /// The text's continuation; special tokens in it are read as such.
    GenerationResult complete(std::string_view text, GenerationOptions options = {}, Sink sink = {});

    /// Writes what is known of the longest beginning of `tokens` (model().chat(messages).tokens, say), of a text that
    /// is kept (EngineOptions::kept_bytes) or decoded: a program that is started again need not read it again. Returns
    /// how many tokens that are. Throws Error where nothing is known of them, and for a file that cannot be written.
    std::int64_t save(std::span<const TokenId> tokens, const std::filesystem::path& file);
    /// Keeps what `save` wrote, and returns its tokens. Throws Error for a file that is not there or damaged, of
    /// another checkpoint or of weights held otherwise, and where kept_bytes does not hold it.
    std::vector<TokenId> load(const std::filesystem::path& file);

private:
    Engine(LlamaModel model, EngineOptions options);

    LlamaModel model_;
    EngineOptions options_;
    std::unique_ptr<AnyDecoder> decoder_;
    LlamaVerifier* verifier_ = nullptr;  ///< the decoder's
};

}  // namespace outrider
