#include "formats/named_tensors.hpp"

#include <outrider/core/error.hpp>

#include "zip_archive.hpp"

namespace outrider {

NamedTensors NamedTensors::open(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) {
        const auto ending = path.extension();
        const bool torch = ending == ".pt" || ending == ".pth" || ending == ".bin" ||
                           detail::looks_like_zip(SharedBytes::map(path).span());
        if (torch) return TorchArchive::open(path);
        return SafeTensors::open(path);
    }
    const auto has = [&](const char* file) { return std::filesystem::exists(path / file, ignored); };
    if (has("model.safetensors") || has("model.safetensors.index.json")) return SafeTensors::open(path);
    require(has("pytorch_model.bin") || has("pytorch_model.bin.index.json"),
            "{}: expected model.safetensors, "
            "pytorch_model.bin, or one of them with .index.json and shards in the folder",
            path.string());
    return TorchArchive::open(path);
}

}  // namespace outrider
