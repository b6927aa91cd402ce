#include "read_text_file.hpp"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/safetensors.hpp>

namespace outrider {
namespace {

constexpr const char* kReadTextFormat = "outrider-read-text-1";

SafeDtype dtype_of(const at::Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case at::kFloat: return SafeDtype::f32;
        case at::kHalf: return SafeDtype::f16;
        case at::kBFloat16: return SafeDtype::bf16;
        default: fail(ErrorKind::internal, "a cache of numbers that no file holds");
    }
}

SafeTensorView view(const char* name, const at::Tensor& tensor) {
    return {name,
            dtype_of(tensor),
            tensor.sizes().vec(),
            {static_cast<const std::byte*>(tensor.const_data_ptr()), static_cast<std::size_t>(tensor.nbytes())}};
}

std::string metadata_of(const SafeTensors& file, const char* name) {
    const auto found = file.metadata().find(name);
    require(found != file.metadata().end(), ErrorKind::damaged_file, "{}: no {} in its metadata; expected {}",
            file.name(), name, kReadTextFormat);
    return found->second;
}

std::vector<std::int64_t> layers_from(const SafeTensors& file) {
    std::vector<std::int64_t> layers;
    std::string text = metadata_of(file, "feature_layers");
    for (std::size_t at = 0; at < text.size();) {
        std::size_t used = 0;
        try {
            layers.push_back(std::stoll(text.substr(at), &used));
        } catch (const std::exception&) {
            fail(ErrorKind::damaged_file, "{}: feature_layers is \"{}\", expected numbers", file.name(), text);
        }
        at += used + 1;
    }
    return layers;
}

/// The file's numbers in a tensor like `like`. Throws Error where they do not fit.
at::Tensor tensor_from(const SafeTensors& file, const SafeTensor& stored, const at::TensorOptions& options) {
    const at::Tensor tensor = at::empty(stored.shape, options.device(at::kCPU));
    require(stored.dtype == dtype_of(tensor) && static_cast<std::size_t>(tensor.nbytes()) == stored.data.size(),
            ErrorKind::damaged_file, "{}: {} holds {}, expected {}", file.name(), stored.name,
            safe_dtype_name(stored.dtype), safe_dtype_name(dtype_of(tensor)));
    std::memcpy(tensor.data_ptr(), stored.data.data(), stored.data.size());
    return tensor.to(options.device());
}

}  // namespace

void write_read_text(const std::filesystem::path& path, const ReadText& text, std::int64_t tokens,
                     const ReaderName& reader) {
    const KvCache trimmed = text.cache.copy(tokens);
    const at::Tensor slots = trimmed.tensor().cpu().contiguous();
    const at::Tensor features = text.first_features(tokens, text.asked);
    const at::Tensor rows = features.defined() ? features.cpu().contiguous() : features;
    const auto ids = std::as_bytes(std::span(text.tokens).first(static_cast<std::size_t>(tokens)));
    std::vector<SafeTensorView> tensors{{"tokens", SafeDtype::i32, {tokens}, ids}, view("slots", slots)};
    if (rows.defined()) tensors.push_back(view("features", rows));
    write_safetensors(path, tensors,
                      {{"format", kReadTextFormat},
                       {"fingerprint", reader.fingerprint},
                       {"arithmetic", reader.arithmetic},
                       {"feature_layers", fmt::format("{}", fmt::join(text.asked.layers, ","))}});
}

ReadText read_read_text(const std::filesystem::path& path, KvCache empty, const ReaderName& reader) {
    const SafeTensors file = SafeTensors::open(path);
    require(metadata_of(file, "format") == kReadTextFormat, ErrorKind::damaged_file, "{}: expected a file of {}",
            file.name(), kReadTextFormat);
    require(metadata_of(file, "fingerprint") == reader.fingerprint,
            "{}: it was written for another checkpoint; load it with the model that wrote it", file.name());
    require(metadata_of(file, "arithmetic") == reader.arithmetic,
            "{}: it was written with {}, this model is held as {}; load it as it was held", file.name(),
            metadata_of(file, "arithmetic"), reader.arithmetic);
    const SafeTensor& ids = file.tensor("tokens");
    require(ids.dtype == SafeDtype::i32 && ids.shape.size() == 1 && ids.elements() > 0, ErrorKind::damaged_file,
            "{}: tokens must be a list of I32", file.name());
    ReadText text{.tokens = std::vector<TokenId>(static_cast<std::size_t>(ids.elements())), .cache = std::move(empty)};
    std::memcpy(text.tokens.data(), ids.data.data(), ids.data.size());
    text.cache.load(tensor_from(file, file.tensor("slots"), text.cache.options()), ids.elements());
    if (!file.has("features")) return text;
    text.asked = {.wanted = true, .layers = layers_from(file)};
    text.features.push_back(tensor_from(file, file.tensor("features"), text.cache.options().dtype(at::kFloat)));
    const at::Tensor& rows = text.features.back();
    const std::vector<std::int64_t>& layers = text.asked.layers;
    const bool known = std::ranges::all_of(layers, [&](auto layer) { return layer >= 1 && layer <= reader.layers; });
    require(known && std::ranges::adjacent_find(layers, std::greater_equal<>()) == layers.end(),
            ErrorKind::damaged_file, "{}: feature_layers is \"{}\", expected numbers from 1 to {}, ascending",
            file.name(), metadata_of(file, "feature_layers"), reader.layers);
    const std::int64_t width = text.asked.width(reader.hidden);
    require(rows.dim() == 2 && rows.size(0) == ids.elements() && rows.size(1) == width, ErrorKind::damaged_file,
            "{}: features are {}, expected [{}, {}], a row of this model's {} for each token and layer; save the text "
            "again",
            file.name(), fmt::format("[{}]", fmt::join(rows.sizes(), ", ")), ids.elements(), width, reader.hidden);
    return text;
}

}  // namespace outrider
