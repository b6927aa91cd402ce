#!/usr/bin/env python3
"""Checkpoints in the published forms of Medusa and Hydra, random weights at small sizes, and what plain PyTorch makes of
them, for tests/unit/draft/nn/published_heads_test.cpp.

    python3 make_heads_golden.py OUTPUT_FOLDER

Each case is a folder as its authors publish one (weights and config.json) with expected.safetensors beside: `features`
[n, H], `tokens` [K], `embedding` [V, H], `output` [V, H] (the target's), `logits` [K, V] of every head at the last feature,
where head k of Hydra has seen tokens 0..k. The modules are written from the papers and the published shapes; they share no
code with the library. Needs torch and safetensors; part of the tests' data only.
"""
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HIDDEN, VOCABULARY, LENGTH = 32, 48, 9
HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, THETA, EPS = 2, 1, 16, 40, 10000.0, 1e-6


class ResBlock(nn.Module):
    def __init__(self, hidden, conditions=0):
        super().__init__()
        self.linear = nn.Linear(hidden * (conditions + 1), hidden)
        if conditions > 0:
            self.res_connection = nn.Linear(hidden * (conditions + 1), hidden)

    def forward(self, x):
        residual = self.res_connection(x) if hasattr(self, "res_connection") else x
        return residual + F.silu(self.linear(x))


