#!/usr/bin/env bash
# Measures the device path on a machine with a GPU, one step a call or all of them; docs/gpu.md says what is expected.
#     benchmarks/device.sh [--into FOLDER] MODEL [text|speed|sampled|batch|kernels|launches]...
# MODEL: a Hugging Face folder or a GGUF file. DEVICE (cuda), DRAFTERS (none,ngram), PROMPTS (examples/prompts.jsonl) and N
# (128 tokens a prompt) are taken from the environment. Needs the program of the preset cuda, or OUTRIDER_BUILD.
#   text      the texts of every drafter on the device against plain decoding there, and against the CPU's in f32
#   speed     tokens a second of every drafter, one prompt at a time
#   sampled   the same at temperature 0.8, of all tokens and of those that top-p 0.9 keeps
#   batch     the same for 8 and 32 sequences
#   kernels   speed again with the library's kernels and products (OUTRIDER_KERNELS=1), without graphs, and with drafters on the CPU
#   launches  kernels and copies of 32 tokens, by nsys where it is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=benchmarks/results/device
if [ "${1:-}" = --into ]; then out=$2; shift 2; fi
[ $# -gt 0 ] || { sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
model=$1
shift
program=${OUTRIDER_BUILD:-build/cuda}/outrider
device=${DEVICE:-cuda}
drafters=${DRAFTERS:-none,ngram}
prompts=${PROMPTS:-examples/prompts.jsonl}
tokens=${N:-128}
mkdir -p "$out"

# The card, its driver and the day, beside each figure.
machine() {
    if [ "${device%%:*}" = cuda ]; then
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    else
        sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1
    fi
    date -u +%Y-%m-%d
}

compare() {  # NAME OPTION...
    local name=$1
    shift
    "$program" compare --model "$model" --device "$device" --drafters "$drafters" --prompts "$prompts" -n "$tokens" \
        --json "$out/$name.json" "$@" | tee "$out/$name.txt"
}

generate() {  # NAME OPTION...: the token ids alone, a line a prompt
    local name=$1
    shift
    "$program" generate --model "$model" --prompts "$prompts" -n "$tokens" --json "$out/$name.jsonl" "$@" >/dev/null
    python3 -c 'import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    row = json.loads(line)
    print(row["id"], *row["token_ids"])' "$out/$name.jsonl" >"$out/$name.ids"
}

step() {
    machine >"$out/$1.machine.txt"
    case $1 in
        text)
            generate text_cpu --device cpu --weights f32 --drafter none
            generate text_device_f32 --device "$device" --weights f32 --drafter none
            generate text_device --device "$device" --drafter none
            for other in text_device_f32 text_device; do
                echo "$other: $(diff "$out/text_cpu.ids" "$out/$other.ids" | grep -c '^>' || true) texts differ from the CPU's"
            done | tee "$out/text.txt"
            compare text_drafters ;;
        speed)
            compare speed --batch 1 ;;
        sampled)
            compare sampled --batch 1 --temperature 0.8
            compare sampled_top_p --batch 1 --temperature 0.8 --top-p 0.9 ;;
        batch)
            for size in 8 32; do compare "batch_$size" --batch "$size"; done ;;
        kernels)
            OUTRIDER_KERNELS=1 compare kernels --batch 1
            OUTRIDER_GRAPHS=0 compare no_graphs --batch 1
            compare drafters_on_cpu --batch 1 --drafter-device cpu ;;
        launches)
            command -v nsys >/dev/null || { echo "launches needs nsys, of the CUDA toolkit" >&2; return 1; }
            nsys profile --force-overwrite true --output "$out/launches" "$program" generate --model "$model" \
                --device "$device" --drafter none --prompt "Why is the sky blue?" -n 32 >/dev/null
            nsys stats --report cuda_gpu_kern_sum,cuda_gpu_mem_time_sum "$out/launches.nsys-rep" | tee "$out/launches.txt" ;;
        *)
            echo "unknown step $1: expected text, speed, sampled, batch, kernels or launches" >&2
            exit 2 ;;
    esac
}

[ $# -gt 0 ] || set -- text speed sampled batch kernels launches
for name in "$@"; do step "$name"; done
