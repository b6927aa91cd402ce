// A text as a target has read it, in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <outrider/target/detail/prefix_cache.hpp>

namespace outrider {

/// What made a file, and must read it: keys and values mean something to the same checkpoint and arithmetic alone.
struct ReaderName {
    std::string fingerprint;  ///< of the checkpoint
    std::string arithmetic;   ///< of its weights as held, and of the cache
    std::int64_t hidden;      ///< width of its features, one layer's
    std::int64_t layers;      ///< whose features it may be asked for
};

/// Writes the first `tokens` tokens of a text with all that is known of them: safetensors, whole or not at all.
void write_read_text(const std::filesystem::path& path, const ReadText& text, std::int64_t tokens,
                     const ReaderName& reader);

/// Throws Error for a file that is damaged, or of another reader. `empty`: a cache as the reader makes them.
[[nodiscard]] ReadText read_read_text(const std::filesystem::path& path, KvCache empty, const ReaderName& reader);

}  // namespace outrider
