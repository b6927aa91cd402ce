#!/usr/bin/env python3
"""Enforces the arrows between the rooms (docs/architecture.md) by reading #include lines, and looks for second bodies of what
the library has once (docs/decisions/0013-one-economy.md).

    check_layers.py ROOT        checks include/, src/, tests/unit/, examples/ and the top of a source folder; prints each breach, exit 1 if any
    check_layers.py --self-test proves on samples that each rule can fail
"""
import pathlib
import re
import sys
import tempfile

# A file includes its own room and rooms of a smaller number; equal numbers are siblings and never meet.
RANK = {"core": 0, "tree": 1, "accept/rules": 2, "ctc": 3, "budget": 3, "formats": 4, "kernels": 4, "cuda": 4, "cuda_module": 5, "text": 5,
        "target": 6, "draft": 7, "accept": 7, "decode": 8, "engine": 9, "train": 10, "serve": 10, "c_api": 10, "cli": 11}
PRIVATE_ROOMS = {"kernels", "cuda", "cuda_module", "serve", "c_api", "cli"}  # of src/ alone
# Rooms inside draft/: a drafter never includes another drafter, and nn/ (what they share) none of them.
DRAFTERS = ("ctc", "medusa", "hydra")
# formats/ and text/ read files of strangers and know nothing of trees.
READERS_SEE = {"formats": {"core"}, "text": {"core", "formats"}}
# What public headers may include beside the standard library, by room. Everything else stays in the sources.
SYSTEM = ("sched.h", "fcntl.h", "linux/futex.h", "unistd.h", "sys/")  # for the bodies of core/ and formats/
EXTERNAL = {"core": SYSTEM, "tree": (), "accept/rules": (), "budget": (), "ctc": ("Eigen/",),
            "formats": ("nlohmann/",) + SYSTEM, "text": ()}
EXTERNAL_ABOVE = ("Eigen/", "nlohmann/", "ATen/", "c10/")
TOO_WIDE = {"ATen/ATen.h", "torch/torch.h", "torch/all.h", "torch/extension.h"}
# Of ATen/ops/ those that do not reach c10/util/Logging.h, whose LOG and CHECK are the host's (draft/nn/detail/aten.hpp).
NARROW_OPS = re.compile(r"ATen/ops/(\w+_ops|from_blob|tensor)\.h")
TENSOR_LIBRARY = ("ATen/", "c10/", "torch/")
PLAIN_SOURCES = ("formats", "text", "kernels", "cuda")  # src/ folders that build without LibTorch, with all that they include
# The loop names no concrete drafter and no concrete target; of the policies it knows the default.
LOOP_ROOM = "decode"
LOOP_MAY = {"draft": ("drafter.hpp", "detail/"), "accept": ("policy.hpp", "match.hpp", "detail/logprob_rows"),
            "target": ("verifier.hpp", "round.hpp", "target_head.hpp", "detail/features.hpp", "causal_model.hpp")}
