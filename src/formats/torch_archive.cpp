#include "formats/torch_archive.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include <outrider/formats/detail/shard_index.hpp>
#include "torch_pickle.hpp"
#include "zip_archive.hpp"

// Format: torch/serialization.py and caffe2/serialize/inline_container.h of PyTorch: NAME/data.pkl, NAME/data/KEY for
// each storage and, in newer files, NAME/byteorder.
namespace outrider {
namespace {

using detail::PickledTensor;

/// One file: its tensors, and the memory of those that are not views of it.
struct ArchiveFile {
    SharedBytes bytes;
    std::vector<SafeTensor> tensors;
    std::vector<std::vector<std::byte>> owned;
};

/// Numbers that the sizes count; nothing when they are more than 2^62.
std::optional<std::int64_t> elements_of(const std::vector<std::int64_t>& shape) {
    constexpr std::int64_t kMost = std::int64_t{1} << 62;
    if (std::ranges::find(shape, 0) != shape.end()) return 0;
    std::int64_t elements = 1;
    for (const std::int64_t size : shape) {
        if (size > kMost / elements) return std::nullopt;
        elements *= size;
    }
    return elements;
}

bool is_contiguous(const PickledTensor& tensor) {
    std::int64_t expected = 1;  // elements_of has checked the product
    for (std::size_t i = tensor.shape.size(); i-- > 0;) {
        if (tensor.shape[i] != 1 && tensor.stride[i] != expected) return false;
        expected *= tensor.shape[i];
    }
    return true;
}

/// True when a tensor with numbers reaches no further than its storage.
bool fits_storage(const PickledTensor& tensor) {
    std::int64_t left = tensor.storage_elements - 1;
    if (tensor.offset > left) return false;
    left -= tensor.offset;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
        const std::int64_t steps = tensor.shape[i] - 1;
        if (steps > 0 && tensor.stride[i] > left / steps) return false;
        left -= steps * tensor.stride[i];
    }
    return true;
}

class ArchiveReader {
public:
    ArchiveReader(SharedBytes bytes, const std::string& name) : name_(name) {
        file_.bytes = std::move(bytes);
        budget_ = 2 * file_.bytes.size();
    }

    ArchiveFile read() {
        const auto all = file_.bytes.span();
        require(detail::looks_like_zip(all), ErrorKind::damaged_file,
                "{}: expected a zip archive as torch.save writes since version 1.6, got {}"
                "; load an old file with torch.load and save it again",
                name_, all.size() >= 2 && all[0] == std::byte{0x80} ? "a bare pickle" : "something else");
        for (const detail::ZipEntry& entry : detail::read_zip(all, name_)) entries_.emplace(entry.name, entry.data);
        find_folder();
        const auto order = entries_.find(folder_ + "byteorder");
        if (order != entries_.end()) {
            const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
            require(text == "little" || text == "big", ErrorKind::damaged_file,
                    "{}: its byteorder is \"{}\", expected little or big", name_, to_valid_utf8(text.substr(0, 100)));
            swapped_ = text == "big";
        }
        const auto pickle = entries_.at(folder_ + "data.pkl");
        for (const PickledTensor& tensor : detail::read_state_dict(pickle, name_)) add(tensor);
        return std::move(file_);
    }

private:
    /// The one folder of all entries, named after the file that was saved first.
    void find_folder() {
        for (const auto& [path, data] : entries_) {
            const auto slash = path.find('/');
            if (slash == std::string::npos || path.substr(slash + 1) != "data.pkl") continue;
            require(folder_.empty(), ErrorKind::damaged_file, "{}: it holds several data.pkl", name_);
            folder_ = path.substr(0, slash + 1);
        }
        require(!folder_.empty(), ErrorKind::damaged_file,
                "{}: it holds no NAME/data.pkl; expected what torch.save writes", name_);
        require(!entries_.contains(folder_ + "constants.pkl"), ErrorKind::damaged_file,
                "{}: it is a TorchScript program; expected the "
                "state_dict, saved with torch.save",
                name_);
    }

    void add(const PickledTensor& from) {
        SafeTensor tensor;
        tensor.name = from.name, tensor.dtype = from.dtype, tensor.shape = from.shape;
        const auto elements = elements_of(from.shape);
        require(elements.has_value() && (*elements == 0 || fits_storage(from)), ErrorKind::damaged_file,
                "{}: tensor {} reaches beyond its "
                "storage of {} numbers",
                name_, from.name, from.storage_elements);
        const auto storage = storage_of(from);
        const std::size_t size = safe_dtype_bytes(from.dtype), count = static_cast<std::size_t>(*elements);
        if (count == 0) {
            tensor.data = {};
        } else if (is_contiguous(from)) {
            tensor.data = storage.subspan(static_cast<std::size_t>(from.offset) * size, count * size);
        } else {
            require(count <= budget_ / size, ErrorKind::damaged_file,
                    "{}: tensor {} is strided and would take {} numbers of memory, more than "
                    "a file of this size may; save it contiguous",
                    name_, from.name, count);
            tensor.data = gather(from, storage, count);
        }
        file_.tensors.push_back(std::move(tensor));
    }

