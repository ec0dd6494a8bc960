"""Kernels without Python: by address from ctypes, and compiled into a C++ program (docs/guide/below-python.md)."""

import ctypes
import importlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

import fastdl
from fastdl import kernels

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide" / "below-python.md"
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def blocks(language):
    """The code of the guide in one language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.S)


def installed():
    return (pathlib.Path(fastdl.__file__).parent / "sources").is_dir()


def pointer(name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(kernels.address(name), b"fastdl.kernel")


def test_every_kernel_has_an_address():
    addresses = {pointer(name) for name in kernels.__all__}
    assert len(addresses) == len(kernels.__all__) and None not in addresses
    with pytest.raises(KeyError, match="no_such_kernel"):
        kernels.address("no_such_kernel")


def test_workspace_has_an_address():
    size = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)(pointer("dense_backward_workspace"))
    assert size(100, 30, 20, 4) >= 0


def test_the_guide_calls_a_kernel_from_ctypes():
    found = blocks("python")
    code = next(c for c in found if "ctypes" in c)
    space = {}
    exec(compile(code, str(GUIDE), "exec"), space)
    np.testing.assert_allclose(space["c"], space["a"] @ space["b"], rtol=1e-5)


@pytest.mark.filterwarnings("default")  # Numba's own
def test_the_guide_calls_a_kernel_from_numba(target, rng, monkeypatch):
    try:
        importlib.import_module("numba")
    except ImportError as error:  # or it is there, but not for this NumPy
        pytest.skip(str(error))
    monkeypatch.setattr(kernels, "address", target.ADDRESSES.__getitem__)
    space = {}
    for code in (next(c for c in blocks("python") if "ctypes" in c), next(c for c in blocks("py") if "numba" in c)):
        exec(compile(code, str(GUIDE), "exec"), space)
    a = rng.standard_normal((20, 20), dtype=np.float32)
    a = a @ a.T
    x = np.ones(20, np.float32)
    found = space["largest_eigenvalue"](a, x, 300)
    values, vectors = np.linalg.eigh(a.astype(np.float64))
    np.testing.assert_allclose(found, values[-1], rtol=1e-5)
    np.testing.assert_allclose(abs(vectors[:, -1] @ x), 1, rtol=1e-4)


@pytest.fixture(scope="module")
def guide_in_cython(tmp_path_factory):
    """The guide's Cython, compiled: imported under a name of its own it takes its kernels anew."""
    pytest.importorskip("Cython")
    folder = tmp_path_factory.mktemp("cython")
    (folder / "guide.pyx").write_text(blocks("cython")[0])
    subprocess.run([sys.executable, "-m", "cython", "--cplus", "-Werror", "guide.pyx"], cwd=folder, check=True)
    flags = ["-O0", "-w", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([COMPILER, *flags, "guide.cpp", "-o", "guide.so"], cwd=folder, check=True)
    return folder / "guide.so"


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_guide_calls_a_kernel_from_cython(guide_in_cython, target, rng, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "address", target.ADDRESSES.__getitem__)
    shutil.copy(guide_in_cython, tmp_path)
    spec = importlib.util.spec_from_file_location("guide", tmp_path / "guide.so")
    guide = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guide)
    a, b = rng.standard_normal((5, 7), dtype=np.float32), rng.standard_normal((7, 3), dtype=np.float32)
    c = np.empty((5, 3), np.float32)
    guide.multiply(a, b, c)
    np.testing.assert_array_equal(c, target.matmul(a, b))


def test_folders_want_an_installation(monkeypatch):
    with pytest.raises(ValueError, match="target: expected 'cpu' or 'cuda'; got 'tpu'"):
        fastdl.get_sources("tpu")
    if not installed():
        for function in (fastdl.get_include, fastdl.get_sources):
            with pytest.raises(FileNotFoundError, match="expected an installed package"):
                function()


