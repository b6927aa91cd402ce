// CTC drafting: one non-autoregressive pass gives T frames, and the draft is the tree of the most probable collapsed
// prefixes (after Wen, Gui, Feng, "Speculative Decoding with CTC-based Draft Model", NeurIPS 2024, arXiv 2412.00061).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/nn/detail/trained_draft.hpp>

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
                              ///< conditioned frames, and all of them on a device, search the whole draft vocabulary
    std::int64_t chains = 2;  ///< of `sampled`, independent of each other; 1 for rules that take one chain
    std::uint64_t seed = 0;   ///< of `sampled`; draws are keyed by (seed, sequence, committed)
    int threads = 0;          ///< of the CPU's kernels; 0: the target's; one per physical core where it has none
    bool kernels = true;      ///< on the CPU: packed matrices and plain loops; false: tensor operations
    bool eight_bits = false;  ///< of kernels: all matrices in 8 bits; else the layers' in 4, the others in 5
    /// On a device: most that keys and values of all sequences may take. A sequence that finds no room is not drafted
    /// for; its text is the same.
    std::int64_t lane_bytes = std::int64_t{4} << 30;
};

/// A trained CTC drafter.
struct OUTRIDER_API CtcKind {
    using Config = CtcConfig;
    using Weights = CtcWeights;
    using Options = CtcDraftOptions;
    static constexpr std::string_view kName = "ctc";

    /// Weights on the target's device.
    [[nodiscard]] static std::pair<Config, Weights> read(const std::filesystem::path& folder, const TargetHead& head);
    [[nodiscard]] static std::unique_ptr<DraftEngine<Config>> engine(Config config, Weights weights,
                                                                     const TargetHead& head, const Options& options);
};

using CtcDraft = TrainedDraft<CtcKind>;

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_draft-inl.hpp>
#endif
