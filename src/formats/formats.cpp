// The bodies of the room's headers, compiled once.
#include <outrider/formats/detail/json_text-inl.hpp>
#include <outrider/formats/detail/mapped_file-inl.hpp>
#include <outrider/formats/detail/named_tensors-inl.hpp>
#include <outrider/formats/detail/safetensors-inl.hpp>
#include <outrider/formats/detail/safetensors_write-inl.hpp>
#include <outrider/formats/detail/shard_index-inl.hpp>
