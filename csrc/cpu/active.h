// Products of matrices that are mostly zeros, such as the states of Boltzmann machines:
//
//   c[M,N] = epilogue(x[M,K] w[K,N] + beta c),  for each row the sum of those rows of w whose element of x is not 0
//
// It is the sum of gemm.h bit for bit, in its order (chunks of 256, added one after the other): what a zero adds changes nothing.
//
//        k   5  9  40  77 ..        x is read once: a list of places for each row and chunk, a byte each
//            |  |   |   |
//   w    [k, n0 .. n0 + 8 vectors]  --- fma ---> 8 registers ---> c[m, n0 ..]
//
// A task is 8 vectors of columns by some rows: its part of w (a chunk is 64 KiB with AVX2) stays in L2 while the rows pass, and
// nothing but the sums is written. An active element costs what it costs in a tile of a dense product.
#pragma once
#include "gemm.h"
#include "unroll.h"

namespace fastdl {
namespace {

constexpr int kActiveVecs = 8;
constexpr i64 kActiveCols = kActiveVecs * kLanes;
constexpr i64 kActiveRows = 32;  // of a task

// c = factor c + sum over the listed k of x[k] w[k], for V vectors of columns or, with V = 1, `lanes` columns.
template <int V>
FASTDL_INLINE void sum_active(const uint8_t* places, i64 count, const float* x, const float* w, i64 step, i64 lanes,
                              float factor, float* c) {
  vec sums[V] = {};
  for (i64 i = 0; i < count; ++i) {
    const i64 k = places[i];
    const vec xk = splat(x[k]);
    const float* row = w + k * step;
    unrolled<V>([&](auto v) FASTDL_INLINED {
      sums[v] = fma(xk, V == 1 ? load_lanes(row, lanes) : load(row + v * kLanes), sums[v]);
    });
  }
  unrolled<V>([&](auto v) FASTDL_INLINED {
    float* p = c + v * kLanes;
    const i64 n = V == 1 ? lanes : kLanes;
    store_lanes(p, factor == 0.0f ? sums[v] : factor * load_lanes(p, n) + sums[v], n);
  });
}

// The same for `cols` columns, at most kActiveCols.
__attribute__((noinline)) void sum_active_columns(const uint8_t* places, i64 count, const float* x, const float* w,
                                                  i64 step, i64 cols, float factor, float* c) {
  if (cols == kActiveCols) return sum_active<kActiveVecs>(places, count, x, w, step, kLanes, factor, c);
  i64 n = 0;
  for (; n + 4 * kLanes <= cols; n += 4 * kLanes) sum_active<4>(places, count, x, w + n, step, kLanes, factor, c + n);
  for (; n + 2 * kLanes <= cols; n += 2 * kLanes) sum_active<2>(places, count, x, w + n, step, kLanes, factor, c + n);
  for (; n < cols; n += kLanes) {
    sum_active<1>(places, count, x, w + n, step, smaller<i64>(kLanes, cols - n), factor, c + n);
  }
}

// w as it lies, or in panels of kActiveCols columns, one after the other: rows of a panel are neighbours then.
struct ActiveB {
  const float* data;
  i64 step;   // between rows
  i64 panel;  // between panels
  static ActiveB matrix(const float* w, i64 N) { return {w, N, kActiveCols}; }
  static ActiveB panels(const float* w, i64 K) { return {w, kActiveCols, K * kActiveCols}; }
};
constexpr i64 active_panel_floats(i64 K, i64 N) { return K * ((N + kActiveCols - 1) / kActiveCols * kActiveCols); }

// `active`: how many elements of x are not 0; it decides only how the work is cut.
inline void multiply_active(i64 M, i64 N, i64 K, i64 active, const float* x, const ActiveB& w, float beta, float* c,
                            const Epilogue& epilogue = {}) {
  const i64 chunks = K > 0 ? (K + kChunk - 1) / kChunk : 1;
  const i64 most = smaller(M, (i64(1) << 20) / (chunks * kChunk) + 1);  // rows whose lists wait at a time
  int32_t* const counts = reinterpret_cast<int32_t*>(thread_scratch(2, size_t(most * chunks * (kChunk / 4 + 1))));
  uint8_t* const lists = reinterpret_cast<uint8_t*>(counts + most * chunks);
  const i64 columns = (N + kActiveCols - 1) / kActiveCols;
  for (i64 m0 = 0; m0 < M; m0 += most) {
    const i64 rows = smaller(most, M - m0), groups = (rows + kActiveRows - 1) / kActiveRows;
    parallel_for(rows, 32768 / (K + 1) + 1, [=](i64 begin, i64 end) {
      for (i64 m = begin; m < end; ++m) {
        const float* xm = x + (m0 + m) * K;
        for (i64 i = 0; i < chunks; ++i) {
          uint8_t* list = lists + (m * chunks + i) * kChunk;
          i64 count = 0;
          for (i64 k = i * kChunk; k < smaller((i + 1) * kChunk, K); ++k) {
            list[count & (kChunk - 1)] = static_cast<uint8_t>(k & (kChunk - 1));
            count += xm[k] != 0.0f;
          }
          counts[m * chunks + i] = static_cast<int32_t>(count);
        }
      }
    });
    const i64 tasks = columns * groups;
    const double work = double(active) / double(M) * double(rows) * double(N) + 8.0 * double(rows) * double(N);
    const i64 grain = static_cast<i64>(2e5 / (work / double(tasks) + 1.0)) + 1;
    parallel_for(tasks, grain, [&](i64 begin, i64 end) {
      for (i64 task = begin; task < end; ++task) {
        const i64 n = task / groups * kActiveCols, cols = smaller(kActiveCols, N - n);
        const i64 g0 = task % groups * kActiveRows, g1 = smaller(g0 + kActiveRows, rows);
        for (i64 m = g0; m < g1; ++m) {
          float* cm = c + (m0 + m) * N + n;
          for (i64 i = 0; i < chunks; ++i) {
            const i64 list = m * chunks + i;
            sum_active_columns(lists + list * kChunk, counts[list], x + (m0 + m) * K + i * kChunk,
                               w.data + n / kActiveCols * w.panel + i * kChunk * w.step, w.step, cols,
                               i == 0 ? beta : 1.0f, cm);
          }
        }
        epilogue(m0 + g0, m0 + g1, n, n + cols, c, N);
      }
    });
  }
}

}  // namespace
}  // namespace fastdl
