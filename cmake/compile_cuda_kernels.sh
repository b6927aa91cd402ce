#!/bin/bash
# compile_cuda_kernels.sh [FOLDER]: compiles src/cuda for sm_80 and sm_90a, writes the objects to FOLDER (build/cuda) and
# prints a table of registers, spilled bytes and shared memory of every kernel. Fails where something does not compile or a
# kernel spills. Needs nvcc, no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/cuda}
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "no nvcc: install the CUDA toolkit, or name it in NVCC" >&2; exit 2; }
mkdir -p "$out"
for arch in 80 90a; do
    "$nvcc" -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -Iinclude -Wno-deprecated-gpu-targets -Xcompiler=-fPIC -Werror=all-warnings \
        -gencode="arch=compute_$arch,code=sm_$arch" -Xptxas=-v -c src/cuda/kernels.cu -o "$out/kernels_sm_$arch.o" \
        2>"$out/ptxas_sm_$arch.txt" || { cat "$out/ptxas_sm_$arch.txt" >&2; exit 1; }
    python3 - "$arch" "$out/ptxas_sm_$arch.txt" <<'TABLE'
import re, subprocess, sys
arch, text = sys.argv[1], open(sys.argv[2]).read()
rows, spilled = [], False
for name, rest in re.findall(r"Compiling entry function '(\S+)'(.*?)(?=Compiling entry function|\Z)", text, re.S):
    name = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip()
    name = re.sub(r".*run<outrider::cuda::(.*?)>\(.*", r"\1", name).replace("outrider::cuda::", "")
    registers = int(re.search(r"Used (\d+) registers", rest)[1])
    stores, loads = (int(x) for x in re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", rest).groups())
    shared = re.search(r"(\d+) bytes smem", rest)
    spilled |= stores + loads > 0
    rows.append((name, registers, stores + loads, int(shared[1]) if shared else 0))
print(f"{'sm_' + arch:24} {'registers':>10} {'spilled':>8} {'shared':>7}")
for row in sorted(rows):
    print(f"{row[0]:24} {row[1]:>10} {row[2]:>8} {row[3]:>7}")
sys.exit("a kernel spills" if spilled or not rows else 0)
TABLE
done
