// Binary tree LSTM: each height of all trees is one product and one pass of gates. As in rntn.cu a launch has blocks for all
// inner nodes, and those with nothing to do leave at once; a thread makes one column of kNodes nodes.
#include "trees.cuh"
#include "cells.h"

namespace fastdl {
namespace {

__global__ void transpose(i64 rows, i64 columns, const float* w, float* out) {
  for (i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x; at < rows * columns; at += i64(gridDim.x) * blockDim.x) {
    out[at] = w[at % rows * columns + at / rows];
  }
}

// c[m,k] = sum_i a[m,i] w[i,k] for the inner nodes of a height: a[n,I], w[I,O]. With children, D: column k of node m is added
// to row children[m, k / D] of c[M,D] instead; a child has one parent, so one writer.
__global__ void __launch_bounds__(kWarps* kColumns)
    multiply(i64 e, Heights heights, i64 I, i64 O, const float* a, const float* w, const int64_t* children, i64 D,
             float* c) {
  i64 begin, end;
  heights.range(e, begin, end);
  const i64 k = i64(blockIdx.y) * kColumns + threadIdx.x;
  for (i64 m0 = begin + i64(blockIdx.x) * kTile; m0 < end; m0 += i64(gridDim.x) * kTile) {
    const i64 first = m0 + threadIdx.y * kNodes;
    if (k >= O || first >= end) continue;
    float sum[kNodes] = {};
    const float* from[kNodes];
#pragma unroll
    for (int m = 0; m < kNodes; ++m) from[m] = a + (first + m < end ? first + m : end - 1) * I;
    for (i64 i = 0; i < I; ++i) {
      const float wik = w[i * O + k];
#pragma unroll
      for (int m = 0; m < kNodes; ++m) sum[m] = fma(from[m][i], wik, sum[m]);
    }
    const i64 side = k >= D;
#pragma unroll
    for (int m = 0; m < kNodes; ++m) {
      if (first + m >= end) break;
      if (children) {
        c[children[2 * (first + m) + side] * D + k - side * D] += sum[m];
      } else {
        c[(first + m) * O + k] = sum[m];
      }
    }
  }
}

__device__ TreeLstmUnit<float> load_unit(i64 D, const float* z) {
  return {z[0], z[D], z[2 * D], z[3 * D], z[4 * D], 0.0f, 0.0f};
}
__device__ void store_unit(i64 D, const TreeLstmUnit<float>& unit, float* z) {
  z[0] = unit.i;
  z[D] = unit.l;
  z[2 * D] = unit.r;
  z[3 * D] = unit.g;
  z[4 * D] = unit.o;
}

__global__ void gates_forward(i64 e, Heights heights, i64 L, i64 D, const int64_t* children, const float* b, float* gates,
                              float* h, float* c) {
  i64 begin, end;
  heights.range(e, begin, end);
  for (i64 at = begin * D + i64(blockIdx.x) * blockDim.x + threadIdx.x; at < end * D; at += i64(gridDim.x) * blockDim.x) {
    const i64 m = at / D, j = at % D;
    float* z = gates + m * 5 * D + j;
    TreeLstmUnit<float> unit = load_unit(D, z);
    if (b) {
      unit.i += b[j];
      unit.l += b[D + j];
      unit.r += b[2 * D + j];
      unit.g += b[3 * D + j];
      unit.o += b[4 * D + j];
    }
    tree_lstm_unit(unit, c[children[2 * m] * D + j], c[children[2 * m + 1] * D + j]);
    store_unit(D, unit, z);
    c[L * D + at] = unit.c;
    h[L * D + at] = unit.h;
  }
}

__global__ void gates_backward(i64 e, Heights heights, i64 L, i64 D, const int64_t* children, const float* gates,
                               const float* c, const float* g, float* g_cell, float* dz) {
  i64 begin, end;
  heights.range(e, begin, end);
  for (i64 at = begin * D + i64(blockIdx.x) * blockDim.x + threadIdx.x; at < end * D; at += i64(gridDim.x) * blockDim.x) {
    const i64 m = at / D, j = at % D, left = children[2 * m] * D + j, right = children[2 * m + 1] * D + j;
    TreeLstmUnit<float> unit = load_unit(D, gates + m * 5 * D + j);
    const float l = unit.l, r = unit.r;
    unit.c = c[L * D + at];
    float d = g_cell[L * D + at];
    tree_lstm_unit_backward(unit, c[left], c[right], g[L * D + at], d);
    store_unit(D, unit, dz + m * 5 * D + j);
    g_cell[left] += d * l;
    g_cell[right] += d * r;
  }
}

}  // namespace

i64 tree_lstm_forward_workspace(i64, i64 n, i64, i64 D) { return n * 2 * D; }

void tree_lstm_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const float* cells, const int64_t* children,
                       const int64_t* ends, const float* w, const float* b, float* work, float* h, float* c,
                       float* gates, void* stream) {
  const i64 E = 2 * D, G = 5 * D;
  const Heights heights = {H, n, ends};
  launch(copy_floats, blocks_for(L * D, 256), 256, 0, stream, L * D, leaves, h);
  launch(copy_floats, blocks_for(L * D, 256), 256, 0, stream, L * D, cells, c);
  if (n == 0 || D == 0) return;
  for (i64 e = 0; e <= H; ++e) {
    launch(gather, blocks_for(n * E, 256), 256, 0, stream, e, heights, D, h, children, work);
    launch(multiply, dim3(blocks_for(n, kTile), columns_of(G)), kThreads, 0, stream, e, heights, E, G, work, w, nullptr, D,
           gates);
    launch(gates_forward, blocks_for(n * D, 256), 256, 0, stream, e, heights, L, D, children, b, gates, h, c);
  }
}

