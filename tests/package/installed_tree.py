#!/usr/bin/env python3
"""Installs outrider, moves the installed tree, gives it a LibTorch, and looks for traces of where it was built.

    installed_tree.py CMAKE BUILD SOURCE LIBTORCH PREFIX LIBDIR     LIBTORCH is empty for a build without it
"""
import pathlib
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


def main():
    cmake, build, source, libtorch, prefix, libdir = sys.argv[1:]
    prefix = pathlib.Path(prefix)
    first = prefix.with_name(prefix.name + "-before-it-was-moved")
    for folder in (first, prefix):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([cmake, "--install", build, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
    first.rename(prefix)
    found = list(traces(prefix, (build, source, str(first))))
    for needed in ("share/doc/outrider/README.md", "share/doc/outrider/examples/CMakeLists.txt",
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
