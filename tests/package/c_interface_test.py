#!/usr/bin/env python3
"""A C program against the installed C interface, found by pkg-config:

    c_interface_test.py PKG_CONFIG C_COMPILER LIBDIR SOURCE PROGRAM TINY_GGUF
"""
import os
import pathlib
import shlex
import subprocess
import sys


def main():
    pkg_config, compiler, libdir, source, program, model = sys.argv[1:]
    environment = {**os.environ, "PKG_CONFIG_PATH": f"{libdir}/pkgconfig", "LD_LIBRARY_PATH": libdir}
    flags = subprocess.run([pkg_config, "--cflags", "--libs", "outrider_c"], env=environment, capture_output=True, text=True,
                           check=True).stdout
    pathlib.Path(program).parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-std=c99", "-Wall", "-Werror", source, *shlex.split(flags), "-o", program], check=True)
    return subprocess.run([program, model], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
