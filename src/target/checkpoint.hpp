// A checkpoint as its files hold it, before anything is computed with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <outrider/target/model_config.hpp>
#include <outrider/text/tokenizer.hpp>

#include "weight_source.hpp"

namespace outrider {

struct Checkpoint {
    ModelConfig config;
    std::shared_ptr<const WeightSource> source;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::string note = {};  ///< where its files disagree, and which of them counts

    /// `path`: a GGUF file, or a Hugging Face folder; `context`: as in ModelConfig. Throws Error, also where tokenizer
    /// and weights do not belong together.
    [[nodiscard]] static Checkpoint open(const std::filesystem::path& path, std::int64_t context);
};

/// A hash of every token's bytes and of their count.
[[nodiscard]] std::string tokenizer_fingerprint(const Tokenizer& tokenizer);

}  // namespace outrider
