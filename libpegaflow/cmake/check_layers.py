#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on an include that points up or sideways; modules and the Python package may see only the installed headers,
back ends also the sources that they share (backends/common), the conformance suite also how the core checks modules."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Each layer may include itself and what stands before it.
LAYERS = ["base", "core", "engine", "rpc", "server"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def allowed(path: pathlib.Path, target: str) -> bool:
    parts = path.relative_to(ROOT).parts
    first = target.split("/")[0]
    if parts[0] == "libpegaflow" and parts[1] == "include":
        return first == "pegaflow"
    if parts[0] == "libpegaflow":
        layer = parts[1]
        if first in LAYERS:
            return LAYERS.index(first) <= LAYERS.index(layer)
        return first == "pegaflow" or "/" not in target
    if parts[0] == "backends" and first == "common":
        return (ROOT / "backends" / target).exists()
    if parts[:2] == ("backends", "common"):
        return first == "pegaflow"
    if parts[0] in ("backends", "plugins", "python"):
        return first == "pegaflow" or (path.parent / target).exists()
    if parts[0] == "tools" and parts[1] == "conformance":
        return first == "pegaflow" or target.startswith(("tools/conformance/", "core/plugin/"))
    return True


def main() -> int:
    wrong = 0
    for folder in ("libpegaflow", "backends", "plugins", "python", "tools"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".h", ".hpp", ".cpp"):
                continue
            for target in INCLUDE.findall(path.read_text(encoding="utf-8")):
                if not allowed(path, target):
                    print(f"{path.relative_to(ROOT)}: must not include {target}")
                    wrong += 1
    abi = ROOT / "libpegaflow/include/pegaflow/abi"
    for path in sorted(abi.rglob("*.h")):
        for target in re.findall(r"#\s*include\s+<([^>]+)>", path.read_text(encoding="utf-8")):
            if target not in ("stddef.h", "stdint.h"):
                print(f"{path.relative_to(ROOT)}: the ABI includes only <stddef.h> and <stdint.h>, not <{target}>")
                wrong += 1
    print("layers: " + ("ok" if wrong == 0 else f"{wrong} wrong includes"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
