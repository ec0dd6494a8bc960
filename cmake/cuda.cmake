# The module _cuda, from cuda/*.cu by nvcc. CMake's own variables (CMAKE_CUDA_COMPILER, CMAKE_CUDA_ARCHITECTURES,
# CMAKE_CUDA_FLAGS, CMAKE_CUDA_RUNTIME_LIBRARY) mean what they always do. FASTDL_CUDA_ARCHITECTURES=release stands for the
# list of a released wheel.
set(FASTDL_CUDA_ARCHITECTURES "" CACHE STRING "release, or a list as for CMAKE_CUDA_ARCHITECTURES; empty: that of this machine's GPU")
set(FASTDL_RELEASE_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)  # the last with PTX for what comes

if(NOT FASTDL_CUDA)
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(FASTDL_CUDA STREQUAL "AUTO")
    message(STATUS "fastdl: no nvcc, so no CUDA kernels")
    return()
  endif()
  message(FATAL_ERROR
    "FASTDL_CUDA=${FASTDL_CUDA}: expected nvcc, the CUDA compiler; found none. Install NVIDIA's CUDA toolkit, or\n"
    "  pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl\n"
    "and name the compiler: CUDACXX=<site-packages>/nvidia/cu13/bin/nvcc. In that folder lib64 must be a link to lib, and\n"
    "lib/libcudart.so one to libcudart.so.13. FASTDL_CUDA=OFF builds for the CPU alone.")
endif()

# Of another list, OFF and the environment's CUDAARCHS CMake makes what it always does.
set(release FALSE)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  if(FASTDL_CUDA_ARCHITECTURES STREQUAL "release")
    set(release TRUE)
    set(CMAKE_CUDA_ARCHITECTURES ${FASTDL_RELEASE_ARCHITECTURES})
  elseif(FASTDL_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${FASTDL_CUDA_ARCHITECTURES})
  else()
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE cards ERROR_QUIET
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" cards "${cards}")
    list(REMOVE_DUPLICATES cards)
    string(REPLACE "." "" cards "${cards}")
    if(NOT cards)
      set(cards 80)  # the first with tensor cores for float32; its PTX serves all later ones
      message(STATUS "fastdl: no GPU here; the CUDA kernels are compiled for sm_80 and later")
    endif()
    set(CMAKE_CUDA_ARCHITECTURES ${cards})
  endif()
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu)
# Most of a wheel's machine code. In a release sm_86 and sm_89 run these files' code for sm_80, as the hardware allows:
# a wheel has to stay below 12 MB. tools/sass.py knows the same list.
set(FASTDL_LARGE_CUDA_FILES gemm conv gibbs lstm depthwise loss norm lstm_norm)
set(LARGE_SOURCES ${CUDA_SOURCES})
string(REPLACE ";" "|" large "${FASTDL_LARGE_CUDA_FILES}")
list(FILTER LARGE_SOURCES INCLUDE REGEX "/(${large})\\.cu$")
list(FILTER CUDA_SOURCES EXCLUDE REGEX "/(${large})\\.cu$")
add_library(device_cuda OBJECT ${CUDA_SOURCES})
add_library(device_cuda_large OBJECT ${LARGE_SOURCES})
if(release)
  set(large_architectures ${CMAKE_CUDA_ARCHITECTURES})
  list(REMOVE_ITEM large_architectures 86-real 89-real)
  set_target_properties(device_cuda_large PROPERTIES CUDA_ARCHITECTURES "${large_architectures}")
endif()
foreach(part device_cuda device_cuda_large)
  target_include_directories(${part} PRIVATE csrc cuda)
  # No contraction: a formula has the same bits as on a CPU; products say fma() where they mean it.
  target_compile_options(${part} PRIVATE -O3 -fmad=false)
  # nvcc leaves machine code as it is. Seven architectures' are much alike: zstd makes a seventh of them, where deflate, of which a
  # wheel is made, sees one at a time and makes a quarter. (Drivers that CUDA 13 wants can read it.)
  if(FASTDL_CUDA_ARCHITECTURES STREQUAL "release" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
    target_compile_options(${part} PRIVATE --compress-mode=size)
  endif()
  if(FASTDL_WERROR)
    target_compile_options(${part} PRIVATE "SHELL:-Werror all-warnings" "SHELL:-Xptxas --warning-as-error")
  endif()
endforeach()

fastdl_module(_cuda csrc/module.cpp csrc/array_cuda.cpp $<TARGET_OBJECTS:device_cuda>
              $<TARGET_OBJECTS:device_cuda_large> $<TARGET_OBJECTS:fastdl_border>
              $<TARGET_OBJECTS:fastdl_threads>)
# Linked as CUDA, so that CMAKE_CUDA_RUNTIME_LIBRARY (static, if not said) says how.
set_target_properties(_cuda PROPERTIES LINKER_LANGUAGE CUDA)
target_include_directories(_cuda PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
string(REPLACE ";" " " architectures "${CMAKE_CUDA_ARCHITECTURES}")
target_compile_definitions(_cuda PRIVATE FASTDL_BIND=bind_cuda "FASTDL_CUDA_ARCHITECTURES=\"${architectures}\"")
