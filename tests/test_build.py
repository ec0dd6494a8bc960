"""What the build made: the same kernels in every module, no instruction where it does not belong, a small wheel."""

import importlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zlib

import pytest

import fastdl
from fastdl import _runtime, backend

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = pathlib.Path(fastdl.__file__).parent
# A module may be loaded on any machine, only its kernels may not run there.
ONLY_TESTS = ("wide", "emu", "emu_cuda", "race")
BUILT = [t for t in ("base", "avx2", "avx512", *ONLY_TESTS) if importlib.util.find_spec(f"fastdl._{t}")]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")

sys.path.insert(0, str(ROOT / "tools"))
check_isa_objects = importlib.import_module("check_isa_objects")
sys.path.pop(0)


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program}")


def path_of(target):
    return importlib.util.find_spec(f"fastdl._{target}").origin


def python(code, **environment):
    """Run code in a new interpreter."""
    # -P: like an installed script, without the current directory on the path
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


# ------------------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize("target", BUILT)
def test_every_module_has_the_same_kernels(target):
    module, first = (importlib.import_module(f"fastdl._{t}") for t in (target, BUILT[0]))
    assert module.SPECS == first.SPECS
    assert all(callable(getattr(module, name)) for name in module.SPECS)


@pytest.mark.parametrize("target", BUILT)
def test_module_leaves_no_kernel_open(target):
    """Loading with every symbol looked up at once fails, and names the kernel, if one is declared but not defined."""
    done = python(f"import fastdl._{target}", LD_BIND_NOW="1")
    assert done.returncode == 0, done.stderr


def test_base_is_built():
    assert "base" in BUILT
    assert "base" in backend.runnable()


# ------------------------------------------------------------------------------------------------- instructions


def build_directory():
    named = os.environ.get("FASTDL_BUILD_DIR")
    for build in [ROOT / named] if named else sorted((ROOT / "build").glob("*")):
        if any(build.glob("CMakeFiles/kernels_*.dir")):
            return build
    return None


@needs("nm")
def test_kernel_objects_export_only_kernels():
    build = build_directory()
    if build is None:
        pytest.skip("no build directory (FASTDL_BUILD_DIR names one)")
    assert check_isa_objects.check(build) == []


@needs("nm")
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("#include <algorithm>\nnamespace fastdl { auto f(int* x) { return *std::max_element(x, x + 9); } }", "weak"),
        ("float f() { return 1; }", "outside fastdl::"),
        ("namespace fastdl { inline float g() { return 1; } float (*f())() { return g; } }", "weak"),
        ("namespace fastdl { namespace { float g() { return 2; } } float f() { return g(); } }", None),
    ],
)
def test_the_check_of_objects_finds_faults(tmp_path, source, fault):
    objects = tmp_path / "CMakeFiles" / "kernels_some.dir"
    objects.mkdir(parents=True)
    (tmp_path / "f.cpp").write_text(source)
    subprocess.run([COMPILER, "-O0", "-c", tmp_path / "f.cpp", "-o", objects / "f.cpp.o"], check=True)
    lines = check_isa_objects.check(tmp_path)
    assert any(fault in line for line in lines) if fault else lines == []


