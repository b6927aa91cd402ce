#!/usr/bin/env python3
"""Compares what `outrider tokenize --chat` makes of conversations with `transformers`, for a folder of chat templates.

    compare_published.py FOLDER [--program build/release/outrider] [--model FOLDER_OR_GGUF]

FOLDER holds *.jinja files, as published models bring them; they are no part of this project. Prints each template that
differs and the sum. Templates that write the date are left out around midnight. Needs the packages transformers and
jinja2, and the conversations of tests/oracle/make_chat_golden.py."""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
from make_chat_golden import TOKENS, chats  # noqa: E402
from transformers.utils import chat_template_utils as chat  # noqa: E402

VARIANTS = ({}, {"add_generation_prompt": False}, {"enable_thinking": False}, {"thinking": True},
            {"reasoning_effort": "high"}, {"documents": [{"title": "T", "text": "x"}]})


def reference(source, given):
    variables = {**TOKENS, "tools": None, "documents": None, "add_generation_prompt": True, **given}
    variables["messages"] = chat._alias_reasoning_fields(chat._normalize_chat_messages(given["messages"]))
    try:
        return chat._compile_jinja_template(source).render(**variables)
    except Exception:
        return None


def ours(program, model, path, rows):
    """The text of each conversation, None where the program refuses it. It ends at the first such, so it starts again
    behind that."""
    command = [program, "tokenize", "--chat", "--model", model, "--template-file", path]
    texts = []
    while len(texts) < len(rows):
        lines = "".join(json.dumps({**TOKENS, **given}) + "\n" for given in rows[len(texts):])
        run = subprocess.run(command, input=lines, capture_output=True, text=True)
        texts += [json.loads(line)["text"] for line in run.stdout.splitlines()]
        if run.returncode != 0:
            texts.append(None)
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--program", default=str(ROOT / "build/release/outrider"))
    parser.add_argument("--model", default=str(ROOT / "tests/golden/model/tiny-gguf/tiny.gguf"))
    arguments = parser.parse_args()
    good = total = same = refused = 0
    paths = sorted(arguments.folder.glob("*.jinja"))
    for path in paths:
        source = path.read_text()
        named = [(number, variant) for number in range(len(list(chats()))) for variant in VARIANTS]
        rows = [{**given, **variant} for given in chats() for variant in VARIANTS]
        texts = ours(arguments.program, arguments.model, path, rows)
        wrong = [name for name, given, text in zip(named, rows, texts) if text != reference(source, given)]
        refused += texts.count(None)
        total += len(rows)
        same += len(rows) - len(wrong)
        good += not wrong
        if wrong:
            print(f"{path.name}: {len(wrong)} differ, first conversation {wrong[0]}")
    print(f"{good} of {len(paths)} templates agree, {same} of {total} renderings, {refused} of them refused")


if __name__ == "__main__":
    main()
