#!/usr/bin/env python3
"""A C program against the installed C interface, found by pkg-config and by CMake in a tree without LibTorch:

    c_interface_test.py PKG_CONFIG CMAKE C_COMPILER LIBDIR SOURCE FOLDER TINY_GGUF
"""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

PROJECT = """cmake_minimum_required(VERSION 3.25)
project(by_cmake LANGUAGES C)
set(CMAKE_DISABLE_FIND_PACKAGE_Eigen3 ON)
find_package(outrider REQUIRED COMPONENTS c)
add_executable(by_cmake SOURCE)
target_link_libraries(by_cmake PRIVATE outrider::c)
file(WRITE ${CMAKE_BINARY_DIR}/drafters ${outrider_DRAFTERS})
"""


def main():
    pkg_config, cmake, compiler, libdir, source, folder, model = sys.argv[1:]
    libdir, folder = pathlib.Path(libdir), pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    tree = folder / "tree"
    shutil.copytree(libdir.parent, tree, symlinks=True, copy_function=os.link,
                    ignore=lambda place, names: [name for name in names if name in ("libtorch", "doc", "bin")])
    pkgconfig = tree / libdir.name / "pkgconfig"
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pkgconfig), "LD_LIBRARY_PATH": str(libdir)}

    def ask(*what):
        return subprocess.run([pkg_config, *what, "outrider_c"], env=environment, capture_output=True, text=True, check=True).stdout

    flags = shlex.split(ask("--cflags", "--libs"))
    (folder / "CMakeLists.txt").write_text(PROJECT.replace("SOURCE", source))
    subprocess.run([compiler, "-std=c99", "-Wall", "-Werror", source, *flags, "-o", folder / "by_pkg_config"], check=True)
    subprocess.run([cmake, "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={tree}", f"-DCMAKE_C_COMPILER={compiler}"],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run([cmake, "--build", folder / "build"], check=True, stdout=subprocess.DEVNULL)
    drafters = (folder / "build/drafters").read_text().strip()
    for place in (drafters, ask("--variable=drafters").strip()):
        if not (pathlib.Path(place) / "smollm2-135m-ctc/config.json").is_file():
            sys.exit(f"no drafters in {place}")
    return max(subprocess.run([program, model, folder], env=environment).returncode
               for program in (folder / "by_pkg_config", folder / "build/by_cmake"))


if __name__ == "__main__":
    sys.exit(main())
