#include <outrider/target/target_head.hpp>

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>

#include "checkpoint.hpp"
#include "cuda_module.hpp"

namespace outrider {
namespace {

/// Rows are read from the file as they are asked for: nothing else of it stays in memory.
TargetHead head_of(const Checkpoint& opened, const c10::Device& device) {
    open_device(device);
    const ModelConfig& config = opened.config;
    const auto reader = [&](const char* table, double scale) {
        return [source = opened.source, hidden = config.hidden, device, table, scale](std::span<const TokenId> ids) {
            const at::NoGradGuard no_grad;
            at::Tensor rows = at::empty({std::ssize(ids), hidden}, at::kFloat);
            source->read_rows(table, ids, rows.data_ptr<float>());
            if (scale != 1.0) rows.mul_(scale);
            return rows.to(device);
        };
    };
    return {.fingerprint = opened.source->fingerprint(config),
            .hidden = config.hidden,
            .vocabulary = config.vocabulary,
            .embed = reader("embed", config.embedding_scale),
            .output_rows = reader(config.tied_output ? "embed" : "output", 1.0),
            .final_norm = at::tensor(opened.source->floats("norm")).to(device),
            .norm_eps = config.norm_eps,
            .tokenizer = tokenizer_fingerprint(*opened.tokenizer)};
}

}  // namespace

TargetHead TargetHead::from_gguf(const std::filesystem::path& file, c10::Device device) {
    require(!std::filesystem::is_directory(file), "TargetHead: {} is a folder, expected a GGUF file; use from_folder",
            file.string());
    return detail::translate([&] { return head_of(Checkpoint::open(file, 0), device); });
}

TargetHead TargetHead::from_folder(const std::filesystem::path& folder, c10::Device device) {
    std::error_code error;
    require(!std::filesystem::exists(folder, error) || std::filesystem::is_directory(folder, error),
            "TargetHead: {} is a file, expected a folder; use from_gguf", folder.string());
    return detail::translate([&] { return head_of(Checkpoint::open(folder, 0), device); });
}

}  // namespace outrider
