// Tensors by name, from safetensors or from archives of torch.save.
#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/formats/detail/safetensors.hpp>

namespace outrider {

/// A cheap handle on immutable files.
class NamedTensors {
public:
    /// A file of either format, told apart by its ending or content, or a folder: model.safetensors or its index and
    /// shards, else pytorch_model.bin or its index and shards. Throws Error. Archives of torch.save need the compiled
    /// library: their pickles are read by it alone.
    [[nodiscard]] static NamedTensors open(const std::filesystem::path& path);

    /// Of anything with the members of SafeTensors that are called below.
    template <typename File>
        requires(!std::same_as<File, NamedTensors>)
    NamedTensors(File file) : file_(std::make_shared<const Held<File>>(std::move(file))) {}

    [[nodiscard]] bool has(std::string_view name) const { return file_->has(name); }
    /// Throws Error when there is none of that name.
    [[nodiscard]] const SafeTensor& tensor(std::string_view name) const { return file_->tensor(name); }
    [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept { return file_->tensors(); }
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> result;
        for (const SafeTensor& tensor : tensors()) result.push_back(tensor.name);
        return result;
    }
    /// SharedBytes::drop_pages for a tensor's data.
    void drop_pages(std::span<const std::byte> part) const noexcept { file_->drop_pages(part); }
    /// The path, for messages.
    [[nodiscard]] const std::string& name() const noexcept { return file_->name(); }

private:
    struct Form {
        virtual ~Form() = default;
        [[nodiscard]] virtual bool has(std::string_view name) const = 0;
        [[nodiscard]] virtual const SafeTensor& tensor(std::string_view name) const = 0;
        [[nodiscard]] virtual const std::vector<SafeTensor>& tensors() const noexcept = 0;
        virtual void drop_pages(std::span<const std::byte> part) const noexcept = 0;
        [[nodiscard]] virtual const std::string& name() const noexcept = 0;
    };
    template <typename File>
    struct Held final : Form {
        explicit Held(File opened) : file(std::move(opened)) {}
        [[nodiscard]] bool has(std::string_view name) const override { return file.has(name); }
        [[nodiscard]] const SafeTensor& tensor(std::string_view name) const override { return file.tensor(name); }
        [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept override { return file.tensors(); }
        void drop_pages(std::span<const std::byte> part) const noexcept override { file.drop_pages(part); }
        [[nodiscard]] const std::string& name() const noexcept override { return file.name(); }
        File file;
    };
    std::shared_ptr<const Form> file_;
};

namespace detail {

/// An archive of torch.save, or a folder of its shards. Compiled (formats/detail/named_tensors.cpp); headers alone
/// refuse it.
[[nodiscard]] OUTRIDER_API NamedTensors open_torch_archive(const std::filesystem::path& path);

}  // namespace detail

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/formats/detail/named_tensors-inl.hpp>
#endif
