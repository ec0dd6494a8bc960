// How operands of a product are put into panels and slices: rows side by side, or turned in square blocks on their way.
#pragma once
#include "simd.h"

namespace fastdl {
namespace {

// kLanes x kLanes floats, v[i][j] <-> v[j][i], by instructions of one vector width.
FASTDL_INLINE void transpose(vec (&v)[kLanes]) {
#define FASTDL_ZIP(name, ...) auto name = [](vec x, vec y) { return __builtin_shufflevector(x, y, __VA_ARGS__); }
#if FASTDL_VECTOR_BYTES == 16
  FASTDL_ZIP(low, 0, 4, 1, 5);
  FASTDL_ZIP(high, 2, 6, 3, 7);
  FASTDL_ZIP(low_pair, 0, 1, 4, 5);
  FASTDL_ZIP(high_pair, 2, 3, 6, 7);
#elif FASTDL_VECTOR_BYTES == 32
  FASTDL_ZIP(low, 0, 8, 1, 9, 4, 12, 5, 13);
  FASTDL_ZIP(high, 2, 10, 3, 11, 6, 14, 7, 15);
  FASTDL_ZIP(low_pair, 0, 1, 8, 9, 4, 5, 12, 13);
  FASTDL_ZIP(high_pair, 2, 3, 10, 11, 6, 7, 14, 15);
  FASTDL_ZIP(low_half, 0, 1, 2, 3, 8, 9, 10, 11);
  FASTDL_ZIP(high_half, 4, 5, 6, 7, 12, 13, 14, 15);
#else
  FASTDL_ZIP(low, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  FASTDL_ZIP(high, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  FASTDL_ZIP(low_pair, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
  FASTDL_ZIP(high_pair, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  // Quarters (0 1 2 3) of x and y to (x0 x1 y0 y1) and (x2 x3 y2 y3), then to even and odd ones.
  FASTDL_ZIP(low_half, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  FASTDL_ZIP(high_half, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#endif
#undef FASTDL_ZIP
  // Inside each group of four lanes: 4 x 4 transposes.
  for (int i = 0; i < kLanes; i += 4) {
    const vec a = low(v[i], v[i + 1]), b = high(v[i], v[i + 1]);
    const vec c = low(v[i + 2], v[i + 3]), d = high(v[i + 2], v[i + 3]);
    v[i] = low_pair(a, c);
    v[i + 1] = high_pair(a, c);
    v[i + 2] = low_pair(b, d);
    v[i + 3] = high_pair(b, d);
  }
  // Then the groups themselves change places.
#if FASTDL_VECTOR_BYTES == 32
  for (int i = 0; i < 4; ++i) {
    const vec a = v[i], b = v[i + 4];
    v[i] = low_half(a, b);
    v[i + 4] = high_half(a, b);
  }
#elif FASTDL_VECTOR_BYTES == 64
  for (int i = 0; i < 4; ++i) {
    // Row q of 4 x 4 groups is v[4 q + i]; group p of the result's row q is group q of row p.
    const vec even01 = low_half(v[i], v[i + 4]), odd01 = high_half(v[i], v[i + 4]);
    const vec even23 = low_half(v[i + 8], v[i + 12]), odd23 = high_half(v[i + 8], v[i + 12]);
    v[i] = low_half(even01, even23);
    v[i + 4] = low_half(odd01, odd23);
    v[i + 8] = high_half(even01, even23);
    v[i + 12] = high_half(odd01, odd23);
  }
#endif
}

// out[k * W + r] = source[r * step + k] for r < rows (<= W) and k < count; the other r become zero.
template <int W>
inline void pack_transposed(const float* source, i64 step, i64 rows, i64 count, float* out) {
  constexpr int kGroups = (W + kLanes - 1) / kLanes;
  constexpr bool kSpills = W % kLanes != 0;
  static_assert(kGroups * kLanes <= 2 * W, "what one row spills must fit in the next");
  float end[kSpills ? (kLanes + 1) * W : 1];
  i64 k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    // Vectors are stored whole and in ascending order: what one spills over its row of out is overwritten next. The
    // last rows take a detour, as somebody else may own what follows them.
    const bool detour = kSpills && k + kLanes == count;
    float* put = detour ? end : out + k * W;
    vec v[kGroups][kLanes];
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < kLanes; ++i) {
        const i64 r = g * kLanes + i;
        v[g][i] = r < W && r < rows ? load(source + r * step + k) : vec{};
      }
      transpose(v[g]);
    }
    for (int i = 0; i < kLanes; ++i) {
      for (int g = 0; g < kGroups; ++g) store(put + i * W + g * kLanes, v[g][i]);
    }
    if (detour) memcpy(out + k * W, end, kLanes * W * sizeof(float));
  }
  for (; k < count; ++k) {
    for (int r = 0; r < W; ++r) out[k * W + r] = r < rows ? source[r * step + k] : 0.0f;
  }
}

// out[k * W + j] = source[k * step + j] for j < cols (<= W), zero for the other j.
template <int W>
inline void pack_copied(const float* source, i64 step, i64 cols, i64 count, float* out) {
  if (cols == W) {
    for (i64 k = 0; k < count; ++k) memcpy(out + k * W, source + k * step, W * sizeof(float));
    return;
  }
  i64 k = 0;
  if constexpr (W % kLanes == 0) {
    // Whole vectors, with what belongs to other columns masked out, as long as they end before the last element does.
    ivec mask[W / kLanes] = {};
    for (int j = 0; j < cols; ++j) mask[j / kLanes][j % kLanes] = -1;
    for (; k < count && (count - 1 - k) * step + cols >= W; ++k) {
      for (int v = 0; v < W / kLanes; ++v) {
        store(out + k * W + v * kLanes, from_bits(bits(load(source + k * step + v * kLanes)) & mask[v]));
      }
    }
    for (; k < count; ++k) {
      for (int v = 0; v < W / kLanes; ++v) {
        const i64 left = cols - v * kLanes;
        store(out + k * W + v * kLanes, left >= kLanes ? load(source + k * step + v * kLanes)
                                        : left > 0     ? load_part(source + k * step + v * kLanes, left)
                                                       : vec{});
      }
    }
  }
  for (; k < count; ++k) {
    for (int j = 0; j < W; ++j) out[k * W + j] = j < cols ? source[k * step + j] : 0.0f;
  }
}

}  // namespace
}  // namespace fastdl
