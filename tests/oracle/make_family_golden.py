#!/usr/bin/env python3
"""Small random models of every family, in both formats, and their logits by transformers in float32.

    python3 make_family_golden.py OUTPUT_FOLDER [FAMILY...]     tests/golden/families

Each family's folder holds hf/ (config.json, model.safetensors in bf16, tokenizer.json), twin.gguf with the same values,
and golden.json. Windows and original contexts are shorter than the prompts. Needs torch, transformers, gguf and numpy;
part of the tests' data only.
"""
import sys
from pathlib import Path

import numpy as np
import torch

from make_model_golden import greedy, logit_record, write

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGE = ("!", "#")
SIZES = dict(hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
             vocab_size=67, max_position_embeddings=512, bos_token_id=0, eos_token_id=2, pad_token_id=None,
             initializer_range=0.2, tie_word_embeddings=False)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
LONG = [1.0, 1.3, 1.9, 2.4]
SHORT = [1.0, 1.1, 1.2, 1.4]


def yarn_keys(gguf, theta=10000.0, factor=4.0, original=16, multiplier=None):
    def add(writer):
        writer.add_rope_freq_base(theta)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(original)
        if multiplier is not None:
            writer.add_rope_scaling_yarn_log_mul(multiplier)
    return add


def families():
    """name: (class, what its configuration has beside SIZES, GGUF architecture, GGUF keys, prompts' lengths)."""
    import gguf
    import transformers as t
    short, usual = (1, 17, 40), (3, 40)

    def keys(**values):
        def add(writer):
            for name, value in values.items():
                getattr(writer, "add_" + name)(value)
        return add

    def long_factors(writer):
        writer.add_rope_dimension_count(8)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(24)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(512 / 24) / np.log(24))))
        for name, factors in (("long", LONG), ("short", SHORT)):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(factors, dtype=np.float32))

    sliding = ["sliding_attention", "full_attention"]
    gemma = dict(hidden_size=60, head_dim=16, tie_word_embeddings=True, sliding_window=7, layer_types=sliding)
    return {
        "llama": (t.LlamaConfig, dict(hidden_size=48, head_dim=16, attention_bias=True, mlp_bias=True), "llama",
                  keys(key_length=16, value_length=16), short),  # with every bias that there is
        "qwen2": (t.Qwen2Config, dict(head_dim=16, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
                  "qwen2", keys(rope_freq_base=1e6, key_length=16, value_length=16), short),
        "qwen3": (t.Qwen3Config, dict(head_dim=32, num_attention_heads=2, tie_word_embeddings=True,
                                      rope_parameters=dict(YARN)),
                  "qwen3", lambda w: (yarn_keys(gguf)(w), keys(key_length=32, value_length=32)(w)), short),
        "gemma3": (t.Gemma3TextConfig,
                   dict(gemma, query_pre_attn_scalar=16,
                        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
                   "gemma3",
                   keys(rope_freq_base=1e6, rope_scaling_type=gguf.RopeScalingType.LINEAR, rope_scaling_factor=8.0,
                        sliding_window=7, sliding_window_pattern=2, key_length=16, value_length=16), short),
        "gemma2": (t.Gemma2Config, dict(gemma, query_pre_attn_scalar=16, attn_logit_softcapping=2.0,
                                        final_logit_softcapping=5.0),
                   "gemma2", keys(sliding_window=7, attn_logit_softcapping=2.0, final_logit_softcapping=5.0,
                                  key_length=16, value_length=16), short),
        "smollm3": (t.SmolLM3Config, dict(num_hidden_layers=4, head_dim=16, tie_word_embeddings=True,
                                          rope_parameters={"rope_type": "default", "rope_theta": 5e6}),
                    "smollm3", keys(rope_freq_base=5e6, key_length=16, value_length=16), short),
        "mistral": (t.MistralConfig, dict(head_dim=16, sliding_window=7), "llama",
                    keys(sliding_window=7, key_length=16, value_length=16), short),
        "mistral3": (t.Ministral3Config,
                     dict(head_dim=16, rope_parameters=dict(YARN, rope_theta=1e6, mscale=1.0, mscale_all_dim=1.0,
                                                            beta_fast=32.0, beta_slow=1.0, llama_4_scaling_beta=0.3)),
                     "mistral3", lambda w: (yarn_keys(gguf, theta=1e6, multiplier=1.0)(w),
                                            keys(attn_temperature_scale=0.3, key_length=16, value_length=16)(w)), short),
        "phi3": (t.Phi3Config, dict(hidden_size=48, original_max_position_embeddings=24,
                                    rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": LONG,
                                                     "short_factor": SHORT, "partial_rotary_factor": 0.5}),
                 "phi3", long_factors, (25, 40)),
        "glm4": (t.Glm4Config, dict(head_dim=16, attention_bias=True, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
                 "glm4", keys(rope_dimension_count=8, key_length=16, value_length=16), short),
        "granite": (t.GraniteConfig, dict(head_dim=16, hidden_size=48, tie_word_embeddings=True, embedding_multiplier=3.0,
                                          residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=2.0),
                    "granite", keys(embedding_scale=3.0, residual_scale=0.4, attention_scale=0.3, logit_scale=2.0),
                    short),
        "olmo2": (t.Olmo2Config, dict(hidden_size=48), "olmo2", keys(), short),
        "olmo3": (t.Olmo3Config, dict(hidden_size=48, sliding_window=7, layer_types=sliding, rope_parameters={
            "full_attention": dict(YARN), "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
                  "olmo2", lambda w: (yarn_keys(gguf)(w), w.add_sliding_window(7),
                                      w.add_sliding_window_pattern([True, False])), short),
    }


def random_model(config, seed):
    from transformers import AutoModelForCausalLM
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    offset = 0.0 if config.model_type.startswith("gemma") else 1.0  # Gemma's norms are 1 + weight
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.copy_(offset + 0.3 * torch.randn_like(tensor))
            elif name.endswith(".bias"):
                tensor.copy_(0.3 * torch.randn_like(tensor))
    return model


def vocabulary(size):
    from tokenizers import pre_tokenizers
    tokens = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())[:size - len(SPECIAL) - 1]
    return tokens + ["".join(MERGE)]


def write_tokenizer(folder, size):
    import json
    text = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for i, t in enumerate(SPECIAL)],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, t in enumerate(vocabulary(size))}, "merges": [list(MERGE)]}}
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n")


