#!/usr/bin/env python3
"""Writes tests/golden/gguf_blocks.json: random blocks of GGUF's number formats and what the Python package `gguf` reads
in them. Needs the packages gguf and numpy. Usage: make_gguf_golden.py [OUTPUT]"""
import json
import pathlib
import sys

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where a block has its half-precision scales (offsets in bytes): random bits there could be infinities.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
          Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0]}


def main():
    folder = pathlib.Path(__file__).resolve().parent.parent / "golden"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "gguf_blocks.json"
    random = numpy.random.default_rng(20240607)
    golden = {}
    for type_, offsets in SCALES.items():
        elements, size = GGML_QUANT_SIZES[type_]
        blocks = random.integers(0, 256, (3, size), dtype=numpy.uint8)
        for offset in offsets:
            halves = random.normal(0, 0.05, 3).astype(numpy.float16)
            blocks[:, offset:offset + 2] = halves.view(numpy.uint8).reshape(3, 2)
        golden[type_.name] = [blocks, dequantize(blocks, type_)]
    halves = numpy.array([0, 0x8000, 1, 0x03FF, 0x0400, 0x3C00, 0xC500, 0x7BFF, 0x7C00, 0xFC00, 0x3555], numpy.uint16)
    golden["F16"] = [halves, halves.view(numpy.float16).astype(numpy.float32)]
    golden["BF16"] = [halves, (halves.astype(numpy.uint32) << 16).view(numpy.float32)]
    rows = []
    for name, (blocks, floats) in golden.items():
        floats = numpy.ascontiguousarray(floats, dtype="<f4").reshape(-1)
        rows.append({"type": name, "number": int(Type[name]), "blocks": blocks.tobytes().hex(),
                     "f32": floats.tobytes().hex()})
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
