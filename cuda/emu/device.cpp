// The runtime's calls, warp exchanges and the tensor cores of the emulated device.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mutex>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "race.h"

namespace emu {

const char* run_blocks(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context);
bool in_shared(const void* p, size_t bytes);

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local char failure[768];
std::mutex attributes_mutex;
std::vector<std::pair<const void*, int>> attributes;  // kernels allowed more than 48 KiB of shared memory

// For tests of the border.
struct Range {
  const void *begin, *end;
  int device;  // -1: of the host
};
std::mutex books_mutex;
std::vector<Range> memory;                                // what does not lie on device 0
std::vector<std::pair<cudaStream_t, cudaStream_t>> waits;  // (who waited, for whom)

// Shared memory that a block may have, by compute capability (CUDA C++ Programming Guide, technical specifications).
int most_shared(int arch) {
  switch (arch) {
    case 75: return 64 << 10;
    case 80: case 87: return 163 << 10;
    case 90: case 100: return 227 << 10;
    default: return 99 << 10;
  }
}

size_t allowed_shared(const void* kernel) {
  std::lock_guard<std::mutex> lock(attributes_mutex);
  for (const auto& [known, bytes] : attributes)
    if (known == kernel) return static_cast<size_t>(bytes);
  return 48 << 10;
}

// The architecture that kernels are compiled for: the device's, or an older one whose code newer devices run too.
int code_arch() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  static const char* const setting = getenv("FASTDL_EMU_CODE");
  const int arch = 10 * major + minor, code = setting ? atoi(setting) : arch;
  return code < arch ? code : arch;
}

float from_bits(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

struct Fragments {
  float* c;
  const uint32_t *a, *b;
};

// The operands as matrices; the hardware ignores the low 13 bits of a tf32.
void complete_tf32(unsigned, void* const* lanes) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& f = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + (i & 1) * 8][t + (i >> 1) * 4] = from_bits(f.a[i] & ~0x1fffu);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = from_bits(f.b[i] & ~0x1fffu);
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* c = static_cast<const Fragments*>(lanes[lane])->c;
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i >> 1) * 8, column = 2 * t + (i & 1);
      for (int k = 0; k < 8; ++k) c[i] = c[i] + a[row][k] * b[k][column];
    }
  }
}

void complete_bf16(unsigned, void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& f = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half)
        a[g + (i & 1) * 8][2 * t + (i >> 1) * 8 + half] = from_bits(f.a[i] >> (16 * half) << 16);
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half) b[2 * t + i * 8 + half][g] = from_bits(f.b[i] >> (16 * half) << 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* c = static_cast<const Fragments*>(lanes[lane])->c;
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i >> 1) * 8, column = 2 * t + (i & 1);
      for (int k = 0; k < 16; ++k) c[i] = c[i] + a[row][k] * b[k][column];
    }
  }
}

struct Rows {
  uint32_t* r;
  const void* row;
};

void complete_rows(unsigned, void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < 4; ++m) {
      const auto* row = static_cast<const Rows*>(lanes[m * 8 + lane / 4])->row;
      memcpy(&static_cast<const Rows*>(lanes[lane])->r[m], static_cast<const unsigned char*>(row) + lane % 4 * 4, 4);
    }
}

void complete_rows_transposed(unsigned, void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < 4; ++m) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const auto* row = static_cast<const Rows*>(lanes[m * 8 + lane % 4 * 2 + i])->row;
        memcpy(&pair[i], static_cast<const unsigned char*>(row) + lane / 4 * 2, 2);
      }
      static_cast<const Rows*>(lanes[lane])->r[m] = pair[0] | uint32_t{pair[1]} << 16;
    }
}

void need_tensor_cores(const char* what) {
  if (code_arch() < 80) fail("%s: traps before sm_80", what);
}

struct Ballot {
  int predicate;
  unsigned result;
};

void complete_ballot(unsigned mask, void* const* lanes) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u && static_cast<Ballot*>(lanes[i])->predicate) result |= 1u << i;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u) static_cast<Ballot*>(lanes[i])->result = result;
}

void complete_exchange(unsigned mask, void* const* lanes) {
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u) {
      auto& mine = *static_cast<Exchange*>(lanes[i]);
      mine.got = static_cast<Exchange*>(lanes[mine.source])->given;
    }
}

}  // namespace