# GGUF names (gguf-py/gguf/tensor_mapping.py).
PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "post_attention_layernorm": "ffn_norm"}
NORMS = {"gemma": {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                   "post_feedforward_layernorm": "post_ffw_norm"},
         "glm": {"post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm"}}
NORMS["olmo"] = NORMS["gemma"]
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PAIRED = ("llama", "smollm3", "mistral3", "granite")  # whose converters put rotary pairs side by side


def gguf_name(hf, family):
    stem, kind = hf.rsplit(".", 1)
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    norms = next((names for prefix, names in NORMS.items() if family.startswith(prefix)), {})
    return f"blk.{layer}.{(PARTS | norms)[part]}.{kind}"


def paired(array, heads):
    rows = array.shape[0] // heads
    return array.reshape(heads, 2, rows // 2, -1).swapaxes(1, 2).reshape(array.shape)


def write_gguf(path, model, family, architecture, more):
    import gguf
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name(family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary(config.vocab_size))
    writer.add_token_types([3 if t in SPECIAL else 1 for t in vocabulary(config.vocab_size)])
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    more(writer)
    for hf, tensor in model.state_dict().items():
        if hf == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name, array = gguf_name(hf, family), tensor.float().numpy()
        if architecture in PAIRED and ".attn_q." in name:
            array = paired(array, config.num_attention_heads)
        if architecture in PAIRED and ".attn_k." in name:
            array = paired(array, config.num_key_value_heads)
        if family.startswith("gemma") and "norm" in name:
            array = array + 1
        kind = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else "BF16"]
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def records(model, lengths):
    rng = np.random.default_rng(11)
    fixed = [int(i) for i in rng.choice(model.config.vocab_size, 16, replace=False)]
    prompts = []
    for length in lengths:
        ids = [int(i) for i in rng.integers(3, model.config.vocab_size, length)]
        record = logit_record(model, ids, sorted({0, length // 2, length - 1}), fixed)
        for row in record["rows"]:
            row["top"], row["top_values"] = row["top"][:16], row["top_values"][:16]
        prompts.append(record)
    ids = prompts[-1]["ids"]
    tokens, gaps = greedy(model, ids, 24)
    return {"fixed": fixed, "prompts": prompts, "greedy": {"ids": ids, "tokens": tokens, "gaps": gaps}}


def main():
    from transformers import AutoModelForCausalLM
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    all_families = families()
    for name in sys.argv[2:] or all_families:
        kind, more, architecture, keys, lengths = all_families[name]
        folder = Path(sys.argv[1]) / name
        (folder / "hf").mkdir(parents=True, exist_ok=True)
        model = random_model(kind(**(SIZES | more)), sum(name.encode())).to(torch.bfloat16)
        model.save_pretrained(folder / "hf")
        (folder / "hf" / "generation_config.json").unlink(missing_ok=True)
        write_tokenizer(folder / "hf", model.config.vocab_size)
        write_gguf(folder / "twin.gguf", model, name, architecture, keys)
        exact = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32, attn_implementation="eager")
        write(folder / "golden.json", records(exact.eval(), lengths))


if __name__ == "__main__":
    main()
