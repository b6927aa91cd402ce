#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/words.json: how Python's `tokenizers` cuts texts by the pre-tokenizers of published models,
which GGUF files give by name.

    {"strings": further strings, after those of strings.json,
     "rules": {name: [[bytes of each word of a string], ...]}}

Also tests/golden/tokenizer/gemma4/, a small vocabulary of characters with bytes for the others, and its ids.

The expressions are those of the models' tokenizer.json files. Needs the package tokenizers. Usage: make_words_golden.py"""
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers as pre, trainers

from make_tokenizer_golden import ids, write_ids

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden" / "tokenizer"

BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES
FIRST, UPPER, LOWER = r"[^\r\n\p{L}\p{N}]?", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASES = FIRST + UPPER + "*" + LOWER + "+%s|" + FIRST + UPPER + "+" + LOWER + r"*%s|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
DEEPSEEK_LETTERS = (
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-"
    r"\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-"
    r"\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-"
    r"\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}"
    r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-"
    r"\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}"
    r"\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-"
    r"\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}"
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}"
    r"\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}"
    r"\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-"
    r"\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}"
    r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}"
    r"\x{1E900}-\x{1E943}]+")
CJK = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
DIGIT = pre.Digits(individual_digits=True)


def split(expression):
    return pre.Split(Regex(expression), "isolated", invert=False)


def rule(*steps):
    return pre.Sequence([split(step) if isinstance(step, str) else step for step in steps])


RULES = {
    "gpt-2": GPT2,
    "smollm": rule(DIGIT, GPT2),
    "llama-bpe": rule(HEAD + r"\p{N}{1,3}" + TAIL, BYTES),
    "qwen2": rule(HEAD + r"\p{N}" + TAIL, BYTES),
    "qwen35": rule(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES,
                   BYTES),
    "tekken": rule(CASES % ("", "", r"\p{N}"), BYTES),
    "gpt-4o": rule(CASES % (SHORT, SHORT, r"\p{N}{1,3}"), BYTES),
    "falcon": rule(pre.Punctuation("contiguous"), GPT2, pre.Digits(individual_digits=False), "[0-9][0-9][0-9]"),
    "deepseek-llm": rule("[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+", "\\s+$", CJK, DIGIT, BYTES),
    "deepseek-coder": rule("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, DIGIT, BYTES),
    "deepseek-v3": rule(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
                        + SPACES, BYTES),
    "bloom": rule(BLOOM, BYTES),
    "viking": rule(BLOOM, DIGIT, BYTES),
    "seed-coder": rule(HEAD + r"\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + SPACES, BYTES),
    "jais-2": rule(HEAD + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" +
                   "".join(r"\s{%d}(?!\S)|" % (1 << n) for n in range(9, 1, -1)) + r"\s{1,2}(?!\S)|\s{1}", BYTES),
    "minicpm5": rule(r"\p{N}{1,3}", HEAD + r"\p{N}+" + TAIL, BYTES),
    "gemma4": rule(r"[^\n]+|\n+"),
}

MORE = ["camelCaseHTTPServer XMLHttpRequest iPhone McDonald eBay OpenAI's GPT4o", "ǅungla ǅUNGLA aǅb ʰello", "ΑΒΓαβγΔ δΕ", "ПриветМир МИРмир",
        "I'll he'LL WE'RE can'T it'S o'Clock 'Tis 'twas", "a/b//c/\n/d\n\n/", "path/to/\n//x", "!!!\n/\r\n", "http://a.b/c?d=e\n\n", "+a -b *c (d [e {f <g @h #i",
        "don't.stop_now", " 1234567 12 345", "x1y22z333w4444", "٣٣٣٣", "１２３４５", "½⅓²³¹⁴", "ⅣⅣⅣⅣ", "中1文22字333", "日本語123テスト", "カタカナひらがな漢字",
        "हिन्दी में लिखा", "कि का की", "ภาษาไทยที่ดี", "שָׁלוֹם עֲלֵיכֶם", "e\u0301e\u0301 E\u0301a", "\u0301a", " \u0301a", "1\u0301", "!\u0301", "का\u094d!",
        " " * 3 + "x", " " * 5 + "x", " " * 18 + "x", " " * 39, " " * 300 + "x", " " * 530, " " * 700 + "x", "\t" * 9 + "x", "\n" * 40 + "a" + "\n" * 2,
        "a\n b \n\n c\r\n\r\nd", "  \n  \t\n x", "trailing   ", "trailing\t\n ", "$a+b=c<d>e^f`g|h~i", "¿qué? ¡sí! «a» „b“ ‘c’", "…a。b，c、d।e۔f،g", "(a|b)c) (", "a|b||c",
        "[x] (y) {z}", "😀😀a 😀b", "µm ªº ʼn", "ﬁne ﬀ", "Ⅷ ⅷ", "🄰🅐", "한글 테스트입니다123", "ㄱㄴㄷ", "߀߁ ࠀࠁ", "a\u2028b\u2029c", "a\u0085b", "\u3000\u3000全角　空白", "tab\there", "x = y + 1;\n\treturn x;\n"]


def strings():
    draw = random.Random(77)
    pieces = [text for text in MORE if len(text) < 12] + list("aBcD 'S/\n\r\t1٣²中カé\u0301!。(|") + [" ", "  ", "The", "IDs", "x's"]
    return MORE + ["".join(draw.choice(pieces) for _ in range(draw.randint(2, 9))) for _ in range(150)]


def gemma4(texts):
    """Trained on words, and then as the published one: merges over the whole text, bytes for what is no entry."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre.Sequence([split(r"\n+"), pre.Split("\u2581", "merged_with_next")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special, tokens = ["<pad>", "<eos>", "<bos>", "<unk>"], ["<0x%02X>" % byte for byte in range(256)]
    plain = [text for text in texts if "|>" not in text and "</" not in text]  # no entry that llama.cpp takes for an end
    tokenizer.train_from_iterator(plain, trainers.BpeTrainer(
        vocab_size=900, limit_alphabet=150, show_progress=False, special_tokens=special + tokens))
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = [token for token in root["added_tokens"] if token["content"] in special]
    root["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    folder = FOLDER / "gemma4"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(root, ensure_ascii=False, separators=(",", ":")))
    write_ids(folder / "ids.json", ids(Tokenizer.from_file(str(folder / "tokenizer.json")), texts))


def main():
    more = strings()
    texts = json.loads((FOLDER / "strings.json").read_text()) + more
    lines = []
    for name, words in RULES.items():
        cuts = []
        for text in texts:
            parts = [part for part, _ in words.pre_tokenize_str(text)]
            sizes = [len(part.encode()) if name == "gemma4" else len(part) for part in parts]
            assert sum(sizes) == len(text.encode()), (name, text)
            cuts.append(sizes)
        lines.append(json.dumps(name) + ": " + json.dumps(cuts, separators=(",", ":")))
    shown = ",\n".join(json.dumps(text) for text in more)
    (FOLDER / "words.json").write_text('{"strings": [\n' + shown + '\n],\n"rules": {\n' + ",\n".join(lines) + "\n}}\n")
    gemma4(texts)
    print(len(texts), "strings,", len(RULES), "rules")


if __name__ == "__main__":
    main()
