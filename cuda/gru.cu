// GRU, reset gate after the product: whole sequences and single steps. A step is its product with u into scratch and a pass, a
// thread a unit, forward and backward alike, small ones go by sequences (recurrent.cuh); rows of gates are r z n q, of their gradients dr dz dn dq (csrc/cpu/gru.cpp).
#include "recurrent.cuh"
#include "cells.h"

namespace fastdl {
namespace {

// Unit j of a row, whose gates hold the inputs' share and whose sums are z.
__device__ __forceinline__ float forward_unit(i64 H, i64 j, const float* z, const float* b, const float* bn, float before,
                                              float* g) {
  GruUnit<float> unit = {g[0] + z[0], g[H] + z[H], g[2 * H], z[2 * H]};
  if (b) {
    unit.r += b[j];
    unit.z += b[H + j];
    unit.n += b[2 * H + j];
  }
  if (bn) unit.q += bn[j];
  const float out = gru_unit(unit, before);
  g[0] = unit.r;
  g[H] = unit.z;
  g[2 * H] = unit.n;
  g[3 * H] = unit.q;
  return out;
}

__global__ void forward_kernel(Steps steps, i64 s, i64 H, const float* sums, const float* b, const float* bn,
                               const float* h_before, float* h, float* y, float* gates) {
  const i64 rows = steps.rows(s);
  for_rows(steps.N, H, [=](i64 i, i64 j) {
    if (i >= rows) return;
    const float out = forward_unit(H, j, sums + i * 3 * H + j, b, bn, h_before[i * H + j],
                                   gates + (steps.first(s) + i) * 4 * H + j);
    y[steps.place(s, i) * H + j] = out;
    if (h) h[i * H + j] = out;
  });
}

// A block a sequence.
__global__ void __launch_bounds__(512)
    sequence_forward_kernel(Steps steps, i64 H, const float* u, const float* b, const float* bn, const float* h0, float* y,
                            float* gates) {
  const SequenceMemory m(H, 3 * H, 0);
  forward_sequences(steps, m, u, h0, [&](i64 s, i64 i, i64 j) {
    m.state[j] = forward_unit(H, j, m.step + j, b, bn, m.state[j], gates + (steps.first(s) + i) * 4 * H + j);
    y[steps.place(s, i) * H + j] = m.state[j];
  });
}

// Unit j of row i of step s; own: its place in the step's matrix of 3H. What goes straight to the step before.
__device__ __forceinline__ float backward_unit(const Steps& steps, i64 s, i64 i, i64 H, i64 j, const float* y, const float* h0,
                                               const float* gates, const float* dy, float dout, float* d, float* own) {
  const i64 row = steps.first(s) + i;
  if (dy) dout += dy[steps.place(s, i) * H + j];
  const float before = s > 0 ? y[steps.place(s - 1, i) * H + j] : h0 ? h0[steps.sequence(i) * H + j] : 0.0f;
  const float* g = gates + row * 4 * H + j;
  GruUnit<float> unit = {g[0], g[H], g[2 * H], g[3 * H]};
  const float straight = gru_unit_backward(unit, before, dout);
  float* to = d + row * 4 * H + j;
  to[0] = unit.r;
  to[H] = unit.z;
  to[2 * H] = unit.n;
  to[3 * H] = unit.q;
  own[0] = unit.r;
  own[H] = unit.z;
  own[2 * H] = unit.q;
  return straight;
}

// d (packed rows of 4H) and the step's own matrix of 3H, dr dz dq; dh becomes what goes straight to the step before.
__global__ void backward_kernel(Steps steps, i64 s, i64 H, const float* y, const float* h0, const float* gates,
                                const float* dy, const float* dhn, float* dh, float* d, float* step) {
  const i64 rows = steps.rows(s), later = steps.rows(s + 1);
  for_rows(steps.N, H, [=](i64 i, i64 j) {
    float* own = step + i * 3 * H + j;
    if (i >= rows) {
      for (int k = 0; k < 3; ++k) own[k * H] = 0.0f;
      return;
    }
    const i64 at = i * H + j, start = steps.sequence(i) * H + j;
    const float dout = i < later ? dh[at] : dhn ? dhn[start] : 0.0f;
    dh[at] = backward_unit(steps, s, i, H, j, y, h0, gates, dy, dout, d, own);
  });
}

// A block a sequence; dh: what is left at its beginning.
__global__ void __launch_bounds__(512)
    sequence_backward_kernel(Steps steps, i64 H, const float* u, const float* y, const float* h0, const float* gates,
                             const float* dy, const float* dhn, int first_too, float* dh, float* d) {
  const SequenceMemory m(H, 3 * H, 0);
  backward_sequences(steps, m, u, first_too, 1.0f, dhn, dh, nullptr, nullptr, [&](i64 s, i64 i, i64 j) {
    m.state[j] = backward_unit(steps, s, i, H, j, y, h0, gates, dy, m.state[j], d, m.step + j);
  });
}

// du, db, dbn from rows of d and of what was before.
void backward_recurrent(i64 rows, i64 H, const float* before, const float* d, float* parts, float beta, float* du,
                        void* stream) {
  Product p = matrix(du, H, 2 * H, rows, 3 * H, beta);
  gemm_split(p, MNMajor{before, H}, MNMajor{d, 4 * H}, parts, stream);
  p = matrix(du + 2 * H, H, H, rows, 3 * H, beta);
  gemm_split(p, MNMajor{before, H}, MNMajor{d + 3 * H, 4 * H}, parts, stream);
}
void backward_biases(i64 rows, i64 H, const float* d, float* parts, float* total, float* db, float beta_db, float* dbn,
                     float beta_dbn, void* stream) {
  if (!db && !dbn) return;
  column_sums(rows, 4 * H, d, 0.0f, parts, total, stream);
  if (db) put_slice(3 * H, total, beta_db, db, stream);
  if (dbn) put_slice(H, total + 3 * H, beta_dbn, dbn, stream);
}

}  // namespace

i64 gru_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * I) + 2 * carved(N * H) + carved(N * 3 * H);
}

