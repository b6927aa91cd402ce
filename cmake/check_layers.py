#!/usr/bin/env python3
"""Enforces the arrows between the layers (docs/architecture.md) by reading #include lines.

    check_layers.py ROOT        checks include/, src/ and examples/ of a source folder; prints each breach, exit 1 if any
    check_layers.py --write-umbrella ROOT  writes include/outrider/outrider.hpp anew from the headers that are there
    check_layers.py --self-test proves on samples that each rule can fail
"""
import pathlib
import re
import sys
import tempfile

# A file includes its own folder and folders of a smaller number; equal numbers are siblings and never meet.
RANK = {"core": 0, "tree": 1, "ctc": 2, "tensor": 3, "io": 3, "interface": 4, "model": 5, "draft": 5, "verify": 5,
        "accept": 5, "decode": 6, "train": 7}
ALLOWED_SIBLINGS = {("verify", "model")}
IO_SEES = {"core"}
# What each layer's public headers may include beside the standard library. Everything else stays in the sources.
EXTERNAL = {"core": ("fmt/",), "tree": ("fmt/",), "ctc": ("Eigen/",), "io": ("fmt/",)}
EXTERNAL_ABOVE = ("fmt/", "ATen/", "c10/")
TOO_WIDE = {"ATen/ATen.h", "torch/torch.h", "torch/all.h", "torch/extension.h"}
TENSOR_LIBRARY = ("ATen/", "c10/", "torch/")
PLAIN_SOURCES = ("io", "kernels")  # src/ folders that build without LibTorch, with all that they include
# The loop never names a concrete strategy.
LOOP = {"decode/speculative_decoder.hpp"}
CONCRETE = {"model", "draft", "verify", "accept"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def includes(path):
    return [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def own(name):
    """The layer of a header of ours, "" for the umbrella, None for anything else."""
    if not name.startswith("outrider/"):
        return None
    parts = name.split("/")
    return parts[1] if len(parts) > 2 else ""


def arrow(layer, target):
    """Why a file of `layer` may not include a header of `target`, or None."""
    if target == layer:
        return None
    if target == "":
        return "no layer includes the umbrella"
    if target not in RANK:
        return f"unknown layer '{target}'"
    if layer == "io":
        return None if target in IO_SEES else "io may use core only"
    if (layer, target) in ALLOWED_SIBLINGS or RANK[target] < RANK[layer]:
        return None
    kind = "siblings never include each other" if RANK[target] == RANK[layer] else "arrows point to lower layers only"
    return f"{layer} -> {target}: {kind}"


def check_header(root, path):
    name = path.relative_to(root / "include/outrider").as_posix()
    layer = name.split("/")[0] if "/" in name else ""
    if layer and layer not in RANK:
        yield f"unknown layer '{layer}'"
        return
    if "#pragma once" not in path.read_text(encoding="utf-8"):
        yield "no #pragma once"
    for include in includes(path):
        target = own(include)
        if target is not None and not (root / "include" / include).exists():
            yield f"<{include}> does not exist"
        if layer == "":
            if target is None:
                yield f"the umbrella includes <{include}>; it includes headers of ours only"
            continue
        if target is not None:
            if why := arrow(layer, target):
                yield f"<{include}>: {why}"
            if name in LOOP and target in CONCRETE:
                yield f"<{include}>: the loop never names a concrete strategy"
        elif include in TOO_WIDE or include.startswith("torch/"):
            yield f"<{include}> in a public header: use <ATen/core/Tensor.h> or narrower; autograd in sources only"
        elif "/" in include or include.endswith((".h", ".hpp")):
            if not include.startswith(EXTERNAL.get(layer, EXTERNAL_ABOVE)):
                yield f"<{include}>: {layer} headers may include std" + "".join(
                    f", {prefix}" for prefix in EXTERNAL.get(layer, EXTERNAL_ABOVE))


def tensor_library_reached(root, path, seen):
    """The chain of includes that leads from `path` to the tensor library, or None."""
    for include in includes(path):
        if include.startswith(TENSOR_LIBRARY):
            return [include]
        for there in (root / "include" / include, path.parent / include):
            if there.is_file() and there not in seen:
                seen.add(there)
                if chain := tensor_library_reached(root, there, seen):
                    return [include] + chain
    return None


def check_source(root, path):
    layer = path.relative_to(root / "src").parts[0]
    if layer in PLAIN_SOURCES:
        if chain := tensor_library_reached(root, path, {path}):
            yield "reaches the tensor library through " + " -> ".join(chain)
    stands_for = {"kernels": "tensor"}.get(layer, layer)
    for include in includes(path):
        if include in ("torch/torch.h", "torch/all.h"):
            yield f"<{include}> costs 20 s and 1 GB a file; include the parts of torch/csrc that are needed"
        target = own(include)
        if target is not None and stands_for in RANK:
            if why := arrow(stands_for, target):
                yield f"<{include}>: {why}"
        if include.startswith("../") and "/" in include[3:]:
            yield f'"{include}": a source includes private headers of its own folder and of src/ only'


def check_umbrella(root):
    umbrella = root / "include/outrider/outrider.hpp"
    if umbrella.exists():
        there = set(includes(umbrella))
        for path in sorted((root / "include/outrider").glob("*/*.hpp")):
            name = path.relative_to(root / "include").as_posix()
            if name not in there:
                yield f"{umbrella.relative_to(root)}: <{name}> is missing (--write-umbrella)"


def check(root):
    breaches = []
    for path in sorted((root / "include/outrider").rglob("*.hpp")):
        breaches += [f"{path.relative_to(root)}: {why}" for why in check_header(root, path)]
    for path in sorted((root / "src").rglob("*.[ch]pp")):
        if path.parent != root / "src":
            breaches += [f"{path.relative_to(root)}: {why}" for why in check_source(root, path)]
    for path in sorted((root / "examples").rglob("*.[ch]pp")):
        breaches += [f"{path.relative_to(root)}: <{name}> is private; examples use what is installed"
                     for name in includes(path) if name.startswith(("../", "src/"))]
    return breaches + list(check_umbrella(root))


def write_umbrella(root):
    lines = ["// Everything. A host that wants short builds includes the headers it uses.", "#pragma once"]
    for layer in RANK:
        names = sorted(path.name for path in (root / "include/outrider" / layer).glob("*.hpp"))
        lines += [""] * bool(names) + [f"#include <outrider/{layer}/{name}>" for name in names]
    (root / "include/outrider/outrider.hpp").write_text("\n".join(lines) + "\n", encoding="utf-8")


GOOD = {
    "include/outrider/core/a.hpp": "#include <fmt/format.h>\n#include <vector>\n",
    "include/outrider/tensor/t.hpp": "#include <ATen/core/Tensor.h>\n#include <outrider/core/a.hpp>\n",
    "include/outrider/tensor/plain.hpp": "#include <outrider/core/a.hpp>\n",
    "include/outrider/io/f.hpp": "#include <outrider/core/a.hpp>\n",
    "include/outrider/model/m.hpp": "#include <outrider/io/f.hpp>\n#include <outrider/tensor/t.hpp>\n",
    "include/outrider/verify/v.hpp": "#include <outrider/model/m.hpp>\n",
    "include/outrider/decode/speculative_decoder.hpp": "#include <outrider/tensor/t.hpp>\n",
    "include/outrider/outrider.hpp": "".join(
        f"#include <outrider/{name}>\n" for name in
        ("core/a.hpp", "decode/speculative_decoder.hpp", "io/f.hpp", "model/m.hpp", "tensor/plain.hpp", "tensor/t.hpp",
         "verify/v.hpp")),
    "src/kernels/plain.cpp": "#include <outrider/tensor/plain.hpp>\n",
    "src/decode/d.cpp": "#include <ATen/ATen.h>\n#include <outrider/verify/v.hpp>\n",
    "examples/01/main.cpp": "#include <outrider/outrider.hpp>\n",
}
BAD = {  # file, the line added to it, a word of the expected breach
    "core -> tree": ("include/outrider/core/a.hpp", "#include <outrider/tree/x.hpp>", "lower layers"),
    "core uses ATen": ("include/outrider/core/a.hpp", "#include <ATen/core/Tensor.h>", "may include std"),
    "core uses json": ("include/outrider/core/a.hpp", "#include <nlohmann/json.hpp>", "may include std"),
    "torch.h": ("include/outrider/model/m.hpp", "#include <torch/torch.h>", "public header"),
    "ATen.h": ("include/outrider/model/m.hpp", "#  include <ATen/ATen.h>", "public header"),
    "autograd": ("include/outrider/model/m.hpp", "#include <torch/csrc/autograd/autograd.h>", "public header"),
    "io -> tensor": ("include/outrider/io/f.hpp", "#include <outrider/tensor/plain.hpp>", "core only"),
    "model -> verify": ("include/outrider/model/m.hpp", "#include <outrider/verify/v.hpp>", "siblings"),
    "model -> decode": ("include/outrider/model/m.hpp", "#include <outrider/decode/speculative_decoder.hpp>", "lower"),
    "loop names": ("include/outrider/decode/speculative_decoder.hpp", "#include <outrider/model/m.hpp>", "concrete"),
    "missing": ("include/outrider/model/m.hpp", "#include <outrider/core/nowhere.hpp>", "does not exist"),
    "umbrella used": ("include/outrider/model/m.hpp", "#include <outrider/outrider.hpp>", "umbrella"),
    "not in umbrella": ("include/outrider/core/new.hpp", "#include <vector>", "is missing"),
    "new layer": ("include/outrider/misc/new.hpp", "#include <vector>", "unknown layer"),
    "kernels reach ATen": ("include/outrider/tensor/plain.hpp", "#include <outrider/tensor/t.hpp>", "tensor library"),
    "source -> right": ("src/kernels/plain.cpp", "#include <outrider/decode/speculative_decoder.hpp>", "lower"),
    "source of another": ("src/decode/d.cpp", '#include "../kernels/private.hpp"', "own folder"),
    "private example": ("examples/01/main.cpp", '#include "../../src/cli/table.hpp"', "private"),
}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(("#pragma once\n" if name.endswith(".hpp") else "") + text)


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), GOOD)
        found = check(pathlib.Path(folder))
        assert not found, f"the good sample fails: {found}"
    for title, (name, line, word) in BAD.items():
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), {**GOOD, name: GOOD.get(name, "") + line + "\n"})
            found = check(pathlib.Path(folder))
            assert any(word in breach for breach in found), f"'{title}' passes: {found}"
    print(f"{len(BAD)} breaches found in {len(BAD)} bad samples")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    if sys.argv[1] == "--write-umbrella":
        write_umbrella(pathlib.Path(sys.argv[2]).resolve())
        return 0
    breaches = check(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(breaches) if breaches else "layers: all arrows hold")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
