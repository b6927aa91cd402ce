#!/usr/bin/env bash
# Outrider beside llama.cpp, OpenVINO and transformers on one file, one set of prompts and one machine.
#     benchmarks/peers/run.sh [options of compare_peers.py]      --help lists them; --install only makes the environment
# The peers live in build/peers/venv, a throw-away virtual environment that this script makes (some 5 GB: PyPI's torch
# loads its CUDA libraries even where it runs on the CPU). OUTRIDER_PEERS_PYTHON names an environment to use instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
packages=(torch==2.11.0 transformers accelerate gguf numpy tokenizers xllamacpp openvino-genai matplotlib)

make_environment() {
    local venv=build/peers/venv
    python=$venv/bin/python
    [ -f "$venv/complete" ] && return
    echo "installing ${packages[*]} into $venv" >&2
    rm -rf "$venv"
    # Debian keeps ensurepip in python3-venv; pip itself can install into an environment without it.
    python3 -m venv --without-pip "$venv"
    python3 -m pip --python "$python" install --quiet --disable-pip-version-check --root-user-action=ignore \
        "${packages[@]}"
    touch "$venv/complete"
}

python=${OUTRIDER_PEERS_PYTHON:-}
[ -n "$python" ] || make_environment
[ "${1:-}" != --install ] || exit 0
exec "$python" benchmarks/peers/compare_peers.py "$@"
