#!/usr/bin/env python3
"""What `outrider generate` takes of memory at its peak, beside what its weights take as they are held.

    memory.py --model FILE [--drafters none,FOLDER,FOLDER+ngram] [--weights stored,bf16,f32] -o memory.json
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

PROMPT = "Explain in simple words how a sailing boat can go against the wind."
MB = 1e6


def peak_mb(command):
    """The largest resident set of the command's process, which must succeed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}: {errors.read().decode(errors='replace').strip()}")
    return usage.ru_maxrss * 1024 / MB


def held_bytes(options, weights, drafter):
    """(target's, drafter's) bytes, as `outrider compare` reports them."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, report = pathlib.Path(folder, "prompts.jsonl"), pathlib.Path(folder, "report.json")
        prompts.write_text(json.dumps({"id": "memory", "prompt": PROMPT}) + "\n", encoding="utf-8")
        subprocess.run([options.program, "compare", "--model", options.model, "--weights", weights, "--drafters", drafter,
                        "--prompts", str(prompts), "-n", "4", "--json", str(report)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        found = json.loads(report.read_text(encoding="utf-8"))
    return found["settings"]["weight_bytes"], found["rows"][-1]["weight_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/outrider")
    parser.add_argument("--model", required=True)
    parser.add_argument("--drafters", default="none,ngram")
    parser.add_argument("--weights", default="stored,bf16,f32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-n", "--tokens", type=int, default=128)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    report = {"tokens": options.tokens, "repeats": options.repeats,
              "bare_mb": statistics.median(peak_mb([options.program, "--version"]) for _ in range(options.repeats)), "rows": []}
    for weights in options.weights.split(","):
        for drafter in options.drafters.split(","):
            target, own = held_bytes(options, weights, drafter)
            command = [options.program, "generate", "--model", options.model, "--weights", weights, "--drafter", drafter,
                       "-p", PROMPT, "-n", str(options.tokens)]
            report["rows"].append({"weights": weights, "drafter": "+".join(pathlib.PurePath(part).name for part in drafter.split("+")),
                                   "target_mb": target / MB, "drafter_mb": own / MB,
                                   "peak_mb": statistics.median(peak_mb(command) for _ in range(options.repeats))})
    pathlib.Path(options.output).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