i64 tree_lstm_backward_workspace(i64 M, i64 n, i64, i64 D) { return 10 * D * D + n * 7 * D + 2 * M * D; }

void tree_lstm_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const float* c, const float* gates,
                        const int64_t* children, const int64_t* ends, const float* w, const float* dh, const float* dc,
                        float* work, float* dleaves, float beta_dleaves, float* dcells, float beta_dcells, float* dw,
                        float beta_dw, float* db, float beta_db, void* stream) {
  const i64 L = M - n, E = 2 * D, G = 5 * D;
  const Heights heights = {H, n, ends};
  if (D == 0) return;
  float *across = work, *x = across + E * G, *dz = x + n * E, *g = dz + n * G, *g_cell = g + M * D;
  launch(copy_floats, blocks_for(M * D, 256), 256, 0, stream, M * D, dh, g);
  launch(copy_floats, blocks_for(M * D, 256), 256, 0, stream, M * D, dc, g_cell);
  if (n > 0) {
    launch(transpose, blocks_for(E * G, 256), 256, 0, stream, E, G, w, across);
    launch(gather, blocks_for(n * E, 256), 256, 0, stream, i64(-1), heights, D, h, children, x);
    for (i64 e = H; e >= 0; --e) {
      launch(gates_backward, blocks_for(n * D, 256), 256, 0, stream, e, heights, L, D, children, gates, c, g, g_cell, dz);
      launch(multiply, dim3(blocks_for(n, kTile), columns_of(E)), kThreads, 0, stream, e, heights, G, E, dz, across,
             children, D, g);
    }
  }
  if (dleaves) launch(leaf_gradient, blocks_for(L * D, 256), 256, 0, stream, L * D, g, dleaves, beta_dleaves);
  if (dcells) launch(leaf_gradient, blocks_for(L * D, 256), 256, 0, stream, L * D, g_cell, dcells, beta_dcells);
  if (dw || db) {
    launch(matrix_gradient, blocks_for((E + 1) * G, 256), 256, 0, stream, n, E, G, x, dz, dw, beta_dw, db, beta_db);
  }
}

}  // namespace fastdl
