// Host side of launch.cuh: the error that the border raises, and facts of the device.
#include "launch.cuh"

#include <stdio.h>

namespace fastdl {
namespace {

thread_local char error_text[1024];

// Asked for what architecture the kernels are compiled, like all of this library.
__global__ void empty_kernel() {}

// 75 where code of sm_75 runs, on whatever newer device.
int compiled_for() {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(empty_kernel)) == cudaSuccess)
    return attributes.ptxVersion;
  cudaGetLastError();  // no code for this device: the launch will say so
  return 0;
}

}  // namespace

void keep_error(const Grid& where, int code) {
  if (error_text[0]) return;
  const char* file = where.file;
  for (const char* p = file; *p; ++p)
    if (*p == '/') file = p + 1;
  snprintf(error_text, sizeof error_text, "CUDA: %s (launch in %s, %s:%d)",
           cudaGetErrorString(static_cast<cudaError_t>(code)), where.function, file, where.line);
}

void keep_refusal(const char* expected, i64 got) {
  if (!error_text[0]) snprintf(error_text, sizeof error_text, "CUDA: expected %s; got %lld", expected, static_cast<long long>(got));
}

const char* take_error() {
  static thread_local char taken[sizeof error_text];
  if (!error_text[0]) return nullptr;
  snprintf(taken, sizeof taken, "%s", error_text);
  error_text[0] = 0;
  return taken;
}

bool device_has_tensor_cores() {
  constexpr int kDevices = 64;
  static signed char known[kDevices];  // 0: not asked yet; else 1 + the answer. Threads that race write the same.
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device < kDevices && known[device]) return known[device] == 2;
  const bool has = compiled_for() >= 80;
  if (device < kDevices) known[device] = has ? 2 : 1;
  return has;
}

}  // namespace fastdl
