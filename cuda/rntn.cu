// Recursive neural tensor networks: each height of all trees is one launch. How many nodes a height has is known on the
// device alone, so a launch has blocks for all inner nodes, and those with nothing to do leave at once.
//
// A thread makes one column of kNodes nodes, and the threads of a warp neighbouring columns, so that a weight is read once,
// in a row with its neighbours', for kNodes nodes; what belongs to a node is the same address for a whole warp:
//
//              column k ->  0 .. 31
//   nodes     +--------------------+    z[m,k] = sum_i x[m,i] (w[i,k] + sum_{j >= i} u[i,j,k] x[m,j])
//   0 .. 7    |  warp 0            |    u[i,j] = v[i,j] + v[j,i] for i < j: half the products of the full tensor
//   8 .. 15   |  warp 1            |
//   ...       +--------------------+
#include "trees.cuh"

namespace fastdl {
namespace {

// s[i,j,k] = v[i,j,k] + v[j,i,k] once for i < j and v[i,i,k]; as [E,E,D] for the way up. Down, as [j,k,i], all of it.
__global__ void fold_up(i64 E, i64 D, const float* v, float* u) {
  const i64 count = E * E * D;
  for (i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += i64(gridDim.x) * blockDim.x) {
    const i64 k = at % D, j = at / D % E, i = at / D / E;
    if (i <= j) u[at] = i == j ? v[at] : v[at] + v[(j * E + i) * D + k];
  }
}
__global__ void fold_down(i64 E, i64 D, const float* v, float* s) {
  const i64 count = E * E * D;
  for (i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += i64(gridDim.x) * blockDim.x) {
    const i64 i = at % E, k = at / E % D, j = at / E / D;
    s[at] = v[(i * E + j) * D + k] + v[(j * E + i) * D + k];
  }
}

__global__ void __launch_bounds__(kWarps* kColumns)
    compose(i64 e, Heights heights, i64 L, i64 D, const float* u, const float* w, const float* b,
            float* x, float* h) {
  i64 begin, end;
  heights.range(e, begin, end);
  const i64 E = 2 * D, k = i64(blockIdx.y) * kColumns + threadIdx.x;
  for (i64 m0 = begin + i64(blockIdx.x) * kTile; m0 < end; m0 += i64(gridDim.x) * kTile) {
    const i64 first = m0 + threadIdx.y * kNodes;
    if (k >= D) continue;
    float z[kNodes] = {};
    const float* from[kNodes];
#pragma unroll
    for (int m = 0; m < kNodes; ++m) from[m] = x + (first + m < end ? first + m : end - 1) * E;
    for (i64 i = 0; i < E; ++i) {
      float inner[kNodes];
      const float wi = w[i * D + k];
#pragma unroll
      for (int m = 0; m < kNodes; ++m) inner[m] = wi;
      if (u) {
        for (i64 j = i; j < E; ++j) {
          const float uij = u[(i * E + j) * D + k];
#pragma unroll
          for (int m = 0; m < kNodes; ++m) inner[m] = fma(uij, from[m][j], inner[m]);
        }
      }
#pragma unroll
      for (int m = 0; m < kNodes; ++m) z[m] = fma(from[m][i], inner[m], z[m]);
    }
#pragma unroll
    for (int m = 0; m < kNodes; ++m) {
      if (first + m < end) h[(L + first + m) * D + k] = tanh(b ? z[m] + b[k] : z[m]);
    }
  }
}

__global__ void through_tanh(i64 e, Heights heights, i64 L, i64 D, const float* h, const float* g, float* dz) {
  i64 begin, end;
  heights.range(e, begin, end);
  for (i64 at = begin * D + i64(blockIdx.x) * blockDim.x + threadIdx.x; at < end * D; at += i64(gridDim.x) * blockDim.x) {
    dz[at] = g[L * D + at] * tanh_slope(h[L * D + at]);
  }
}

// g[child] += dx[m,i] = sum_k dz[m,k] w[i,k] + sum_j x[m,j] sum_k s[j,k,i] dz[m,k]: a child has one parent, so one writer.
__global__ void __launch_bounds__(kWarps* kColumns)
    to_children(i64 e, Heights heights, i64 D, const int64_t* children, const float* s, const float* w, const float* x,
                const float* dz, float* g) {
  i64 begin, end;
  heights.range(e, begin, end);
  const i64 E = 2 * D, i = i64(blockIdx.y) * kColumns + threadIdx.x;
  for (i64 m0 = begin + i64(blockIdx.x) * kTile; m0 < end; m0 += i64(gridDim.x) * kTile) {
    const i64 first = m0 + threadIdx.y * kNodes;
    if (i >= E) continue;
    float dx[kNodes] = {};
    const float *from[kNodes], *own[kNodes];
#pragma unroll
    for (int m = 0; m < kNodes; ++m) {
      const i64 node = first + m < end ? first + m : end - 1;
      from[m] = x + node * E;
      own[m] = dz + node * D;
    }
    for (i64 k = 0; k < D; ++k) {
      const float wik = w[i * D + k];
#pragma unroll
      for (int m = 0; m < kNodes; ++m) dx[m] = fma(wik, own[m][k], dx[m]);
    }
    if (s) {
      for (i64 j = 0; j < E; ++j) {
        float inner[kNodes] = {};
        for (i64 k = 0; k < D; ++k) {
          const float sjk = s[(j * D + k) * E + i];
#pragma unroll
          for (int m = 0; m < kNodes; ++m) inner[m] = fma(sjk, own[m][k], inner[m]);
        }
#pragma unroll
        for (int m = 0; m < kNodes; ++m) dx[m] = fma(from[m][j], inner[m], dx[m]);
      }
    }
    const i64 side = i >= D;
#pragma unroll
    for (int m = 0; m < kNodes; ++m) {
      if (first + m < end) g[children[2 * (first + m) + side] * D + i - side * D] += dx[m];
    }
  }
}

// dv[i,j,k] for kNodes values of j >= i at once, both halves of it; chunks of 256 nodes, added in order.
__global__ void tensor_gradient(i64 n, i64 D, const float* x, const float* dz, float* dv, float beta) {
  const i64 E = 2 * D, k = i64(blockIdx.x) * kColumns + threadIdx.x, i = blockIdx.z;
  const i64 first = (i64(blockIdx.y) * kWarps + threadIdx.y) * kNodes;
  if (k >= D || first + kNodes <= i || first >= E) return;
  float total[kNodes] = {};
  for (i64 n0 = 0; n0 < n; n0 += 256) {
    float sum[kNodes] = {};
    for (i64 m = n0; m < n && m < n0 + 256; ++m) {
      const float t = x[m * E + i] * dz[m * D + k];
#pragma unroll
      for (int c = 0; c < kNodes; ++c) sum[c] = fma(x[m * E + (first + c < E ? first + c : E - 1)], t, sum[c]);
    }
#pragma unroll
    for (int c = 0; c < kNodes; ++c) total[c] += sum[c];
  }
#pragma unroll
  for (int c = 0; c < kNodes; ++c) {
    const i64 j = first + c;
    if (j < i || j >= E) continue;
    put(dv + (i * E + j) * D + k, total[c], beta);
    if (j != i) put(dv + (j * E + i) * D + k, total[c], beta);
  }
}

}  // namespace

i64 rntn_forward_workspace(i64, i64 n, i64, i64 D) { return 4 * D * D * D + 2 * n * D; }

void rntn_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const int64_t* children, const int64_t* ends,
                  const float* v, const float* w, const float* b, float* work, float* h, void* stream) {
  const i64 E = 2 * D;
  const Heights heights = {H, n, ends};
  launch(copy_floats, blocks_for(L * D, 256), 256, 0, stream, L * D, leaves, h);
  if (n == 0 || D == 0) return;
  float *u = v ? work : nullptr, *x = work + E * E * D;
  if (v) launch(fold_up, blocks_for(E * E * D, 256), 256, 0, stream, E, D, v, u);
  for (i64 e = 0; e <= H; ++e) {
    launch(gather, blocks_for(n * E, 256), 256, 0, stream, e, heights, D, h, children, x);
    launch(compose, dim3(blocks_for(n, kTile), columns_of(D)), kThreads, 0, stream, e, heights, L, D, u, w, b, x,
           h);
  }
}

