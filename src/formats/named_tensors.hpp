// Tensors by name, from safetensors or from archives of torch.save.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <outrider/formats/safetensors.hpp>
#include "formats/torch_archive.hpp"

namespace outrider {

/// A cheap handle on immutable files.
class NamedTensors {
public:
    /// A file of either format, told apart by its ending or content, or a folder: model.safetensors or its index and
    /// shards, else pytorch_model.bin or its index and shards. Throws Error.
    [[nodiscard]] static NamedTensors open(const std::filesystem::path& path);

    NamedTensors(SafeTensors file) : file_(std::move(file)) {}
    NamedTensors(TorchArchive file) : file_(std::move(file)) {}

    [[nodiscard]] bool has(std::string_view name) const {
        return std::visit([&](const auto& file) { return file.has(name); }, file_);
    }
    /// Throws Error when there is none of that name.
    [[nodiscard]] const SafeTensor& tensor(std::string_view name) const {
        return std::visit([&](const auto& file) -> const SafeTensor& { return file.tensor(name); }, file_);
    }
    [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept {
        return std::visit([](const auto& file) -> const std::vector<SafeTensor>& { return file.tensors(); }, file_);
    }
    [[nodiscard]] std::vector<std::string> names() const {
        return std::visit([](const auto& file) { return file.names(); }, file_);
    }
    /// SharedBytes::drop_pages for a tensor's data.
    void drop_pages(std::span<const std::byte> part) const noexcept {
        std::visit([&](const auto& file) { file.drop_pages(part); }, file_);
    }
    /// The path, for messages.
    [[nodiscard]] const std::string& name() const noexcept {
        return std::visit([](const auto& file) -> const std::string& { return file.name(); }, file_);
    }

private:
    std::variant<SafeTensors, TorchArchive> file_;
};

}  // namespace outrider
