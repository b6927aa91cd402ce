#!/usr/bin/env python3
"""Puts the figures of benchmarks/performance.sh into benchmarks/results/performance.md, between its marks.

    performance_page.py FOLDER [--page benchmarks/results/performance.md]            writes them
    performance_page.py FOLDER --check                                 exit 1 if the page holds others

A figure whose step was not run is said to be missing, in the page as well.
"""
import argparse
import json
import pathlib
import re
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import compare_sets  # noqa: E402

MARK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.S)

# Weights in the matrices of SmolLM2-135M: 30 layers of q, k, v, o and three of the feed-forward; the output matrix.
MATRIX_WEIGHTS = 30 * (576 * (576 + 2 * 192) + 576 * 576 + 3 * 576 * 1536) + 49152 * 576

# What a symbol of the profile belongs to: the first pattern that is found in it.
PARTS = [
    ("matrices: integer tiles", r"kernels::.*\b(tile|multiply|bound_rows)\b"),
    ("attention", r"attend|attention|Attention|score_|mix_|exponentials"),
    ("quantising rows, norms, rotary, gate", r"quantise_row|norm|rotary|rope|silu|PackedRows|add_row|round_pairs"),
    ("argmax of the logits", r"largest|argmax"),
    ("waiting at barriers", r"team::wait|ThreadTeam|sched_yield|futex"),
]
REST = "everything else: the loop, the rest of loading, the kernel"


def read_pass(path):
    """What target_pass printed: {title, times: {rows: milliseconds}, least: the same, rest: [lines]}; times are medians."""
    lines = path.read_text(encoding="utf-8").splitlines()
    times, least = {}, {}
    for line in lines[1:]:
        match = re.match(r" *(\d+) +([\d.]+) ms +([\d.]+) ms", line)
        if match:
            times[int(match[1])], least[int(match[1])] = float(match[2]), float(match[3])
    return {"title": lines[0], "times": times, "least": least, "rest": [line for line in lines[1:] if "tokens/s" in line]}


