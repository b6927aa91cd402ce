#!/usr/bin/env python3
"""Files of torch.save for tests/unit/io/torch_archive_test.cpp, and their tensors as safetensors beside them.

    python3 make_torch_archive_golden.py OUTPUT_FOLDER

Random weights in the formats of published checkpoints: module names, key names and the way of saving are theirs, sizes
are small. Needs torch and safetensors; part of the tests' data only.
"""
import io
import json
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HIDDEN, VOCABULARY, FEED_FORWARD = 8, 12, 16


class ResBlock(nn.Module):
    """x + SiLU(W x + b); with a condition, R x + r in place of x."""

    def __init__(self, hidden, conditions=0):
        super().__init__()
        self.linear = nn.Linear(hidden * (conditions + 1), hidden)
        if conditions > 0:
            self.res_connection = nn.Linear(hidden * (conditions + 1), hidden)


def medusa_heads(heads, own_output):
    """Keys i.0.linear.*, and i.1.weight where heads have output matrices of their own."""
    output = [nn.Linear(HIDDEN, VOCABULARY, bias=False)] if own_output else []
    return nn.ModuleList([nn.Sequential(ResBlock(HIDDEN), *[nn.Linear(HIDDEN, VOCABULARY, bias=False) for _ in output])
                          for _ in range(heads)])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(HIDDEN, HIDDEN, bias=False))
        self.rotary_emb = nn.Module()
        self.rotary_emb.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, 4, 2).float() / 4)))


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(HIDDEN))


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


class HydraPrefixMlp(nn.Module):
    """Key names as released, spelling included. One residual block stands three times in a head: shared storages."""

    def __init__(self, heads, blocks):
        super().__init__()
        self.input_embed_fn = nn.Embedding(VOCABULARY, HIDDEN)
        self.prefix_embeding_layer = nn.Module()
        self.prefix_embeding_layer.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.prefix_embeding_layer.layers = nn.ModuleList([DecoderLayer()])
        self.prefix_embeding_layer.norm = Norm()
        self.hydra_mlp = nn.ModuleList([
            nn.Sequential(nn.Dropout(0.0), ResBlock(HIDDEN, i + 1),
                          *([nn.Dropout(0.0), ResBlock(HIDDEN)] * (blocks - 1)))
            for i in range(heads)])
        self.hydra_lm_head = nn.ModuleList([nn.Sequential(nn.Dropout(0.0), nn.Linear(HIDDEN, VOCABULARY))
                                            for _ in range(heads)])


def save(folder, name, tensors, **options):
    torch.save(tensors, folder / name, **options)
    expect(folder, name, tensors)


def expect(folder, name, tensors):
    plain = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    save_file(plain, folder / (Path(name).stem + ".safetensors"))


def make_kinds(folder):
    whole = torch.arange(-6, 6)
    kinds = OrderedDict()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        kinds[str(dtype)] = torch.randn(3, 4, dtype=torch.float32).to(dtype)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        scale = {torch.int8: 21, torch.uint8: 1}.get(dtype, 300)
        kinds[str(dtype)] = (whole.abs() * scale if dtype == torch.uint8 else whole * scale).to(dtype)
    kinds["bool"] = whole % 3 == 0
    kinds["scalar"] = torch.tensor(2.5)
    kinds["empty"] = torch.zeros(3, 0)
    kinds["long"] = torch.arange(300, dtype=torch.int16)  # a size of more than 8 bits
    save(folder, "kinds.pt", kinds)


def make_views(folder):
    base = torch.randn(6, 10, dtype=torch.float32)
    line = torch.arange(40, dtype=torch.int64)
    half = torch.randn(4, 3, 5).half()
    save(folder, "views.pt", {
        "base": base, "same": base, "rows": base[2:5], "transposed": base.t(), "column": base[:, 3:4],
        "block": base[1:4, 2:9:3],
        "expanded": line[7:8].expand(3, 1), "every third": line[2::3], "permuted": half.permute(2, 0, 1),
        "tail": line[30:],
        "one": half[3:4, 2, 4], "caf\u00e9": line[:2]})


def make_big_endian(folder):
    """What a big-endian machine would write; torch.load itself is asked whether it is."""
    base = torch.randn(3, 4)
    tensors = OrderedDict(base=base, turned=base.t(), half=torch.randn(5).half(), ids=torch.arange(4) * 1000,
                          flags=torch.tensor([True, False]))
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    sizes = {}
    for value in tensors.values():
        sizes.setdefault(value.untyped_storage().data_ptr(), value.element_size())
    sizes = list(sizes.values())  # storages are numbered in the order of their first use
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(folder / "big_endian.pt", "w") as target:
        for entry in source.namelist():
            data = source.read(entry)
            folder_name, _, rest = entry.partition("/")
            if rest == "byteorder":
                data = b"big"
            elif rest.startswith("data/"):
                size = sizes[int(rest[5:])]
                data = b"".join(data[i:i + size][::-1] for i in range(0, len(data), size))
            target.writestr(zipfile.ZipInfo(entry), data)
    loaded = torch.load(folder / "big_endian.pt", weights_only=True)
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)
    expect(folder, "big_endian.pt", tensors)


def make_shards(folder):
    folder.mkdir(exist_ok=True)
    parts = [{"model.embed_tokens.weight": torch.randn(4, 3).half()}, {"lm_head.weight": torch.randn(4, 3).half()}]
    places = {}
    for i, part in enumerate(parts):
        name = f"pytorch_model-{i + 1:05}-of-{len(parts):05}.bin"
        torch.save(part, folder / name)
        places.update({key: name for key in part})
    index = {"metadata": {"total_size": 48}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    save_file(parts[0] | parts[1], folder / "expected.safetensors")


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20241107)
    make_kinds(folder)
    make_views(folder)
    make_big_endian(folder)
    save(folder, "medusa_legacy.pt", medusa_heads(5, True).half().state_dict())
    save(folder, "medusa_v2.pt", medusa_heads(4, False).bfloat16().state_dict())
    save(folder, "hydra_prefix_mlp.pt", HydraPrefixMlp(2, 4).half().state_dict())
    save(folder, "parameters.pt", medusa_heads(1, True).state_dict(keep_vars=True))
    make_shards(folder / "shards")
    # Files that are refused.
    torch.save([torch.ones(2)], folder / "refused_list.pt")
    torch.save({"a": torch.ones(2), "epoch": 3}, folder / "refused_value.pt")
    torch.save({"a": torch.ones(2)}, folder / "refused_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(nn.Linear(2, 2), folder / "refused_module.pt")
    torch.save({"a": torch.ones(2, dtype=torch.complex64)}, folder / "refused_complex.pt")
    torch.save({"a": torch.ones(2)}, folder / "refused_protocol.pt", pickle_protocol=4)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            print(path.relative_to(folder), path.stat().st_size)


if __name__ == "__main__":
    main()
