// The sizes and constants of a Llama-family target, from a GGUF file's metadata or a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <outrider/core/detail/export.hpp>

namespace outrider {

class GgufFile;

/// How the rotary frequencies are scaled for long contexts.
struct RopeScaling {
    enum class Kind { none, linear, llama3 };
    Kind kind = Kind::none;
    double factor = 1.0;               ///< linear and llama3
    double low_freq_factor = 1.0;      ///< llama3
    double high_freq_factor = 4.0;     ///< llama3
    double original_context = 8192.0;  ///< llama3
};

/// Llama family: pre-norm blocks of RMS norm, rotary grouped-query attention and a SiLU-gated feed-forward, no biases.
struct OUTRIDER_API LlamaConfig {
    std::string name;  ///< as the checkpoint calls itself; may be empty
    std::int64_t layers = 0;
    std::int64_t hidden = 0;  ///< H
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;  ///< divides heads
    std::int64_t head_dim = 0;  ///< even
    std::int64_t feed_forward = 0;
    std::int64_t vocabulary = 0;  ///< V
    std::int64_t context = 0;     ///< most positions
    std::int64_t window = 0;      ///< newest positions that a token sees, its own among them; 0: all
    double rope_theta = 10000.0;
    double norm_eps = 1e-5;
    bool tied_output = false;  ///< the output matrix is the embedding
    RopeScaling rope = {};
    /// [head_dim / 2] further divisors of the frequencies ("rope_freqs.weight" of GGUF files, which is how they hold
    /// "llama3" scaling); empty: none.
    std::vector<float> rope_divisors = {};

    /// Throws Error for another architecture and for every feature that is not supported, by name.
    [[nodiscard]] static LlamaConfig from_gguf(const GgufFile& file);
    /// `folder` holds config.json.
    [[nodiscard]] static LlamaConfig from_hf(const std::filesystem::path& folder);

    /// Throws Error unless the sizes make sense together. Called by the two readers.
    void check() const;

    /// [head_dim / 2] angle per position of each rotary pair, in the float32 arithmetic that the models were trained
    /// with. "llama3": Llama 3.1's smooth change between scaled and unscaled frequencies.
    [[nodiscard]] std::vector<float> rope_frequencies() const;
};

}  // namespace outrider
