// What the folders of all trained drafters have in common: config.json with kind, version, target, draft vocabulary and
// training record, and model.safetensors in bfloat16.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include <outrider/target/target_head.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider {

/// The draft vocabulary [V] I32 in model.safetensors of the small form (compact_drafter); else config.json has it.
inline constexpr const char* kVocabularyTensor = "draft_vocabulary";

/// Reads folder/config.json and hands it to `take`, with the draft vocabulary as its member wherever that is stored;
/// every exception of `take` becomes an Error that names the file.
void read_drafter_json(const std::filesystem::path& folder, const std::function<void(const nlohmann::json&)>& take);

/// Writes `file` to folder/config.json, lists of numbers in one line each, by way of a second file.
void write_drafter_json(const std::filesystem::path& folder, const nlohmann::ordered_json& file);

/// Throws Error unless the file says this kind and version.
void check_drafter_kind(const nlohmann::json& file, std::string_view kind, int version);
/// `object[key]`. Throws Error where there is none.
[[nodiscard]] const nlohmann::json& member(const nlohmann::json& object, const char* key);
/// A string, true or false, and lists of lists of numbers (none where the key is left out or null). Throw Error for
/// anything else, with the key.
[[nodiscard]] std::string text_value(const nlohmann::json& object, const char* key);
[[nodiscard]] bool flag_value(const nlohmann::json& object, const char* key);
[[nodiscard]] std::vector<std::vector<double>> number_lists(const nlohmann::json& object, const char* key);
/// An integer, and a list of token ids. Throws Error for anything else: no number is rounded or wrapped.
[[nodiscard]] std::int64_t whole_number(const nlohmann::json& object, const char* key);
[[nodiscard]] std::vector<TokenId> token_ids(const nlohmann::json& object, const char* key);
/// Above 0 and finite.
[[nodiscard]] double positive_number(const nlohmann::json& object, const char* key);

/// What every kind's config has in common: kind, version, the target it belongs to, draft vocabulary, training record.
template <typename Config>
void read_common(const nlohmann::json& file, std::string_view kind, Config& config) {
    check_drafter_kind(file, kind, Config::kVersion);
    config.target_fingerprint = text_value(member(file, "target"), "fingerprint");
    config.target_name = text_value(member(file, "target"), "name");
    config.vocabulary = token_ids(file, "vocabulary");
    config.training = file.value("training", nlohmann::json::object()).dump();
}

/// The same beside `own`, the fields of the kind.
template <typename Config>
void write_drafter_config(const std::filesystem::path& folder, std::string_view kind, const Config& config,
                          const nlohmann::ordered_json& own) {
    nlohmann::ordered_json file = {
        {"kind", kind},
        {"version", Config::kVersion},
        {"target", {{"name", config.target_name}, {"fingerprint", config.target_fingerprint}}}};
    file.update(own);
    file["training"] = nlohmann::ordered_json::parse(config.training);
    file["vocabulary"] = config.vocabulary;
    write_drafter_json(folder, file);
}

/// Throws Error unless a drafter made for these sizes fits the target. `vocabulary` may be empty: the target's whole
/// one.
inline void check_target(std::string_view drafter, const TargetHead& head, const std::string& fingerprint,
                         const std::string& name, std::int64_t hidden, const std::vector<TokenId>& vocabulary) {
    require(fingerprint.empty() || fingerprint == head.fingerprint, ErrorKind::mismatched_drafter,
            "{}: the drafter belongs to target {} ({}), this target is {}; train one for it with `outrider train`, or "
            "load the model it was made for",
            drafter, fingerprint, name, head.fingerprint);
    const TokenId largest = vocabulary.empty() ? 0 : vocabulary.back();
    require(hidden == head.hidden && largest < head.vocabulary, ErrorKind::mismatched_drafter,
            "{}: the drafter is made for width {} and a vocabulary above {}, the target has {} and {}", drafter, hidden,
            largest, head.hidden, head.vocabulary);
}

/// 1 to 2^20: beyond any model; keeps products of sizes in range.
void check_drafter_size(std::string_view drafter, std::string_view name, std::int64_t value);
/// Ascending ids.
void check_draft_vocabulary(std::string_view drafter, const std::vector<TokenId>& vocabulary);
/// At most `heads` rows of shares in [0, 1].
void check_accuracies(std::string_view drafter, const std::vector<std::vector<double>>& accuracies, std::int64_t heads);
/// Sizes of a decoder layer.
void check_layer_sizes(std::string_view drafter, const LayerSizes& sizes, std::int64_t intermediate);

/// A weight, its name in the file and the shape it must have; -1: any length.
struct WantedWeight {
    std::string name;
    at::Tensor* weight;
    std::vector<std::int64_t> shape;
};

/// All there, of their shapes, and on one device.
void check_weights(std::string_view drafter, const std::vector<WantedWeight>& wanted);

/// Fills all of `wanted`; matrices in blocks become f32. Throws Error that names what is missing, left over or
/// misshapen.
void read_weights(const std::filesystem::path& folder, std::string_view drafter,
                  const std::vector<WantedWeight>& wanted, WeightType type);
/// Of anything with named().
template <typename Weights>
void move_weights(Weights& weights, at::Device device) {
    for (auto& [name, weight] : weights.named()) *weight = weight->to(device);
}
void write_weights(const std::filesystem::path& folder, std::string_view kind, const NamedConstWeights& weights);

/// A folder that `outrider train` wrote; the weights are views of the file where they can be.
template <typename Config, typename Weights>
[[nodiscard]] std::pair<Config, Weights> read_trained(const std::filesystem::path& folder,
                                                      Config (*read_config)(const std::filesystem::path&),
                                                      Weights (*read_weights)(const std::filesystem::path&,
                                                                              const Config&, WeightType)) {
    Config config = read_config(folder);
    Weights weights = read_weights(folder, config, WeightType::stored);
    return {std::move(config), std::move(weights)};
}

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/drafter_files-inl.hpp>
#endif
