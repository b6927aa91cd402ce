#!/usr/bin/env python3
"""Writes tests/golden/sentencepiece/converted.json and converted_ids.json: bpe.model as a tokenizer.json, in the way that
`transformers` converts Llama's, and the ids that Python's `tokenizers` gives ../tokenizer/strings.json, special tokens
read as tokens.

    converted.json      normalizer Prepend and Replace, no pre-tokenizer (Llama 2)
    converted_ids.json  {"prepend": of that file, "decoded": what they decode to, "first", "always", "never": with the
                        pre-tokenizer Metaspace of that prepend_scheme instead: by the string's index, for "never" every
                        eighth, for the others those that differ}

Needs the packages sentencepiece and tokenizers. Usage: make_converted_golden.py"""
import json
import pathlib

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
FOLDER = GOLDEN / "sentencepiece"
MARK = "\u2581"


def merges_of(pieces):
    """Every way to make a piece of two others, pieces of the largest score first."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        ways = [(piece[:i], piece[i:], score) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
        merges += sorted(ways, key=lambda way: (ids[way[0]], ids[way[1]]))
    merges.sort(key=lambda way: (way[2], len(way[0]), len(way[1])), reverse=True)
    return [way[:2] for way in merges]


def main():
    library = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "bpe.model"))
    count = library.get_piece_size()
    names = [library.id_to_piece(i) for i in range(count)]
    own = [i for i in range(count) if library.is_unknown(i) or library.is_control(i)]
    users = [i for i in range(count) if names[i] in ("<tool>", "\u00bf?")]
    plain = [(names[i], library.get_score(i)) for i in range(count)
             if i not in own and i not in users and not library.is_byte(i)]
    tokenizer = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges_of(plain), unk_token="<unk>",
                                                fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([tokenizers.AddedToken(names[i], normalized=False, special=True) for i in own])
    tokenizer.add_tokens([tokenizers.AddedToken(names[i], normalized=False, special=False) for i in users])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    texts = json.loads((GOLDEN / "tokenizer" / "strings.json").read_text())

    def ids():
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    rows = {"prepend": ids()}
    decoded = [tokenizer.decode(row) for row in rows["prepend"]]
    file = json.loads(tokenizer.to_str())
    file["model"]["merges"] = [" ".join(pair) if isinstance(pair, list) else pair for pair in file["model"]["merges"]]
    (FOLDER / "converted.json").write_text(json.dumps(file, ensure_ascii=False, separators=(",", ":")) + "\n")
    for scheme in ("first", "always", "never"):
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme, split=False)
        rows[scheme] = {str(i): row for i, row in enumerate(ids())
                        if (i % 8 == 0 if scheme == "never" else row != rows["prepend"][i])}
    rows["decoded"] = decoded
    text = json.dumps(rows, separators=(",", ":"))
    (FOLDER / "converted_ids.json").write_text(text.replace("],", "],\n").replace('","', '",\n"') + "\n")
    library_rows = json.loads((FOLDER / "ids.json").read_text())["bpe"]["parse"]
    print(len(texts), "strings,", sum(a != b for a, b in zip(rows["prepend"], library_rows)), "other than SentencePiece's")


if __name__ == "__main__":
    main()
