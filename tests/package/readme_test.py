#!/usr/bin/env python3
"""Code in the documents is a region of a file that is compiled or run, the files that they name exist, and so long are they.

    readme_test.py ROOT            checks, exit 1 with what is wrong
    readme_test.py ROOT --write    copies the regions and the numbers of lines into the documents
    readme_test.py --self-test     proves on samples that each rule can fail

A block of C, C++ or Python stands after a line <!-- code FILE NAME -->, and is what stands in FILE between two lines // [NAME]
(# [NAME] in Python). Blocks without a language, and indented ones, must not look like C++. Where the last column of a table is
`lines`, it holds the lines of code of the files that its row links to.
"""
import pathlib
import re
import sys
import tempfile
import textwrap

FENCE = re.compile(r"^ *(```+|~~~+)[ \t]*([^\s`]*)[^\n]*\n(.*?)^ *\1[ \t]*$\n?", re.S | re.M)
BLOCK = re.compile(r"(?:^<!-- code (\S+) (\S+) -->\n)?" + FENCE.pattern.replace(r"\1", r"\3"), re.S | re.M)
COMPILED = {"c", "h", "cpp", "c++", "cc", "cxx", "hpp", "hxx", "h++", "python", "py", "python3"}
OTHER = {"json", "cmake", "bash", "sh"}  # languages whose lines may look like C++
INDENTED = re.compile(r"(?:^(?: {4,}|\t).*\n)+", re.M)
LOOKS_LIKE_CPP = re.compile(r"\w::\w|^\s*#\s*include\b|[;{]\s*(?://.*|/\*.*)?$|^\s*(?:template\s*<|auto\s+\w|//)", re.M)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
SKIPPED = {"build", "node_modules"}


def region(root, file, name):
    text = (root / file).read_text(encoding="utf-8")
    parts = re.split(rf"^ *(?://|#) \[{re.escape(name)}\]\n", text, flags=re.M)
    assert len(parts) == 3, f"{file}: expected one region between two lines // [{name}]"
    return textwrap.dedent(parts[1])


def lines_of(path):
    """Lines of code: neither blank nor comments alone."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return sum(bool(line) and not line.startswith(("//", "#!", "/*", "*")) for line in lines)


def counted(page, text):
    """The text with the numbers of its tables of lines as they are."""
    def fill(table):
        rows = []
        for row in table[0].splitlines(keepends=True):
            total = sum(lines_of(page.parent / link) for link in LINK.findall(row) if (page.parent / link).is_file())
            rows.append(re.sub(r"\| \d+ \|$", f"| {total} |", row) if total else row)
        return "".join(rows)

    return re.sub(r"^\|.*\| lines \|\n(?:\|.*\n)+", fill, text, flags=re.M)


def check(root, page, write):
    name = page.relative_to(root)
    old = page.read_text(encoding="utf-8")
    wrong = []

    def fill(match):
        file, part, fence, language, body = match.groups()
        if language.lower() in COMPILED:
            if file is not None:
                return f"<!-- code {file} {part} -->\n{fence}{language}\n{region(root, file, part)}{fence}\n"
            wrong.append(f"{name}: a block of {language} without <!-- code FILE NAME -->: {body[:60]!r}")
        elif language.lower() not in OTHER and LOOKS_LIKE_CPP.search(body):
            wrong.append(f"{name}: a block that looks like C++ and names no language: {body[:60]!r}")
        return match[0]

    new = counted(page, BLOCK.sub(fill, old))
    if write:
        page.write_text(new, encoding="utf-8")
    elif new != old:
        wrong.append(f"{name}: its code or its numbers of lines are not those of the files it names (--write)")
    prose = FENCE.sub("", new)
    for block in INDENTED.findall(prose):
        if LOOKS_LIKE_CPP.search(block):
            wrong.append(f"{name}: an indented block that looks like C++: {block[:60]!r}")
    if re.search(r"^\s*<pre\b", prose, re.M):
        wrong.append(f"{name}: <pre> hides code from this test")
    for link in LINK.findall(prose):
        if "://" not in link and not link.startswith("mailto:") and not (page.parent / link).exists():
            wrong.append(f"{name}: links to {link}, which does not exist")
    return wrong


def pages(root):
    return [page for page in sorted(root.rglob("*.md"))
            if not any(part.startswith(".") or part in SKIPPED for part in page.relative_to(root).parts)]


SOURCE = "int main() {\n    // [part]\n    int a = 1;\n    // [part]\n}\n"
GOOD = """Text, and [a file](a.cpp).

<!-- code a.cpp part -->
```cpp
int a = 1;
```

    outrider compare --model MODEL; echo done
    for x in 1 2; do echo $x; done
    prefill -> [ verify -> commit ]* -> release

```json
{"a": [1, {
}]}
```

| what | lines |
|---|---|
| [a](a.cpp) | 3 |
"""
BAD = {  # what is put into the page, a word of what the test must say
    "a link": ("[gone](gone.md)\n", "does not exist"),
    "a link to a part": ("[gone](gone.md#part)\n", "does not exist"),
    "a block of its own": ("```cpp\nint b = 2;\n```\n", "without"),
    "other names": ("```c++\nint b = 2;\n```\n", "without"),
    "capitals": ("```C++\nint b = 2;\n```\n", "without"),
    "tildes": ("~~~cpp\nint b = 2;\n~~~\n", "without"),
    "in a list": ("- so:\n\n  ```cpp\n  int b = 2;\n  ```\n", "without"),
    "C": ("```c\nint b = 2;\n```\n", "without"),
    "Python": ("```python\nb = 2\n```\n", "without"),
    "no language": ("```\nint b = 2;\n```\n", "names no language"),
    "another language": ("```text\nauto b = f(x);\n```\n", "names no language"),
    "indented": ("\n    auto b = f(x);\n", "indented"),
    "indented, a line of three": ("\n    f(x,\n      y,\n      z);\n", "indented"),
    "indented by a tab": ("\n\tstd::string s{x}\n", "indented"),
    "indented, an include": ("\n    #include <vector>\n", "indented"),
    "HTML": ("<pre>\nf(x)\n</pre>\n", "hides"),
    "an older region": ("<!-- code a.cpp part -->\n```cpp\nint a = 2;\n```\n", "--write"),
    "a number of lines": ("| what | lines |\n|---|---|\n| [a](a.cpp) | 7 |\n", "--write"),
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "a.cpp").write_text(SOURCE)
        page = root / "page.md"
        page.write_text(GOOD)
        assert not (found := check(root, page, False)), f"the good page fails: {found}"
        for title, (text, word) in BAD.items():
            page.write_text(GOOD + "\n" + text)
            found = check(root, page, False)
            assert any(word in line for line in found), f"'{title}' passes: {found}"
    print(f"{len(BAD)} faults found in {len(BAD)} bad pages")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    root = pathlib.Path(sys.argv[1])
    wrong = []
    for page in pages(root):
        wrong += check(root, page, "--write" in sys.argv)
    print("\n".join(wrong) or "documents and links hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
