#!/usr/bin/env python3
"""Greedy texts of Gemma 3 270M by transformers, which reads the same GGUF file and computes in float32.

    python3 make_gemma_golden.py MODEL.gguf OUTPUT.json     tests/golden/model/gemma3_greedy.json

24 prompts of raw text with their ids (the begin token, then the text's), 8 of them beyond the 512 tokens of the model's
windows; 32 tokens each, with the gap between the reference's two best logits. Needs what make_model_golden.py needs.
"""
import sys
from pathlib import Path

import torch

from make_model_golden import GREEDY_QUESTIONS, greedy, write

TOKENS = 32
OPENINGS = [
    "The history of the lighthouse begins in", "Once upon a time, a fox who lived", "To make a simple vegetable soup, first",
    "A prime number is", "def reverse_string(text):\n    ", "In the mountains, the weather can change",
    "The difference between weather and climate is that", "Bread rises because", "Der Bäcker sagte zu seinem Freund:",
    "La capitale de la France est", "1, 1, 2, 3, 5, 8, 13,", "<html>\n  <body>\n    <h1>", "Octopuses are surprising:",
    "Before clocks were invented, people", "SELECT customer, COUNT(*) FROM", "The moon rose over the silent",
]
THINGS = ["copper kettle", "box of candles", "folding chair", "roll of twine", "map", "pair of gloves", "broken clock",
          "jar of nails", "blue lantern", "tent", "silver spoon", "ladder"]


def long_text(which):
    """Between 550 and 1100 tokens: lists, sentences about them, questions one after another."""
    if which % 2 == 0:
        return " ".join(f"Item {n} of inventory {which} is a {THINGS[(n * (which + 3)) % 12]} kept on shelf "
                        f"{chr(65 + n % 7)}, last counted in week {n * 3 % 52}." for n in range(1, 26 + 2 * which))
    rest = " ".join(f"{q} Nobody in village {which} knew, so they asked the {THINGS[n % 12]} maker." for n, q in
                    enumerate(GREEDY_QUESTIONS))
    return f"Chapter {which}. {rest} After that long evening, the old teacher stood up and said:"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    path = Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    print(model.config, flush=True)
    texts = []
    for text in OPENINGS + [long_text(which) for which in range(8)]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [2] + [i for i in ids if i != 2]
        tokens, gaps = greedy(model, ids, TOKENS)
        texts.append({"text": text, "ids": ids, "tokens": tokens, "gaps": gaps})
        print(len(texts), len(ids), repr(tokenizer.decode(tokens))[:90], min(gaps), flush=True)
        write(Path(sys.argv[2]), {"prompts": texts})


if __name__ == "__main__":
    main()
