#!/bin/bash
# The kernels' tests under GCC's address and undefined-behaviour sanitizers.
#
#   tools/sanitized.sh PYTHON DIR build             compile the modules into DIR
#   tools/sanitized.sh PYTHON DIR test [ARGUMENT…]  run the tests on them; arguments go to pytest
#
# DIR/package/fastdl holds links to the Python files of the tree and the modules, and comes first on the path. Base and
# AVX2 are enough for CPUs: between them they take every path through the kernels. (The 64-byte-vector source takes the
# compiler a quarter of an hour with sanitizers.) The CUDA kernels run in the emulator, on every row of the table once and
# through the tests of their products: an access beyond an array, or to an address out of line, ends them. Memory of the
# device is the host's, so each array has its red zones. The tape's tests follow: its nodes are made and freed by hand.
set -euo pipefail
python=$(realpath --no-symlinks "$1") dir=$2 what=$3
shift 3
bin=$(dirname "$python")
cxx=${CXX:-g++}

case $what in
  build)
    mkdir -p "$dir/package/fastdl"
    "$bin/cmake" -S . -B "$dir/cmake" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DCMAKE_CXX_COMPILER="$cxx" \
      -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
      '-DFASTDL_TARGETS=base;avx2;emu' -DFASTDL_SANITIZE=ON > "$dir/configure.log" ||
      { cat "$dir/configure.log"; exit 1; }
    "$bin/cmake" --build "$dir/cmake" > "$dir/build.log" || { cat "$dir/build.log"; exit 1; }
    for file in python/fastdl/*; do
      case $file in *.so | *__pycache__) ;; *) ln -sfn "$(realpath "$file")" "$dir/package/fastdl/${file##*/}" ;; esac
    done
    for file in "$dir"/cmake/_*.so; do ln -sf "$(realpath "$file")" "$dir/package/fastdl/"; done
    ;;
  test)
    # The sanitizer must come first in the process; libstdc++ with it, so that it finds the function that throws.
    preload="$("$cxx" -print-file-name=libasan.so) $("$cxx" -print-file-name=libstdc++.so)"
    # Python's own allocator and our pool would hide what lies beyond the end of an array. Python leaks by design.
    export PYTHONPATH="$dir/package" PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 FASTDL_POOL=0 FASTDL_TARGET=base
    export ASAN_OPTIONS="detect_leaks=0:handle_segv=2:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
    export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
    case " $* " in
      *" tests"*) ;;
      *)
        set -- -k "emu and (parity or sizes_of_zero or agree or cores) or not (emu or sizes_of_zero)" "$@" \
          tests/test_kernels.py tests/test_errors.py tests/test_grads.py tests/test_cuda_products.py tests/test_tensor.py
        ;;
    esac
    LD_PRELOAD=$preload "$python" -c 'import sys, fastdl; sys.exit("build/asan" not in fastdl.__file__ and fastdl.__file__)'
    LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider -m "not slow" "$@"
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