class Figures:
    """One method a mark; each gives Markdown, or raises FileNotFoundError where its step was not run."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return self.folder / name

    def load(self, name):
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def machine(self, step):
        return self.path(f"{step}.machine.txt").read_text(encoding="utf-8").strip()

    def limits(self):
        kernels = self.load("kernels.json")
        rates = {(row["format"], row["isa"]): row["multiplies_per_second"] for row in kernels["rows"]}
        lines = ["| probe | rate |", "|---|---|",
                 f"| reading memory, {kernels['threads']} threads | {kernels['bytes_per_second'] * 1e-9:.1f} GB/s |"]
        for (form, isa), rate in rates.items():
            lines.append(f"| multiply-adds, {form}, {isa}, weights in the second-level cache | {rate * 1e-9:.0f} G/s |")
        return "\n".join(lines + ["", f"`benchmarks/performance.sh kernels`: {self.machine('kernels')}."])

    def matrices(self):
        kernels = self.load("kernels.json")
        cells = {(row["format"], row["isa"], row["rows"]): row for row in kernels["rows"]}
        rows = sorted({row["rows"] for row in kernels["rows"]})
        kinds = list(dict.fromkeys((row["format"], row["isa"]) for row in kernels["rows"]))
        lines = ["| | MB | " + " | ".join(f"n = {n}" for n in rows) + " |", "|---" * (len(rows) + 2) + "|"]
        for form, isa in kinds:
            first = cells[form, isa, rows[0]]
            lines.append(f"| {form}, {isa}, ms | {first['megabytes']:.0f} | " +
                         " | ".join(f"{cells[form, isa, n]['ms']:.2f}" for n in rows) + " |")
            shares = []
            for n in rows:
                cell = cells[form, isa, n]
                reading = cell["megabytes"] * 1e6 / kernels["bytes_per_second"]
                counting = n * MATRIX_WEIGHTS / cell["multiplies_per_second"]
                which = "m" if reading > counting else "a"
                shares.append(f"{100 * max(reading, counting) / (1e-3 * cell['ms']):.0f} % {which}")
            lines.append("| of the limit | | " + " | ".join(shares) + " |")
        return "\n".join(lines + ["", "Of the limit: the larger of bytes / bandwidth (m) and multiply-adds / rate (a), over "
                                      f"the time taken. {self.machine('kernels')}."])

    def whole_pass(self):
        runs = [read_pass(self.path(name)) for name in ("pass_stored.txt", "pass_stored_avx2.txt", "pass_bf16.txt")
                if self.path(name).exists()]
        if not runs:
            raise FileNotFoundError("pass_stored.txt")
        rows = sorted(set.intersection(*(set(run["times"]) for run in runs)))
        lines = ["| whole pass, ms | " + " | ".join(f"n = {n}" for n in rows) + " |", "|---" * (len(rows) + 1) + "|"]
        for run in runs:
            title = re.sub(r", \d+ threads", "", run["title"].rsplit(", loaded", 1)[0])
            lines.append(f"| {title} | " + " | ".join(f"{run['times'][n]:.2f}" for n in rows) + " |")
            lines.append("| over n = 1 | " + " | ".join(f"{run['times'][n] / run['times'][1]:.2f}" for n in rows) + " |")
        for run in runs:
            lines += ["", f"{run['title']}: {'; '.join(run['rest'])}." + self.reading(run)]
        return "\n".join(lines + ["", f"Medians, context 256. `benchmarks/performance.sh pass`: {self.machine('pass')}."])

    def reading(self, run):
        """How much of t(1) reading the weights alone would take."""
        if not self.path("kernels.json").exists():
            return ""
        megabytes = float(re.search(r"(\d+) MB", run["title"])[1])
        reading = 1e9 * megabytes / self.load("kernels.json")["bytes_per_second"]
        return (f" Reading {megabytes:.0f} MB takes {reading:.2f} ms at the measured bandwidth, "
                f"{100 * reading / run['times'][1]:.0f} % of n = 1.")

    def beside_matrices(self):
        """What of a pass lies outside the matrices, by difference of two programs' times."""
        kernels = self.load("kernels.json")
        whole = {"stored": read_pass(self.path("pass_stored.txt")), "bf16": read_pass(self.path("pass_bf16.txt"))}
        lines = ["| | rows | whole pass, ms | matrices, ms | the rest, ms | the rest for a row, us |", "|---" * 6 + "|"]
        for form, run in whole.items():
            isa = run["title"].split("path ")[1].split(",")[0]
            for row in kernels["rows"]:
                if row["format"] == form and row["isa"] == isa and row["rows"] in run["least"]:
                    time = run["least"][row["rows"]]
                    lines.append(f"| {form}, {isa} | {row['rows']} | {time:.2f} | {row['ms']:.2f} | {time - row['ms']:.2f} | "
                                 f"{1e3 * (time - row['ms']) / row['rows']:.0f} |")
        return "\n".join(lines + ["", "Two programs after one another, the smallest times of both: the difference is rough, and "
                                      "other work on the machine goes into it."])

    def quality(self):
        lines = ["| weights | path | loss | perplexity | KL to f32 | same first choice |", "|---|---|---|---|---|---|"]
        text = self.path("quality.txt").read_text(encoding="utf-8")
        for row in re.findall(r"^ *(\w+), (\w+) +(\S+) +(\S+) +(\S+) +(\S+) %$", text, re.M):
            lines.append("| " + " | ".join(row) + " % |")
        tokens = re.search(r"^(\d+) tokens$", text, re.M)
        return "\n".join(lines + ["", f"`benchmarks/performance.sh quality`: the first {tokens[1]} tokens of "
                                      f"docs/acceptance.md. {self.machine('quality')}."])

    def profile(self):
        sums = dict.fromkeys([name for name, _ in PARTS] + [REST], 0.0)
        for line in self.path("profile.txt").read_text(encoding="utf-8").splitlines():
            percent, _, symbol = line.split(" ", 2)
            sums[next((name for name, pattern in PARTS if re.search(pattern, symbol)), REST)] += float(percent)
        lines = ["| where the processor was | share of samples |", "|---|---|"]
        lines += [f"| {name} | {value:.1f} % |" for name, value in sums.items()]
        return "\n".join(lines + ["", "`benchmarks/performance.sh profile` (perf; twelve prompts read and answered plainly, "
                                      f"stored weights): {self.machine('profile')}."])

    def rounds(self):
        return compare_sets.stages(self.load("rounds.json")) + f"\n`benchmarks/performance.sh rounds`: {self.machine('rounds')}."

    def drafts(self):
        """A draft beside the pass that checks it, by the medians of all runs' medians."""
        cells, path, name = {}, None, None
        for line in self.path("drafts.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("path "):
                path = line[5:]
            elif line.endswith(", us a round"):
                name = pathlib.PurePath(line.rsplit(",", 1)[0]).name
            elif re.match(r" *\d", line):
                nodes, draft, _, verify, *_ = line.split()
                cells.setdefault((path, name, int(nodes)), []).append((float(draft), float(verify)))
        lines = ["| path | drafter | nodes | draft, us | pass, us | draft / pass |", "|---" * 6 + "|"]
        for (path, name, nodes), runs in cells.items():
            draft, verify = (statistics.median(values) for values in zip(*runs))
            shares = [draft / verify for draft, verify in runs]
            lines.append(f"| {path} | {name} | {nodes} | {draft:.0f} | {verify:.0f} | "
                         f"{statistics.median(shares):.3f} ({min(shares):.3f} - {max(shares):.3f}) |")
        return "\n".join(lines + ["", "A context of 200 tokens that grows by each round, medians of three runs in turn, 150 rounds "
                                      f"each. `benchmarks/performance.sh drafts`: {self.machine('drafts')}."])

    def speed(self):
        """Drafting against plain decoding on each path, a sequence at a time."""
        lines = ["| prompts | weights | path | drafter | beta | nodes a round | draft, us | verify, us | tokens/s | over plain | "
                 "same text |", "|---" * 11 + "|"]
        for name, path in (("speed_stored", "fastest"), ("speed_stored_avx2", "avx2"), ("speed_bf16", "fastest")):
            for r in self.load(f"{name}.json"):
                parts = r["microseconds_per_round"]
                lines.append(f"| {r['prompts']} ({r['prompt_count']}) | {r['weights'].split(' ')[0]} | {path} | {r['drafter']} | "
                             f"{r['beta']:.2f} | {r['nodes_per_round']:.1f} | {parts['draft']:.0f} | {parts['verify']:.0f} | "
                             f"{r['tokens_per_second']:.0f} | {r['gamma']:.2f} ({r['gamma_low']:.2f} - {r['gamma_high']:.2f}) | "
                             f"{'yes' if r['identical'] else str(r['differing']) + ' differ'} |")
        return "\n".join(lines + ["", f"`--nodes auto`, at most {r['max_tokens']} tokens a prompt, greedy. "
                                      f"`benchmarks/performance.sh speed`: {self.machine('speed')}."])

    def sampling(self):
        """A plain round at temperature 1 against a greedy one. Pairs, since the machine's speed changes between them."""
        rounds = {t: [sum(r["microseconds_per_round"].values()) for r in self.load("sampling.json") if r["temperature"] == t]
                  for t in (0, 1)}
        middle = {t: statistics.median(times) for t, times in rounds.items()}
        spread = "; ".join(f"{min(times):.0f} to {max(times):.0f}" for times in rounds.values())
        pairs = [sampled / greedy for greedy, sampled in zip(rounds[0], rounds[1])]
        return (f"A plain round takes {middle[0]:.0f} us greedy and {middle[1]:.0f} us at temperature 1 "
                f"(medians of {len(pairs)} alternating runs, which took {spread} us); of two runs after one another the second "
                f"takes {100 * (statistics.median(pairs) - 1):+.1f} % (the median of the pairs). `benchmarks/performance.sh speed`: {self.machine('speed')}.")

    def batch(self):
        rows = sorted(self.load("batch.json"), key=lambda row: row["batch"])
        sizes = list(dict.fromkeys(row["batch"] for row in rows))
        drafters = list(dict.fromkeys(row["drafter"] for row in rows))
        rate = {(row["batch"], row["drafter"]): row for row in rows}
        lines = ["| tokens/s of all sequences | " + " | ".join(f"batch {size}" for size in sizes) + " |",
                 "|---" * (len(sizes) + 1) + "|"]
        for name in drafters:
            lines.append(f"| {name} | " + " | ".join(f"{rate[size, name]['tokens_per_second']:.0f}" for size in sizes) + " |")
            over = [f"{rate[size, name]['gamma']:.2f} ({rate[size, name]['gamma_low']:.2f} - "
                    f"{rate[size, name]['gamma_high']:.2f})" for size in sizes]
            if name != "none":
                lines.append("| over plain | " + " | ".join(over) + " |")
        return "\n".join(lines + ["", f"`benchmarks/performance.sh batch`: {self.machine('batch')}."])

    def batch_rounds(self):
        rows = [row for row in sorted(self.load("batch.json"), key=lambda row: row["batch"]) if row["batch"] in (1, 8, 64)]
        return compare_sets.stages(rows)

    def memory(self):
        report = self.load("memory.json")
        lines = ["| weights | drafter | held: target, MB | held: drafter, MB | peak, MB | peak without LibTorch's, MB | over held |",
                 "|---" * 7 + "|"]
        for r in report["rows"]:
            own, held = r["peak_mb"] - report["bare_mb"], r["target_mb"] + r["drafter_mb"]
            lines.append(f"| {r['weights']} | {r['drafter']} | {r['target_mb']:.0f} | {r['drafter_mb']:.0f} | {r['peak_mb']:.0f} | "
                         f"{own:.0f} | {own / held:.2f} |")
        return "\n".join(lines + ["", f"`outrider --version`, which loads LibTorch and no model, takes {report['bare_mb']:.0f} MB. Held: "
                                      "the packed matrices and tables as `outrider compare --json` counts them, KV caches "
                                      f"left out. Peak: the process's largest resident set over one prompt and {report['tokens']} tokens, the "
                                      f"median of {report['repeats']} runs; files are read by mapping. "
                                      f"`benchmarks/performance.sh memory`: {self.machine('memory')}."])


def filled(page, figures):
    def fill(match):
        try:
            text = getattr(figures, match[2])()
        except FileNotFoundError as missing:
            text = f"Not measured: no {pathlib.Path(missing.filename or str(missing)).name}."
        return match[1] + text.rstrip("\n") + "\n" + match[3]

    return MARK.sub(fill, page)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path, default=HERE.parent / "benchmarks/results/performance.md")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    old = options.page.read_text(encoding="utf-8")
    new = filled(old, Figures(options.folder))
    if options.check:
        return 0 if new == old else f"{options.page} does not hold the figures of {options.folder}; write them anew"
    options.page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