@pytest.mark.skipif(not installed(), reason="a source tree on the path, not an installation")
def test_what_is_installed_is_what_was_compiled():
    for target, count in (("cpu", len(list((ROOT / "csrc" / "cpu").glob("*.cpp"))) + 2),
                          ("cuda", len(list((ROOT / "cuda").glob("*.cu"))))):  # fmt: skip
        paths = [pathlib.Path(p) for p in fastdl.get_sources(target)]
        assert len(paths) == count
        for path in paths:
            here = path.relative_to(pathlib.Path(fastdl.__file__).parent / "sources")
            assert path.read_bytes() == (ROOT / here).read_bytes()


@pytest.mark.skipif(not installed(), reason="a source tree on the path, not an installation")
def test_headers_that_sources_name_are_installed():
    """On the include path that get_sources() states; CUDA's own are the toolkit's."""
    folder = pathlib.Path(fastdl.__file__).parent / "sources"
    path = [folder / "csrc", folder / "csrc" / "cpu", folder / "cuda"]
    files = [p for f in path for p in f.iterdir() if p.is_file()]
    named = [(p, name) for p in files for name in re.findall(r'^#include "(.+)"', p.read_text(), re.M)]
    assert {"formulas.h", "../philox.h", "../cells.h", "gemm.cuh"} <= {name for _, name in named}
    assert [n for n in named if not any((f / n[1]).is_file() for f in (n[0].parent, *path))] == []


@pytest.mark.skipif(not installed(), reason="a source tree on the path, not an installation")
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("header", ["kernels.h", "formulas.h", "philox.h", "cells.h"])
def test_a_header_stands_alone(header, tmp_path):
    (tmp_path / "main.cpp").write_text(f"#include <fastdl/{header}>\n")
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{fastdl.get_include()}"]
    subprocess.run([COMPILER, *flags, tmp_path / "main.cpp"], check=True)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.skipif(not installed(), reason="a source tree on the path, not an installation")
def test_cuda_code_is_compiled_with_what_is_installed(tmp_path):
    """The guide's own kernel, and one of ours by the folders that get_sources() names; run on a GPU by test_gpu.py."""
    text = next(c for c in blocks("py") if "RawModule" in c)
    (tmp_path / "guide.cu").write_text(re.search(r'r"""\n(.*?)"""', text, re.S)[1])
    optim = next(pathlib.Path(p) for p in fastdl.get_sources("cuda") if p.endswith("optim.cu"))
    folders = [f"-I{f}" for f in (fastdl.get_include(), optim.parent, optim.parents[1] / "csrc")]
    nvcc = ["nvcc", "-std=c++17", "-fmad=false", "-arch=sm_75", "-Werror", "all-warnings"]
    subprocess.run([*nvcc, folders[0], "-cubin", tmp_path / "guide.cu", "-o", tmp_path / "guide.cubin"], check=True)
    subprocess.run([*nvcc, *folders, "-c", optim, "-o", tmp_path / "optim.o"], check=True)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_guide_compiles_into_a_program(tmp_path):
    """The guide's program, with the sources of the tree where nothing is installed."""
    (tmp_path / "main.cpp").write_text(next(c for c in blocks("c\\+\\+") if "int main" in c))
    if installed():
        include, sources = fastdl.get_include(), [pathlib.Path(p) for p in fastdl.get_sources("cpu")]
    else:
        include = tmp_path / "include"
        (include / "fastdl").mkdir(parents=True)
        shutil.copy(ROOT / "csrc" / "kernels.h", include / "fastdl")
        sources = [*(ROOT / "csrc" / "cpu").glob("*.cpp"), *(ROOT / "csrc").glob("thread*.cpp")]
    needed = [p for p in sources if p.stem in ("gemm", "gemm_few", "threads", "thread_count")]
    csrc = next(p for p in needed if p.stem == "threads").parent
    program = tmp_path / "program"
    command = [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", f"-I{include}", f"-I{csrc}", f"-I{csrc / 'cpu'}",
               tmp_path / "main.cpp", *needed, "-pthread", "-o", program]  # fmt: skip
    subprocess.run(command, check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip() == "58 64 139 154"
