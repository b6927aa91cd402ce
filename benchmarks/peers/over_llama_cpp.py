#!/usr/bin/env python3
"""Outrider's drafters over llama.cpp (examples/06_llama_cpp) beside llama.cpp's own speculation, on one GGUF file.

    over_llama_cpp.py PROGRAM OWN MODEL [--drafters ngram DIR DIR+ngram] [--draft-model FILE] [--prompts FILE] [--limit 8]
                      [--tokens 96] [--threads N] [--repeats 1] [--json FILE]

PROGRAM is the example, OWN the program llama-speculative-simple of the same build of llama.cpp, whose other way of drafting is a
model (--draft-model; the example then drafts with `lm:` and the same file). Both get the prompts as llama.cpp's template writes them,
decode greedily, and are timed from the end of the prompt on. Prompt by prompt, in turn.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

MODES = ("none", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
DRAFTED = re.compile(r"^(\S+) +([\d.]+) tokens a second, ([\d.]+) a pass \((\d+) tokens, (\d+) passes\)$", re.M)
DECODED = re.compile(r"decoded +(\d+) tokens in +([\d.]+) seconds")
SAME = re.compile(r"\A.*?^(?:\S+ .*\n){2}(.*)\n(?:the same without drafts|ANOTHER TEXT WITHOUT DRAFTS.*)\n\Z", re.M | re.S)


def own(arguments, mode, prompt):
    """(tokens, seconds, text) of llama.cpp's own loop."""
    prompt = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    command = [arguments.own, "-m", arguments.model, "-p", prompt, "-n", str(arguments.tokens), "-c", "4096", "--temp", "0",
               "-t", str(arguments.threads), "-tb", str(arguments.threads), "--spec-type", mode]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("own")
    parser.add_argument("model")
    parser.add_argument("--drafters", nargs="+", default=["ngram"])
    parser.add_argument("--draft-model", type=pathlib.Path)
    parser.add_argument("--prompts", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "examples/prompts.jsonl")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    modes, drafters = list(MODES), list(arguments.drafters)
    if arguments.draft_model:
        modes.append("draft-simple")
        drafters.append(f"lm:{arguments.draft_model}")
    prompts = [json.loads(line)["prompt"] for line in arguments.prompts.read_text().splitlines() if line][:arguments.limit]
    sums, texts = {}, {"compared": 0, "same": 0, "of_llama_cpp": 0}

    def count(arm, tokens, seconds, passes=0):
        entry = sums.setdefault(arm, {"tokens": 0, "seconds": 0.0, "passes": 0})
        entry["tokens"] += tokens
        entry["seconds"] += seconds
        entry["passes"] += passes

    for _ in range(arguments.repeats):
        for prompt in prompts:
            plain = None
            for mode in modes:
                tokens, seconds, text = own(arguments, mode, prompt)
                plain = text if mode == "none" else plain
                count(f"llama.cpp {mode}", tokens, seconds)
            for drafter in drafters:
                out = subprocess.run([arguments.program, arguments.model, drafter, prompt, str(arguments.tokens)],
                                     capture_output=True, text=True, check=True).stdout
                for name, speed, _, tokens, passes in DRAFTED.findall(out):
                    count(f"Outrider {pathlib.Path(name).name}", int(tokens), int(tokens) / float(speed), int(passes))
                texts["compared"] += 1
                texts["same"] += "the same without drafts" in out
                texts["of_llama_cpp"] += same_beginning(SAME.match(out)[1].strip(), plain)
    rows = {arm: {"tokens_per_second": round(entry["tokens"] / entry["seconds"], 1),
                  "beta": round(entry["tokens"] / entry["passes"], 2) if entry["passes"] else None} for arm, entry in sums.items()}
    for arm, row in rows.items():
        print(f"{arm:<40} {row['tokens_per_second']:7.1f} tokens a second" + (f", {row['beta']:.2f} a pass" if row["beta"] else ""))
    print(f"of {texts['compared']} drafted texts {texts['same']} are those without drafts, {texts['of_llama_cpp']} those of llama.cpp's own loop")
    if arguments.json:
        settings = {"limit": len(prompts), "tokens": arguments.tokens, "threads": arguments.threads, "repeats": arguments.repeats,
                    "model": pathlib.Path(arguments.model).name, "date": time.strftime("%Y-%m-%d")}
        arguments.json.write_text(json.dumps({"settings": settings, "rows": rows, "texts": texts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
