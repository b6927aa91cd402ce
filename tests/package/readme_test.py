#!/usr/bin/env python3
"""The README's C++ is a region of a compiled example, and the files that the documents name exist.

    readme_test.py ROOT            checks, exit 1 with what is wrong
    readme_test.py ROOT --write    copies the region into the README
"""
import pathlib
import re
import sys
import textwrap

BLOCK = re.compile(r"(```cpp\n).*?(```)", re.S)
LINK = re.compile(r"\]\(([^)#\s]+)\)")


def region(root):
    text = (root / "examples/01_generate/main.cpp").read_text(encoding="utf-8")
    parts = re.split(r"^ *// \[readme\]\n", text, flags=re.M)
    assert len(parts) == 3, "examples/01_generate/main.cpp: expected one region between two lines // [readme]"
    return textwrap.dedent(parts[1])


def main():
    root = pathlib.Path(sys.argv[1])
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda match: match[1] + region(root) + match[2], old)
    if "--write" in sys.argv:
        readme.write_text(new, encoding="utf-8")
        return 0
    wrong = [] if new == old else ["README.md: its C++ is not the region of examples/01_generate/main.cpp (--write)"]
    for page in [readme, *sorted((root / "docs").rglob("*.md"))]:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                wrong.append(f"{page.relative_to(root)}: links to {link}, which does not exist")
    print("\n".join(wrong) or "README and links hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
