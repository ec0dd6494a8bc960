// CUDA's runtime header, as far as the kernels of fastdl use it, for a host compiler: stands first on the include path
// where cuda/*.cu are compiled for the emulator (emulator.h). Memory of the device is memory of the host; streams do all at
// once.
//
// Left out on purpose: __shared__ (shared_memory<T>() of launch.cuh takes its place), <<<>>> (launch()), and __activemask().
#pragma once
#if defined(__CUDACC__)
#error "cuda/emu/ stands before the CUDA toolkit on the include path"
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cuda_runtime_api.h"
#include "emulator.h"
#include "race.h"

#ifndef FASTDL_DEVICE_CODE
#define FASTDL_DEVICE_CODE 1
#endif
#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define threadIdx (::emu::place.thread)
#define blockIdx (::emu::place.block)
#define blockDim (::emu::place.block_size)
#define gridDim (::emu::place.grid_size)
constexpr int warpSize = 32;

// ------------------------------------------------------------------------------------------------------- vectors

#define FASTDL_EMU_VECTORS(T, name, align2, align4)                                                \
  struct __attribute__((aligned(align2))) name##2 { T x, y; };                                     \
  struct name##3 { T x, y, z; };                                                                   \
  struct __attribute__((aligned(align4))) name##4 { T x, y, z, w; };                               \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                       \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                               \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define uint3 emu_uint3  // emulator.h has it
FASTDL_EMU_VECTORS(float, float, 8, 16)
FASTDL_EMU_VECTORS(int, int, 8, 16)
FASTDL_EMU_VECTORS(unsigned, uint, 8, 16)
#undef uint3
FASTDL_EMU_VECTORS(unsigned char, uchar, 2, 4)
FASTDL_EMU_VECTORS(unsigned short, ushort, 4, 8)
FASTDL_EMU_VECTORS(double, double, 16, 16)
FASTDL_EMU_VECTORS(long long, longlong, 16, 16)
FASTDL_EMU_VECTORS(unsigned long long, ulonglong, 16, 16)
#undef FASTDL_EMU_VECTORS

// ---------------------------------------------------------------------------------------------------- arithmetic

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class To, class From>
inline To emu_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }

inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(int64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<__uint128_t>(a) * b >> 64);
}
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return static_cast<unsigned>(((uint64_t{high} << 32 | low) << (by & 31)) >> 32);
}

#define FASTDL_EMU_MIN_MAX(T)                                  \
  inline T min(T a, T b) { return b < a ? b : a; }             \
  inline T max(T a, T b) { return a < b ? b : a; }
FASTDL_EMU_MIN_MAX(int)
FASTDL_EMU_MIN_MAX(unsigned)
FASTDL_EMU_MIN_MAX(long)
FASTDL_EMU_MIN_MAX(long long)
FASTDL_EMU_MIN_MAX(unsigned long)
FASTDL_EMU_MIN_MAX(unsigned long long)
#undef FASTDL_EMU_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// -------------------------------------------------------------------------------------------------------- memory

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
inline void __stcg(T* p, T value) {
  *p = value;
}

// Real atomics: blocks may run on several OS threads.
#if defined(FASTDL_EMU_RACE)
#define FASTDL_EMU_ATOMIC_CODE __attribute__((no_sanitize("thread"), noinline)) inline
#else
#define FASTDL_EMU_ATOMIC_CODE inline
#endif
// What stands in `next` is computed from `old`, again until no other thread came between.
template <class T, class Next>
FASTDL_EMU_ATOMIC_CODE T emu_atomic(T* p, const Next& next) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4 or 8 bytes");
  emu::race::atomic(p, sizeof(T));
  T old, wanted;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    wanted = next(old);
  } while (!__atomic_compare_exchange(p, &old, &wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
#define FASTDL_EMU_ATOMIC(T)                                                                                         \
  FASTDL_EMU_ATOMIC_CODE T atomicAdd(T* p, T v) { return emu_atomic(p, [v](T old) { return static_cast<T>(old + v); }); } \
  FASTDL_EMU_ATOMIC_CODE T atomicExch(T* p, T v) { return emu_atomic(p, [v](T) { return v; }); }                     \
  FASTDL_EMU_ATOMIC_CODE T atomicMax(T* p, T v) { return emu_atomic(p, [v](T old) { return old < v ? v : old; }); }  \
  FASTDL_EMU_ATOMIC_CODE T atomicMin(T* p, T v) { return emu_atomic(p, [v](T old) { return v < old ? v : old; }); }  \
  FASTDL_EMU_ATOMIC_CODE T atomicCAS(T* p, T expected, T v) {                                                        \
    return emu_atomic(p, [expected, v](T old) { return old == expected ? v : old; });                                \
  }
FASTDL_EMU_ATOMIC(int)
FASTDL_EMU_ATOMIC(unsigned)
FASTDL_EMU_ATOMIC(unsigned long long)
#undef FASTDL_EMU_ATOMIC
FASTDL_EMU_ATOMIC_CODE float atomicAdd(float* p, float v) {
  return emu_atomic(p, [v](float old) { return old + v; });
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ------------------------------------------------------------------------------------------------ blocks and warps

inline void __syncthreads(emu::Site site = emu::Site()) { emu::barrier(site); }
inline int __syncthreads_or(int p, emu::Site site = emu::Site()) { return emu::barrier(site, emu::Vote::any, p); }
inline int __syncthreads_and(int p, emu::Site site = emu::Site()) { return emu::barrier(site, emu::Vote::all, p); }
inline int __syncthreads_count(int p, emu::Site site = emu::Site()) { return emu::barrier(site, emu::Vote::count, p); }
inline void __syncwarp(unsigned mask = 0xffffffffu, emu::Site site = emu::Site()) { emu::syncwarp(site, mask); }

inline unsigned __ballot_sync(unsigned mask, int p, emu::Site site = emu::Site()) { return emu::ballot(site, mask, p); }
inline int __any_sync(unsigned mask, int p, emu::Site site = emu::Site()) { return emu::ballot(site, mask, p) != 0; }
inline int __all_sync(unsigned mask, int p, emu::Site site = emu::Site()) { return emu::ballot(site, mask, p) == mask; }

template <class T>
inline T emu_shuffle(emu::Site site, unsigned mask, T value, int source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  emu::Exchange e{0, 0, source};
  memcpy(&e.given, &value, sizeof value);
  emu::exchange(site, mask, e);
  memcpy(&value, &e.got, sizeof value);
  return value;
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, emu::Site site = emu::Site()) {
  const int me = static_cast<int>(emu::lane());
  return emu_shuffle(site, mask, value, (me & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, emu::Site site = emu::Site()) {
  const int me = static_cast<int>(emu::lane()), source = me ^ with;
  return emu_shuffle(site, mask, value, source < (me | (width - 1)) + 1 ? source : me);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, emu::Site site = emu::Site()) {
  const int me = static_cast<int>(emu::lane()), source = me - static_cast<int>(by);
  return emu_shuffle(site, mask, value, source >= (me & ~(width - 1)) ? source : me);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, emu::Site site = emu::Site()) {
  const int me = static_cast<int>(emu::lane()), source = me + static_cast<int>(by);
  return emu_shuffle(site, mask, value, source <= (me | (width - 1)) ? source : me);
}

[[noreturn]] inline void __trap() { emu::fail("__trap()"); }