    /// The bytes of a tensor's storage, in this machine's order.
    std::span<const std::byte> storage_of(const PickledTensor& tensor) {
        const auto found = entries_.find(folder_ + "data/" + std::string(tensor.storage));
        require(found != entries_.end(), ErrorKind::damaged_file, "{}: the storage {} of tensor {} is missing", name_,
                tensor.storage, tensor.name);
        const std::size_t size = safe_dtype_bytes(tensor.dtype);
        const auto data = found->second;
        require(data.size() % size == 0 && data.size() / size == static_cast<std::uint64_t>(tensor.storage_elements),
                ErrorKind::damaged_file, "{}: the storage {} of tensor {} has {} bytes, expected {} numbers of {}",
                name_, tensor.storage, tensor.name, data.size(), tensor.storage_elements, size);
        if (!swapped_ || size == 1) return data;
        const auto [place, fresh] = swapped_storages_.try_emplace({found->first, size});
        if (fresh) {
            std::vector<std::byte>& copy = own(data.size());
            for (std::size_t i = 0; i < data.size(); ++i) copy[i] = data[i - i % size + (size - 1 - i % size)];
            place->second = copy;
        }
        return place->second;
    }

    /// Memory of the file's own, out of its budget.
    std::vector<std::byte>& own(std::size_t bytes) {
        require(bytes <= budget_, ErrorKind::damaged_file, "{}: its tensors would take more memory than twice the file",
                name_);
        budget_ -= bytes;
        return file_.owned.emplace_back(bytes);
    }

    /// A strided tensor in row-major order.
    std::span<const std::byte> gather(const PickledTensor& tensor, std::span<const std::byte> storage,
                                      std::size_t count) {
        const std::size_t size = safe_dtype_bytes(tensor.dtype), dims = tensor.shape.size();
        std::vector<std::byte>& out = own(count * size);
        std::vector<std::int64_t> place(dims, 0);
        std::int64_t at = tensor.offset;
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(out.data() + i * size, storage.data() + static_cast<std::size_t>(at) * size, size);
            for (std::size_t d = dims; d-- > 0;) {
                at += tensor.stride[d];
                if (++place[d] < tensor.shape[d]) break;
                at -= tensor.shape[d] * tensor.stride[d];
                place[d] = 0;
            }
        }
        return out;
    }

    const std::string& name_;
    ArchiveFile file_;
    std::size_t budget_ = 0;  // bytes that may still be copied
    std::map<std::string, std::span<const std::byte>> entries_;
    std::string folder_;  // with its slash
    bool swapped_ = false;
    std::map<std::pair<std::string, std::size_t>, std::span<const std::byte>> swapped_storages_;
};

}  // namespace

struct TorchArchive::Contents {
    std::string name;
    std::vector<ArchiveFile> files;  // without their tensors
    std::vector<SafeTensor> tensors;
    std::unordered_map<std::string, std::size_t> index;

    void add(ArchiveFile file) {
        for (SafeTensor& tensor : file.tensors) {
            require(index.emplace(tensor.name, tensors.size()).second, ErrorKind::damaged_file,
                    "{}: tensor {} is in two files", name, tensor.name);
            tensors.push_back(std::move(tensor));
        }
        file.tensors.clear();
        files.push_back(std::move(file));
    }

    void add(const std::filesystem::path& path) {
        const std::string shown = path.string();
        add(ArchiveReader(SharedBytes::map(path), shown).read());
    }

    void add_shards(const std::filesystem::path& folder, const std::filesystem::path& index_path) {
        const auto places = detail::read_shard_index(index_path);
        std::set<std::string> shards;
        for (const auto& [tensor, shard] : places) shards.insert(shard);
        for (const std::string& shard : shards) add(folder / shard);
        for (const auto& [tensor, shard] : places) {
            require(index.contains(tensor), ErrorKind::damaged_file, "{}: tensor {} should be in {} and is not",
                    index_path.string(), tensor, shard);
        }
    }
};

TorchArchive TorchArchive::open(const std::filesystem::path& path) {
    const auto contents = std::make_shared<Contents>();
    contents->name = path.string();
    std::error_code ignored;
    const auto index_path = path / "pytorch_model.bin.index.json";
    if (!std::filesystem::is_directory(path, ignored)) {
        contents->add(path);
    } else if (std::filesystem::exists(index_path, ignored)) {
        contents->add_shards(path, index_path);
    } else {
        require(std::filesystem::exists(path / "pytorch_model.bin", ignored), ErrorKind::damaged_file,
                "{}: expected pytorch_model.bin or "
                "pytorch_model.bin.index.json in the folder",
                path.string());
        contents->add(path / "pytorch_model.bin");
    }
    return TorchArchive(contents);
}

TorchArchive TorchArchive::parse(SharedBytes bytes, std::string name) {
    const auto contents = std::make_shared<Contents>();
    contents->name = std::move(name);
    contents->add(ArchiveReader(std::move(bytes), contents->name).read());
    return TorchArchive(contents);
}

bool TorchArchive::has(std::string_view name) const { return contents_->index.contains(std::string(name)); }

const SafeTensor& TorchArchive::tensor(std::string_view name) const {
    const auto found = contents_->index.find(std::string(name));
    require(found != contents_->index.end(), ErrorKind::damaged_file, "{}: tensor {} is missing", contents_->name,
            name);
    return contents_->tensors[found->second];
}

const std::vector<SafeTensor>& TorchArchive::tensors() const noexcept { return contents_->tensors; }

std::vector<std::string> TorchArchive::names() const {
    std::vector<std::string> result;
    for (const SafeTensor& tensor : contents_->tensors) result.push_back(tensor.name);
    return result;
}

const std::string& TorchArchive::name() const noexcept { return contents_->name; }
void TorchArchive::drop_pages(std::span<const std::byte> part) const noexcept {
    for (const ArchiveFile& file : contents_->files) file.bytes.drop_pages(part);
}

}  // namespace outrider
