"""The libraries that fastdl is measured against: what pins them, their threads, and the machine that all run on."""

import contextlib
import ctypes
import importlib.util
import os
import sys

PEERS = ("numpy", "torch", "sklearn", "jax", "learnergy")

# These pin a peer's kernels or its number of threads: a comparison under them would be with something else than what
# its users run. They are removed before NumPy is imported.
PINNING = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
)


def installed(peer):
    """Whether a peer can be imported."""
    return importlib.util.find_spec(peer) is not None


def clean_environment(environment):
    """(the environment without what pins a peer, names that were removed)."""
    removed = [name for name in PINNING if name in environment]
    return {k: v for k, v in environment.items() if k not in removed}, removed


def rerun_clean(argv):
    """Start this command anew without the variables of `PINNING`; returns at once where none is set."""
    environment, removed = clean_environment(os.environ)
    if not removed:
        return
    print(f"removed from this process: {', '.join(removed)}", flush=True)
    os.execve(sys.executable, [sys.executable, "-m", "fastdl", *argv], environment)


def _openblas():
    """The OpenBLAS that NumPy has loaded, as a ctypes library, or None."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "openblas" in line}
        # scipy brings one of its own
        for path in sorted(paths, key=lambda p: ("numpy" not in p, p)):
            with contextlib.suppress(OSError):
                return ctypes.CDLL(path)
    return None


def _openblas_function(stem):
    library = _openblas()
    for name in (f"scipy_openblas_{stem}64_", f"scipy_openblas_{stem}", f"openblas_{stem}64_", f"openblas_{stem}"):
        if library is not None and hasattr(library, name):
            return getattr(library, name)
    return None


def blas_kernel():
    """Which BLAS NumPy uses and, for OpenBLAS, which of its kernels runs on this machine."""
    import numpy as np

    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    corename = _openblas_function("get_corename")
    if corename is None:
        return name
    corename.restype = ctypes.c_char_p
    return f"{name}, kernel {corename().decode()}"


def set_threads(threads, peers):
    """Give everyone this many threads; names of peers that cannot be told are returned."""
    import fastdl

    fastdl.set_num_threads(threads)
    deaf = []
    setter = _openblas_function("set_num_threads")
    if setter is not None:
        setter(ctypes.c_int(threads))
    elif "numpy" in peers:
        try:
            import threadpoolctl
        except ImportError:
            deaf.append("numpy")
        else:
            threadpoolctl.threadpool_limits(threads)
    if "torch" in peers or "learnergy" in peers:  # which is written in torch
        import torch

        torch.set_num_threads(threads)
    if "jax" in peers:
        deaf.append("jax")  # its pool is fixed when it starts
    return deaf


def cpu_name():
    """The CPU's brand, with family and model where the system tells: brands of virtual machines leave the generation out."""
    import platform

    from fastdl import _runtime

    brand = _runtime.cpu_brand() or platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as stream:
            lines = dict(tuple(map(str.strip, line.split(":", 1))) for line in stream.read(4096).split("\n") if ":" in line)
    except OSError:
        return brand
    if "cpu family" in lines and "model" in lines:
        brand += f" (family {lines['cpu family']}, model {lines['model']})"
    return brand


def machine():
    """CPU, targets, threads and versions, for the head of a table and for the JSON."""
    import platform

    import numpy as np

    import fastdl
    from fastdl import backend

    return {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "fastdl": fastdl.__version__,
        "target": backend.target,
        "targets": backend.runnable(),
        "numpy": np.__version__,
        "blas": blas_kernel(),
    }
