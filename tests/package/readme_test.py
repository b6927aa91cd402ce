#!/usr/bin/env python3
"""The C++ of the documents is a region of a compiled file, the files that the documents name exist, and so long are they.

    readme_test.py ROOT            checks, exit 1 with what is wrong
    readme_test.py ROOT --write    copies the regions and the numbers of lines into the documents

A block of C++ stands after a line <!-- code FILE NAME -->, and is what stands in FILE between two lines // [NAME]. Where the last
column of a table is `lines`, it holds the lines of code of the files that its row links to.
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
        if match[1] is None:
            wrong.append(f"{name}: a block of C++ without <!-- code FILE NAME -->: {match[3][:60]!r}")
            return match[0]
        return f"<!-- code {match[1]} {match[2]} -->\n```cpp\n{region(root, match[1], match[2])}```"

    new = counted(page, BLOCK.sub(fill, old))
    if write:
        page.write_text(new, encoding="utf-8")
    elif new != old:
        wrong.append(f"{name}: its C++ or its numbers of lines are not those of the files it names (--write)")
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
