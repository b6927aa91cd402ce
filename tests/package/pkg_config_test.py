#!/usr/bin/env python3
"""Compiles, links and runs programs with what pkg-config says of the installed tree, and nothing else.

    pkg_config_test.py PKG_CONFIG COMPILER LIBDIR TESTS FOLDER outrider|outrider-core
"""
import os
import pathlib
import subprocess
import sys


def main():
    pkg_config, compiler, libdir, tests, folder, last = sys.argv[1:]
    environment = dict(os.environ, PKG_CONFIG_PATH=f"{libdir}/pkgconfig")

    def flags(package, *what):
        return subprocess.run([pkg_config, *what, package], capture_output=True, text=True, check=True,
                              env=environment).stdout.split()

    def build_and_run(package, source, more=()):
        program = pathlib.Path(folder) / f"{package}-by-pkg-config"
        subprocess.run([compiler, "-std=c++20", "-o", program, source, *flags(package, "--cflags", "--libs"), *more], check=True)
        subprocess.run([program], check=True)

    build_and_run("outrider-core", f"{tests}/core_only/main.cpp")
    if last == "outrider":
        places = [f"-Wl,-rpath,{place}" for place in (libdir, f"{libdir}/outrider/libtorch/lib")]
        # One translation unit: what the package must show is that it compiles and links.
        build_and_run("outrider", f"{tests}/pkg_config.cpp", places)


if __name__ == "__main__":
    main()
