// Starting kernels. Every .cu file launches through launch() and takes its shared memory through shared_memory(), so that
// the same source runs on a GPU (nvcc) and in the emulator (a host compiler with cuda/emu/ first on its include path).
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

namespace fastdl {

// The grid of a launch, and where in the source the launch stands: error messages name it.
struct Grid {
  dim3 size;
  const char* function;
  const char* file;
  int line;
  Grid(dim3 grid, const char* function_ = __builtin_FUNCTION(), const char* file_ = __builtin_FILE(),
       int line_ = __builtin_LINE())
      : size(grid), function(function_), file(file_), line(line_) {}
  Grid(unsigned x, const char* function_ = __builtin_FUNCTION(), const char* file_ = __builtin_FILE(),
       int line_ = __builtin_LINE())
      : size(x, 1, 1), function(function_), file(file_), line(line_) {}
};

// Keeps the first error since take_error() (kernels.h) of this thread; `code` is a cudaError_t.
void keep_error(const Grid& where, int code);
// The same for sizes that kernels cannot count: "CUDA: expected <expected>; got <got>".
void keep_refusal(const char* expected, i64 got);

// Whether kernels on the current device have tf32 and bf16 mma: it is sm_80 or later, and so is what they are compiled for (a
// build for sm_75 runs on newer devices, too). Asked once a device.
bool device_has_tensor_cores();

// Blocks for n items, `each` a block, at most `most`: kernels go on in strides of the grid.
inline unsigned blocks_for(i64 n, i64 each, i64 most = 1 << 16) {
  const i64 blocks = (n + each - 1) / each;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// Runs kernel(args...) with `shared_bytes` of shared memory; an empty grid runs nothing. Never throws and never waits.
template <class... P, class... A>
void launch(void (*kernel)(P...), const Grid& grid, dim3 block, size_t shared_bytes, void* stream, A... args) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: as many arguments as the kernel has parameters");
  if (grid.size.x == 0 || grid.size.y == 0 || grid.size.z == 0) return;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024)
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  if (error == cudaSuccess) {
#if defined(__CUDACC__)
    kernel<<<grid.size, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
#else
    (void)stream;
    emu::launch(reinterpret_cast<const void*>(kernel), grid.function, grid.file, grid.line, grid.size, block,
                shared_bytes, [&] { kernel(static_cast<P>(args)...); });
#endif
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) keep_error(grid, error);
}

// The block's shared memory, seen as one T: launch with sizeof(T) bytes. Aligned to 128 bytes.
template <class T>
__device__ __forceinline__ T& shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char fastdl_shared_bytes[];
  return *reinterpret_cast<T*>(fastdl_shared_bytes);
#else
  return *static_cast<T*>(emu::shared_memory(sizeof(T)));
#endif
}

}  // namespace fastdl
