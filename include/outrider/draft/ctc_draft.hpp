// CTC drafting: one non-autoregressive pass gives T frames, and the draft is the tree of the most probable collapsed
// prefixes (after Wen, Gui, Feng, "Speculative Decoding with CTC-based Draft Model", NeurIPS 2024, arXiv 2412.00061).
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include <outrider/draft/ctc_config.hpp>
#include <outrider/draft/ctc_network.hpp>
#include <outrider/interface/draft_model.hpp>
#include <outrider/interface/target_head.hpp>

namespace outrider {

/// From frames to a tree.
enum class CtcTree : unsigned char {
    best_first,   ///< the N most probable prefixes: the best tree under the drafter's belief
    static_tree,  ///< the paper's: ranked choices per frame (Medusa's 63), collapsed, duplicates merged
    per_frame,    ///< the same shape without collapse, as the paper's ablation: frame t drafts depth t + 1, blanks end
    sampled,      ///< alignments drawn frame by frame and collapsed, with their exact law (SequenceTree::samples)
};

struct CtcDraftOptions {
    CtcTree tree = CtcTree::best_first;
    std::int64_t top_k = 64;  ///< candidates per frame, whose union is what a draft can name; best-first drafts of
                              ///< conditioned frames search the whole draft vocabulary instead
    std::int64_t chains = 2;  ///< of `sampled`, independent of each other; 1 for rules that take one chain
    std::uint64_t seed = 0;   ///< of `sampled`; draws are keyed by (seed, sequence, committed)
    int threads = 0;          ///< of the CPU's kernels; 0: the target's; one per physical core where it has none
    bool kernels = true;      ///< on the CPU: packed int8 matrices and plain loops; false: tensor operations
};

/// A trained CTC drafter. Movable; calls on one object take turns.
class CtcDraft final : public DraftModel {
public:
    /// `folder`: config.json and model.safetensors. Throws Error for damaged files and for another target.
    [[nodiscard]] static CtcDraft load(const std::filesystem::path& folder, const TargetHead& head,
                                       const CtcDraftOptions& options = {});

    /// The same, for anything that has a head(): a LlamaModel.
    template <typename Model>
    requires requires(const Model& model) {
        { model.head() } -> std::convertible_to<TargetHead>;
    }
    [[nodiscard]] static CtcDraft load(const std::filesystem::path& folder, const Model& model,
                                       const CtcDraftOptions& options = {}) {
        return load(folder, TargetHead(model.head()), options);
    }

    /// From weights in memory, on their device.
    CtcDraft(CtcConfig config, CtcWeights weights, const TargetHead& head, const CtcDraftOptions& options = {});
    ~CtcDraft() override;
    CtcDraft(CtcDraft&&) noexcept;
    CtcDraft& operator=(CtcDraft&&) noexcept;

    [[nodiscard]] std::string_view kind() const override { return "ctc"; }
    [[nodiscard]] DraftDraws draws() const override;
    [[nodiscard]] const CtcConfig& config() const;

protected:
    [[nodiscard]] std::vector<SequenceTree> do_propose(std::span<const SequenceFeedback> feedback,
                                                       DraftBudget budget) override;
    void do_forget(SequenceId sequence) override;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace outrider
