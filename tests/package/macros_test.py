#!/usr/bin/env python3
"""What including our headers defines beside our own macros: no short names that belong to the host, no fmt.

    macros_test.py HEADER BASE FOLDERS -- COMPILER FLAGS...

HEADER may define what BASE (may be empty) defines by itself. FOLDERS: where other libraries' headers are, between colons.
"""
import re
import subprocess
import sys

HOSTS = re.compile(r"^((D?LOG|D?CHECK|VLOG|DVLOG|RAW_LOG)(_\w+)?|D?FATAL_IF|FMT_\w+|ASSERT|REQUIRE|EXPECT\w*)$")


def macros(compiler, header):
    text = f"#include <{header}>\n" if header else ""
    output = subprocess.run([*compiler, "-x", "c++", "-dM", "-E", "-"], input=text, capture_output=True, text=True)
    if output.returncode != 0:
        sys.exit(output.stderr)
    return {line.split()[1].split("(")[0] for line in output.stdout.splitlines() if line.startswith("#define ")}


def main():
    split = sys.argv.index("--")
    header, base, folders = sys.argv[1:split]
    compiler = [flag for flag in sys.argv[split + 1:] if flag] + [flag for folder in folders.split(":") if folder for flag in ("-isystem", folder)]
    ours = macros(compiler, header) - macros(compiler, base)
    if not any(name.startswith("OUTRIDER_") for name in ours):
        sys.exit(f"{header} defines nothing of ours: this test looks at the wrong thing")
    leaked = sorted(name for name in ours if HOSTS.match(name))
    print(f"<{header}> defines {', '.join(leaked)}, which <{base}> does not" if leaked else "no macro of a host's is taken")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
