#!/usr/bin/env python3
"""Writes tests/golden/sentencepiece/: two small SentencePiece vocabularies, and the ids that they give odd strings.

    bpe.model      as Llama's: BPE, bytes for what is unknown, digits apart, no normalisation, two tokens of users' own
    unigram.model  unigram language model, a few rules of normalisation, white space collapsed, no bytes
    ids.json       {"bpe": {"plain": [...], "parse": [...]}, "unigram": ...}: ids of ../tokenizer/strings.json, special
                   tokens read as text, and as tokens: the texts between them are encoded one by one
    chat.json      conversations, the texts that the published templates make of them (Jinja), and their ids

Needs the packages sentencepiece and jinja2. Usage: make_sentencepiece_golden.py"""
import io
import json
import pathlib
import re

import jinja2
import sentencepiece

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
FOLDER = GOLDEN / "sentencepiece"

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>"]  # <|im_end|> is what tests put beside the vocabulary, as its last id
RULES = [("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"'), ("\ufb01", "fi"), ("\ufb02", "fl"), ("\u3000", " "),
         ("\u00a0", " "), ("\t", " "), ("\n", " "), ("\r\n", " "), ("\u2026", "..."), ("\u200b", None), ("e\u0301", "\u00e9")]

PROSE = """The ferry left at seven, and nobody aboard had slept. A lighthouse keeper counts the ships that he cannot see.
She asked what the tide was, and the sea answered her. There were 12 kettles, 345 candles and 6789 nails in the store.
def median(values): return sorted(values)[len(values) // 2]
for (int i = 0; i < n; ++i) sum += a[i];  // add them up
Привет, мир! Съешь ещё этих мягких французских булок. 你好，世界！今天天气很好。日本語のテキスト. Ελληνικά κείμενα. שלום עולם
[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n [/INST] USER: ASSISTANT: <|user|> <|assistant|> <|system|>
A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed answers."""


def train(name, texts, **options):
    model = io.BytesIO()
    lines = [line for text in texts for line in text.split("\n") if 0 < len(line) < 4000]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=800,
                                             minloglevel=2, num_threads=1, **options)
    (FOLDER / f"{name}.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def parsed(encoder, text):
    ids = []
    for part in re.split("(" + "|".join(re.escape(s) for s in SPECIAL) + ")", text):
        if part == "<|im_end|>":
            ids.append(encoder.get_piece_size())
        elif part in SPECIAL:
            ids.append(encoder.piece_to_id(part))
        else:
            ids += encoder.encode(part)
    return ids


# Restated from the model cards of Llama 2, Vicuna, Zephyr and Mistral.
TEMPLATES = {
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0]['content'] + "
              "'\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}"
              "{% endif %}{% for m in turns %}{% if m['role'] == 'user' %}<s>[INST] {{ ((system if loop.first else '') + "
              "m['content']).strip() }} [/INST]{% else %} {{ m['content'].strip() }} </s>{% endif %}{% endfor %}",
    "vicuna": "<s>{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set turns = messages[1:] %}"
              "{% else %}A chat between a curious user and an artificial intelligence assistant. The assistant gives "
              "helpful, detailed, and polite answers to the user's questions.{% set turns = messages %}{% endif %} "
              "{% for m in turns %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} {% else %}ASSISTANT: "
              "{{ m['content'] }}</s>{% endif %}{% endfor %}ASSISTANT:",
    "zephyr": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}<|assistant|>\n",
    "mistral": "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}"
               " {{ m['content'] }}</s>{% endif %}{% endfor %}",
}


def chats():
    user = {"role": "user", "content": "What is a tide?"}
    answer = {"role": "assistant", "content": "The sea that breathes, 24 hours a day."}
    system = {"role": "system", "content": "Answer in verse."}
    yield [user]
    yield [system, user]
    yield [user, answer, {"role": "user", "content": "More, in 12 words: \u4f60\u597d \U0001f600\nplease"}]
    yield [system, user, answer, {"role": "user", "content": "def f(x):\n    return x"}]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = json.loads((GOLDEN / "tokenizer" / "strings.json").read_text())
    prose = PROSE.split("\n") * 40 + [text for text in texts if "\x00" not in text]
    rules = FOLDER / "rules.tsv"
    rules.write_text("".join(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target or "")
                             + "\n" for source, target in RULES))
    encoders = {
        "bpe": train("bpe", prose, model_type="bpe", byte_fallback=True, split_digits=True, character_coverage=0.98,
                     normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<tool>", "\u00bf?"],
                     allow_whitespace_only_pieces=True),
        "unigram": train("unigram", prose, model_type="unigram", normalization_rule_tsv=str(rules), character_coverage=0.99),
    }
    rules.unlink()
    lines = []
    for name, encoder in encoders.items():
        for kind, rows in (("plain", [encoder.encode(text) for text in texts]),
                           ("parse", [parsed(encoder, text) for text in texts])):
            lines.append((name, kind, "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"))
    whole = ",\n".join(f'"{name}": {{' + ",\n".join(f'"{k}": {rows}' for n, k, rows in lines if n == name) + "}" for name in encoders)
    (FOLDER / "ids.json").write_text("{" + whole + "}\n")
    rows = []
    for name, source in TEMPLATES.items():
        template = jinja2.Template(source, keep_trailing_newline=True)
        for messages in chats():
            if name == "mistral" and messages[0]["role"] == "system":
                continue
            text = template.render(messages=messages)
            rows.append({"template": name, "messages": messages, "text": text, "ids": parsed(encoders["bpe"], text)})
    (FOLDER / "chat.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(len(texts), "strings,", len(rows), "conversations,",
          {name: encoder.get_piece_size() for name, encoder in encoders.items()}, "pieces")


if __name__ == "__main__":
    main()
