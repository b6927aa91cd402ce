// What a dense decoder is made of: sizes, optional parts and constants, from a GGUF file's metadata or a Hugging Face
// config.json; and the forms in which its matrices can be held. One description serves every family (docs/models.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>

namespace outrider {

class GgufFile;

/// A rotary embedding: the angle of each pair of dimensions, a position.
struct OUTRIDER_API RopeConfig {
    /// How the frequencies are scaled for long contexts. longrope: by `divisors` alone, which the reader chooses.
    enum class Kind { none, linear, llama3, yarn, longrope };
    Kind kind = Kind::none;
    double theta = 10000.0;
    double factor = 1.0;               ///< linear, llama3 and yarn
    double low_freq_factor = 1.0;      ///< llama3
    double high_freq_factor = 4.0;     ///< llama3
    double original_context = 8192.0;  ///< llama3, yarn and longrope
    double beta_fast = 32.0;           ///< yarn: pairs that turn more often than this in the original context stay
    double beta_slow = 1.0;            ///< yarn: pairs that turn less often are divided by `factor`
    bool truncate = true;              ///< yarn: the two bounds are rounded to whole pairs
    double magnitude = 1.0;            ///< cosines and sines are multiplied by it
    /// [pairs] further divisors of the frequencies: "rope_freqs.weight" of GGUF files, which is how they hold "llama3"
    /// scaling, or longrope's factors; empty: none.
    std::vector<float> divisors = {};

    /// [dimensions / 2] angle per position of each pair, in the float32 arithmetic that the models were trained with.
    /// "llama3": Llama 3.1's smooth change between scaled and unscaled frequencies. "yarn": Peng et al., 2023
    /// (arXiv 2309.00071).
    [[nodiscard]] std::vector<float> frequencies(std::int64_t dimensions) const;
};

/// Blocks of grouped-query attention and a gated feed-forward, each added to the residual stream. What a family leaves
/// out stands at its default, which is Llama's.
struct OUTRIDER_API ModelConfig {
    enum class Activation : unsigned char { silu, gelu_tanh };
    /// RMS norm of queries and keys before they are rotated.
    enum class HeadNorm : unsigned char {
        none,
        each,   ///< over each head, one weight [head_dim] for all
        whole,  ///< over all heads of a row
    };

    std::string name;    ///< as the checkpoint calls itself; may be empty
    std::string family;  ///< "llama", "qwen3", ...: a row of docs/models.md
    std::int64_t layers = 0;
    std::int64_t hidden = 0;  ///< H
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;  ///< divides heads
    std::int64_t head_dim = 0;  ///< even
    std::int64_t feed_forward = 0;
    std::int64_t vocabulary = 0;  ///< V
    std::int64_t context = 0;     ///< most positions
    std::int64_t rotated = 0;     ///< dimensions at a head's beginning that turn; even
    std::int64_t window = 0;      ///< newest positions that a token sees, its own among them; 0: all
    double norm_eps = 1e-5;
    bool tied_output = false;  ///< the output matrix is the embedding

    std::vector<bool> windowed = {};   ///< [layers] where the window holds; empty: everywhere
    std::vector<bool> unrotated = {};  ///< [layers] without rotary embedding; empty: none
    RopeConfig rope = {};
    std::optional<RopeConfig> local_rope = {};  ///< of the windowed layers; empty: the same

    bool qkv_bias = false, o_bias = false, mlp_bias = false;
    HeadNorm head_norm = HeadNorm::none;
    bool pre_norms = true;    ///< of what attention and feed-forward read
    bool post_norms = false;  ///< of what they add to the stream
    Activation activation = Activation::silu;

    double score_scale = 0;      ///< of q k; 0: 1 / sqrt(head_dim)
    double score_cap = 0;        ///< scores become cap tanh(score / cap); 0: as they are
    double logit_cap = 0;        ///< the same for logits
    double embedding_scale = 1;  ///< embeddings are multiplied by it
    double residual_scale = 1;   ///< what a block adds to the stream is multiplied by it
    double logit_scale = 1;      ///< logits are multiplied by it
    /// Queries at position p are multiplied by 1 + query_growth ln(1 + floor(p / query_period)).
    double query_growth = 0, query_period = 1;

    /// Throws Error for a family that is not known and for every feature that is not supported, by name. `context` > 0:
    /// the most positions that will be used, which decides between the two sets of "longrope" factors.
    [[nodiscard]] static ModelConfig from_gguf(const GgufFile& file, std::int64_t context = 0);
    /// The same; `folder` holds config.json.
    [[nodiscard]] static ModelConfig from_hf(const std::filesystem::path& folder, std::int64_t context = 0);

    /// Throws Error unless the sizes make sense together. Called by the two readers.
    void check() const;

    /// Newest positions that a token sees in a layer; 0: all.
    [[nodiscard]] std::int64_t window_of(std::int64_t layer) const {
        return windowed.empty() || windowed[static_cast<std::size_t>(layer)] ? window : 0;
    }
    /// Rotary embedding of a layer; null: none.
    [[nodiscard]] const RopeConfig* rope_of(std::int64_t layer) const {
        if (!unrotated.empty() && unrotated[static_cast<std::size_t>(layer)]) return nullptr;
        return local_rope && window_of(layer) > 0 ? &*local_rope : &rope;
    }
    /// What scores are multiplied by.
    [[nodiscard]] double scale_of_scores() const;
    /// What queries at a position are multiplied by.
    [[nodiscard]] double scale_of_queries(std::int64_t position) const;
};

/// The forms in which matrices can be held.
enum class Weights {
    automatic,  ///< as stored where a fast path exists, else bf16
    stored,     ///< the file's own blocks, multiplied by integer products (CPU)
    bf16,
    f32,
    int8,  ///< packed at load to 8 bits in blocks of 32 (CPU)
};

/// "auto" (or "automatic"), "stored", "bf16", "f32", "int8". Throws Error for other names.
[[nodiscard]] OUTRIDER_API Weights weights_by_name(std::string_view name);
[[nodiscard]] OUTRIDER_API std::string_view name_of(Weights weights);

}  // namespace outrider