void gru_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* bn, const float* h0, const int64_t* lengths, int reverse, float* work, float* y, float* hn,
                 float* gates, void* stream) {
  const i64 G = 3 * H;
  Carver carver(work);
  const Steps steps = make_steps(N, T, lengths, reverse, carver, stream);
  float *xs = carver.take(N * T * I), *sums = carver.take(N * G);
  float* h[2] = {carver.take(N * H), carver.take(N * H)};
  pack_steps(steps, I, x, false, nullptr, xs, stream);
  gemm(matrix(gates, N * T, G, I, 4 * H), KMajor{xs, I}, MNMajor{w, G}, BiasActivation{}, stream);
  if (lengths) clear(N * T * H, y, stream);
  if (by_sequences(N, H, G, 0)) {
    launch(sequence_forward_kernel, static_cast<unsigned>(N), sequence_threads(G), sequence_bytes(H, G, 0), stream, steps, H, u,
           b, bn, h0, y, gates);
  } else {
    clear(N * H, h[0], stream);
    pack_state(steps, H, h0, h[1], stream);
    const RowGrid g(N, H);
    for (i64 s = 0; s < T; ++s) {
      const float* before = h[(s + 1) & 1];
      gemm(matrix(sums, N, G, H, G), KMajor{before, H}, MNMajor{u, G}, BiasActivation{}, stream);
      launch(forward_kernel, g.grid, g.block, 0, stream, steps, s, H, sums, b, bn, before, h[s & 1], y, gates);
    }
  }
  last_rows(steps, H, y, false, h0, hn, stream);
}

i64 gru_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * (I > H ? I : H)) + carved(N * T * 4 * H) + carved(N * 3 * H) + carved(N * H) +
         carved(4 * H) + weights_floats(N * T, I, H, 4 * H);
}

