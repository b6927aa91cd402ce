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
            fail("{}: tensor \"{}\" is stored as {}, which is not supported; expected F32, F16 or BF16", file,
                 tensor.name, safe_dtype_name(tensor.dtype));
    }
}

}  // namespace

WeightSource WeightSource::from_hf(const NamedTensors& file, const LlamaConfig& config) {
    WeightSource source;
    source.drop_pages_ = [file](std::span<const std::byte> part) { file.drop_pages(part); };
    FileTensors tensors;
    for (const SafeTensor& tensor : file.tensors()) {
        require(tensor.shape.size() <= 2 && !tensor.shape.empty(), "{}: tensor \"{}\" has {} dimensions, expected a "
                "vector or a matrix", file.name(), tensor.name, tensor.shape.size());
        tensors.emplace(tensor.name, Entry{.file_name = tensor.name, .type = ggml_type(tensor, file.name()),
                                           .rows = tensor.shape[0],
                                           .columns = tensor.shape.size() > 1 ? tensor.shape[1] : 0,
                                           .data = tensor.data});
    }
    source.take(tensors, config, false, file.name());
    return source;
}

}  // namespace outrider
