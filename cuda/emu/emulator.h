// The emulator of a CUDA device on the host: what launch.cuh and warp.cuh call, and what cuda_runtime.h beside this file
// makes CUDA's names of. How it works: emulator.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <utility>
#include <vector>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

namespace emu {

// Where a line of device code stands; the calls below take their caller's.
struct Site {
  const char* file;
  int line;
  Site(const char* file_ = __builtin_FILE(), int line_ = __builtin_LINE()) : file(file_), line(line_) {}
};

// The thread that runs now. One for each OS thread; no fibre ever moves to another.
struct Place {
  uint3 thread, block, block_size, grid_size;
  unsigned char* shared;
  size_t shared_bytes;
  void* engine;
};
extern __thread Place place;

// ------------------------------------------------------------------------------------------------------ settings

enum class Order : uint8_t { forward, reverse, random };  // in which warps, and lanes of a warp, run
enum class Copies : uint8_t { late, early, random };      // async copies: when waited for, at once, either

struct Settings {
  Order order;
  Copies copies;
  uint64_t seed;  // of the random ones
  int arch;       // 75 or 80 and up: what the device says it is, and how much shared memory it has
};
// At first from FASTDL_EMU_ORDER, FASTDL_EMU_COPIES (their names above), FASTDL_EMU_SEED and FASTDL_EMU_ARCH.
Settings& settings();

// For tests of the border: memory on another device than 0, or on the host (-1); a null pointer forgets all of it. Which
// streams waited for which (who, for whom) since the last call.
void memory_is_on(const void* begin, size_t bytes, int device);
std::vector<std::pair<void*, void*>> take_waits();

// Mistakes that a GPU would not tell are reported like a failed launch: cudaGetLastError() returns
// cudaErrorLaunchFailure and cudaGetErrorString() says what, where and which thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ------------------------------------------------------------------------------------------------------ launches

void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context);

template <class F>
inline void launch(const void* kernel, const char*, const char*, int, dim3 grid, dim3 block, size_t shared_bytes, const F& f) {
  run_grid(kernel, grid, block, shared_bytes, [](const void* c) { (*static_cast<const F*>(c))(); }, &f);
}

[[noreturn]] void shared_memory_too_small(size_t wanted);
inline void* shared_memory(size_t bytes) {
  if (__builtin_expect(bytes > place.shared_bytes, 0)) shared_memory_too_small(bytes);
  return place.shared;
}

// ---------------------------------------------------------------------------------------- barriers and warps

enum class Vote : uint8_t { none, any, all, count };
int barrier(Site site, Vote vote = Vote::none, int predicate = 0);

// The lanes of `mask` meet: each brings `mine`, the last to come runs complete(mask, all of them) for all.
using Complete = void (*)(unsigned mask, void* const* lanes);
void meet(Site site, unsigned mask, Complete complete, void* mine);
void syncwarp(Site site, unsigned mask);

struct Exchange {
  uint64_t given, got;
  int source;  // lane whose value this one gets
};
void exchange(Site site, unsigned mask, Exchange& mine);
unsigned ballot(Site site, unsigned mask, int predicate);

unsigned lane();

// ------------------------------------------------------------------------------------------------ async copies

void copy_async(void* shared, const void* global, unsigned bytes, bool inside);
void copy_async_commit();
void copy_async_wait(int newest);

// ------------------------------------------------------------------------------------------------ tensor cores

inline uint32_t to_tf32(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  if ((u & 0x7f800000u) == 0x7f800000u) return u & 0x7fffffu ? 0x7fffffffu : u;
  return (u + 0x1000u) & ~0x1fffu;
}
inline uint32_t to_bf16(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  if ((u & 0x7f800000u) == 0x7f800000u && (u & 0x7fffffu)) return 0x7fffu;
  return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}
inline uint32_t to_bf16x2(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

void mma_tf32_16x8x8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site());
void mma_bf16_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site());
void load_matrix(uint32_t (&r)[4], const void* shared_row, bool transposed, Site site = Site());

}  // namespace emu
