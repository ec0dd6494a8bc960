// What the kernels over trees (rntn.cu, tree_lstm.cu) share: heights, and the way between nodes and their children.
#pragma once
#include "formulas.h"
#include "launch.cuh"
#include "warp.cuh"

namespace fastdl {
namespace {

// A block makes kColumns columns of kTile nodes, a thread one column of kNodes.
constexpr int kNodes = 8, kWarps = 4, kColumns = 32, kTile = kNodes * kWarps;

struct Heights {
  i64 H, n;
  const int64_t* ends;
  // Inner nodes [begin, end) of height e; e = H: what ends[] left out.
  __device__ void range(i64 e, i64& begin, i64& end) const {
    begin = 0;
    for (i64 i = 0; i < e; ++i) begin = ends[i] > begin ? ends[i] : begin;
    end = e < H ? ends[e] : n;
  }
};

// y = x; 0 where x is null.
__global__ void copy_floats(i64 n, const float* x, float* y) {
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += i64(gridDim.x) * blockDim.x) y[i] = x ? x[i] : 0.0f;
}

// x[m, i] of inner node m.
struct Inputs {
  i64 D;
  const float* h;
  const int64_t* children;
  __device__ float operator()(i64 m, i64 i) const {
    const i64 side = i >= D;
    return h[children[2 * m + side] * D + i - side * D];
  }
};

// x[m] = (h[left], h[right]) for the nodes of a height; all nodes where e < 0.
__global__ void gather(i64 e, Heights heights, i64 D, const float* h, const int64_t* children, float* x) {
  i64 begin = 0, end = heights.n;
  if (e >= 0) heights.range(e, begin, end);
  const i64 E = 2 * D, stop = end * E;
  const Inputs input = {D, h, children};
  for (i64 at = begin * E + i64(blockIdx.x) * blockDim.x + threadIdx.x; at < stop; at += i64(gridDim.x) * blockDim.x) {
    x[at] = input(at / E, at % E);
  }
}

__device__ void put(float* p, float value, float beta) { *p = beta == 0.0f ? value : value + beta * *p; }

// dw[E,G] from x[n,E] and dz[n,G]; row E is db.
__global__ void matrix_gradient(i64 n, i64 E, i64 G, const float* x, const float* dz, float* dw, float beta_dw,
                                float* db, float beta_db) {
  for (i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x; at < (E + 1) * G; at += i64(gridDim.x) * blockDim.x) {
    const i64 i = at / G, k = at % G;
    if (i < E ? !dw : !db) continue;
    float total = 0.0f;
    for (i64 n0 = 0; n0 < n; n0 += 256) {
      float sum = 0.0f;
      for (i64 m = n0; m < n && m < n0 + 256; ++m) {
        sum = i < E ? fma(x[m * E + i], dz[m * G + k], sum) : sum + dz[m * G + k];
      }
      total += sum;
    }
    if (i < E) {
      put(dw + at, total, beta_dw);
    } else {
      put(db + k, total, beta_db);
    }
  }
}

__global__ void leaf_gradient(i64 n, const float* g, float* dleaves, float beta) {
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += i64(gridDim.x) * blockDim.x) {
    put(dleaves + i, g[i], beta);
  }
}

unsigned columns_of(i64 n) { return static_cast<unsigned>((n + kColumns - 1) / kColumns); }
const dim3 kThreads(kColumns, kWarps);

}  // namespace
}  // namespace fastdl
