#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/pipelines.json: how Python's `tokenizers` and `transformers` normalize texts, find added
tokens, cut words and read the files beside a tokenizer.json, in small changes of the vocabularies that are there.

Each case: "base", a tokenizer.json of tests/golden; "set", its parts that are replaced; "drop", entries that it loses;
"add", further added tokens; "files", the files beside it; and what the reference makes of them: "plain" and "parse" ids of
"texts", and where there are files "leading" ids and "eos", or "shown", what single ids add to a text. A null among "parse"
says: the same as plain.

Needs the packages tokenizers and transformers. Usage: make_pipeline_golden.py"""
import copy
import json
import os
import pathlib
import random
import tempfile

from tokenizers import Tokenizer

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
BYTES, PIECES = "tokenizer/gpt-2/tokenizer.json", "sentencepiece/converted.json"

TEXTS = ["", " ", "  ", "Hello world", " hello  world ", "cafe\u0301 cafe\u0301", "\u00e9\u0301\u0323\u0307", "\u212b \ufb01 \u2460 \uff21\uff22 \u00bd",
         "\u1100\u1161\u11a8 \uac01", "\u0130STANBUL \u03a3\u03a3 \u1e9e", "a\u3000XTOK\u3000b", "a \u00a0XTOK\u2003\tb", "XTOK XTOK", "  XTOK", "XTOK  ",
         "abcd", "xabcdy abc bcd", "abc", "ABCD Abc", "<|new|>user\nHi", "a <|new|> b", "<|new|><|new|>", " <|new|>", "x<|new|> y",
         "word sword words word. _word word_ \u00e9word word\u0301 word\u200d 1word word-word", "a\u0323\u0307b", "\ufdfa", "na\u00efve \u0939\u093f",
         "a\u0000b\u0001c\u200bd\ufeffe\u2028f", "tab\tnew\nline\r\n", "\u2581a \u2581", "12 345 6789 \u00b2\u00b3 \u0664\u0665", "a,b;c!!d--e ''x'' $3+4=7",
         "<tool> <mask> <|im_end|>", "x<|im_end|>y", "<|end_of|>\n<|end_of|>", "\U0001f600 \U0001f468\u200d\U0001f469", "k\u0327o\u0308 \u1e31\u0327"]


def draws(seed, parts, count=24):
    draw = random.Random(seed)
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 9))) for _ in range(count)]


def token(content, special=False, normalized=None, **more):
    return {"content": content, "special": special, "normalized": (not special) if normalized is None else normalized,
            "lstrip": False, "rstrip": False, "single_word": False, **more}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


def step(type, **more):
    return {"type": type, **more}


def replace(content, **pattern):
    return step("Replace", pattern=pattern, content=content)


LLAMA = sequence(step("Prepend", prepend="\u2581"), replace("\u2581", String=" "))
BYTE_LEVEL = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
BARE = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)


def normalizers():
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents"):
        yield form, step(form)
    for left, right in ((True, True), (True, False), (False, True), (False, False)):
        yield f"Strip {left} {right}", step("Strip", strip_left=left, strip_right=right)
    yield "empty Sequence", sequence()
    yield "nested Sequence", sequence(sequence(step("NFD"), sequence(step("StripAccents"))), step("Lowercase"), step("NFC"))
    yield "Prepend", step("Prepend", prepend="x ")
    yield "Replace string", replace("Q", String="l")
    yield "Replace string of signs", replace("", String=".")
    yield "Replace by nothing", replace("", String=" ")
    yield "Replace regex", replace(" ", Regex=r"\s+")
    yield "Replace regex of one character or more", replace("-", Regex=r"[xl]+")
    yield "Replace look-ahead", replace("_", Regex=r" (?=\w)")
    yield "NFKC and lower case", sequence(step("NFKC"), step("Lowercase"), replace("y", String="a"), step("Strip", strip_left=True, strip_right=True))


def added():
    yield "normalized beside one that is not", [token("abc"), token("bcd", normalized=False)]
    yield "both normalized", [token("abc"), token("bcd")]
    yield "both not", [token("abc", normalized=False), token("bcd", normalized=False)]
    yield "longest", [token("ab", normalized=False), token("abcd", normalized=False), token("bc", normalized=False)]
    yield "strip both", [token("XTOK", normalized=False, lstrip=True, rstrip=True)]
    yield "strip left", [token("XTOK", normalized=False, lstrip=True), token("<|new|>", special=True, lstrip=True)]
    yield "strip right", [token("XTOK", normalized=False, rstrip=True), token("<|new|>", special=True, rstrip=True)]
    yield "strip, normalized", [token("XTOK", lstrip=True, rstrip=True), token("<|new|>", special=True, normalized=True, rstrip=True)]
    yield "spaces are a token", [token("  ", normalized=False), token("XTOK", normalized=False, lstrip=True, rstrip=True)]
    yield "single words", [token("word", normalized=False, single_word=True)]
    yield "single words, normalized, strip", [token("word", single_word=True, lstrip=True)]
    yield "special, normalized", [token("<|new|>", special=True, normalized=True), token("abc", special=True)]
    yield "a token of the vocabulary", [token("he"), token(" w", normalized=False)]
    yield "accents", [token("caf\u00e9"), token("\u00e9", normalized=False)]
    yield "one inside a special one", [token("end", normalized=False), token("<|end_of|>", special=True)]


def cuts():
    def split(behavior, invert=False, **pattern):
        return step("Split", pattern=pattern, behavior=behavior, invert=invert)

    for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"):
        for invert in (False, True):
            yield f"Split {behavior} {invert}", [split(behavior, invert, Regex=r"[a-e]|\s+"), BARE]
    yield "Split string", [split("MergedWithNext", String=" "), split("Isolated", String="."), BARE]
    yield "Punctuation", [step("Punctuation", behavior="Contiguous"), BYTE_LEVEL]
    yield "Punctuation alone", [step("Punctuation", behavior="Isolated"), BARE]
    yield "digits after bytes", [step("Punctuation", behavior="Contiguous"), BYTE_LEVEL, step("Digits", individual_digits=False), split("Isolated", Regex="[0-9][0-9][0-9]")]
    yield "digits", [step("Digits", individual_digits=True), BYTE_LEVEL]


def pipelines():
    for name, normalizer in normalizers():
        for base in (BYTES, PIECES):
            yield name, base, {"normalizer": normalizer}, []
    for name, tokens in added():
        yield name, BYTES, {}, tokens
        yield name + ", Llama", PIECES, {"normalizer": LLAMA}, tokens
        yield name + ", lower case", BYTES, {"normalizer": sequence(step("NFD"), step("Lowercase"))}, tokens
    for name, steps in cuts():
        yield name, BYTES, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}, []
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            meta = step("Metaspace", replacement="\u2581", prepend_scheme=scheme, split=split)
            yield f"Metaspace {scheme} {split}", PIECES, {"normalizer": None, "pre_tokenizer": meta}, [token("XTOK", normalized=False), token("abc")]
    yield "Gemma", PIECES, {"normalizer": replace("\u2581", String=" "),
                            "pre_tokenizer": step("Split", pattern={"String": " "}, behavior="MergedWithPrevious", invert=False)}, [token("\n\n", normalized=False)]
    yield "a space before bytes", BYTES, {"pre_tokenizer": step("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)}, [token("abc")]


def build(base, parts, tokens, drop=()):
    root = json.loads((GOLDEN / base).read_text())
    root.update(copy.deepcopy(parts))
    for entry in drop:
        del root["model"]["vocab"][entry]
    root["model"]["merges"] = [m for m in root["model"]["merges"] if not {*m, "".join(m)} & set(drop)]
    known = {**root["model"]["vocab"], **{t["content"]: t["id"] for t in root["added_tokens"]}}
    for one in tokens:
        known.setdefault(one["content"], max(known.values()) + 1)
        root["added_tokens"].append({"id": known[one["content"]], **one})
    return root


def both(tokenizer, texts):
    def run():
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    tokenizer.encode_special_tokens = True
    plain = run()
    tokenizer.encode_special_tokens = False
    return {"plain": plain, "parse": [None if ids == before else ids for ids, before in zip(run(), plain)]}


def beside():
    """Files beside a tokenizer.json."""
    end, start, text = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
    config = "tokenizer_config.json"
    yield "eos in special_tokens_map", {config: {}, "special_tokens_map.json": {"eos_token": text}}
    yield "eos in special_tokens_map, an object", {config: {"eos_token": end}, "special_tokens_map.json": {"eos_token": {"content": text, "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}}}
    yield "eos in both, and a list of tokens", {config: {"eos_token": end, "added_tokens_decoder": {"0": token(text, True)}}, "special_tokens_map.json": {"eos_token": text}}
    yield "eos of the vocabulary alone", {config: {"eos_token": "he", "bos_token": "in"}}
    yield "tokens of the list alone", {config: {"eos_token": "<|new|>", "added_tokens_decoder": {"0": token(text, True), "702": token("<|new|>", True), "703": token("XTOK", False, False, lstrip=True)}}}
    yield "the list says otherwise", {config: {"added_tokens_decoder": {"0": token(text, True, lstrip=True, rstrip=True), "700": token("<tool>", True, False), "701": token("<mask>", True)}}}
    yield "a token of the list is named and not special", {config: {"pad_token": "<|new|>", "added_tokens_decoder": {"702": token("<|new|>")}}}
    yield "added_tokens.json", {config: {}, "added_tokens.json": {"<|new|>": 702, "abc": 703}}
    yield "added_tokens.json, one is named", {config: {"additional_special_tokens": ["<|new|>"]}, "added_tokens.json": {"<|new|>": 702, "abc": 703}}
    yield "added_tokens.json beside a list", {config: {"added_tokens_decoder": {"0": token(text, True)}}, "added_tokens.json": {"<|new|>": 702}}
    yield "a name without a token", {config: {"pad_token": "<pad>", "eos_token": end}}
    yield "further special tokens", {config: {"additional_special_tokens": ["<|new|>", "he"]}}
    yield "further special tokens, newer key", {config: {"extra_special_tokens": ["<|new|>"]}}
    yield "special tokens of a model's own", {config: {"image_token": "<|new|>", "eos_token": end}}
    yield "add_bos_token", {config: {"bos_token": start, "add_bos_token": True}}
    yield "no files", {}


def templates():
    def single(*ids, after=()):
        return [{"SpecialToken": {"id": i, "type_id": 0}} for i in ids] + [{"Sequence": {"id": "A", "type_id": 0}}] + [{"SpecialToken": {"id": i, "type_id": 0}} for i in after]

    def template(ids, **more):
        names = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
        pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
        return {"type": "TemplateProcessing", "single": single(*ids, **more), "pair": pair,
                "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in names.items()}}

    byte = step("ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    yield "one leading token", template(["<|im_start|>"])
    yield "two leading tokens", template(["<|im_start|>", "<|endoftext|>"])
    yield "three leading tokens, one twice", template(["<|im_start|>", "<|endoftext|>", "<|im_start|>"])
    several = template(["<|im_start|>"])
    several["special_tokens"]["<|im_start|>"] = {"id": "<|im_start|>", "ids": [1, 2], "tokens": ["<|im_start|>", "<|im_end|>"]}
    yield "a leading token of two ids", several
    yield "bytes, then a template", {"type": "Sequence", "processors": [byte, template(["<|endoftext|>"])]}
    yield "two templates", {"type": "Sequence", "processors": [template(["<|endoftext|>"]), template(["<|im_start|>"])]}
    yield "bytes alone", byte


def misnumbered():
    """Ids that files give to added tokens and the library does not: entries that go, added tokens, files beside."""
    end, start, config = "<|im_end|>", "<|im_start|>", "tokenizer_config.json"

    def own(*tokens):
        return [{**token("<|endoftext|>", True), "id": 0}] + [{**token(content, True, **more), "id": i} for content, i, more in tokens]

    def of(content, i, **more):
        return content, i, more

    def listed(**more):
        return {config: {"eos_token": end, "added_tokens_decoder": {str(i): token(content, True) for content, i in more.items()}}}

    marks, usual = [start, end], own(of(start, 1), of(end, 2), of("<tool>", 700), of("<mask>", 701))
    yield "listed in holes", marks, own(), listed(**{"<|endoftext|>": 0, start: 1, end: 2})
    yield "listed in holes, the other way round", marks, own(), listed(**{"<|endoftext|>": 0, start: 2, end: 1})
    yield "its own in holes", marks, own(of(start, 1), of(end, 2)), {}
    yield "its own in holes, the other way round", marks, own(of(end, 2), of(start, 1)), {}
    yield "more than the holes hold", marks, own(of(start, 1), of(end, 2), of("abc", 3), of("XTOK", 4)), {}
    yield "far behind the entries", [], own(of(start, 1), of(end, 2), of("<tool>", 900), of("<mask>", 905)), {}
    yield "descending", [], own(of(end, 2), of(start, 1), of("<mask>", 701), of("<tool>", 700)), {}
    yield "one id twice", [], own(of(start, 1), of(end, 2), of("<tool>", 700), of("<mask>", 700)), {}
    yield "one text twice", [], own(of(start, 1), of(end, 2), of("XTOK", 700, rstrip=True), of("XTOK", 701, lstrip=True), of("<mask>", 702)), {}
    yield "an entry's text with another id", [], own(of(start, 1), of(end, 2), of("he", 720)), {}
    yield "an entry's id", [], own(of(start, 1), of(end, 2), of("<tool>", 300), of("<mask>", 301)), {}
    yield "no text", [], own(of(start, 1), of("", 700), of("<mask>", 701)), {}
    yield "without the first entry", ["<|endoftext|>"], own(of(start, 1), of(end, 2), of("<mask>", 700)), {}
    yield "without an entry in the middle", ["!"], own(of(start, 1), of(end, 2)), listed(**{"<tool>": 700, "<mask>": 701})
    yield "without the last entry", ["<<|"], own(of(start, 1), of(end, 2)), listed(**{"<tool>": 700, "<mask>": 701})
    yield "listed far behind", [], usual, listed(**{"<|new|>": 800, "XTOK": 790})
    yield "listed by number, not by text", [], usual, listed(**{"<|new|>": 1000, "XTOK": 999})
    yield "listed with another's id", [], usual, listed(**{"<|new|>": 700, "XTOK": 701})
    yield "listed with an entry's id", [], usual, listed(**{"<|new|>": 300, "XTOK": 5})
    yield "an own token listed elsewhere", [], usual, listed(**{"<tool>": 5, "<|new|>": 6})
    yield "special once is special", [], usual, {config: {"added_tokens_decoder": {"700": token("<tool>", False), "701": token("<mask>", False, False, lstrip=True)}}}
    yield "named after listed", [], usual, {config: {"pad_token": "<pad>", **listed(**{"<|new|>": 800})[config]}}
    yield "older far behind", [], usual, {config: {}, "added_tokens.json": {"<|new|>": 800, "XTOK": 790}}
    yield "older with another's id", [], usual, {config: {}, "added_tokens.json": {"<|new|>": 700, "XTOK": 702}}
    yield "older with an entry's id", [], usual, {config: {}, "added_tokens.json": {"<|new|>": 300, "XTOK": 5}}
    yield "an own token is older elsewhere", [], usual, {config: {}, "added_tokens.json": {"<tool>": 5, "<|new|>": 6}}
    yield "older in holes", marks, own(), {config: {"eos_token": end}, "added_tokens.json": {start: 1, end: 2}}


def files():
    for name, side in beside():
        yield name, {}, side
    for name, template in templates():
        for flag in ({}, {"bos_token": "<|im_end|>", "add_bos_token": False}):
            yield f"{name} {bool(flag)}", {"post_processor": template}, {"tokenizer_config.json": flag}


def from_folder(root, side):
    from transformers import AutoTokenizer
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"tokenizer.json": root, "config.json": {"model_type": "llama"}, **side}.items():
            pathlib.Path(folder, name).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    empty = tokenizer("").input_ids
    return tokenizer._tokenizer, {"leading": empty, "eos": tokenizer.eos_token_id}


def shown(tokenizer):
    texts = {str(i): tokenizer.decode([i]) for i in (0, 1, 2, 3, 5, 300, *range(690, 708), 720, 800, 900)}
    return {i: text for i, text in texts.items() if "\ufffd" not in text}  # parts of characters are bytes


def main():
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    cases = []
    for i, (name, base, parts, tokens) in enumerate(pipelines()):
        words = [t["content"] for t in tokens] or ["\u00e9", "e\u0301", "ab", "12", "."]
        texts = TEXTS + draws(i, words + [" ", "  ", "a", "bc", "d", "X", "\u3000", "_", "\n", "<|im_end|>", "\u2581"])
        result = both(Tokenizer.from_str(json.dumps(build(base, parts, tokens))), texts)
        cases.append({"name": name, "base": base, "set": parts, "add": tokens, "files": {}, "texts": texts[len(TEXTS):], **result})
    for name, parts, side in files():
        root = build(BYTES, parts, [])
        tokenizer, facts = from_folder(root, side)
        cases.append({"name": name, "base": BYTES, "set": parts, "add": [], "files": side, "texts": [], **both(tokenizer, TEXTS), **facts})
    for name, drop, own, side in misnumbered():
        parts = {"added_tokens": own}
        tokenizer, facts = from_folder(build(BYTES, parts, [], drop), side)
        cases.append({"name": name, "base": BYTES, "set": parts, "drop": drop, "add": [], "files": side, "texts": [],
                      **both(tokenizer, TEXTS), **facts, "shown": shown(tokenizer)})
    rows = [json.dumps(case, separators=(",", ":")) for case in cases]
    (GOLDEN / "tokenizer" / "pipelines.json").write_text(
        '{"texts":' + json.dumps(TEXTS) + ',\n"cases":[\n' + ",\n".join(rows) + "\n]}\n")
    print(len(cases), "cases,", sum(len(case["plain"]) for case in cases), "texts")


if __name__ == "__main__":
    main()
