#!/usr/bin/env python3
"""Compares `outrider tokenize` with the ids that llama.cpp's own tests expect, for a folder of vocabularies.

    compare_published.py FOLDER [--program build/release/outrider]

FOLDER is models/ of llama.cpp's source: ggml-vocab-NAME.gguf with strings in NAME.gguf.inp and ids in NAME.gguf.out. The
files are no part of this project; PyPI's source archive of llama-cpp-python holds them in vendor/llama.cpp/models. Prints a
line for each vocabulary that has strings, and what is wrong with it. Ends with status 1 where one that can be read differs."""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SEPARATOR = "\n__ggml_vocab_test__\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--program", default=str(ROOT / "build/release/outrider"))
    arguments = parser.parse_args()
    agree = refused = differ = 0
    for path in sorted(arguments.folder.glob("ggml-vocab-*.gguf")):
        strings = path.with_name(path.name + ".inp")
        if not strings.exists():
            continue
        texts = strings.read_bytes().decode().split(SEPARATOR)[:-1]  # what follows the last separator is no string
        lines = path.with_name(path.name + ".out").read_text().split("\n")
        expected = [[int(word) for word in line.split()] for line in lines[:len(texts)]]
        given = "".join(json.dumps(text) + "\n" for text in texts)
        run = subprocess.run([arguments.program, "tokenize", "--model", path], input=given, capture_output=True, text=True)
        if run.returncode != 0:
            refused += 1
            print(f"{path.stem}: refused ({run.stderr.strip()[:200]})")
            continue
        ids = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
        wrong = [text for text, ours, theirs in zip(texts, ids, expected) if ours != theirs]
        agree, differ = agree + (not wrong), differ + bool(wrong)
        print(f"{path.stem}: {len(texts) - len(wrong)} of {len(texts)}" + (f", first {wrong[0]!r}" if wrong else ""))
    print(f"{agree} vocabularies agree, {differ} differ, {refused} are refused")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
