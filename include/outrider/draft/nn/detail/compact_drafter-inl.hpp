// Body of compact_drafter.hpp.
#pragma once

#include <outrider/draft/nn/detail/compact_drafter.hpp>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/drafter_files.hpp>
#include <outrider/draft/nn/detail/weight_blocks.hpp>
#include <outrider/formats/detail/atomic_file.hpp>
#include <outrider/formats/detail/mapped_file.hpp>
#include <outrider/formats/detail/safetensors.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::compact {

/// In what the kernels hold a weight; none: it stays as it is.
OUTRIDER_INLINE std::optional<BlockFormat> format_of(std::string_view kind, const SafeTensor& tensor) {
    constexpr std::int64_t kFewRows = 32;  // learnt rows that are read as they are, not multiplied
    if (tensor.shape.size() != 2 || tensor.shape[0] < kFewRows || tensor.shape[1] % kBlockWeights != 0)
        return std::nullopt;
    if (kind == "ctc") return tensor.name.starts_with("prefix_") ? BlockFormat::q5_1 : BlockFormat::q4_1;
    return tensor.name.starts_with("prefix.") ? BlockFormat::q4_1 : BlockFormat::q8_0;
}

OUTRIDER_INLINE std::vector<std::byte> blocks_of(const SafeTensor& tensor, BlockFormat format) {
    const std::vector<float> weights = to_floats(tensor);
    const std::size_t blocks = weights.size() / kBlockWeights, bytes = static_cast<std::size_t>(format);
    std::vector<std::byte> result(blocks * bytes);
    for (std::size_t i = 0; i < blocks; ++i)
        encode_block(format, weights.data() + i * kBlockWeights, result.data() + i * bytes);
    return result;
}

/// Shares of guesses that were right: four digits are more than was measured.
OUTRIDER_INLINE void round_shares(nlohmann::ordered_json& lists) {
    for (auto& list : lists)
        for (auto& share : list) share = std::round(share.get<double>() * 1e4) / 1e4;
}

OUTRIDER_INLINE void write_weights(const std::filesystem::path& to, const SafeTensors& file, std::string_view kind,
                                   const std::vector<TokenId>& vocabulary) {
    std::vector<std::vector<std::byte>> kept;
    std::vector<SafeTensorView> views;
    for (const SafeTensor& tensor : file.tensors()) {
        const auto format = format_of(kind, tensor);
        if (!format) {
            views.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data});
            continue;
        }
        kept.push_back(blocks_of(tensor, *format));
        views.push_back({tensor.name,
                         SafeDtype::u8,
                         {tensor.shape[0], tensor.shape[1] / kBlockWeights, static_cast<std::int64_t>(*format)},
                         kept.back()});
    }
    views.push_back(
        {kVocabularyTensor, SafeDtype::i32, {std::ssize(vocabulary)}, std::as_bytes(std::span(vocabulary))});
    write_safetensors(to / "model.safetensors", views, {{"format", "pt"}, {"kind", std::string(kind)}});
}

}  // namespace detail::compact

OUTRIDER_INLINE void compact_drafter(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::vector<TokenId> vocabulary;
    std::string kind;
    read_drafter_json(from, [&](const nlohmann::json& file) {
        kind = text_value(file, "kind");
        require(kind == "ctc" || kind == "medusa" || kind == "hydra",
                "kind is \"{}\"; ctc, medusa and hydra have a small form", kind);
        vocabulary = token_ids(file, "vocabulary");
    });
    require(!std::filesystem::exists(to / "config.json") && !std::filesystem::exists(to / "model.safetensors"),
            "{}: there is a drafter already; name an empty folder", to.string());
    const SafeTensors file = SafeTensors::open(from / "model.safetensors");
    for (const SafeTensor& tensor : file.tensors())
        require(!detail::block_format(tensor), "{}: weight {} is in blocks: the drafter has its small form already",
                file.name(), tensor.name);
    const SharedBytes text = SharedBytes::map(from / "config.json");  // once more, for the order of its keys
    auto config = nlohmann::ordered_json::parse(reinterpret_cast<const char*>(text.span().data()),
                                                reinterpret_cast<const char*>(text.span().data()) + text.size());
    config.erase("vocabulary");
    if (config.contains("accuracies")) detail::compact::round_shares(config["accuracies"]);
    detail::make_folders(to);
    detail::compact::write_weights(to, file, kind, vocabulary);
    write_drafter_json(to, config);
}

}  // namespace outrider
