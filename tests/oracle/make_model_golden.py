#!/usr/bin/env python3
"""Reference logits and greedy texts for tests/unit/model, by transformers in float32.

    python3 make_model_golden.py real MODEL.gguf OUTPUT_FOLDER     the SmolLM2 file of the quickstart
    python3 make_model_golden.py tiny OUTPUT_FOLDER                small random models and their logits

Needs torch, transformers, gguf, accelerate, tokenizers, safetensors and numpy; part of the tests' data only.
"""
import json
import sys
from pathlib import Path


import numpy as np
import torch

LOGIT_PROMPTS = [
    "The lighthouse keeper wrote in his diary every evening, and on the last page",
    "def median(values):\n    \"\"\"Return the middle value of a list.\"\"\"\n",
    "<|im_start|>user\nName three rivers that flow into the Black Sea.<|im_end|>\n<|im_start|>assistant\n",
    "Water boils at a lower temperature on a mountain because",
    "x = 3\ny = 14\nprint(x * y + 159)\n# the program prints",
    "Zwei Bäcker streiten über das beste Brot; der erste sagt:",
    "<|im_start|>system\nYou answer in one word.<|im_end|>\n<|im_start|>user\nOpposite of cold?<|im_end|>\n"
    "<|im_start|>assistant\n",
    " ".join(f"Item {n} of the inventory is a {what} kept on shelf {chr(65 + n % 7)}, last counted in week {n * 3 % 52}."
             for n, what in enumerate(["copper kettle", "box of candles", "folding chair", "roll of twine", "map",
                                       "pair of gloves", "broken clock", "jar of nails", "blue lantern", "tent"] * 3)),
]

GREEDY_QUESTIONS = [
    "Why do leaves change their colour in autumn?",
    "Write a short story about a fox who learns to read.",
    "How do I make a simple vegetable soup?",
    "Explain what a prime number is to a child.",
    "Write a Python function that reverses a string.",
    "What should I pack for a week in the mountains?",
    "List five uses for old newspapers.",
    "Give me a polite e-mail that declines an invitation.",
    "What is the difference between weather and climate?",
    "Describe the taste of a lemon without using the word sour.",
    "How does a bicycle stay upright?",
    "Write four lines of verse about the sea at night.",
    "What are the steps to change a flat tyre?",
    "Summarise the water cycle in three sentences.",
    "Suggest a name for a bakery run by two sisters.",
    "How many days are there in a leap year, and why?",
    "Explain recursion with an everyday example.",
    "What makes bread rise?",
    "Plan a birthday party for a seven-year-old.",
    "Tell me something surprising about octopuses.",
    "How can I fall asleep faster?",
    "Write a SQL query that counts the orders of each customer.",
    "What did people use before clocks were invented?",
    "Compare living in a city with living in a village.",
]
GREEDY_TOKENS = 64
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().numpy()


def logit_record(model, ids, positions, fixed):
    """Per position: the 64 largest logits, and those of the ids `fixed`, rounded to 1e-5."""
    logits = logits_of(model, ids)
    rows = []
    for position in positions:
        row = logits[position]
        top = np.argsort(-row, kind="stable")[:64]
        rows.append({"position": position, "top": [int(i) for i in top], "top_values": [round(float(row[i]), 5) for i in top],
                     "fixed_values": [round(float(row[i]), 5) for i in fixed]})
    return {"ids": [int(i) for i in ids], "rows": rows}


