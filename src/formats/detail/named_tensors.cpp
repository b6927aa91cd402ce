// Archives of torch.save among the files of tensors.
#include <outrider/formats/detail/named_tensors.hpp>

#include "formats/torch_archive.hpp"

namespace outrider::detail {

NamedTensors open_torch_archive(const std::filesystem::path& path) { return TorchArchive::open(path); }

}  // namespace outrider::detail
