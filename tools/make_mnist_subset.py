"""Make the MNIST subset that is part of fastdl out of the four original IDX files.

    python tools/make_mnist_subset.py DIRECTORY [--check]

DIRECTORY holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte,
plain or .gz; fastdl must be installed. Kept is every 12th training image (0, 12, 24, ...: 5000) and every 10th test
image (1000): a fixed rule, nothing chosen by looking. --check compares with the files in the package instead of writing
them.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from fastdl.data.download import MNIST_FILES
from fastdl.data.idx import open_unpacked, read_idx, write_idx
from fastdl.data.sets import _EMBEDDED_FILES

STEPS = (12, 12, 10, 10)
_FILES = Path(__file__).resolve().parent.parent / "python" / "fastdl" / "data" / "files"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    same = True
    for wanted, step, name in zip(MNIST_FILES, STEPS, _EMBEDDED_FILES, strict=True):
        path = args.directory / wanted.name
        if not path.exists():
            path = path.with_suffix("")
        with open_unpacked(path) as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        if digest != wanted.sha256:
            parser.error(f"{path}: expected sha256 {wanted.sha256} of the uncompressed bytes; got {digest}")
        array = read_idx(path)[::step]
        if args.check:
            equal = np.array_equal(read_idx(_FILES / name), array)
            same &= equal
            print(f"{name}: {'as in the package' if equal else 'DIFFERS from the package'}")
        else:
            write_idx(_FILES / name, array)
            print(f"{name}: {list(array.shape)}, {(_FILES / name).stat().st_size} bytes")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
