// config.json of a Hugging Face folder: the fields of dense decoders.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

/// rope_scaling (transformers 4) or rope_parameters (5). Which types a model can run is the model's business.
struct HfRope {
    std::string type = "default";  ///< "linear", "dynamic", "yarn", "longrope", "llama3", ... as the file says
    double theta = 10000.0;
    double factor = 1.0;
    bool has_factor = false;
    double partial = 1.0;                        ///< partial_rotary_factor
    std::optional<double> low_freq_factor = {};  ///< of "llama3", as is the next
    std::optional<double> high_freq_factor = {};
    std::optional<std::int64_t> original_context = {};     ///< original_max_position_embeddings
    std::optional<double> beta_fast = {}, beta_slow = {};  ///< of "yarn", as are the next three
    std::optional<double> mscale = {}, mscale_all = {};
    bool truncate = true;
    std::optional<double> attention_factor = {};                ///< of "yarn" and "longrope"
    std::vector<double> short_factors = {}, long_factors = {};  ///< of "longrope"
    std::optional<double> query_growth = {};                    ///< llama_4_scaling_beta
};

/// Sizes are positive and below 2^31; what the file leaves out has the value that the model's configuration class in
/// `transformers` gives it (Llama's where the class is not known). Optional fields are empty where the file leaves them
/// out or says null.
struct HfConfig {
    std::string model_type;                  ///< "llama", "qwen3", ...; empty when not said
    std::vector<std::string> architectures;  ///< "LlamaForCausalLM"
    std::int64_t hidden_size = 0;
    std::int64_t intermediate_size = 0;
    std::int64_t layers = 0;    ///< num_hidden_layers
    std::int64_t heads = 0;     ///< num_attention_heads
    std::int64_t kv_heads = 0;  ///< num_key_value_heads; `heads` when null
    std::int64_t head_dim = 0;  ///< hidden_size / heads when left out
    std::int64_t vocab_size = 0;
    std::int64_t max_positions = 2048;  ///< max_position_embeddings
    double rms_norm_eps = 1e-6;
    HfRope rope;
    std::optional<HfRope> local_rope;  ///< of the layers with a window, where the file tells two kinds apart
    bool tie_word_embeddings = false;
    bool attention_bias = false;
    bool mlp_bias = false;
    std::optional<std::int64_t> sliding_window;  ///< empty when null
    std::string hidden_act = "silu";             ///< or hidden_activation
    std::optional<bool> use_sliding_window;
    std::optional<std::int64_t> max_window_layers, window_pattern;  ///< Qwen's; Gemma's sliding_window_pattern
    std::vector<bool> windowed_layers;                              ///< by layer_types; empty: not said
    std::optional<std::int64_t> no_rope_interval;                   ///< no_rope_layer_interval
    std::vector<bool> rotated_layers;                               ///< no_rope_layers, which are 1 where there is one
    std::optional<double> local_theta;                              ///< rope_local_base_freq
    std::optional<double> query_pre_attn_scalar;
    std::optional<double> score_cap, logit_cap;  ///< attn_, final_logit_softcapping; 0 for null
    bool bidirectional = false;                  ///< use_bidirectional_attention
    std::optional<double> embedding_multiplier, residual_multiplier, attention_multiplier, logits_scaling;
    std::vector<TokenId> bos_ids, eos_ids;  ///< none, one or several
    std::string torch_dtype;                ///< "bfloat16"; empty when not said
    std::string name;                       ///< the path, for messages
};

/// By model_type, or by the first architecture where that is left out.
[[nodiscard]] bool is_mistral(const HfConfig& config);

/// Reads `folder`/config.json. Throws Error for a missing file, a missing size, or a value of the wrong kind.
[[nodiscard]] HfConfig read_hf_config(const std::filesystem::path& folder);

/// The same from the text itself; `name` stands in messages.
[[nodiscard]] HfConfig parse_hf_config(std::string_view json, const std::string& name);

}  // namespace outrider