# What outrider::headers holds (include/outrider/CMakeLists.txt): rooms, and of target/ the names that a host's model meets.
HEADERS_ROOMS = {"core", "tree", "accept/rules", "ctc", "budget", "formats", "accept", "draft", "decode"}
HEADERS_OF_TARGET = {"causal_model", "features", "round", "target_head", "verifier"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
FRONT_DOOR = "include/outrider/outrider.hpp"
# Files at the top; another one is what some command left there, and must not be committed.
TOP = {"CHANGELOG.md", "CMakeLists.txt", "CMakePresets.json", "CMakeUserPresets.json", "CONTRIBUTING.md", "LICENSE", "README.md",
       "SECURITY.md", "THIRD_PARTY.md", "compile_commands.json"}
API = "docs/api.md"
# What stands in one place. A piece is the text between blank lines, without comments: a function, as this code is written.
BUILDER = re.compile(r"\bTokenTree::Builder\s+\w+\s*[({]")
ORDERED = re.compile(r"\b(?:(?:stable_|partial_)?sort|nth_element)\b")  # a queue opens nodes that are not there yet
RENUMBERED = re.compile(r"\.add\(\s*\w+\[(?:[^][;]|\[[^][;]*\])*parent(?:[^][;]|\[[^][;]*\])*\]\s*,")
TREE_PARTS = {"include/outrider/tree/detail/keep_best.hpp", "include/outrider/tree/detail/subtree.hpp"}
ECONOMY = re.compile(r"^\s*(?:class|struct)\s+(?:OUTRIDER_API\s+)?"
                     r"(\w*(?:Cost|Budget|HitRate|Calibrat|Econom|Account|Explor|Kalman|Price)\w*)\s*(?:final\s*)?[:{]", re.M)
TYPE = re.compile(r"^(?:class|struct|enum class)(?: OUTRIDER_\w+)? (\w+)(?: final)?(?: : [^\n]*)? *\{", re.M)  # outside others
ECONOMY_ROOM = "include/outrider/budget/"
ECONOMY_VALUES = {"DraftBudget", "ThinkingBudget"}  # what a drafter is told; tokens of thoughts


def includes(path):
    return [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def room_of(path):
    """The room of a path below include/outrider or src: "accept/rules" is one of its own; "" for what lies in none."""
    parts = path.split("/")
    if parts[:2] == ["accept", "rules"]:
        return "accept/rules"
    return parts[0] if len(parts) > 1 else ""


def own(include):
    """A header of ours, as a path below its root; None for anything else."""
    if include.startswith("outrider/"):
        return include[len("outrider/"):]
    return include if include.split("/")[0] in RANK else None


def arrow(name, target):
    """Why the file `name` may not include `target` (paths below include/outrider or src), or None."""
    room, there = room_of(name), room_of(target)
    if target in ("outrider.hpp", "engine.hpp"):
        return None if room == "cli" or (target == "engine.hpp" and room in ("engine", "train")) else \
            f"no room below includes {target}"
    if there not in RANK:
        return f"unknown room '{there}'"
    if there == room:
        inside = target.split("/")[1] if room == "draft" else ""
        if inside in DRAFTERS and name.split("/")[1] != inside:
            return f"{name} -> {target}: drafters never include each other"
        return None
    if room == LOOP_ROOM and there in LOOP_MAY:
        if not target[len(there) + 1:].startswith(LOOP_MAY[there]):
            return f"{name} -> {target}: the loop never names a concrete strategy"
    if room in READERS_SEE:
        return None if there in READERS_SEE[room] else f"{room} may use {', '.join(sorted(READERS_SEE[room]))} only"
    if RANK[there] < RANK[room]:
        return None
    kind = "siblings never include each other" if RANK[there] == RANK[room] else "arrows point to lower rooms only"
    return f"{room} -> {there}: {kind}"


def check_header(root, path):
    name = path.relative_to(root / "include/outrider").as_posix()
    room = room_of(name)
    if room and (room not in RANK or room in PRIVATE_ROOMS):
        yield f"unknown room '{room}'"
        return
    if "#pragma once" not in path.read_text(encoding="utf-8"):
        yield "no #pragma once"
    for include in includes(path):
        target = own(include)
        if target is not None and not (root / "include/outrider" / target).exists():
            yield f"<{include}> is no public header" if (root / "src" / target).exists() else f"<{include}> does not exist"
        elif target is not None and include == target:
            yield f'"{include}": public headers are included as <outrider/{include}>'
        if not room:
            continue
        if target is not None:
            if why := arrow(name, target):
                yield f"<{include}>: {why}"
        elif include in TOO_WIDE or include.startswith("torch/"):
            yield f"<{include}> in a public header: use <ATen/core/Tensor.h> or narrower; autograd in sources only"
        elif (include.startswith("ATen/ops/") and not NARROW_OPS.fullmatch(include)) or include == "ATen/TensorOperators.h":
            yield f"<{include}> defines LOG and CHECK, which are the host's: add the call to draft/nn/detail/aten.hpp"
        elif "/" in include or include.endswith((".h", ".hpp")):
            if not include.startswith(EXTERNAL.get(room, EXTERNAL_ABOVE)):
                yield f"<{include}>: {room} headers may include std" + "".join(
                    f", {prefix}" for prefix in EXTERNAL.get(room, EXTERNAL_ABOVE))


def header_alone(name):
    """Whether a path below include/outrider belongs to outrider::headers, which links nothing."""
    return room_of(name) in HEADERS_ROOMS or (room_of(name) == "target" and pathlib.PurePosixPath(name).stem in HEADERS_OF_TARGET)


def compiled_part_named(root, path):
    """A header of outrider::headers names no header of the compiled part. As each is checked, none is reached either."""
    name = path.relative_to(root / "include/outrider").as_posix()
    if not header_alone(name):
        return
    for include in includes(path):
        target = own(include)
        if target is not None and not header_alone(target):
            yield f"<{include}> belongs to the compiled part, {name} to outrider::headers"


def tensor_library_reached(root, path, seen):
    """The chain of includes that leads from `path` to the tensor library, or None."""
    for include in includes(path):
        if include.startswith(TENSOR_LIBRARY):
            return [include]
        for there in (root / "include" / include, root / "src" / include, path.parent / include):
            if there.is_file() and there not in seen:
                seen.add(there)
                if chain := tensor_library_reached(root, there, seen):
                    return [include] + chain
    return None


def check_source(root, path):
    name = path.relative_to(root / "src").as_posix()
    room = room_of(name)
    if room not in RANK:
        yield f"unknown room '{room}'"
        return
    if room in PLAIN_SOURCES:
        if chain := tensor_library_reached(root, path, {path}):
            yield "reaches the tensor library through " + " -> ".join(chain)
    for include in includes(path):
        if include in ("torch/torch.h", "torch/all.h"):
            yield f"<{include}> costs 20 s and 1 GB a file; include the parts of torch/csrc that are needed"
        if include.startswith("../"):
            yield f'"{include}": another folder\'s private header is included by its room, "room/name.hpp"'
        target = own(include)
        if target is None:
            continue
        if why := arrow(name, target):
            yield f"<{include}>: {why}"
        stem = pathlib.PurePosixPath("engine/engine.hpp" if target == "engine.hpp" else target.replace("/detail/", "/"))
        if room != "cli" and path.suffix == ".cpp" and stem.stem == path.stem and stem.parent != pathlib.PurePosixPath(name.replace("/detail/", "/")).parent:
            yield f"the body of <{include}> stands in src/{pathlib.PurePosixPath(name).parent}, not in its header's room"


def second_bodies(root, path):
    """Bodies of `keep_best`, of `subtree` and of the economy beside those that there are."""
    name = path.relative_to(root).as_posix()
    text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
    if name not in TREE_PARTS:
        for piece in re.split(r"\n\s*\n", text):
            if BUILDER.search(piece) and ORDERED.search(piece):
                yield "a tree of the best nodes has its body in tree/detail/keep_best.hpp"
            if RENUMBERED.search(piece):
                yield "a part of a tree has its body in tree/detail/subtree.hpp, or keep_best.hpp"
    if not name.startswith(ECONOMY_ROOM):
        for kind in ECONOMY.findall(text):
            if kind not in ECONOMY_VALUES:
                yield f"{kind}: what drafting costs and brings is known in budget/ alone"


def folders_of_names(root):
    """Names of headers and sources, without their ends, to the rooms' folders that hold one so called."""
    found = {}
    for base in ("include/outrider", "src"):
        for path in (root / base).rglob("*.[chi]pp"):
            folder = path.parent.relative_to(root / base).as_posix()
            found.setdefault(path.stem.removesuffix("-inl"), set()).add(re.sub(r"(^|/)detail(?=/|$)", "", folder) or ".")
    return found


def check_tests(root):
    """tests/unit has the rooms' folders, and a test that is called after a header or a source stands in its folder."""
    known = folders_of_names(root)
    for path in sorted((root / "tests/unit").rglob("*_test.cpp")):
        folder = path.parent.relative_to(root / "tests/unit").as_posix()
        if not any((root / base / folder).is_dir() for base in ("include/outrider", "src")):
            yield f"{path.relative_to(root)}: there is no room {folder}"
        there = known.get(path.stem.removesuffix("_test"), {folder})
        if folder not in there:
            yield f"{path.relative_to(root)}: what it tests lies in {', '.join(sorted(there))}; move it to tests/unit/ there"


def check_names(root):
    """No two headers' types share a name, whatever their namespaces: internal ones stand beside public ones."""
    first = {}
    for base in ("include", "src"):
        for path in sorted((root / base).rglob("*.hpp")):
            name = path.relative_to(root).as_posix()
            for kind in TYPE.findall(path.read_text(encoding="utf-8")):
                if first.setdefault(kind, name) != name:
                    yield f"{name}: {kind} is in {first[kind]} too; a name is of one thing"


def check_api(root):
    """Each public header is in the front door or in docs/api.md, machinery (detail/) apart."""
    door, api = root / FRONT_DOOR, root / API
    told = set(includes(door)) if door.exists() else set()
    if api.exists():
        told |= set(re.findall(r"outrider/[\w/]+\.hpp", api.read_text(encoding="utf-8")))
    for path in sorted((root / "include/outrider").rglob("*.hpp")):
        name = path.relative_to(root / "include").as_posix()
        if "/detail/" not in name and not name.endswith("-inl.hpp") and name not in told and name != "outrider/outrider.hpp":
            yield f"include/{name}: neither in the front door nor in {API}"
    for name in sorted(told):
        if name.startswith("outrider/") and not (root / "include" / name).exists():
            yield f"{API}: <{name}> does not exist"


def check(root):
    breaches = []
    for path in sorted((root / "include/outrider").rglob("*.hpp")):
        breaches += [f"{path.relative_to(root)}: {why}"
                     for why in (*check_header(root, path), *compiled_part_named(root, path))]
    for path in sorted((root / "src").rglob("*.[ch]pp")):
        if path.parent != root / "src":
            breaches += [f"{path.relative_to(root)}: {why}" for why in check_source(root, path)]
    breaches += [f"{path.relative_to(root)}: {why}" for folder in ("include", "src")
                 for path in sorted((root / folder).rglob("*.[ch]pp")) for why in second_bodies(root, path)]
    for path in sorted((root / "examples").rglob("*.[ch]pp")):
        breaches += [f"{path.relative_to(root)}: <{name}> is private; examples use what is installed"
                     for name in includes(path)
                     if name.startswith(("../../src", "../../include", "src/")) or (own(name) and not name.startswith("outrider/"))]
    breaches += [f"{path.name}: a stray file at the top; remove it, or name it in check_layers.py"
                 for path in sorted(root.iterdir())
                 if path.is_file() and not path.name.startswith(".") and path.name not in TOP]
    return breaches + list(check_tests(root)) + list(check_api(root)) + list(check_names(root))


GOOD = {
    "include/outrider/core/a.hpp": "#include <vector>\n",
    "include/outrider/tree/detail/machine.hpp": "#include <outrider/core/a.hpp>\n",
    "include/outrider/accept/rules/r.hpp": "#include <outrider/tree/detail/machine.hpp>\n",
    "include/outrider/formats/f.hpp": "#include <outrider/core/a.hpp>\n",
    "include/outrider/text/t.hpp": "#include <outrider/formats/f.hpp>\n",
    "include/outrider/target/verifier.hpp": "#include <ATen/core/Tensor.h>\n#include <outrider/formats/f.hpp>\n",
    "include/outrider/target/llama.hpp": "#include <outrider/target/verifier.hpp>\n#include <outrider/text/t.hpp>\n",
    "include/outrider/accept/match.hpp": "#include <outrider/accept/rules/r.hpp>\n",
    "include/outrider/draft/drafter.hpp": "#include <outrider/target/verifier.hpp>\n",
    "include/outrider/draft/ctc/c.hpp": "#include <outrider/draft/drafter.hpp>\n",
    "include/outrider/draft/hydra/h.hpp": "#include <outrider/draft/drafter.hpp>\n",
    "include/outrider/decode/loop.hpp": "#include <outrider/draft/drafter.hpp>\n#include <outrider/accept/match.hpp>\n",
    "include/outrider/outrider.hpp": "#include <outrider/decode/loop.hpp>\n#include <outrider/core/a.hpp>\n",
    "docs/api.md": "".join(f"`outrider/{name}`\n" for name in (
        "accept/rules/r.hpp", "formats/f.hpp", "text/t.hpp", "target/verifier.hpp", "target/llama.hpp", "accept/match.hpp",
        "draft/drafter.hpp", "draft/ctc/c.hpp", "draft/hydra/h.hpp")),
    "src/kernels/plain.hpp": "#include <outrider/core/a.hpp>\n",
    "src/kernels/plain.cpp": '#include "kernels/plain.hpp"\n',
    "src/decode/loop.cpp": "#include <ATen/ATen.h>\n#include <outrider/decode/loop.hpp>\n"
                           "TokenTree::Builder tree(0);\ntree.add(nodes[i].parent, nodes[i].token, 0);\n\nstd::sort(a, b);\n",
    "include/outrider/tree/detail/keep_best.hpp": "std::stable_sort(a, b);\nTokenTree::Builder tree(0);\n"
                                                  "tree.add(place[kept.parent], 0, 0);\n",
    "include/outrider/budget/detail/cost.hpp": "class PassCost {};\n",
    "examples/01/main.cpp": "#include <outrider/outrider.hpp>\n",
    "tests/unit/tree/machine_test.cpp": "",
    "tests/unit/draft/ctc/c_test.cpp": "",
    "tests/unit/decode/whole_answers_test.cpp": "",
}
BAD = {  # file, the line added to it, a word of the expected breach
    "core -> tree": ("include/outrider/core/a.hpp", "#include <outrider/tree/x.hpp>", "lower rooms"),
    "core uses ATen": ("include/outrider/core/a.hpp", "#include <ATen/core/Tensor.h>", "may include std"),
    "core uses fmt": ("include/outrider/core/a.hpp", "#include <fmt/format.h>", "may include std"),
    "target uses fmt": ("include/outrider/target/verifier.hpp", "#include <fmt/format.h>", "may include std"),
    "core uses json": ("include/outrider/core/a.hpp", "#include <nlohmann/json.hpp>", "may include std"),
    "torch.h": ("include/outrider/target/verifier.hpp", "#include <torch/torch.h>", "public header"),
    "ATen.h": ("include/outrider/target/verifier.hpp", "#  include <ATen/ATen.h>", "public header"),
    "an operation's wide header": ("include/outrider/target/verifier.hpp", "#include <ATen/ops/cat.h>", "the host's"),
    "autograd": ("include/outrider/target/verifier.hpp", "#include <torch/csrc/autograd/autograd.h>", "public header"),
    "formats -> tree": ("include/outrider/formats/f.hpp", "#include <outrider/tree/detail/machine.hpp>", "core only"),
    "draft -> accept": ("include/outrider/draft/drafter.hpp", "#include <outrider/accept/match.hpp>", "siblings"),
    "target -> decode": ("include/outrider/target/verifier.hpp", "#include <outrider/decode/loop.hpp>", "lower"),
    "ctc -> hydra": ("include/outrider/draft/ctc/c.hpp", "#include <outrider/draft/hydra/h.hpp>", "each other"),
    "loop names": ("include/outrider/decode/loop.hpp", "#include <outrider/target/llama.hpp>", "concrete"),
    "missing": ("include/outrider/target/verifier.hpp", "#include <outrider/core/nowhere.hpp>", "does not exist"),
    "compiled part": ("include/outrider/draft/drafter.hpp", "#include <outrider/target/llama.hpp>", "compiled part"),
    "private header": ("include/outrider/target/verifier.hpp", '#include "kernels/plain.hpp"', "no public header"),
    "front door used": ("include/outrider/target/verifier.hpp", "#include <outrider/outrider.hpp>", "no room below"),
    "not told": ("include/outrider/core/new.hpp", "#include <vector>", "neither in the front door"),
    "told, not there": ("docs/api.md", "`outrider/core/gone.hpp`", "does not exist"),
    "new room": ("include/outrider/misc/new.hpp", "#include <vector>", "unknown room"),
    "new room of bodies": ("src/misc/new.cpp", "#include <vector>", "unknown room"),
    "kernels reach ATen": ("src/kernels/plain.hpp", "#include <ATen/ATen.h>", "tensor library"),
    "source -> right": ("src/kernels/plain.cpp", "#include <outrider/decode/loop.hpp>", "lower"),
    "body elsewhere": ("src/engine/loop.cpp", "#include <outrider/decode/loop.hpp>", "not in its header's room"),
    "source of another": ("src/decode/loop.cpp", '#include "../kernels/private.hpp"', "by its room"),
    "left by a command": ("POSITIVE", "<!doctype html>", "stray"),
    "second keep_best": ("include/outrider/draft/drafter.hpp",
                         "TokenTree best() {\n    std::partial_sort(a, b, c);\n    TokenTree::Builder tree(0, 3);\n}", "keep_best"),
    "second keep_best, by a threshold": ("src/decode/loop.cpp",
                                         "std::nth_element(a, b, c);\nTokenTree::Builder tree{0};", "keep_best"),
    "second subtree": ("include/outrider/decode/loop.hpp",
                       "part.add(place[static_cast<std::size_t>(tree.parents()[i])], tree.tokens()[i], 0);", "subtree"),
    "second subtree, over lines": ("src/decode/loop.cpp", "part.add(\n    kept[node.parent],\n    node.token, 0);", "subtree"),
    "second economy": ("include/outrider/draft/drafter.hpp", "class DraftCost {};", "budget/ alone"),
    "second economy in a source": ("src/decode/loop.cpp", "namespace {\nstruct PassPrices {", "budget/ alone"),
    "a name of two things": ("include/outrider/core/a.hpp", "struct PassCost : Base {", "one thing"),
    "a test elsewhere": ("tests/unit/kernels/machine_test.cpp", "", "lies in tree"),
    "a test in the room above": ("tests/unit/draft/c_test.cpp", "", "lies in draft/ctc"),
    "a test of no room": ("tests/unit/misc/new_test.cpp", "", "no room misc"),
    "private example": ("examples/01/main.cpp", '#include "kernels/plain.hpp"', "private"),
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
    breaches = check(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(breaches) if breaches else "rooms: all arrows hold, no second bodies")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