void gru_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* y, const float* gates, const float* dy, const float* dhn,
                  int reverse, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du, float beta_du,
                  float* db, float beta_db, float* dbn, float beta_dbn, float* dh0, float beta_dh0, void* stream) {
  const i64 G = 3 * H, rows = N * T;
  Carver carver(work);
  const Steps steps = make_steps(N, T, lengths, reverse, carver, stream);
  float *packed = carver.take(rows * (I > H ? I : H)), *d = carver.take(rows * 4 * H), *step = carver.take(N * G);
  float *dh = carver.take(N * H), *total = carver.take(4 * H), *parts = carver.take(weights_floats(rows, I, H, 4 * H));
  if (lengths) clear(rows * 4 * H, d, stream);
  if (by_sequences(N, H, G, 0)) {
    launch(sequence_backward_kernel, static_cast<unsigned>(N), sequence_threads(G), sequence_bytes(H, G, 0), stream, steps, H, u,
           y, h0, gates, dy, dhn, dh0 != nullptr, dh, d);
  } else {
    clear(N * H, dh, stream);
    const RowGrid g(N, H);
    for (i64 s = T - 1; s >= 0; --s) {
      launch(backward_kernel, g.grid, g.block, 0, stream, steps, s, H, y, h0, gates, dy, dhn, dh, d, step);
      if (s > 0 || dh0) gemm(matrix(dh, N, H, G, H, 1.0f), KMajor{step, G}, KMajor{u, G}, BiasActivation{}, stream);
    }
  }
  if (dh0) unpack_state(steps, H, dh, dhn, beta_dh0, dh0, stream);
  if (dw) {
    pack_steps(steps, I, x, false, nullptr, packed, stream);
    gemm_split(matrix(dw, I, G, rows, G, beta_dw), MNMajor{packed, I}, MNMajor{d, 4 * H}, parts, stream);
  }
  if (du) {
    pack_steps(steps, H, y, true, h0, packed, stream);
    backward_recurrent(rows, H, packed, d, parts, beta_du, du, stream);
  }
  backward_biases(rows, H, d, parts, total, db, beta_db, dbn, beta_dbn, stream);
  if (dx) {
    gemm(matrix(packed, rows, I, G, I), KMajor{d, 4 * H}, KMajor{w, G}, BiasActivation{}, stream);
    unpack_steps(steps, I, packed, beta_dx, dx, stream);
  }
}

i64 gru_cell_forward_workspace(i64 N, i64, i64 H) { return 4 + carved(N * 3 * H); }

void gru_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u, const float* b,
                      const float* bn, float* work, float* y, float* gates, void* stream) {
  const i64 G = 3 * H;
  Carver carver(work);
  float* sums = carver.take(N * G);
  const Steps steps = {N, 1, nullptr, nullptr, nullptr, 0};
  gemm(matrix(gates, N, G, I, 4 * H), KMajor{x, I}, MNMajor{w, G}, BiasActivation{}, stream);
  gemm(matrix(sums, N, G, H, G), KMajor{h, H}, MNMajor{u, G}, BiasActivation{}, stream);
  const RowGrid g(N, H);
  launch(forward_kernel, g.grid, g.block, 0, stream, steps, 0, H, sums, b, bn, h, nullptr, y, gates);
}

i64 gru_cell_backward_workspace(i64 N, i64 I, i64 H) {
  return 4 + carved(N * 4 * H) + carved(N * 3 * H) + carved(N * H) + carved(4 * H) + weights_floats(N, I, H, 4 * H);
}

void gru_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* gates, const float* dy, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       float* dbn, float beta_dbn, void* stream) {
  const i64 G = 3 * H;
  Carver carver(work);
  const Steps steps = {N, 1, nullptr, nullptr, nullptr, 0};
  float *d = carver.take(N * 4 * H), *step = carver.take(N * G), *straight = carver.take(N * H);
  float *total = carver.take(4 * H), *parts = carver.take(weights_floats(N, I, H, 4 * H));
  const RowGrid g(N, H);
  launch(backward_kernel, g.grid, g.block, 0, stream, steps, 0, H, nullptr, h, gates, dy, nullptr, straight, d, step);
  if (dx) gemm(matrix(dx, N, I, G, I, beta_dx), KMajor{d, 4 * H}, KMajor{w, G}, BiasActivation{}, stream);
  if (dh) {
    gemm(matrix(straight, N, H, G, H, 1.0f), KMajor{step, G}, KMajor{u, G}, BiasActivation{}, stream);
    put_slice(N * H, straight, beta_dh, dh, stream);
  }
  if (dw) gemm_split(matrix(dw, I, G, N, G, beta_dw), MNMajor{x, I}, MNMajor{d, 4 * H}, parts, stream);
  if (du) backward_recurrent(N, H, h, d, parts, beta_du, du, stream);
  backward_biases(N, H, d, parts, total, db, beta_db, dbn, beta_dbn, stream);
}

}  // namespace fastdl
