#!/usr/bin/env python3
"""The table of benchmarks/auto.sh: how near `--nodes auto` is to the best fixed number of nodes, to plain decoding, and a merge to its parts.

    auto_table.py FOLDER        reports of `outrider compare --nodes auto,...` named WEIGHTS-BUSY-START-REPEAT.json

Ratios of decoding times, every prompt's texts being the same in all arms and each prompt's arms having run in turn, with 95 % intervals
over prompts and repeats (bootstrap). The best fixed number is the one that was fastest in the same runs.
"""
import collections
import json
import pathlib
import random
import sys

RESAMPLES = 2000


def read(folder):
    """{(weights, busy, start): {(kind, nodes): [(seconds, tokens) by repeat and prompt]}}"""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for path in sorted(pathlib.Path(folder).glob("*-*-*-*.json")):
        weights, busy, start, _ = path.stem.split("-")
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            times = groups[weights, int(busy), start][row["kind"], row["nodes"]]
            times += [(prompt["seconds"], prompt["tokens"]) for prompt in row["prompts"]]
    return groups


def cost(times, chosen):
    """Seconds a token over the chosen prompts."""
    return sum(times[i][0] for i in chosen) / sum(times[i][1] for i in chosen)


def ratio(slow, fast):
    """How many times as fast as `slow` `fast` is, as a cell with its interval."""
    everything = range(len(fast))
    draw = random.Random(0)
    ratios = sorted(cost(slow, chosen) / cost(fast, chosen)
                    for chosen in (draw.choices(everything, k=len(fast)) for _ in range(RESAMPLES)))
    low, high = ratios[RESAMPLES // 40], ratios[-1 - RESAMPLES // 40]
    return f"{cost(slow, everything) / cost(fast, everything):.2f} ({low:.2f} - {high:.2f})"


def line(key, kind, arms):
    everything = range(len(arms[kind, "auto"]))
    fixed = [nodes for other, nodes in arms if other == kind and nodes != "auto"]
    best = min(fixed, key=lambda nodes: cost(arms[kind, nodes], everything)) if fixed else None
    auto, plain = arms[kind, "auto"], arms["none", 0]
    cells = [*key, kind, ratio(plain, auto)]
    cells += ["-", "-"] if best is None else [f"{cost(plain, everything) / cost(arms[kind, best], everything):.2f} ({best})",
                                              ratio(arms[kind, best], auto)]
    parts = [arms[part, "auto"] for part in kind.split("+") if "+" in kind and (part, "auto") in arms]
    cells.append(ratio(min(parts, key=lambda part: cost(part, everything)), auto) if parts else "-")
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("| weights | busy processes | start | drafter | auto / plain | best fixed / plain (nodes) | auto / best fixed | merge / best part |")
    print("|---|---|---|---|---|---|---|---|")
    for key, arms in sorted(read(sys.argv[1]).items()):
        for kind, nodes in arms:
            if nodes == "auto":
                print(line(key, kind, arms))


if __name__ == "__main__":
    main()
