#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Ends with ctest's own closing line.
# usage: bash tests/run.sh [--also FOLDER]... [options of ctest]     FOLDER: another build, whose tests are run too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
builds=(build/release)
while [ "${1:-}" = --also ]; do
    builds+=("$2")
    shift 2
done
bash cmake/install_dependencies.sh
bash cmake/install_dependencies.sh --model || echo "no model: the tests that need it will be skipped" >&2
cmake --preset release >/dev/null
cmake --build --preset release
mkdir -p build/tests
for build in "${builds[@]}"; do echo "subdirs(\"$PWD/$build\")"; done >build/tests/CTestTestfile.cmake
ctest --test-dir build/tests --output-on-failure -j 2 "$@"
