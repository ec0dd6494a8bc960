// One vector type at the target's natural width, in GCC/Clang vector extensions: the same source serves SSE4.2
// (x86-64-v2), AVX2+FMA (x86-64-v3), AVX-512 (x86-64-v4) and NEON (arm64).
//
// Rules for everything compiled once per instruction set: no standard-library templates, and nothing with external
// linkage but the kernels themselves. A weak symbol compiled for AVX-512 could otherwise be the copy that the linker keeps
// for everyone. Hence the anonymous namespace in this header.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(FASTDL_VECTOR_BYTES)  // a test target may ask for wider vectors than its instruction set has
#elif defined(__AVX512F__)
#define FASTDL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define FASTDL_VECTOR_BYTES 32
#else
#define FASTDL_VECTOR_BYTES 16
#endif

#define FASTDL_INLINE inline __attribute__((always_inline))

namespace fastdl {

using i64 = int64_t;

namespace {

constexpr int kLanes = FASTDL_VECTOR_BYTES / 4;  // floats in a vector

typedef float vec __attribute__((vector_size(FASTDL_VECTOR_BYTES)));
typedef int32_t ivec __attribute__((vector_size(FASTDL_VECTOR_BYTES)));
typedef uint32_t uvec __attribute__((vector_size(FASTDL_VECTOR_BYTES)));
// The same vectors at any address, allowed to alias floats.
typedef float vec_u __attribute__((vector_size(FASTDL_VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t ivec_u __attribute__((vector_size(FASTDL_VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t uvec_u __attribute__((vector_size(FASTDL_VECTOR_BYTES), aligned(4), may_alias));

FASTDL_INLINE vec load(const float* p) { return *reinterpret_cast<const vec_u*>(p); }
FASTDL_INLINE void store(float* p, vec v) { *reinterpret_cast<vec_u*>(p) = v; }
FASTDL_INLINE vec splat(float x) { return x - vec{}; }
FASTDL_INLINE ivec splat_i(int32_t x) { return x - ivec{}; }
FASTDL_INLINE uvec splat_u(uint32_t x) { return x - uvec{}; }

// The first `count` floats at p (0 <= count <= kLanes); the other lanes are zero and their memory is not touched.
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
FASTDL_INLINE vec load_part(const float* p, i64 count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
}
FASTDL_INLINE void store_part(float* p, vec v, i64 count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1u), v);
}
#else
#if defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
FASTDL_INLINE vec load_part(const float* p, i64 count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane));
}
#else
FASTDL_INLINE vec load_part(const float* p, i64 count) {
  vec v = {};
  for (i64 i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
#endif
#if defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
// By halves: AMD's masked store is slow, and GCC makes a call of memcpy out of a loop.
FASTDL_INLINE void store_part(float* p, vec v, i64 count) {
  if (count >= kLanes) {
    store(p, v);
    return;
  }
  __m128 left = _mm256_castps256_ps128((__m256)v);
  if (count & 4) {
    _mm_storeu_ps(p, left);
    left = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), left);
    left = _mm_movehl_ps(left, left);
    p += 2;
  }
  if (count & 1) _mm_store_ss(p, left);
}
#else
FASTDL_INLINE void store_part(float* p, vec v, i64 count) {
  for (i64 i = 0; i < count; ++i) p[i] = v[i];
}
#endif
#endif

// a * b + c, rounded once where the target has the instruction, twice where it has not. Products use this one;
// everywhere else contraction is off, so that a formula gives the same bits on every target.
//
// The vector forms name the instruction: GCC 12 turns a loop of scalar fma over the lanes into shuffles.
#if defined(__FMA__) || defined(__aarch64__)
FASTDL_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTDL_INLINE vec fma(vec a, vec b, vec c) {
#if FASTDL_VECTOR_BYTES == 16 && defined(__aarch64__)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif FASTDL_VECTOR_BYTES == 16
  return (vec)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#elif FASTDL_VECTOR_BYTES == 32
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else  // twice as wide as the machine: by halves
  union Halves {
    vec whole;
    __m256 half[2];
  } x = {a}, y = {b}, z = {c};
  for (int i = 0; i < 2; ++i) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
  return z.whole;
#endif
}
#else
FASTDL_INLINE float fma(float a, float b, float c) { return a * b + c; }
FASTDL_INLINE vec fma(vec a, vec b, vec c) { return a * b + c; }
#endif

FASTDL_INLINE vec select(ivec mask, vec yes, vec no) { return mask ? yes : no; }
// v in the first `count` lanes, `otherwise` in the others.
FASTDL_INLINE vec first_lanes(vec v, i64 count, vec otherwise) {
  ivec lane = {};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return select(lane < splat_i(static_cast<int32_t>(count)), v, otherwise);
}
FASTDL_INLINE ivec bits(vec v) { return reinterpret_cast<ivec>(v); }
FASTDL_INLINE vec from_bits(ivec v) { return reinterpret_cast<vec>(v); }

// What formulas.h is written in, for vectors; the float versions stand there.
FASTDL_INLINE ivec shift_left(ivec v, int by) { return v << by; }
FASTDL_INLINE vec to_float(ivec v) { return __builtin_convertvector(v, vec); }
// A NaN in x stays: the machine's min and max give their second operand then.
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
FASTDL_INLINE vec at_most(vec x, vec high) { return _mm512_min_ps(high, x); }
FASTDL_INLINE vec at_least(vec x, vec low) { return _mm512_max_ps(low, x); }
FASTDL_INLINE vec square_root(vec v) { return _mm512_sqrt_ps(v); }
#elif defined(__AVX__) && FASTDL_VECTOR_BYTES == 32
FASTDL_INLINE vec at_most(vec x, vec high) { return _mm256_min_ps(high, x); }
FASTDL_INLINE vec at_least(vec x, vec low) { return _mm256_max_ps(low, x); }
FASTDL_INLINE vec square_root(vec v) { return _mm256_sqrt_ps(v); }
#elif defined(__SSE__) && FASTDL_VECTOR_BYTES == 16
FASTDL_INLINE vec at_most(vec x, vec high) { return _mm_min_ps(high, x); }
FASTDL_INLINE vec at_least(vec x, vec low) { return _mm_max_ps(low, x); }
FASTDL_INLINE vec square_root(vec v) { return _mm_sqrt_ps(v); }
#else
FASTDL_INLINE vec at_most(vec x, vec high) { return high < x ? high : x; }
FASTDL_INLINE vec at_least(vec x, vec low) { return low > x ? low : x; }
FASTDL_INLINE vec square_root(vec v) {
  vec r;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(v[i]);
  return r;
}
#endif

}  // namespace
}  // namespace fastdl
