// Drafters chosen by name at run time: for programs whose user says which one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/interface/draft_model.hpp>
#include <outrider/interface/target_head.hpp>

namespace outrider {

/// `name`: "none", "ngram", the folder of a trained drafter, or several joined with '+' ("drafters/mine+ngram"; their
/// trees are merged). `target` is what a trained drafter borrows from (LlamaModel::head()); none and ngram never look
/// at it. Throws Error for an unknown name, and for a drafter of another target.
[[nodiscard]] std::unique_ptr<DraftModel> make_drafter(std::string_view name, const TargetHead& target);

/// The drafter's folder under one of `places` that was trained for the target with this fingerprint and accepted most
/// when it was measured; nullopt when there is none. Folders that are no drafters are passed over.
[[nodiscard]] std::optional<std::filesystem::path> find_drafter(std::span<const std::filesystem::path> places,
                                                                std::string_view fingerprint);

}  // namespace outrider
