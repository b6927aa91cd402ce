#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Ends with ctest's own closing line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash cmake/install_dependencies.sh --model
cmake --preset release >/dev/null
cmake --build --preset release
ctest --preset release -j 2 "$@"
