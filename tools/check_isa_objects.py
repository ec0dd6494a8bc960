#!/usr/bin/env python3
"""Check that no object compiled for one instruction set can leak into another.

    tools/check_isa_objects.py BUILD_DIR

An inline function or template that an object compiled for AVX-512 defines is a weak symbol; the linker keeps one copy
of such a symbol for the whole module, and may keep that one. So the objects of the kernels define nothing weak, and
nothing outside the namespace ``fastdl``. They also all define the same kernels.
"""

import pathlib
import re
import subprocess
import sys

# One symbol per line: an address or blanks, one letter of type, the name.
LINE = re.compile(r"^[0-9a-fA-F ]+ ([A-Za-z?]) (.+)$")


def symbols(path):
    """(type letter, demangled name) of every symbol that an object defines."""
    text = subprocess.run(["nm", "-C", "--defined-only", str(path)], check=True, capture_output=True, text=True).stdout
    return [found.groups() for line in text.splitlines() if (found := LINE.match(line))]


def faults(path):
    """What is wrong with one object, in words."""
    found = []
    for kind, name in symbols(path):
        if kind in "WwVvu":
            found.append(f"weak symbol {name}")
        elif kind.isupper() and not name.startswith("fastdl::"):
            found.append(f"symbol outside fastdl:: {name}")
    return found


def check(build):
    """Faults of all kernel objects under a build directory.

    Parameters
    ----------
    build : path
        Where CMake built; the objects lie in ``CMakeFiles/kernels_<target>.dir``.

    Returns
    -------
    list of str
        One line for each fault; empty if all is well.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    """
    targets = {}
    for directory in sorted(pathlib.Path(build).glob("CMakeFiles/kernels_*.dir")):
        objects = sorted(directory.rglob("*.o"))
        if objects:
            targets[directory.name.removeprefix("kernels_").removesuffix(".dir")] = objects
    if not targets:
        raise FileNotFoundError(f"{build}: expected objects in CMakeFiles/kernels_*.dir; got none")
    lines = [f"{target}: {path.name}: {fault}" for target, paths in targets.items() for path in paths
             for fault in faults(path)]
    kernels = {target: {name for path in paths for kind, name in symbols(path) if kind.isupper()}
               for target, paths in targets.items()}
    every = set().union(*kernels.values())
    lines += [f"{target}: lacks {name}" for target, have in kernels.items() for name in sorted(every - have)]
    return lines


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    lines = check(sys.argv[1])
    print("\n".join(lines) if lines else "kernel objects: nothing weak, nothing outside fastdl::")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
