// Sums of columns, for bias gradients: the order of every sum is that of the products (chunks of kChunk rows).
#pragma once
#include "gemm.h"

namespace fastdl {
namespace {

// W vectors of columns over all rows. Named registers: an array of sums indexed in a loop would live in memory.
template <int W, bool Part>
FASTDL_INLINE void sum_strip(i64 n, i64 step, const float* x, i64 lanes, float beta, float* out) {
  for (i64 n0 = 0; n0 < n; n0 += kChunk) {
    const i64 rows = smaller(kChunk, n - n0);
    const float* row = x + n0 * step;
    vec a = {}, b = {}, c = {}, d = {};
    for (i64 k = 0; k < rows; ++k, row += step) {
      a += Part ? load_lanes(row, lanes) : load(row);
      if (W > 1) b += load(row + kLanes);
      if (W > 2) c += load(row + 2 * kLanes);
      if (W > 3) d += load(row + 3 * kLanes);
    }
    const float factor = n0 == 0 ? beta : 1.0f;
    const auto put = [&](int v, vec sum) {
      float* p = out + v * kLanes;
      const i64 count = Part ? lanes : kLanes;
      store_lanes(p, factor == 0.0f ? sum : factor * load_lanes(p, count) + sum, count);
    };
    put(0, a);
    if (W > 1) put(1, b);
    if (W > 2) put(2, c);
    if (W > 3) put(3, d);
  }
}

// out[C] = sum over n rows of C floats at x, `step` apart, + beta out.
inline void sum_columns(i64 n, i64 C, const float* x, i64 step, float beta, float* out) {
  const i64 grain = (32768 / (n + 1) / (4 * kLanes) + 1) * 4 * kLanes;
  parallel_for(C, grain, [=](i64 begin, i64 end) {
    i64 c = begin;
    if (n == 0) {
      for (; c < end; ++c) out[c] = beta == 0.0f ? 0.0f : beta * out[c];
    }
    for (; c + 4 * kLanes <= end; c += 4 * kLanes) sum_strip<4, false>(n, step, x + c, kLanes, beta, out + c);
    for (; c + 2 * kLanes <= end; c += 2 * kLanes) sum_strip<2, false>(n, step, x + c, kLanes, beta, out + c);
    for (; c + kLanes <= end; c += kLanes) sum_strip<1, false>(n, step, x + c, kLanes, beta, out + c);
    if (c < end) sum_strip<1, true>(n, step, x + c, end - c, beta, out + c);
  });
}
inline void sum_columns(i64 n, i64 C, const float* x, float beta, float* out) { sum_columns(n, C, x, C, beta, out); }

}  // namespace
}  // namespace fastdl
