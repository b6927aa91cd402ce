#!/usr/bin/env python3
"""Installs outrider, moves the installed tree, gives it a LibTorch, and looks for traces of where it was built and for links of
its pages that lead nowhere.

    installed_tree.py CMAKE BUILD SOURCE LIBTORCH PREFIX LIBDIR     LIBTORCH is empty for a build without it
"""
import pathlib
import re
import shutil
import subprocess
import sys


def runpath(program):
    output = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    return [line.split("[")[1].rstrip("]") for line in output.splitlines() if "(RUNPATH)" in line or "(RPATH)" in line]


def traces(prefix, places):
    """What below `prefix` names one of `places`: texts that build systems read, and where binaries look for libraries."""
    for path in sorted(p for p in prefix.rglob("*") if p.is_file() and not p.is_symlink()):
        if path.suffix in (".cmake", ".pc"):
            text = path.read_text(encoding="utf-8")
        elif path.read_bytes()[:4] == b"\x7fELF":
            text = "\n".join(runpath(path))
            if any(not part.startswith("$ORIGIN") for part in text.replace("\n", ":").split(":") if part):
                yield f"{path}: its RUNPATH {text} is not relative"
        else:
            continue
        for place in places:
            if place in text:
                yield f"{path} names {place}"


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
NOT_INSTALLED = re.compile(r"(\.\./)*(src|tests|cmake|examples/drafters)(/|$)")


def links(page):
    """The relative links of a page, its code apart."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [link for link in LINK.findall(text) if "://" not in link]


def lost_links(source, docs):
    """Links of installed pages that lead nowhere, and links of the source's pages that installing has lost."""
    for page in sorted(docs.rglob("*.md")):
        name = page.relative_to(docs)
        there = links(page)
        for link in there:
            if not (page.parent / link).exists():
                yield f"{name} links to {link}, which is not installed"
        if (source / name).is_file():
            expected = [link for link in links(source / name) if not NOT_INSTALLED.match(link)]
            if len(there) != len(expected):
                yield f"{name} has {len(there)} links, expected {len(expected)}"


def main():
    cmake, build, source, libtorch, prefix, libdir = sys.argv[1:]
    prefix = pathlib.Path(prefix)
    first = prefix.with_name(prefix.name + "-before-it-was-moved")
    for folder in (first, prefix):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([cmake, "--install", build, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
    first.rename(prefix)
    found = list(traces(prefix, (build, source, str(first))))
    docs = prefix / "share/doc/outrider"
    found += lost_links(pathlib.Path(source), docs)
    for needed in (*(f"share/doc/outrider/{page}" for page in (
                       "README.md", "CONTRIBUTING.md", "SECURITY.md", "THIRD_PARTY.md", "LICENSE", "docs/embedding.md",
                       "benchmarks/results/drafts.md", "examples/CMakeLists.txt")),
                   f"{libdir}/pkgconfig/outrider-core.pc"):
        if not (prefix / needed).is_file():
            found.append(f"{needed} is not installed")
    if libtorch:
        (prefix / libdir / "outrider").mkdir(exist_ok=True)
        (prefix / libdir / "outrider/libtorch").symlink_to(libtorch)
    print("\n".join(found) or "nothing in the installed tree names a folder of the build")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
