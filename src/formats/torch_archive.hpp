// Tensors from torch.save of a state_dict (.pt, .bin): one file or a Hugging Face folder of shards, memory-mapped.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/formats/detail/mapped_file.hpp>
#include <outrider/formats/detail/safetensors.hpp>

namespace outrider {

/// A cheap handle on immutable, parsed files: a zip archive with data.pkl, as torch.save writes since version 1.6. The
/// pickle is read, not run: a dict or OrderedDict of tensors or parameters in it, built by a short list of opcodes and
/// globals; every other one is an Error that names it. Tensors are views of the mapping where they are contiguous;
/// others (transposed, strided) are gathered into memory of the handle's own, as are files of big-endian machines. All
/// that together may take twice the file's bytes at most.
class TorchArchive {
public:
    /// A file, or a folder with pytorch_model.bin.index.json and its shards, or with pytorch_model.bin. Throws Error.
    [[nodiscard]] static TorchArchive open(const std::filesystem::path& path);

    /// One file's bytes in memory; `name` stands in messages.
    [[nodiscard]] static TorchArchive parse(SharedBytes bytes, std::string name);

    [[nodiscard]] bool has(std::string_view name) const;
    /// Throws Error when there is none of that name.
    [[nodiscard]] const SafeTensor& tensor(std::string_view name) const;
    /// In the order of the dict, file by file. `data` is valid while any copy of the TorchArchive lives.
    [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept;
    [[nodiscard]] std::vector<std::string> names() const;

    /// SharedBytes::drop_pages for a tensor's data.
    void drop_pages(std::span<const std::byte> part) const noexcept;

    /// The path, for messages.
    [[nodiscard]] const std::string& name() const noexcept;

private:
    struct Contents;
    explicit TorchArchive(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}
    std::shared_ptr<const Contents> contents_;
};

}  // namespace outrider
