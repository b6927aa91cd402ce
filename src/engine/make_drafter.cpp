#include <outrider/engine.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/nn/detail/published_heads.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/target/llama_model.hpp>

#include <outrider/formats/detail/json_text.hpp>

namespace outrider {
namespace {

namespace fs = std::filesystem;

/// `config.json` of a drafter's folder. Throws Error.
nlohmann::json read_config(const fs::path& folder) {
    const fs::path path = folder / "config.json";
    std::error_code ignored;
    require(fs::is_regular_file(path, ignored), ErrorKind::damaged_file,
            "'{}' holds no config.json that can be read; a drafter is a folder with "
            "config.json and model.safetensors",
            folder.string());
    return detail::read_json(path);
}

/// A checkpoint as its authors published it: a file, or a folder of theirs. Null for anything else.
std::unique_ptr<DraftModel> load_published(const fs::path& path, const TargetHead& target,
                                           const DrafterOptions& options) {
    if (!is_published(path)) return nullptr;
    const std::string kind = published_kind(path);
    if (kind == "medusa") return std::make_unique<MedusaDraft>(MedusaDraft::load(path, target, options.heads));
    if (kind == "hydra") return std::make_unique<HydraDraft>(HydraDraft::load(path, target, options.heads));
    fail(ErrorKind::damaged_file,
         "{}: no drafter: its config.json names no kind, and its tensors are neither Medusa's (0.0.linear.weight) nor "
         "Hydra's "
         "(hydra_mlp.0.0.linear.weight). Put lm: in front of a small language model",
         path.string());
}

std::unique_ptr<DraftModel> load_folder(const fs::path& folder, const TargetHead& target,
                                        const DrafterOptions& options) {
    const nlohmann::json config = read_config(folder);
    const std::string kind = detail::text(config, "kind");
    if (kind == "ctc") return std::make_unique<CtcDraft>(CtcDraft::load(folder, target, options.ctc));
    if (kind == "medusa") return std::make_unique<MedusaDraft>(MedusaDraft::load(folder, target, options.heads));
    if (kind == "hydra") return std::make_unique<HydraDraft>(HydraDraft::load(folder, target, options.heads));
    fail(ErrorKind::damaged_file, "{}: kind is {}; expected \"ctc\", \"medusa\" or \"hydra\"",
         (folder / "config.json").string(), detail::shown(detail::field(config, "kind")));
}

std::unique_ptr<DraftModel> load_lm(const std::string& path, const TargetHead& target, const DrafterOptions& options) {
    auto model = std::make_unique<LlamaCausalModel>(LlamaModel::load(path, options.lm_model));
    return std::make_unique<LmDraft>(std::move(model), target, options.lm);
}

std::unique_ptr<DraftModel> make_one(std::string_view name, const TargetHead& target, const DrafterOptions& options) {
    if (name == "none") return std::make_unique<NoDraft>();
    if (name.starts_with("lm:")) return load_lm(std::string(name.substr(3)), target, options);
    if (name == "ngram" || name.starts_with("ngram:")) {
        NgramOptions ngram = options.ngram;
        if (name == "ngram:copy")
            ngram.mode = NgramMode::copy;
        else if (name == "ngram:maxgram")
            ngram.mode = NgramMode::max_gram;
        else
            require(name == "ngram", "unknown drafter '{}': of n-grams there are ngram, ngram:copy, ngram:maxgram",
                    name);
        return std::make_unique<NgramDraft>(ngram);
    }
    if (auto published = load_published(fs::path(name), target, options)) return published;
    std::error_code error;
    if (fs::is_directory(fs::path(name), error)) return load_folder(fs::path(name), target, options);
    fail(
        "unknown drafter '{}': expected none, ngram, ngram:copy, ngram:maxgram, lm:CHECKPOINT, the folder of a trained "
        "drafter, or several of them joined with +",
        name);
}

/// The parts between the '+'; a folder whose own name holds one is a single part.
std::vector<std::string_view> parts_of(std::string_view name) {
    std::error_code error;
    if (fs::is_directory(fs::path(name), error)) return {name};
    std::vector<std::string_view> parts;
    for (std::size_t begin = 0; begin <= name.size();) {
        const std::size_t end = std::min(name.find('+', begin), name.size());
        parts.push_back(name.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

/// The measured beta of a drafter of this target; nullopt for anything else.
std::optional<double> beta_for(const fs::path& folder, std::string_view fingerprint) {
    try {
        const nlohmann::json config = read_config(folder);
        if (config.at("target").at("fingerprint") != fingerprint) return std::nullopt;
        return config.value(nlohmann::json::json_pointer("/training/held_out_beta_16_nodes"), 0.0);
    } catch (const std::exception&) {
        return std::nullopt;  // not a drafter: another folder that happens to lie there
    }
}

}  // namespace

std::unique_ptr<DraftModel> make_drafter(std::string_view name, const TargetHead& target,
                                         const DrafterOptions& options) {
    return detail::translate([&]() -> std::unique_ptr<DraftModel> {
        std::vector<std::unique_ptr<DraftModel>> drafters;
        for (const std::string_view part : parts_of(name)) drafters.push_back(make_one(part, target, options));
        if (drafters.size() == 1) return std::move(drafters[0]);
        return std::make_unique<MergedDraft>(std::move(drafters));
    });
}

std::optional<fs::path> find_drafter(std::span<const fs::path> places, std::string_view fingerprint) {
    std::optional<fs::path> best;
    double best_beta = -1;
    for (const fs::path& place : places) {
        std::error_code error;
        require(fs::is_directory(place, error), "'{}' is no folder; drafters are looked for in folders that hold them",
                place.string());
        std::vector<fs::path> folders{place};
        for (const auto& entry : fs::directory_iterator(place, error))
            if (entry.is_directory(error)) folders.push_back(entry.path());
        std::sort(folders.begin(), folders.end());
        for (const fs::path& folder : folders) {
            const std::optional<double> beta = beta_for(folder, fingerprint);
            if (beta && *beta > best_beta) best = folder, best_beta = *beta;
        }
    }
    return best;
}

}  // namespace outrider
