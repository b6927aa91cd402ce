// The table of families: what each adds to a Llama, and under which keys and names its files say so. A new family is a
// row of it and a golden (tests/oracle/make_family_golden.py).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <outrider/target/model_config.hpp>

namespace outrider {

class GgufKeys;
struct HfConfig;

/// One row.
struct Family {
    std::string_view name;                    ///< ModelConfig::family
    std::string_view gguf = {};               ///< general.architecture; empty: its GGUF files say "llama"
    std::vector<std::string_view> hf;         ///< model_type, or the first of `architectures`
    bool gguf_pairs = false;                  ///< rotary pairs are neighbours in GGUF files, else half a head apart
    bool hf_pairs = false;                    ///< the same in Hugging Face files
    bool hf_partial = false;                  ///< partial_rotary_factor is heeded
    float hf_norm_offset = 0;                 ///< added to the norms of Hugging Face files
    std::string_view hf_post_attention = {};  ///< names of norms there
    std::string_view hf_mlp_norm = "post_attention_layernorm";
    std::string_view hf_post_mlp = {};
    void (*parts)(ModelConfig&) = nullptr;                       ///< what both formats share
    void (*read_gguf)(const GgufKeys&, ModelConfig&) = nullptr;  ///< keys of its own
    void (*read_hf)(const HfConfig&, ModelConfig&) = nullptr;    ///< fields of its own
};

/// By general.architecture. Throws Error that names what is missing.
[[nodiscard]] const Family& gguf_family(std::string_view architecture, const std::string& file);
/// By model_type or class.
[[nodiscard]] const Family& hf_family(std::string_view type, const std::string& file);
/// By ModelConfig::family.
[[nodiscard]] const Family& family_named(std::string_view name);

}  // namespace outrider
