#!/usr/bin/env python3
"""Writes tests/golden/chat/: what `transformers` makes of chat templates.

    templates/NAME.jinja  templates in the forms of published models, written for these tests
    chats.json            {"tokens": named tokens, "special": special tokens, "chats": [{"messages", ...variables}, ...],
                          "texts": {NAME: [text of each chat, null where the template refuses it]},
                          "ids": {NAME: {number of a chat: ids}} by ../tokenizer/llama-bpe with the special tokens added}
    expressions.json      {"variables": {...}, "rows": [{"source", "text": null where Jinja refuses it}, ...]}; sources
                          are added by hand, and this writes their texts

Needs the packages transformers and tokenizers. Usage: make_chat_golden.py"""
import json
import pathlib

from tokenizers import AddedToken, Tokenizer
from transformers.utils import chat_template_utils as chat

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
FOLDER = GOLDEN / "chat"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]",
           "[/INST]", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<start_of_turn>", "<end_of_turn>",
           "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<|start_of_role|>", "<|end_of_role|>", "<|im_sep|>"]
WITH_IDS = (0, 2, 3, 7)
SUN = {"type": "function", "function": {"name": "sun", "description": "Whether it shines.\nToday.", "parameters": {
    "type": "object", "properties": {"place": {"type": "string", "description": "A <place> & \"name\""},
                                     "days": {"type": "integer", "default": 2},
                                     "units": {"type": "array", "items": {"type": "string"}}}, "required": ["place"]}}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {
    "type": "object", "properties": {}, "required": []}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, number=1):
    return {"id": f"call0000{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def chats():
    system = {"role": "system", "content": "Answer in verse.\n"}
    asked = assistant("", tool_calls=[call("sun", {"place": "\u0141\u00f3d\u017a", "days": 3})])
    told = {"role": "tool", "name": "sun", "tool_call_id": "call00001", "content": "{\"sun\": true}"}
    yield {"messages": [user("What is a tide?")]}
    yield {"messages": [system, user("  Hello\t\n")]}
    yield {"messages": [user("What?"), assistant("\n It is. "), user("\u4f60\u597d \U0001f600 \u00e9 'quoted' \"so\"")]}
    yield {"messages": [system, user("a"), assistant("b"), user("c"), assistant("d"), user("e\n\nf")]}
    yield {"messages": [user("q"), assistant("<think>\nhm\n</think>\n\nanswer"), user("r")], "enable_thinking": False}
    yield {"messages": [user("q"), assistant("answer", reasoning_content="thought\n"), user("r")],
           "enable_thinking": True, "reasoning_effort": "high"}
    yield {"messages": [user("Does it shine?")], "tools": [SUN, NOW]}
    yield {"messages": [system, user("Does it shine?"), asked, told, assistant("It does."), user("Thanks")], "tools": [SUN]}
    yield {"messages": [user("And now?"), assistant("I look.", tool_calls=[call("now", {}), call("sun", {"place": "x"}, 2)]),
                        {**told, "name": "now"}, {**told, "tool_call_id": "call00002"}], "tools": [SUN, NOW]}
    yield {"messages": [user("x"), assistant("y")], "add_generation_prompt": False}
    yield {"messages": [user([{"type": "text", "text": "part one"}, {"type": "text", "text": " two "}])]}
    yield {"messages": [user("x")], "documents": [{"title": "T", "text": "Tides come\nand go."}], "date": "1 May 2025"}
    yield {"messages": [{"role": "developer", "content": "dev"}, user("one"), user("two")]}
    yield {"messages": [user("q"), assistant(None, tool_calls=[call("sun", {"place": "y"})]), told, user("")]}


def rendered(template, given):
    """As apply_chat_template does. The date is fixed: 2025-03-09."""
    variables = {**TOKENS, "tools": None, "documents": None, "add_generation_prompt": True, **given}
    variables["messages"] = chat._alias_reasoning_fields(chat._normalize_chat_messages(given["messages"]))
    try:
        return template.render(**variables)
    except Exception:
        return None


def compiled(source):
    import datetime
    template = chat._compile_jinja_template(source)
    template.globals["strftime_now"] = datetime.datetime(2025, 3, 9, 12).strftime
    return template


def tokenizer():
    result = Tokenizer.from_file(str(GOLDEN / "tokenizer" / "llama-bpe" / "tokenizer.json"))
    result.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return result


VARIABLES = {
    "s": "  H\u00e9llo w\u00f6rld\t\n", "t": "a,b,,c", "n": 5, "f": 2.5, "neg": -7, "l": [3, 1, 2], "none": None, "yes": True,
    "d": {"b": 1, "a": [1, 2, {"x": None}], "C": "q\"'<&>"}, "e": "", "big": {"a": {"b": {"c": [[], {}, [1]]}}},
    "ms": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "n": 2},
           {"role": "User", "content": "z", "tool_calls": [{"function": {"name": "f", "arguments": {"k": 1.0}}}]}],
    "uni": "stra\u00dfe \u01c5 \ufb01 \u4f60\u597d \U0001f600", "multi": "line1\nline2\r\n\n  line3"}


def expressions():
    path = FOLDER / "expressions.json"
    rows = json.loads(path.read_text())["rows"]
    for row in rows:
        try:
            row["text"] = compiled(row["source"]).render(**VARIABLES)
        except Exception:
            row["text"] = None
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"variables": {json.dumps(VARIABLES)},\n"rows": [\n{lines}\n]}}\n')
    return len(rows)


def main():
    all_chats = list(chats())
    encoder = tokenizer()
    texts, ids = {}, {}
    for path in sorted((FOLDER / "templates").glob("*.jinja")):
        template = compiled(path.read_text())
        texts[path.stem] = [rendered(template, given) for given in all_chats]
        ids[path.stem] = {str(i): encoder.encode(texts[path.stem][i], add_special_tokens=False).ids
                          for i in WITH_IDS if texts[path.stem][i] is not None}
    written = {"tokens": TOKENS, "special": SPECIAL, "chats": all_chats, "texts": texts, "ids": ids}
    (FOLDER / "chats.json").write_text("{" + ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in written.items()) + "}\n")
    print(len(texts), "templates,", sum(t is not None for row in texts.values() for t in row), "texts of",
          len(texts) * len(all_chats), "and", expressions(), "expressions")


if __name__ == "__main__":
    main()
