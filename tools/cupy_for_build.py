#!/usr/bin/env python3
"""Prints the CuPy that fits the CUDA kernels of the installed fastdl, as a requirement for pip.

    pip install "$(python tools/cupy_for_build.py)"

Exits with 1, and the reason, where these kernels find no GPU that they can use: there is none, or its driver is older than the
CUDA that they were built with.
"""

import re
import sys
from importlib import metadata

from fastdl import backend


def requirement(extra, wanted):
    """The one requirement of an extra, of a package's list of them."""
    found = [w.split(";")[0].strip() for w in wanted if re.search(rf"""extra == ['"]{extra}['"]""", w)]
    if len(found) != 1:
        raise ValueError(f"extra: expected one with one requirement; got {extra!r}")
    return found[0]


def main():
    try:
        module = backend.cuda_kernels()
        if not module.devices():
            raise RuntimeError("CUDA: no GPU")
    except (ImportError, RuntimeError) as error:
        sys.exit(f"expected a GPU that CUDA can use; got {error}")
    print(requirement(backend.extra(module), metadata.requires("fastdl-nn")))


if __name__ == "__main__":
    main()
