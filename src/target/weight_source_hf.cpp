#include <algorithm>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/named_tensors.hpp>

#include "weight_source.hpp"

namespace outrider {
namespace {

GgmlType ggml_type(const SafeTensor& tensor, const std::string& file) {
    switch (tensor.dtype) {
        case SafeDtype::f32: return GgmlType::f32;
        case SafeDtype::f16: return GgmlType::f16;
        case SafeDtype::bf16: return GgmlType::bf16;
        default:
            fail(ErrorKind::not_supported,
                 "{}: tensor \"{}\" is stored as {}, which is not supported; expected F32, F16 or BF16", file,
                 tensor.name, safe_dtype_name(tensor.dtype));
    }
}

constexpr const char *kEmbedding = "model.embed_tokens.weight", *kOutput = "lm_head.weight";

}  // namespace

bool WeightSource::has_tied_output(const NamedTensors& file, const ModelConfig& config) {
    if (!config.tied_output) {
        require(file.has(kOutput), ErrorKind::damaged_file,
                "{}: tensor \"{}\" is missing, and config.json says tie_word_embeddings false (or nothing, "
                "which means that); expected the tensor, or true",
                file.name(), kOutput);
        return false;
    }
    if (!file.has(kOutput) || !file.has(kEmbedding)) return true;
    const SafeTensor &output = file.tensor(kOutput), &embedding = file.tensor(kEmbedding);
    const bool same = output.dtype == embedding.dtype && output.shape == embedding.shape &&
                      std::ranges::equal(output.data, embedding.data);
    file.drop_pages(output.data);
    file.drop_pages(embedding.data);
    return same;
}

WeightSource WeightSource::from_hf(const NamedTensors& file, const ModelConfig& config) {
    WeightSource source;
    source.drop_pages_ = [file](std::span<const std::byte> part) { file.drop_pages(part); };
    FileTensors tensors;
    for (const SafeTensor& tensor : file.tensors()) {
        require(tensor.shape.size() <= 2 && !tensor.shape.empty(), ErrorKind::damaged_file,
                "{}: tensor \"{}\" has {} dimensions, expected a "
                "vector or a matrix",
                file.name(), tensor.name, tensor.shape.size());
        tensors.emplace(tensor.name, Entry{.file_name = tensor.name,
                                           .type = ggml_type(tensor, file.name()),
                                           .rows = tensor.shape[0],
                                           .columns = tensor.shape.size() > 1 ? tensor.shape[1] : 0,
                                           .data = tensor.data});
    }
    if (config.tied_output && !tensors.contains(kEmbedding) && tensors.contains(kOutput)) {
        tensors.emplace(kEmbedding, tensors.at(kOutput));  // one matrix for both, under its other name
        tensors.erase(kOutput);
    }
    source.take(tensors, config, false, file.name());
    return source;
}

}  // namespace outrider
