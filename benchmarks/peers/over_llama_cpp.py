#!/usr/bin/env python3
"""Outrider's drafters over llama.cpp (examples/06_llama_cpp) beside llama.cpp's own speculation, on one GGUF file.

    over_llama_cpp.py PROGRAM OWN MODEL [--drafters ngram DIR DIR+ngram] [--draft-model FILE] [--prompts FILE] [--limit 8]
                      [--modes none ngram-simple ...] [--tokens 64] [--threads N] [--repeats 1] [--seconds S] [--json FILE] [--page FILE]

PROGRAM is the example, OWN the program llama-speculative-simple of the same build of llama.cpp, whose other way of drafting is a
model (--draft-model; the example then drafts with `lm:` and the same file). Both get the prompts as llama.cpp's template writes them,
decode greedily, and are timed from the end of the prompt on. Prompt by prompt, in turn. --json FILE is gone on with where it exists:
--seconds ends a run early, and the next one takes the prompts that are left. --page writes the table.
"""
import argparse
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import time

MODES = ("none", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
DRAFTED = re.compile(r"^(\S+) +([\d.]+) tokens a second, ([\d.]+) a pass \((\d+) tokens, (\d+) passes\)$", re.M)
DECODED = re.compile(r"decoded +(\d+) tokens in +([\d.]+) seconds")
SAME, ANOTHER = "\nthe same without drafts\n", "\nANOTHER TEXT WITHOUT DRAFTS: "


def own(arguments, mode, prompt):
    """(tokens, seconds, text) of llama.cpp's own loop."""
    prompt = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    command = [arguments.own, "-m", arguments.model, "-p", prompt, "-n", str(arguments.tokens), "-c", "4096", "--temp", "0",
               "-t", str(arguments.threads), "-tb", str(arguments.threads)]
    # The program refuses to decode without speculation; n-grams of this length are never found.
    command += ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "1000"] if mode == "none" else ["--spec-type", mode]
    if mode == "draft-simple":
        command += ["-md", str(arguments.draft_model), "-td", str(arguments.threads), "-tbd", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    found = DECODED.search(done.stdout + done.stderr)
    if found is None:
        sys.exit(f"{mode}: {done.stderr[-400:]}")
    text = done.stdout.split(prompt, 1)[-1] if prompt in done.stdout else ""
    return int(found[1]), float(found[2]), text.strip()


def same_beginning(one, other):
    """Whether the shorter text begins the longer one: both stop at a length of their own."""
    size = min(len(one), len(other))
    return size > 0 and one[:size] == other[:size]


def one_prompt(arguments, prompt, modes, drafters):
    """[tokens, seconds, passes] by arm, and what the texts were."""
    arms, texts, plain = {}, [], None
    for mode in modes:
        tokens, seconds, text = own(arguments, mode, prompt)
        plain = text if mode == "none" else plain
        arms[f"llama.cpp, {mode}"] = [tokens, seconds, 0]
    for drafter in drafters:
        out = subprocess.run([arguments.program, arguments.model, drafter, prompt, str(arguments.tokens)],
                             capture_output=True, text=True, check=True).stdout
        first, second = DRAFTED.finditer(out)
        (_, plain_speed, _, plain_tokens, plain_passes), (_, speed, _, tokens, passes) = first.groups(), second.groups()
        name = "lm" if drafter.startswith("lm:") else "+".join(pathlib.Path(part).name for part in drafter.split("+"))
        arms[f"ours, none (beside {name})"] = [int(plain_tokens), int(plain_tokens) / float(plain_speed), int(plain_passes)]
        arms[f"ours, {name}"] = [int(tokens), int(tokens) / float(speed), int(passes)]
        text = out[second.end():].removesuffix(SAME).split(ANOTHER)[0].strip()
        texts.append({"prompt": prompt, "drafter": name, "same": out.endswith(SAME),
                      "of_llama_cpp": plain is None or same_beginning(text, plain), "text": text, "llama_cpp": plain})
    return {"prompt": prompt, "arms": arms, "texts": texts}


def ratio(runs, arm, base):
    """Geometric mean over prompts of the speeds' ratio, and its 95 % bootstrap interval."""
    by_prompt = {}
    for run in runs:
        if arm in run["arms"] and base in run["arms"]:
            (n, s, _), (m, t, _) = run["arms"][arm], run["arms"][base]
            by_prompt.setdefault(run["prompt"], []).append(math.log(n / s) - math.log(m / t))
    if not by_prompt:
        return None
    logs = [sum(each) / len(each) for each in by_prompt.values()]
    dice = random.Random(1)
    means = sorted(sum(dice.choices(logs, k=len(logs))) / len(logs) for _ in range(2000))
    return [round(math.exp(x), 3) for x in (sum(logs) / len(logs), means[50], means[1949])]


def table(runs):
    """The page's rows, one an arm."""
    rows = []
    for arm in dict.fromkeys(arm for run in runs for arm in run["arms"]):
        found = [run["arms"][arm] for run in runs if arm in run["arms"]]
        tokens, seconds, passes = (sum(each[k] for each in found) for k in range(3))
        name = arm.removeprefix("ours, ")
        beside = f"ours, none (beside {name})"
        shown = ["-" if r is None else f"{r[0]:.2f} ({r[1]:.2f} to {r[2]:.2f})"
                 for r in (ratio(runs, arm, "llama.cpp, none"), ratio(runs, arm, beside) if arm != beside else None)]
        rows.append(f"| {arm} | {tokens / seconds:.1f} | {f'{tokens / passes:.2f}' if passes else '-'} | {shown[0]} | {shown[1]} |")
    return ["| arm | tokens a second | tokens a pass | over llama.cpp's plain loop | over our plain loop beside it |",
            "|---|---|---|---|---|", *rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("own")
    parser.add_argument("model")
    parser.add_argument("--drafters", nargs="+", default=["ngram"])
    parser.add_argument("--draft-model", type=pathlib.Path)
    parser.add_argument("--modes", nargs="*", default=MODES)
    parser.add_argument("--prompts", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "examples/prompts.jsonl")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path)
    arguments = parser.parse_args()
    modes, drafters = list(arguments.modes), list(arguments.drafters)
    if arguments.draft_model:
        modes.append("draft-simple")
        drafters.append(f"lm:{arguments.draft_model}")
    prompts = [json.loads(line)["prompt"] for line in arguments.prompts.read_text().splitlines() if line][:arguments.limit]
    runs = json.loads(arguments.json.read_text())["runs"] if arguments.json and arguments.json.exists() else []
    end = time.monotonic() + arguments.seconds
    for prompt in (prompts * arguments.repeats)[len(runs):]:
        if time.monotonic() > end:
            break
        runs.append(one_prompt(arguments, prompt, modes, drafters))
        if arguments.json:
            arguments.json.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    texts = [text for run in runs for text in run["texts"]]
    same, of_own = sum(text["same"] for text in texts), sum(text["of_llama_cpp"] for text in texts)
    lines = table(runs) + ["", f"{len(runs)} runs over {len({run['prompt'] for run in runs})} prompts, {arguments.tokens} tokens each, "
                           f"{arguments.threads} threads, {pathlib.Path(arguments.model).name}. Of {len(texts)} drafted texts {same} are "
                           f"those without drafts, {of_own} those of llama.cpp's own loop."]
    print("\n".join(lines))
    if arguments.page:
        arguments.page.write_text("# Over llama.cpp\n\nWritten by `benchmarks/peers/over_llama_cpp.py --page`. Ratios of speeds are "
                                  "geometric means over prompts,\nwith 95 % bootstrap intervals. [docs/verifiers.md]"
                                  "(../../docs/verifiers.md) says what follows.\n\n" + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