def greedy(model, ids, count):
    """`count` greedy tokens (not cut at end ids), and the gap between the two largest logits at each step."""
    tokens, gaps, cache = [], [], None
    feed = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(count):
            output = model(feed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            best = torch.topk(output.logits[0, -1].double(), 2)
            tokens.append(int(best.indices[0]))
            gaps.append(round(float(best.values[0] - best.values[1]), 5))
            feed = torch.tensor([[tokens[-1]]])
    return tokens, gaps


def write(path, value):
    text = json.dumps(value, separators=(",", ":"))
    path.write_text(text.replace("},{", "},\n{") + "\n")
    print(path, path.stat().st_size)


def make_real(gguf, output):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    vocabulary = model.config.vocab_size
    fixed = [int(i) for i in np.random.default_rng(7).choice(vocabulary, 256, replace=False)]
    records = []
    for text in LOGIT_PROMPTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        last = len(ids) - 1
        records.append(logit_record(model, ids, sorted({0, last // 2, last - 1, last}), fixed))
    write(output / "smollm2_logits.json", {"fixed": fixed, "prompts": records})
    texts = []
    for question in GREEDY_QUESTIONS:
        text = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
                "<|im_start|>assistant\n")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens, gaps = greedy(model, ids, GREEDY_TOKENS)
        texts.append({"ids": ids, "tokens": tokens, "gaps": gaps})
        print(len(texts), repr(tokenizer.decode(tokens))[:90], min(gaps), flush=True)
    write(output / "smollm2_greedy.json", {"prompts": texts})


# Small random models. The vocabulary is the 256 bytes of byte-level BPE, a few merges, and three special tokens.

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
          " + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def tiny_vocabulary():
    from tokenizers import pre_tokenizers
    merges = ["t h", "Ġ t", "Ġt h", "i n", "a n", "Ġ a", "e r", "Ġth e", "o n", "r e"]
    tokens = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()) + [m.replace(" ", "") for m in merges]
    return tokens, merges


def write_tiny_tokenizer(folder):
    tokens, merges = tiny_vocabulary()
    text = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for i, t in enumerate(SPECIAL)],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [m.split(" ") for m in merges]}}
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n")
    config = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[2], "chat_template": CHATML, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def tiny_config(**more):
    from transformers import LlamaConfig
    return LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, vocab_size=len(tiny_vocabulary()[0]) + 11, max_position_embeddings=512,
                       rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=2, initializer_range=0.15, **more)


def tiny_model(seed, **more):
    from transformers import LlamaForCausalLM
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_config(**more)).float().eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.mul_(1 + 0.3 * torch.randn_like(tensor))
    return model


def tiny_records(model):
    """Three texts; the longest passes the point where the rotary scaling matters."""
    rng = np.random.default_rng(11)
    fixed = [int(i) for i in rng.choice(model.config.vocab_size, 64, replace=False)]
    prompts = []
    for length in (1, 17, 150):
        ids = [int(i) for i in rng.integers(3, model.config.vocab_size, length)]
        prompts.append(logit_record(model, ids, sorted({0, length // 2, length - 1}), fixed))
    tokens, gaps = greedy(model, prompts[1]["ids"], 48)
    return {"fixed": fixed, "prompts": prompts, "greedy": {"ids": prompts[1]["ids"], "tokens": tokens, "gaps": gaps}}


def make_tiny_hf(folder):
    """bf16 safetensors, grouped-query attention, its own output matrix, "llama3" rotary scaling."""
    from transformers import LlamaForCausalLM
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(1, tie_word_embeddings=False,
                       rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
                                        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                        "original_max_position_embeddings": 64})
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tiny_tokenizer(folder)
    write(folder / "golden.json", tiny_records(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()))


def make_tiny_gguf(folder):
    """Q8_0 embedding tied to the output, matrices as Q4_1, Q4_0, Q8_0 and F16, norms as F32."""
    import gguf
    from transformers import LlamaForCausalLM
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(2, tie_word_embeddings=True)
    config, path = model.config, folder / "tiny.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens, merges = tiny_vocabulary()
    tokens = tokens + [f"<|unused_{i}|>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t.startswith("<|") else 1 for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
             "post_attention_layernorm": "ffn_norm", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{hf}": f"blk.{layer}.{ours}" for hf, ours in parts.items()}
    types = {"token_embd": "Q8_0", "blk.1.attn_v": "F16", "blk.1.attn_output": "Q8_0", "blk.1.ffn_up": "Q4_0",
             "blk.1.ffn_gate": "Q4_0"}
    state = model.state_dict()
    for hf, ours in names.items():
        array = state[hf + ".weight"].numpy()
        if ours.endswith(("attn_q", "attn_k")):  # interleaved rotary pairs, as llama.cpp's converter writes them
            heads = config.num_attention_heads if ours.endswith("attn_q") else config.num_key_value_heads
            array = array.reshape(heads, 2, array.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        kind = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else types.get(ours, "Q4_1")]
        writer.add_tensor(ours + ".weight", gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(path, path.stat().st_size)
    loaded = LlamaForCausalLM.from_pretrained(str(folder), gguf_file="tiny.gguf", dtype=torch.float32).eval()
    write(folder / "golden.json", tiny_records(loaded))


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "real":
        make_real(Path(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) == 3 and sys.argv[1] == "tiny":
        make_tiny_hf(Path(sys.argv[2]) / "tiny-hf")
        make_tiny_gguf(Path(sys.argv[2]) / "tiny-gguf")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
