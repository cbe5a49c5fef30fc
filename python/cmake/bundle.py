#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts our libraries, the modules that they open, and what both need into one directory that can be anywhere.

What comes from others gets a name of its own, so that it never meets a library of the same name in the process: programs that
use PegaFlow load their own gRPC and protobuf. The C and C++ run-time libraries stay the system's.
"""

import argparse
import pathlib
import re
import shutil
import subprocess

SYSTEM = re.compile(
    r"^(libc|libm|libpthread|libdl|librt|libresolv|libanl|libutil|libstdc\+\+|libgcc_s|libasan|libubsan|libtsan|ld-linux-x86-64)\.so"
)
OURS = re.compile(r"^libpegaflow")
OURS_MARK = "-pegaflow"


def needed(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """All that `path` needs, directly or not: name to file."""
    out = {}
    for line in subprocess.run(["ldd", str(path)], check=True, capture_output=True, text=True).stdout.splitlines():
        name, arrow, place = line.strip().partition(" => ")
        if not arrow:
            continue
        if place.startswith("not found"):
            raise SystemExit(f"bundle: {path.name} needs {name}, which is not found")
        out[name] = pathlib.Path(place.split(" (")[0])
    return {name: file for name, file in out.items() if not SYSTEM.match(name)}


def own_name(name: str) -> str:
    """libfoo.so.1 as libfoo-pegaflow.so.1."""
    if OURS.match(name):
        return name
    stem, dot, version = name.partition(".so")
    return f"{stem}{OURS_MARK}{dot}{version}"


def soname(patchelf: str, path: pathlib.Path) -> str:
    return subprocess.run([patchelf, "--print-soname", str(path)], check=True, capture_output=True, text=True).stdout.strip()


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(source.resolve(), target)
    target.chmod(0o755)
    if strip := shutil.which("strip"):
        subprocess.run([strip, "--strip-unneeded", str(target)], check=True)


def check(directory: pathlib.Path, files: list[pathlib.Path]) -> None:
    """Every library finds all that it needs in the directory."""
    for file in files:
        for name, place in needed(file).items():
            if directory.resolve() not in place.resolve().parents:
                raise SystemExit(f"bundle: {file.name} takes {name} from {place}, not from {directory}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patchelf", default="patchelf")
    parser.add_argument("--into", type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--modules", type=pathlib.Path, nargs="*", default=[])
    arguments = parser.parse_args()
    modules = arguments.into / "pegaflow"  # where the loader looks, beside the library
    modules.mkdir(parents=True, exist_ok=True)

    files = {soname(arguments.patchelf, path): path for path in arguments.library}
    for path in [*arguments.library, *arguments.modules]:
        for name, file in needed(path).items():
            files.setdefault(name, file)
    renames = [part for name in files if own_name(name) != name for part in ("--replace-needed", name, own_name(name))]

    placed = []
    for name, file in files.items():
        target = arguments.into / own_name(name)
        copy(file, target)
        subprocess.run([arguments.patchelf, "--set-soname", own_name(name), str(target)], check=True)
        placed.append((target, "$ORIGIN"))
    for path in arguments.modules:
        copy(path, modules / path.name)
        placed.append((modules / path.name, "$ORIGIN/.."))
    for target, rpath in placed:
        # One change a call: patchelf 0.14 mixes up the strings of two.
        if renames:
            subprocess.run([arguments.patchelf, *renames, str(target)], check=True)
        subprocess.run([arguments.patchelf, "--force-rpath", "--set-rpath", rpath, str(target)], check=True)
    check(arguments.into, [target for target, _ in placed])
    print(f"bundle: {len(placed)} libraries in {arguments.into}")


if __name__ == "__main__":
    main()
