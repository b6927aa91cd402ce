#!/usr/bin/env bash
# Formats every C++ file of the tree; with --check, says which are not formatted and changes nothing (ctest `lint`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
format=.deps/lint/clang_format/data/bin/clang-format
if [ ! -x "$format" ]; then
    echo "no clang-format of the pinned version: run cmake/install_dependencies.sh --lint" >&2
    exit 1
fi
mapfile -d '' files < <(find include src tests examples benchmarks -type f \
                             \( -name '*.cpp' -o -name '*.hpp' -o -name '*.inl' \) -print0)
case ${1:-} in
    --check)
        if ! "$format" --dry-run --Werror "${files[@]}" 2>/dev/null; then
            for file in "${files[@]}"; do
                "$format" --dry-run --Werror "$file" 2>/dev/null || echo "not formatted: $file"
            done
            echo "bash cmake/format.sh formats them"
            exit 1
        fi
        echo "${#files[@]} files are formatted" ;;
    '') "$format" -i "${files[@]}" ;;
    *) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac
