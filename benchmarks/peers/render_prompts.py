#!/usr/bin/env python3
"""Prompts as text for the model: its own chat template from the GGUF file, filled in by jinja2; for a base model as
they are, behind the token that begins a text where the file asks for one.

    render_prompts.py MODEL.gguf PROMPTS.jsonl LIMIT [raw]    one JSON object a line: {"end_ids": [...]}, then
                                                          {"id": ..., "text": ...} a prompt

A process of its own, so that reading the file's metadata does not count towards anybody's peak memory.
"""
import json
import sys

import gguf
import jinja2.sandbox


def field(reader, name):
    entry = reader.get_field(name)
    return None if entry is None else entry.contents()


def messages_of(row):
    if "messages" in row:
        return row["messages"]
    return [{"role": "user", "content": row["prompt"] if "prompt" in row else row["turns"][0]}]


def main():
    model, prompts, limit, raw = sys.argv[1], sys.argv[2], int(sys.argv[3]), "raw" in sys.argv[4:]
    reader = gguf.GGUFReader(model)
    source = field(reader, "tokenizer.chat_template")
    if source is None and not raw:
        sys.exit(f"{model}: no chat template in it, so the prompts of the peers would differ; --raw gives them as they are")
    tokens = reader.get_field("tokenizer.ggml.tokens")

    def piece(name):
        index = field(reader, f"tokenizer.ggml.{name}_token_id")
        return "" if index is None else tokens.contents(index)

    ends = [field(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    print(json.dumps({"end_ids": [index for index in ends if index is not None]}))
    begins = piece("bos") if field(reader, "tokenizer.ggml.add_bos_token") else ""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = None if raw else environment.from_string(source)
    with open(prompts, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    for number, row in enumerate(rows[:limit or None]):
        if raw:
            text = begins + messages_of(row)[-1]["content"]
        else:
            text = template.render(messages=messages_of(row), add_generation_prompt=True, bos_token=piece("bos"),
                                   eos_token=piece("eos"))
        print(json.dumps({"id": str(row.get("id", number + 1)), "text": text}))


if __name__ == "__main__":
    main()
