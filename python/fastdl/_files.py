"""Where the headers and the sources of the kernels lie, for those who compile them into programs of their own."""



def _folder(name):
    from pathlib import Path  # takes longer to import than all of fastdl's own files

    folder = Path(__file__).parent / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected an installed package (pip install .); got a source tree")
    return folder


def get_include():
    """The folder to compile with, ``-I`` before it, for ``#include <fastdl/kernels.h>``.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        A source tree on the path, and not an installation.
    """
    return str(_folder("include"))


def get_sources(target="cpu"):
    """Source files that define the kernels, to be compiled into a program or an extension of your own.

    Parameters
    ----------
    target : {'cpu', 'cuda'}
        'cpu': C++17 for GCC or Clang; compile with ``-ffp-contract=off``, the ``-march`` you want and ``-pthread``. 'cuda':
        for nvcc, with ``-fmad=false``. The folder that `get_include` names is on the include path, and so are the folders
        of the files themselves and ``csrc`` beside them.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For another target.
    FileNotFoundError
        A source tree on the path, and not an installation.
    """
    if target not in ("cpu", "cuda"):
        raise ValueError(f"target: expected 'cpu' or 'cuda'; got {target!r}")
    sources = _folder("sources")
    if target == "cuda":
        return sorted(map(str, sources.glob("cuda/*.cu")))
    return sorted(map(str, [*sources.glob("csrc/cpu/*.cpp"), *sources.glob("csrc/thread*.cpp")]))
