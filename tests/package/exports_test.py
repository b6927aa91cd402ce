#!/usr/bin/env python3
"""Every compiled body of a public header can be reached through a shared library: its class or function is OUTRIDER_API.

    exports_test.py LIBRARY INCLUDE      LIBRARY is the archive or the shared library, INCLUDE the folder include/outrider
"""
import pathlib
import re
import subprocess
import sys

NAME = re.compile(r"^(?:(?:typeinfo|vtable|typeinfo name) for )?outrider::((?:\w+::)*)([\w~]+)")
DECLARED_CLASS = re.compile(r"^\s*(?:class|struct)\s+(?:OUTRIDER_API\s+)?(\w+)[^;{]*\{", re.M)
DECLARED_FUNCTION = re.compile(r"^[^\n#/ ][^\n]*?\b(\w+)\((?!\))?", re.M)


def defined(library):
    """(demangled name, whether it is hidden from other libraries) of what is defined for other objects."""
    output = subprocess.run(["readelf", "-sWC", library], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        parts = line.split(None, 7)
        if len(parts) == 8 and parts[3] in ("FUNC", "OBJECT") and parts[4] == "GLOBAL" and parts[6] != "UND":
            yield parts[7], parts[5] == "HIDDEN"


def main():
    library, include = sys.argv[1:]
    classes, functions = {}, {}
    for path in sorted(pathlib.Path(include).rglob("*.hpp")):
        if path.name.endswith("-inl.hpp"):
            continue  # bodies; what hosts see is declared in their header
        text = path.read_text(encoding="utf-8")
        for name in DECLARED_CLASS.findall(text):
            classes.setdefault(name, path)
        for name in DECLARED_FUNCTION.findall(text):
            functions.setdefault(name, path)
    missing, exported = {}, set()
    for symbol, hidden in defined(library):
        match = NAME.match(symbol)
        if not match or "{lambda" in symbol or "(anonymous namespace)" in symbol:
            continue
        scopes = [part for part in match[1].split("::") if part and part != "detail"]
        owner = scopes[0] if scopes else match[2] if symbol.startswith(("vtable", "typeinfo")) else None
        if owner is not None and owner in classes:
            name = f"{classes[owner]}: class {owner}"
        elif owner is None and match[2] in functions:
            name = f"{functions[match[2]]}: {match[2]}"  # an overload may be private: one that is exported will do
        else:
            continue
        if hidden:
            missing.setdefault(name, symbol)
        elif owner is None:
            exported.add(name)
    missing = {name: symbol for name, symbol in missing.items() if name not in exported}
    for place, symbol in sorted(missing.items()):
        print(f"{place} needs OUTRIDER_API: {symbol} is hidden")
    if not missing:
        print("all compiled bodies of public headers are exported")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
