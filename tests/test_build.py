"""What the build made: the same kernels in every module, no instruction where it does not belong, a small wheel."""

import importlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
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
check_isa_objects, sass, cupy_for_build = map(
    importlib.import_module, ("check_isa_objects", "sass", "cupy_for_build")
)
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
    total = sum(sizes.values())
    assert total <= 3 << 20, sizes
    missing = {"avx2", "avx512"} - set(BUILT) if os.uname().machine == "x86_64" else set()
    if missing:
        pytest.skip(f"without {' and '.join(sorted(missing))} only the rest was weighed (TARGETS=all builds every target)")


def test_package_ships_what_others_compile_against():
    if (PACKAGE / "__init__.py").resolve().is_relative_to(ROOT / "python"):
        pytest.skip("a source tree on the path, not an installation")
    assert (PACKAGE / "include" / "fastdl" / "kernels.h").exists()
    assert (PACKAGE / "py.typed").exists()


# ------------------------------------------------------------------------------------------------ CUDA's kernels

# cmake/cuda.cmake with what stands around it in CMakeLists.txt. CMake's own part of CUDA is left out: nothing is compiled.
AROUND = """
cmake_minimum_required(VERSION 3.18)
project(around LANGUAGES CXX)
macro(enable_language)
  set(CMAKE_CUDA_COMPILER_VERSION 13.0)
endmacro()
macro(find_package)
endmacro()
function(fastdl_module name)
  add_library(${name} OBJECT ${SOURCE}/csrc/cpuid.cpp)
endfunction()
set(CMAKE_CURRENT_SOURCE_DIR ${SOURCE})
include(${SOURCE}/cmake/cuda.cmake)
if(NOT TARGET _cuda)
  message(FATAL_ERROR "seen: no CUDA;")
endif()
foreach(target device_cuda device_cuda_large)
  get_target_property(architectures ${target} CUDA_ARCHITECTURES)
  list(APPEND seen "${target} ${architectures}")
endforeach()
get_target_property(runtime _cuda CUDA_RUNTIME_LIBRARY)
message(FATAL_ERROR "seen: ${seen} flags ${CMAKE_CUDA_FLAGS} runtime ${runtime};")
"""
NVCC = "-DCMAKE_CUDA_COMPILER=/somewhere/nvcc"


@pytest.fixture
def configure(tmp_path):
    """CMake's words on a build with these options."""
    cmake = shutil.which("cmake") or shutil.which("cmake", path=os.path.dirname(sys.executable))
    if cmake is None or COMPILER is None:
        pytest.skip("no cmake or no C++ compiler")
    (tmp_path / "CMakeLists.txt").write_text(AROUND)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '9.0\\n12.0\\n9.0\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)

    def run(*options, **environment):
        kept = {k: v for k, v in os.environ.items() if k not in ("CUDAARCHS", "CUDACXX", "CUDAFLAGS")}
        kept["PATH"] = f"{tmp_path}:{kept['PATH']}"
        command = [cmake, "-G", "Unix Makefiles", f"-DSOURCE={ROOT}", f"-DCMAKE_CXX_COMPILER={COMPILER}",
                   "-DCMAKE_CXX_COMPILER_FORCED=ON", *options, tmp_path, "-B", tmp_path / "build"]  # fmt: skip
        shutil.rmtree(tmp_path / "build", ignore_errors=True)
        done = subprocess.run(command, capture_output=True, text=True, env=kept | environment, timeout=120)
        return " ".join((done.stdout + done.stderr).split())

    return run


def test_cuda_without_nvcc_says_what_to_install(configure):
    said = configure("-DFASTDL_CUDA=ON", "-DCMAKE_CUDA_COMPILER=NOTFOUND")
    assert "FASTDL_CUDA=ON: expected nvcc, the CUDA compiler; found none" in said
    assert "pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl" in said
    for option in ("AUTO", "OFF"):
        said = configure(f"-DFASTDL_CUDA={option}", "-DCMAKE_CUDA_COMPILER=NOTFOUND")
        assert "seen: no CUDA;" in said and ("no nvcc, so no CUDA kernels" in said) == (option == "AUTO")


RELEASE = "75-real;80-real;86-real;89-real;90-real;100-real;120"


