// Tools of the innermost loops: sums that stay in registers.
#pragma once
#include "simd.h"

namespace fastdl {
namespace {

// f(0), f(1), .. f(N - 1), written out before the optimiser sees it: an array indexed so is a set of registers.
template <int I>
struct Constant {
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class F>
FASTDL_INLINE void unrolled(const F& f) {
  if constexpr (I < N) {
    f(Constant<I>{});
    unrolled<N, I + 1>(f);
  }
}
#define FASTDL_INLINED __attribute__((always_inline))  // for a lambda

// sum = a * b + sum, in the register where it is: left to choose among the three forms of the instruction, GCC moves sums
// about and runs out of registers.
FASTDL_INLINE void add_product(vec& sum, vec a, vec b) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#elif defined(__FMA__) && FASTDL_VECTOR_BYTES <= 32
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#else
  sum = fma(a, b, sum);
#endif
}

// sum = a * b + sum, where a is one number in memory. AVX-512 multiplies by it as it is read; on Zen 4 a broadcast of its own takes
// so long that tiles one vector wide, which use each number once, reach 71 % of the peak instead of 97.
FASTDL_INLINE void add_scaled(vec& sum, const float& a, vec b) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(b), "m"(a));
#else
  add_product(sum, splat(a), b);
#endif
}

// v has been read. Where two operations use it, each would otherwise read it for itself, and twice over where it crosses a cache line.
FASTDL_INLINE void fetched(vec& v) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  __asm__("" : "+v"(v));
#elif defined(__FMA__) && FASTDL_VECTOR_BYTES <= 32
  __asm__("" : "+x"(v));
#else
  (void)v;
#endif
}

// v still has its register here. A sum that is the last to read an operand is otherwise moved into the register that becomes free, and
// back in the next step.
FASTDL_INLINE void keep(vec v) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  __asm__("" : : "v"(v));
#elif defined(__FMA__) && FASTDL_VECTOR_BYTES <= 32
  __asm__("" : : "x"(v));
#else
  (void)v;
#endif
}

}  // namespace
}  // namespace fastdl
