#!/usr/bin/env python3
"""The C++ of the documents is a region of a compiled file, and the files that the documents name exist.

    readme_test.py ROOT            checks, exit 1 with what is wrong
    readme_test.py ROOT --write    copies the regions into the documents

A block of C++ stands after a line <!-- code FILE NAME -->, and is what stands in FILE between two lines // [NAME].
"""
import pathlib
import re
import sys
import textwrap

BLOCK = re.compile(r"(?:<!-- code (\S+) (\S+) -->\n)?```cpp\n(.*?)```", re.S)
LINK = re.compile(r"\]\(([^)#\s]+)\)")


def region(root, file, name):
    text = (root / file).read_text(encoding="utf-8")
    parts = re.split(rf"^ *// \[{re.escape(name)}\]\n", text, flags=re.M)
    assert len(parts) == 3, f"{file}: expected one region between two lines // [{name}]"
    return textwrap.dedent(parts[1])


def check(root, page, write):
    name = page.relative_to(root)
    old = page.read_text(encoding="utf-8")
    wrong = []

    def fill(match):
        if match[1] is None:
            wrong.append(f"{name}: a block of C++ without <!-- code FILE NAME -->: {match[3][:60]!r}")
            return match[0]
        return f"<!-- code {match[1]} {match[2]} -->\n```cpp\n{region(root, match[1], match[2])}```"

    new = BLOCK.sub(fill, old)
    if write:
        page.write_text(new, encoding="utf-8")
    elif new != old:
        wrong.append(f"{name}: its C++ is not that of the files it names (--write)")
    for link in LINK.findall(re.sub(r"```.*?```", "", new, flags=re.S)):
        if "://" not in link and not (page.parent / link).exists():
            wrong.append(f"{name}: links to {link}, which does not exist")
    return wrong


def main():
    root = pathlib.Path(sys.argv[1])
    wrong = []
    for page in [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]:
        wrong += check(root, page, "--write" in sys.argv)
    print("\n".join(wrong) or "documents and links hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
