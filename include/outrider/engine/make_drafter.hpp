// Drafters chosen by name at run time: for programs whose user says which one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/draft/lm.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/target/llama_model.hpp>
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

/// The folder in one of `places` of a drafter that was trained for the target with this fingerprint; of several, the
/// one with the highest beta in its training record; nullopt when there is none. Other folders are passed over.
[[nodiscard]] OUTRIDER_API std::optional<std::filesystem::path> find_drafter(
    std::span<const std::filesystem::path> places, std::string_view fingerprint);

}  // namespace outrider
