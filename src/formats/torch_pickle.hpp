// The pickle of a state_dict: which tensor lies where in which storage. Few opcodes and names, nothing is run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/formats/detail/safetensors.hpp>

namespace outrider::detail {

/// A tensor as a view of a storage; sizes, strides and offset count elements. Not checked against the storage's bytes.
struct PickledTensor {
    std::string_view name;  ///< these two point into the pickle
    std::string_view storage;
    SafeDtype dtype = SafeDtype::f32;
    std::int64_t storage_elements = 0;
    std::int64_t offset = 0;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> stride;  ///< as long as `shape`; no number is negative
};

/// Reads what torch.save(module.state_dict()) writes as data.pkl (protocol 2): a dict or OrderedDict of tensors or
/// parameters. `name` stands in messages. Throws Error for everything else, and names the opcode or global.
[[nodiscard]] std::vector<PickledTensor> read_state_dict(std::span<const std::byte> pickle, const std::string& name);

}  // namespace outrider::detail
