// What a checkpoint says of itself, without reading its weights: for `outrider inspect --model FILE`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace outrider::cli {

/// The tensors of one kind in all layers, "attn_q" of "blk.0.attn_q.weight" and the others.
struct TensorKind {
    std::string name;
    std::int64_t tensors = 0, parameters = 0, bytes = 0;
    std::map<std::string, std::int64_t> formats = {};  ///< how many are held in each
};

struct ModelFacts {
    std::string format = {};                                      ///< "GGUF", "Hugging Face"
    std::string family = {};                                      ///< general.architecture, model_type; empty: not said
    std::string name = {};                                        ///< as the checkpoint calls itself; may be empty
    std::vector<std::pair<std::string, std::string>> sizes = {};  ///< label and value, those that the file has
    std::vector<TensorKind> tensors = {};                         ///< in the order of the file
    std::set<std::string> unreadable = {};                        ///< number formats that no weights can be read from
    std::string tokenizer = {};                                   ///< kind and pre-tokenizer; empty: not said
    std::optional<std::int64_t> hidden = {}, context = {};
    std::optional<std::int64_t> rows = {};          ///< of the embedding
    std::optional<std::int64_t> cache_values = {};  ///< numbers that a token adds to the cache of keys and values

    [[nodiscard]] std::int64_t parameters() const;
    [[nodiscard]] std::int64_t bytes() const;
    [[nodiscard]] std::int64_t count() const;  ///< tensors
};

/// Reads a GGUF file (or the parts of one) or a Hugging Face folder, of any family. Throws Error for what is neither,
/// and for a damaged file.
[[nodiscard]] ModelFacts read_facts(const std::filesystem::path& path);

/// "97.9 MB": 1 MB is 1,000,000 bytes.
[[nodiscard]] std::string readable_bytes(std::int64_t bytes);

}  // namespace outrider::cli
