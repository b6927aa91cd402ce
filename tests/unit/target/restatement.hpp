// The forward as it is defined: one row, one head, one list of keys at a time.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <vector>

#include <outrider/formats/detail/safetensors.hpp>
#include <outrider/target/llama_model.hpp>

namespace outrider::testing {

/// In f32.
class Restatement {
public:
    /// `folder`: the model's, a Hugging Face one.
    Restatement(const LlamaModel& model, const std::filesystem::path& folder)
        : c_(model.config()), file_(SafeTensors::open(folder)) {}

    /// [ids, V]; row i sees the keys of positions i - window + 1 to i.
    at::Tensor logits(const std::vector<TokenId>& ids, std::int64_t window) const {
        return final_features(ids, window).matmul(weight("lm_head").t());
    }
    /// [ids, H] after the final norm.
    at::Tensor final_features(const std::vector<TokenId>& ids, std::int64_t window) const {
        return norm(stream(ids, window, c_.layers), "model.norm");
    }
    /// [ids, H] the residual stream after `layers` layers.
    at::Tensor stream(const std::vector<TokenId>& ids, std::int64_t window, std::int64_t layers) const {
        at::Tensor x =
            weight("model.embed_tokens").index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())));
        for (std::int64_t i = 0; i < layers; ++i) {
            const std::string own = fmt::format("model.layers.{}.", i);
            const at::Tensor h = norm(x, own + "input_layernorm");
            x = x + attend(h, own + "self_attn.", window).matmul(weight(own + "self_attn.o_proj").t());
            const at::Tensor m = norm(x, own + "post_attention_layernorm");
            const at::Tensor gate = at::silu(m.matmul(weight(own + "mlp.gate_proj").t()));
            x = x + (gate * m.matmul(weight(own + "mlp.up_proj").t())).matmul(weight(own + "mlp.down_proj").t());
        }
        return x;
    }

private:
    at::Tensor weight(const std::string& name) const {
        const SafeTensor& tensor = file_.tensor(name + ".weight");
        return at::tensor(to_floats(tensor)).view(tensor.shape);
    }
    at::Tensor norm(const at::Tensor& x, const std::string& name) const {
        return x * at::rsqrt(x.square().mean(-1, true) + c_.norm_eps) * weight(name);
    }
    /// x [heads, head_dim] at `position`.
    at::Tensor turn(const at::Tensor& x, std::int64_t position) const {
        const at::Tensor angle = at::tensor(c_.rope.frequencies(c_.rotated)) * static_cast<double>(position);
        const std::int64_t half = c_.head_dim / 2;
        const at::Tensor a = x.slice(1, 0, half), b = x.slice(1, half);
        return at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, 1);
    }
    at::Tensor attend(const at::Tensor& h, const std::string& own, std::int64_t window) const {
        const at::Tensor q = h.matmul(weight(own + "q_proj").t()).view({-1, c_.heads, c_.head_dim});
        const at::Tensor k = h.matmul(weight(own + "k_proj").t()).view({-1, c_.kv_heads, c_.head_dim});
        const at::Tensor v = h.matmul(weight(own + "v_proj").t()).view({-1, c_.kv_heads, c_.head_dim});
        std::vector<at::Tensor> keys, rows;
        for (std::int64_t i = 0; i < h.size(0); ++i) {
            keys.push_back(turn(k[i], i));
            const at::Tensor query = turn(q[i], i);
            std::vector<at::Tensor> heads;
            for (std::int64_t head = 0; head < c_.heads; ++head) {
                const std::int64_t kv = head / (c_.heads / c_.kv_heads);
                std::vector<at::Tensor> scores, values;
                for (std::int64_t j = std::max<std::int64_t>(0, i - window + 1); j <= i; ++j) {
                    const at::Tensor key = keys[static_cast<std::size_t>(j)][kv];
                    scores.push_back(query[head].dot(key) / std::sqrt(static_cast<double>(c_.head_dim)));
                    values.push_back(v[j][kv]);
                }
                heads.push_back(at::softmax(at::stack(scores), 0).matmul(at::stack(values)));
            }
            rows.push_back(at::cat(heads));
        }
        return at::stack(rows);
    }

    ModelConfig c_;
    SafeTensors file_;
};

}  // namespace outrider::testing