def test_the_check_of_objects_wants_objects(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected objects"):
        check_isa_objects.check(tmp_path)


# The operands and mnemonics that a CPU of the base target lacks: wider registers, and the VEX-encoded forms.
ABOVE_BASE = re.compile(
    r"%[yz]mm|\t(?:v(?!er[rw]\b)[a-z]\w+|mulx|pdep|pext|rorx|sarx|shlx|shrx|andn|bextr|blsi|blsr|blsmsk|movbe|lzcnt)\s"
)


def above_base(target):
    """How many instructions of a module need more than the base target promises."""
    command = ["objdump", "-d", "--no-show-raw-insn", path_of(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dump:
        count = sum(1 for line in dump.stdout if ABOVE_BASE.search(line))
    assert dump.returncode == 0
    return count


x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64 only")


@x86
@needs("objdump")
def test_base_holds_no_instruction_of_later_cpus():
    assert above_base("base") == 0


@x86
@needs("objdump")
@pytest.mark.skipif("avx2" not in BUILT, reason="avx2 is not built")
def test_avx2_does():  # so the test above can fail
    assert above_base("avx2") > 1000


# --------------------------------------------------------------------------------------------------------- size


NOT_IN_A_CPU_WHEEL = tuple(f"_{t}." for t in (*ONLY_TESTS, "cuda"))


def test_wheel_is_small():
    """What the package takes when compressed as in a wheel: at most 3 MiB with all targets."""
    sizes = {}
    for path in PACKAGE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(NOT_IN_A_CPU_WHEEL):
            sizes[str(path.relative_to(PACKAGE))] = len(zlib.compress(path.read_bytes(), 6)) + 200
    modules = {t: size for t in BUILT if t not in ONLY_TESTS for name, size in sizes.items() if name.startswith(f"_{t}.")}
    missing = {"avx2", "avx512"} - set(modules) if os.uname().machine == "x86_64" else set()
    total = sum(sizes.values()) + len(missing) * max(modules.values())
    assert total <= 3 << 20, sizes


def test_package_ships_what_others_compile_against():
    if (PACKAGE / "__init__.py").resolve().is_relative_to(ROOT / "python"):
        pytest.skip("a source tree on the path, not an installation")
    assert (PACKAGE / "include" / "fastdl" / "kernels.h").exists()
    assert (PACKAGE / "py.typed").exists()


# ------------------------------------------------------------------------------------------------ FASTDL_TARGET


@pytest.mark.parametrize("target", backend.runnable())
def test_target_can_be_chosen(target):
    done = python("import fastdl; print(fastdl.backend.target)", FASTDL_TARGET=target)
    assert (done.returncode, done.stdout.strip()) == (0, target), done.stderr


def test_best_target_is_the_default():
    done = python("import fastdl; print(fastdl.backend.target)", FASTDL_TARGET="")
    assert done.stdout.strip() == backend.runnable()[0], done.stderr


@pytest.mark.parametrize("wrong", ["sse9", "AVX2", "base,avx2", "_base", "wide"])
def test_bad_target_is_refused(wrong):
    done = python("import fastdl", FASTDL_TARGET=wrong)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    allowed = ", ".join(backend.runnable())
    assert last == f"ImportError: FASTDL_TARGET: expected one of {allowed} on this machine; got '{wrong}'"


@pytest.mark.parametrize("built", [["avx512"], []])
def test_a_build_that_this_machine_cannot_run_is_told(monkeypatch, built):
    monkeypatch.setattr(backend._runtime, "runnable_targets", lambda: ["avx2", "base"])
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: name.removeprefix("fastdl._") in built or None
    )
    monkeypatch.delenv("FASTDL_TARGET", raising=False)
    with pytest.raises(
        ImportError, match=f"kernels for one of avx2, base.*; got a build with {(built or ['none'])[0]} "
    ):
        backend._choose()


def test_avx512_proves_itself_against_whatever_else_is_built(monkeypatch):
    loaded = []
    monkeypatch.delenv("FASTDL_TARGET", raising=False)
    monkeypatch.setattr(backend, "load", lambda name: loaded.append(name) or name)
    monkeypatch.setattr(backend, "_agrees", lambda module, other: (module, other) == ("avx512", "avx2"))
    monkeypatch.setattr(backend, "runnable", lambda: ["avx512", "avx2"])
    assert backend._choose() == "avx512" and loaded == ["avx512", "avx2"]
    monkeypatch.setattr(backend, "runnable", lambda: ["avx512"])  # nothing to compare with
    assert backend._choose() == "avx512"


def test_runnable_targets_come_best_first():
    order = ["avx512", "avx2", "base"]
    assert _runtime.runnable_targets() == order[order.index(_runtime.runnable_targets()[0]) :]
