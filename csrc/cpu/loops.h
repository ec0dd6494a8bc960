// The loops that element-wise kernels, losses, norms and optimisers share: vectors with a partial last one, and sums in an
// order that the length alone decides.
#pragma once
#include "parallel.h"
#include "simd.h"

namespace fastdl {
namespace {

// How a loop body reaches memory: whole vectors, or the last few floats. A body is a generic lambda (i, lanes), so the
// last elements go through the very instructions of all others and get the same bits.
struct Whole {
  using vector = vec;
  FASTDL_INLINE vec load(const float* p) const { return fastdl::load(p); }
  FASTDL_INLINE void store(float* p, vec v) const { fastdl::store(p, v); }
  FASTDL_INLINE vec only(vec v, float = 0.0f) const { return v; }
  FASTDL_INLINE i64 count() const { return kLanes; }
};
struct Part {
  using vector = vec;
  i64 n;
  FASTDL_INLINE vec load(const float* p) const { return load_part(p, n); }
  FASTDL_INLINE void store(float* p, vec v) const { store_part(p, v, n); }
  // v, with a neutral number in the lanes that stand for nothing.
  FASTDL_INLINE vec only(vec v, float otherwise = 0.0f) const { return first_lanes(v, n, splat(otherwise)); }
  FASTDL_INLINE i64 count() const { return n; }
};

template <class F>
FASTDL_INLINE void for_vectors(i64 begin, i64 end, const F& f) {
  i64 i = begin;
  for (; i + kLanes <= end; i += kLanes) f(i, Whole{});
  if (i < end) f(i, Part{end - i});
}

// Elements that one thread takes at a time: enough to pay for handing them over.
constexpr i64 kElementGrain = 32768;

template <class F>
FASTDL_INLINE void for_elements(i64 n, const F& f) {
  parallel_for(n, kElementGrain, [&](i64 begin, i64 end) {
    const F local = f;  // a copy that no store can alias: what f captured stays in registers
    for_vectors(begin, end, local);
  });
}

// Rows of `width` elements each.
template <class F>
FASTDL_INLINE void for_rows(i64 rows, i64 width, const F& f) {
  const i64 grain = kElementGrain / 2 / (width > 0 ? width : 1);
  parallel_for(rows, grain > 0 ? grain : 1, [&](i64 begin, i64 end) {
    const F local = f;
    for (i64 r = begin; r < end; ++r) local(r);
  });
}

// Runs f with a store policy for buffer = new + beta * buffer; beta == 0 never reads the buffer.
struct Assign {
  template <class L>
  FASTDL_INLINE void operator()(L lanes, float* p, vec v) const {
    lanes.store(p, v);
  }
  FASTDL_INLINE void operator()(float* p, float v) const { *p = v; }
};
struct Accumulate {
  float beta;
  template <class L>
  FASTDL_INLINE void operator()(L lanes, float* p, vec v) const {
    lanes.store(p, v + beta * lanes.load(p));
  }
  FASTDL_INLINE void operator()(float* p, float v) const { *p = v + beta * *p; }
};
template <class F>
FASTDL_INLINE void with_beta(float beta, const F& f) {
  if (beta == 0.0f) {
    f(Assign{});
  } else {
    f(Accumulate{beta});
  }
}

// Lanes are folded in halves: the order depends on the target's vector width alone.
FASTDL_INLINE float sum_lanes(vec v) {
  float s[kLanes];
  store(s, v);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  }
  return s[0];
}
// NaN if any lane is NaN.
FASTDL_INLINE float max_lanes(vec v) {
  float s[kLanes];
  store(s, v);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) s[i] = s[i] > s[i + half] || s[i] != s[i] ? s[i] : s[i + half];
  }
  return s[0];
}

// sum over [0, n) of what piece(begin, end) gives for each chunk of 256, added in order, whatever the threads do.
constexpr i64 kSumChunk = 256;
template <class F>
FASTDL_INLINE float ordered_sum(i64 n, const F& piece) {
  constexpr i64 kPieces = 512;
  float part[kPieces];
  float total = 0.0f;
  for (i64 first = 0; first < n; first += kPieces * kSumChunk) {
    const i64 left = (n - first + kSumChunk - 1) / kSumChunk;
    const i64 pieces = left < kPieces ? left : kPieces;
    parallel_for(pieces, 64, [&](i64 begin, i64 end) {
      for (i64 k = begin; k < end; ++k) {
        const i64 at = first + k * kSumChunk;
        part[k] = piece(at, n - at < kSumChunk ? n : at + kSumChunk);
      }
    });
    for (i64 k = 0; k < pieces; ++k) total += part[k];
  }
  return total;
}

}  // namespace
}  // namespace fastdl
