#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Ends with ctest's own closing line.
# usage: bash tests/run.sh [options of ctest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash cmake/install_dependencies.sh
bash cmake/install_dependencies.sh --model || echo "no model: the tests that need it will be skipped" >&2
cmake --preset release >/dev/null
cmake --build --preset release
ctest --preset release -j 2 "$@"