unsigned lane() {
  const uint3& t = place.thread;
  const uint3& n = place.block_size;
  return (t.x + n.x * (t.y + n.y * t.z)) % 32;
}

void exchange(Site site, unsigned mask, Exchange& mine) {
  if (!(mask >> (mine.source & 31) & 1u))
    fail("shuffle at line %d: lane %u reads lane %d, which mask %08x leaves out", site.line, lane(), mine.source, mask);
  meet(site, mask, complete_exchange, &mine);
}

unsigned ballot(Site site, unsigned mask, int predicate) {
  Ballot mine{predicate, 0};
  meet(site, mask, complete_ballot, &mine);
  return mine.result;
}

void mma_tf32_16x8x8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  need_tensor_cores("mma");
  Fragments mine{c, a, b};
  meet(site, 0xffffffffu, complete_tf32, &mine);
}

void mma_bf16_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  need_tensor_cores("mma");
  Fragments mine{c, a, b};
  meet(site, 0xffffffffu, complete_bf16, &mine);
}

void load_matrix(uint32_t (&r)[4], const void* shared_row, bool transposed, Site site) {
  if (!in_shared(shared_row, 16)) fail("load_matrix: a row lies outside the block's shared memory");
  if (reinterpret_cast<uintptr_t>(shared_row) % 16) fail("load_matrix: a row is not aligned to 16 bytes");
  race::read(shared_row, 16);
  Rows mine{r, shared_row};
  meet(site, 0xffffffffu, transposed ? complete_rows_transposed : complete_rows, &mine);
}

void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || !(grid.x && grid.y && grid.z)) {
    last_error = cudaErrorInvalidConfiguration;
  } else if (shared_bytes > allowed_shared(kernel)) {
    last_error = cudaErrorInvalidValue;
  } else if (const char* text = run_blocks(grid, block, shared_bytes, body, context)) {
    last_error = cudaErrorLaunchFailure;
    snprintf(failure, sizeof failure, "%s", text);
  }
}

}  // namespace emu

namespace {

// Device 0 is what the settings say, device 1 one without tensor cores.
thread_local int current_device = 0;
constexpr int kDevices = 2;
int arch_of(int device) { return device == 1 ? 75 : emu::settings().arch; }

}  // namespace

cudaError_t cudaGetLastError() {
  const cudaError_t error = emu::last_error;
  emu::last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return emu::last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return emu::failure;
  }
  return "unknown error";
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > emu::most_shared(arch_of(current_device))) return cudaErrorInvalidValue;
  std::lock_guard<std::mutex> lock(emu::attributes_mutex);
  for (auto& [known, bytes] : emu::attributes)
    if (known == kernel) {
      bytes = value;
      return cudaSuccess;
    }
  emu::attributes.emplace_back(kernel, value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->binaryVersion = arch_of(current_device);
  attributes->ptxVersion = emu::code_arch();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= kDevices) return cudaErrorInvalidDevice;
  const int arch = arch_of(device);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = arch / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = arch % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emu::most_shared(arch); return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  if (bytes) memset(p, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes) memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  std::lock_guard<std::mutex> lock(emu::books_mutex);
  *attributes = {cudaMemoryTypeDevice, 0};
  for (const auto& [begin, end, device] : emu::memory)
    if (p >= begin && p < end) *attributes = {device < 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice, device};
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new cudaStream_t(nullptr));
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *reinterpret_cast<cudaStream_t*>(event) = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard<std::mutex> lock(emu::books_mutex);
  emu::waits.emplace_back(stream, *reinterpret_cast<cudaStream_t*>(event));
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<cudaStream_t*>(event);
  return cudaSuccess;
}

namespace emu {

void memory_is_on(const void* begin, size_t bytes, int device) {
  std::lock_guard<std::mutex> lock(books_mutex);
  if (!begin) return memory.clear();
  memory.push_back({begin, static_cast<const unsigned char*>(begin) + bytes, device});
}

std::vector<std::pair<void*, void*>> take_waits() {
  std::lock_guard<std::mutex> lock(books_mutex);
  std::vector<std::pair<void*, void*>> taken(waits.begin(), waits.end());
  waits.clear();
  return taken;
}

}  // namespace emu