i64 rntn_backward_workspace(i64 M, i64 n, i64, i64 D) { return 4 * D * D * D + 3 * n * D + M * D; }

void rntn_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const int64_t* children, const int64_t* ends, const float* v,
                   const float* w, const float* dh, float* work, float* dleaves, float beta_dleaves, float* dv,
                   float beta_dv, float* dw, float beta_dw, float* db, float beta_db, void* stream) {
  const i64 L = M - n, E = 2 * D;
  const Heights heights = {H, n, ends};
  if (D == 0) return;
  float *s = v ? work : nullptr, *x = work + E * E * D, *dz = x + n * E, *g = dz + n * D;
  launch(copy_floats, blocks_for(M * D, 256), 256, 0, stream, M * D, dh, g);
  if (n > 0) {
    if (v) launch(fold_down, blocks_for(E * E * D, 256), 256, 0, stream, E, D, v, s);
    launch(gather, blocks_for(n * E, 256), 256, 0, stream, i64(-1), heights, D, h, children, x);
    for (i64 e = H; e >= 0; --e) {
      launch(through_tanh, blocks_for(n * D, 256), 256, 0, stream, e, heights, L, D, h, g, dz);
      launch(to_children, dim3(blocks_for(n, kTile), columns_of(E)), kThreads, 0, stream, e, heights, D, children, s, w, x,
             dz, g);
    }
  }
  if (dleaves) launch(leaf_gradient, blocks_for(L * D, 256), 256, 0, stream, L * D, g, dleaves, beta_dleaves);
  if (dv) {
    const dim3 grid(columns_of(D), static_cast<unsigned>((E + kTile - 1) / kTile), static_cast<unsigned>(E));
    launch(tensor_gradient, grid, kThreads, 0, stream, n, D, x, dz, dv, beta_dv);
  }
  if (dw || db) {
    launch(matrix_gradient, blocks_for((E + 1) * D, 256), 256, 0, stream, n, E, D, x, dz, dw, beta_dw, db, beta_db);
  }
}

}  // namespace fastdl