@pytest.mark.parametrize(("options", "environment", "all_files", "large_files"), [
    (["-DFASTDL_CUDA_ARCHITECTURES=release"], {}, RELEASE, RELEASE.replace("86-real;89-real;", "")),
    (["-DFASTDL_CUDA_ARCHITECTURES=80;90"], {}, "80;90", "80;90"),
    ([], {}, "90;120", "90;120"),  # the GPUs that nvidia-smi lists
    (["-DCMAKE_CUDA_ARCHITECTURES=OFF"], {}, "OFF", "OFF"),
    (["-DCMAKE_CUDA_ARCHITECTURES=86-real;90", "-DFASTDL_CUDA_ARCHITECTURES=release"], {}, "86-real;90", "86-real;90"),
    ([], {"CUDAARCHS": "75"}, "architectures-NOTFOUND", "architectures-NOTFOUND"),  # enable_language() reads it
])  # fmt: skip
def test_architectures_that_cuda_is_built_for(configure, options, environment, all_files, large_files):
    said = configure("-DFASTDL_CUDA=ON", NVCC, *options, **environment)
    assert f"seen: device_cuda {all_files};device_cuda_large {large_files} flags" in said, said


def test_cmakes_own_variables_pass_through(configure):
    said = configure("-DFASTDL_CUDA=ON", NVCC, "-DCMAKE_CUDA_FLAGS=-lineinfo", "-DCMAKE_CUDA_RUNTIME_LIBRARY=Shared")
    assert "flags -lineinfo runtime Shared;" in said, said


def test_sass_knows_what_a_release_is():
    text = (ROOT / "cmake" / "cuda.cmake").read_text()
    release, large = (
        re.search(rf"set\({name} ([^)]*)\)", text)[1].split()
        for name in ("FASTDL_RELEASE_ARCHITECTURES", "FASTDL_LARGE_CUDA_FILES")
    )
    assert [int(a.removesuffix("-real")) for a in release] == list(sass.RELEASE)
    assert sorted(large) == sorted(sass.LARGE)


def machine_code(loop, before=("MOV",)):
    """Machine code as cuobjdump prints it: instructions, a loop of others, and the end."""
    lines = [*before, *loop, f"@P0 BRA 0x{16 * len(before):04x}", "EXIT"]
    return "\n".join(f"        /*{16 * i:04x}*/                   {line} R0 ;" for i, line in enumerate(lines))


TILE = ["LDS.128"] * 6 + ["FFMA"] * 128 + ["IADD3"] * 9
LARGE_PRODUCT, TENSOR_PRODUCT = "product<CudaCores<2, 2, 2, 4, 1>, KMajor>", "product<TensorCores<4, 2>, KMajor>"


def test_sass_reads_a_main_loop():
    f = sass.describe(machine_code(TILE, before=["FFMA"] * 3))
    assert (f["loop"], f["ffma"], f["lds128"], f["lds"], f["local"]) == (144, 128, 6, 0, 0)
    assert f["share"] == 128 / 144


@pytest.mark.parametrize(("loop", "name", "fault"), [
    (TILE, LARGE_PRODUCT, None),
    ([*TILE, "STL"], "other", "1 local accesses"),
    ([*TILE, *["IADD3"] * 9], LARGE_PRODUCT, "FFMA are 83.7% of the main loop; expected at least 85 %"),
    ([*TILE, "LDS.128"], LARGE_PRODUCT, "128 FFMA for 7 LDS.128 and 0 LDS; expected 20"),
    ([*TILE, "LDS", "LDS", "LDS"], LARGE_PRODUCT, "128 FFMA for 6 LDS.128 and 3 LDS"),
    (["HMMA.1688.F32.TF32", "LDSM", "LDGSTS"], TENSOR_PRODUCT, None),
    (["FFMA", "LDSM", "LDGSTS"], TENSOR_PRODUCT, "no HMMA"),
    (["HMMA", "LDSM", "LDG"], TENSOR_PRODUCT, "no LDGSTS"),
])  # fmt: skip
def test_bars_on_machine_code_can_be_missed(loop, name, fault):
    facts = sass.describe(machine_code(loop)) | {"registers": 255, "stack": 0, "spills": 0}
    found = sass.faults(name, 80, facts)
    assert any(fault in f for f in found) if fault else found == []
    assert any("spilled" in f for f in sass.faults(name, 80, facts | {"spills": 4}))
    assert any("says nothing of its registers" in f for f in sass.faults(name, 80, sass.describe(machine_code(loop))))


