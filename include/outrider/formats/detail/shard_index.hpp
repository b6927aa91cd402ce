// The index of a Hugging Face folder of shards, "model.safetensors.index.json" or "pytorch_model.bin.index.json".
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace outrider::detail {

/// File name of each tensor, by tensor. Throws Error for names that leave the folder.
[[nodiscard]] std::map<std::string, std::string> read_shard_index(const std::filesystem::path& path);

}  // namespace outrider::detail

#ifndef OUTRIDER_COMPILED
#include <outrider/formats/detail/shard_index-inl.hpp>
#endif