def medusa(heads, blocks, own):
    return nn.ModuleList([
        nn.Sequential(*[ResBlock(HIDDEN) for _ in range(blocks)],
                      *([nn.Linear(HIDDEN, VOCABULARY, bias=False)] if own else [])) for _ in range(heads)])


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(HIDDEN))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def rotate(x, frequencies):
    """x [n, heads, D] at positions 0..n-1."""
    angle = torch.outer(torch.arange(x.shape[0]).to(x), frequencies.to(x)).repeat(1, 2)[:, None, :]
    left, right = x.chunk(2, -1)
    return x * angle.cos() + torch.cat((-right, left), -1) * angle.sin()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
        self.rotary_emb = nn.Module()
        rates = 1.0 / (THETA ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM))
        self.rotary_emb.register_buffer("inv_freq", rates)

    def forward(self, x):
        n = x.shape[0]
        rates = 1.0 / (THETA ** (torch.arange(0, HEAD_DIM, 2).double() / HEAD_DIM))
        q = rotate(self.q_proj(x).view(n, HEADS, HEAD_DIM), rates)
        k = rotate(self.k_proj(x).view(n, KV_HEADS, HEAD_DIM), rates).repeat_interleave(HEADS // KV_HEADS, 1)
        v = self.v_proj(x).view(n, KV_HEADS, HEAD_DIM).repeat_interleave(HEADS // KV_HEADS, 1)
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(HEAD_DIM)
        hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
        p = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return self.o_proj(torch.einsum("hij,jhd->ihd", p, v).reshape(n, -1))


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()
        self.mlp = nn.Module()
        self.mlp.gate_proj = nn.Linear(HIDDEN, FEED_FORWARD, bias=False)
        self.mlp.up_proj = nn.Linear(HIDDEN, FEED_FORWARD, bias=False)
        self.mlp.down_proj = nn.Linear(FEED_FORWARD, HIDDEN, bias=False)
        self.input_layernorm = Norm()
        self.post_attention_layernorm = Norm()

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        y = self.post_attention_layernorm(x)
        return x + self.mlp.down_proj(F.silu(self.mlp.gate_proj(y)) * self.mlp.up_proj(y))


class Hydra(nn.Module):
    """`prefix`: Hydra++ with dropout in the sequences and one residual block shared by all places behind the first."""

    def __init__(self, heads, blocks, prefix):
        super().__init__()
        self.input_embed_fn = nn.Embedding(VOCABULARY, HIDDEN)
        drop = [nn.Dropout(0.0)] if prefix else []
        if prefix:
            self.prefix_embeding_layer = nn.Module()
            self.prefix_embeding_layer.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
            self.prefix_embeding_layer.layers = nn.ModuleList([DecoderLayer()])
            self.prefix_embeding_layer.norm = Norm()
        self.hydra_mlp = nn.ModuleList([
            nn.Sequential(*drop, ResBlock(HIDDEN, i + 1), *((drop + [ResBlock(HIDDEN)]) * (blocks - 1)))
            for i in range(heads)])
        lm_heads = [nn.Linear(HIDDEN, VOCABULARY) for _ in range(heads)]
        self.hydra_lm_head = nn.ModuleList([nn.Sequential(*drop, head) if prefix else head for head in lm_heads])

    def forward(self, features, tokens):
        ground = features
        if hasattr(self, "prefix_embeding_layer"):
            ground = self.prefix_embeding_layer.norm(self.prefix_embeding_layer.layers[0](features))
        rows = []
        for i, (mlp, head) in enumerate(zip(self.hydra_mlp, self.hydra_lm_head)):
            path = self.input_embed_fn(tokens[:i + 1]).flatten()
            rows.append(head(mlp(torch.cat((ground[-1], path)))))
        return torch.stack(rows)


def write(folder, name, weights, dtype, config):
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.to(dtype) if value.is_floating_point() and "inv_freq" not in key else value
               for key, value in weights.items()}
    if name.endswith(".safetensors"):
        save_file({key: value.clone().contiguous() for key, value in weights.items()}, folder / name)
    else:
        torch.save(weights, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def expect(folder, features, tokens, embedding, output, logits):
    save_file({"features": features.float(), "tokens": tokens, "embedding": embedding.float(), "output": output.float(),
               "logits": logits.detach().float()}, folder / "expected.safetensors")


@torch.no_grad()
def make_medusa(root, case, name, dtype, heads, blocks, own, prefix="", base=False):
    model = medusa(heads, blocks, own)
    for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter)).copy_(parameter.to(dtype).float())
    model = model.double()
    weights = {prefix + key: value for key, value in model.state_dict().items()}
    if base:  # a whole model around the heads
        weights["model.embed_tokens.weight"] = torch.randn(VOCABULARY, HIDDEN)
        weights["lm_head.weight"] = torch.randn(VOCABULARY, HIDDEN)
    config = {"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "toy/base"}  # hints, and wrong
    write(root / case, name, weights, dtype, config)
    features, output = torch.randn(LENGTH, HIDDEN).double(), torch.randn(VOCABULARY, HIDDEN).float().double()
    rows = torch.stack([head(features[-1]) for head in model])
    logits = rows if own else rows @ output.T
    expect(root / case, features, torch.zeros(heads, dtype=torch.int64), torch.zeros(VOCABULARY, HIDDEN), output, logits)


@torch.no_grad()
def make_hydra(root, case, name, dtype, heads, blocks, prefix, config=None, drop=()):
    model = Hydra(heads, blocks, prefix)
    for parameter in model.parameters():
        parameter.copy_((0.3 * torch.randn_like(parameter) + (parameter.mean() if parameter.dim() == 1 else 0)))
        parameter.copy_(parameter.to(dtype).float())
    model = model.double()
    weights = {key: value for key, value in model.state_dict().items() if not any(word in key for word in drop)}
    for key in weights:
        if "inv_freq" in key:
            weights[key] = weights[key].float()
    write(root / case, name, weights, dtype,
          {"hydra_num_heads": heads, "hydra_num_layers": blocks, "base_model_name_or_path": "toy/base",
           "hidden_state_offset": 0} | (config or {}))
    features, output = torch.randn(LENGTH, HIDDEN).double(), torch.zeros(VOCABULARY, HIDDEN)
    tokens = torch.randint(VOCABULARY, (heads,))
    expect(root / case, features, tokens, model.input_embed_fn.weight, output, model(features, tokens))


def main():
    root = Path(sys.argv[1])
    torch.manual_seed(20241109)
    make_medusa(root, "medusa_legacy", "medusa_lm_head.pt", torch.float16, 3, 1, True)
    make_medusa(root, "medusa_two_blocks", "medusa_lm_head.pt", torch.bfloat16, 2, 2, True)
    make_medusa(root, "medusa_v2", "medusa_lm_head.safetensors", torch.bfloat16, 4, 1, False)
    make_medusa(root, "medusa_whole_model", "model.safetensors", torch.float16, 2, 1, True, "medusa_head.", base=True)
    make_hydra(root, "hydra", "hydra_lm_head.pt", torch.float16, 3, 2, False)
    make_hydra(root, "hydra_prefix", "hydra_lm_head.pt", torch.float16, 3, 4, True)
    make_hydra(root, "hydra_prefix_no_buffer", "hydra_lm_head.safetensors", torch.bfloat16, 2, 2, True,
               {"num_attention_heads": HEADS, "rms_norm_eps": EPS}, ("inv_freq",))
    for path in sorted(root.rglob("*")):
        if path.is_file():
            print(path.relative_to(root), path.stat().st_size)


if __name__ == "__main__":
    main()