def test_a_bar_wants_a_kernel_to_hold_it():
    assert sass.unseen([LARGE_PRODUCT, TENSOR_PRODUCT], 80) == sass.unseen([LARGE_PRODUCT], 75) == []
    for names, arch, missing in (([LARGE_PRODUCT], 80, "tensor-core tile"), (["_ZN6fastdl7product"], 75, "large tile")):
        assert [missing in words for words in sass.unseen(names, arch)] == [True]


def test_bounds_read_an_image_once():
    """Not once a tap, as a product of the matrix of patches would: no kernel may be faster than its bound."""
    shapes = sass.shapes()
    assert shapes["128x512x784"] == (2 * 128 * 512 * 784, 128 * 784 + 784 * 512 + 128 * 512)
    image = 64 * 56 * 56 * 64
    assert shapes["vgg 64x56x56x64 3x3"] == (2 * image * 9 * 64, 2 * image + 9 * 64 * 64)
    assert shapes["depthwise 64x56x56x64 3x3"] == (2 * image * 9, 2 * image + 9 * 64)
    assert shapes["stem 64x224x224x3 7x7"][0] == 2 * 64 * 112 * 112 * 64 * 49 * 3


def test_make_gpu_keeps_what_it_built():
    """CuPy comes by itself: installing this package once more would leave out the test targets."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    said = subprocess.run(["make", "-n", "gpu"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    builds = [line for line in said.splitlines() if re.search(r"install\b.*'\.\[", line)]
    assert all("FASTDL_TEST_TARGETS=ON" in line and "FASTDL_CUDA=ON" in line for line in builds)
    assert said.index("tools/cupy_for_build.py") < said.index("pytest") < said.index("benchmarks/gpu.py")


def test_cupy_for_a_build():
    wanted = ["numpy>=2.0", "cupy-cuda13x>=13.6; extra == 'cuda13'", 'cupy-cuda12x>=13 ; extra == "cuda12"']
    assert cupy_for_build.requirement("cuda13", wanted) == "cupy-cuda13x>=13.6"
    assert cupy_for_build.requirement("cuda12", wanted) == "cupy-cuda12x>=13"
    with pytest.raises(ValueError, match="extra: expected one with one requirement; got 'cuda14'"):
        cupy_for_build.requirement("cuda14", wanted)


def test_without_a_gpu_no_cupy_is_chosen(monkeypatch):
    class Old:
        @staticmethod
        def devices():
            raise RuntimeError("CUDA: the GPUs: CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr(backend, "cuda_kernels", lambda: Old)
    with pytest.raises(SystemExit, match="expected a GPU that CUDA can use; got .*driver version is insufficient"):
        cupy_for_build.main()


@needs("nvcc")
def test_the_border_of_cuda_arrays_compiles_with_the_real_headers(tmp_path):
    """csrc/array_cuda.cpp, which the emulator's modules have with headers of our own."""
    pybind11 = pytest.importorskip("pybind11")
    folders = [pybind11.get_include(), sysconfig.get_path("include"), ROOT / "csrc", ROOT / "cuda"]
    command = ["nvcc", "-std=c++17", *(f"-I{f}" for f in folders), "-DFASTDL_BIND=bind_cuda", "-Xcompiler", "-fsyntax-only,-w",
               "-c", ROOT / "csrc" / "array_cuda.cpp", "-o", tmp_path / "array_cuda.o"]  # fmt: skip
    subprocess.run(command, check=True)


@pytest.mark.skipif(importlib.util.find_spec("fastdl._cuda") is None, reason="a build without CUDA kernels")
def test_the_cuda_module_needs_no_driver_to_be_imported():
    assert python("import fastdl._cuda").returncode == 0
    if shutil.which("readelf"):
        needed = subprocess.run(["readelf", "-d", path_of("cuda")], capture_output=True, text=True, check=True).stdout
        assert "libcuda.so" not in needed


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
