// LSTM: whole sequences and single steps. A step forward is one launch: the product h u with the columns of u in the order
// unit by unit, so that a thread's four neighbours are the four gates of a unit, and its epilogue is the cell.
//
//   c of the product   i f g o  i f g o  i f g o ..    <- column 4 j + gate = column gate H + j of u
//   epilogue           reads the inputs' share from gates, writes gates, cells, h for the next step, y
//
// A step backward is two: the gates' gradients, a thread a unit, and their product with u^T. Small ones go by sequences
// (recurrent.cuh).
#include "recurrent.cuh"
#include "cells.h"

namespace fastdl {
namespace {

struct LstmPass {
  Steps steps;
  i64 H;
  const float *b, *p, *drop, *keep_h, *keep_c;
  __device__ bool plain() const { return !p && !drop && !keep_h && !keep_c; }
  __device__ LstmOptions<float> options(i64 place, i64 j) const {
    const i64 k = place * H + j;
    return {p ? p[j] : 0.0f,           p ? p[H + j] : 0.0f,          p ? p[2 * H + j] : 0.0f,
            drop ? drop[k] : 1.0f,     keep_h ? keep_h[k] : 0.0f,    keep_c ? keep_c[k] : 0.0f};
  }
};

// Unit j of row i of step s; z the recurrent share of its pre-activations. Its outputs before and now are in row k of h_before
// (read for zoneout alone) and h.
__device__ __forceinline__ void forward_unit(const LstmPass& pass, i64 s, i64 i, i64 j, const float (&z)[4],
                                             const float* first_c, i64 k, const float* h_before, float* h, float* y,
                                             float* gates, float* cells) {
  const i64 H = pass.H, row = pass.steps.first(s) + i, place = pass.steps.place(s, i);
  float* g = gates + row * 4 * H + j;
  LstmUnit<float> unit = {g[0] + z[0], g[H] + z[1], g[2 * H] + z[2], g[3 * H] + z[3], 0.0f, 0.0f};
  if (pass.b) {
    unit.i += pass.b[j];
    unit.f += pass.b[H + j];
    unit.g += pass.b[2 * H + j];
    unit.o += pass.b[3 * H + j];
  }
  const float before = s > 0 ? cells[(pass.steps.first(s - 1) + i) * H + j] : first_c[i * H + j];
  if (pass.plain()) {
    lstm_unit(unit, before);
  } else {
    lstm_unit(unit, before, h_before[k * H + j], pass.options(place, j));
  }
  g[0] = unit.i;
  g[H] = unit.f;
  g[2 * H] = unit.g;
  g[3 * H] = unit.o;
  cells[row * H + j] = unit.c;
  y[place * H + j] = unit.h;
  if (h) h[k * H + j] = unit.h;
}

struct LstmStep {
  static constexpr bool kTensorCores = false;
  LstmPass pass;
  i64 s;
  const float *first_c, *h_before;
  float *h, *y, *gates, *cells;
  __device__ void operator()(float (&v)[4], const Place& at) const {
    if (at.m < pass.steps.rows(s)) forward_unit(pass, s, at.m, at.n / 4, v, first_c, at.m, h_before, h, y, gates, cells);
  }
};

// A block a sequence.
__global__ void __launch_bounds__(512)
    sequence_forward_kernel(LstmPass pass, const float* u, const float* h0, const float* first_c, float* y, float* gates,
                            float* cells) {
  const i64 H = pass.H;
  const SequenceMemory m(H, 4 * H, 0);
  forward_sequences(pass.steps, m, u, h0, [&](i64 s, i64 i, i64 j) {
    const float z[4] = {m.step[j], m.step[H + j], m.step[2 * H + j], m.step[3 * H + j]};
    forward_unit(pass, s, i, j, z, first_c, 0, m.state, m.state, y, gates, cells);
  });
}

__global__ void cell_kernel(LstmPass pass, const float* c, float* y, float* gates, float* c_new) {
  for_rows(pass.steps.N, pass.H, [=](i64 i, i64 j) {
    const float none[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    forward_unit(pass, 0, i, j, none, c, 0, nullptr, nullptr, y, gates, c_new);
  });
}

// Unit j of row i of step s, from the gradients of its output (without dy) and cell; the latter becomes that of the cell before. d:
// its place in the step's matrix of 4H. What goes straight to the output before.
__device__ __forceinline__ float backward_unit(const LstmPass& pass, i64 s, i64 i, i64 j, const float* first_c,
                                               const float* gates, const float* cells, const float* dy, float dout,
                                               float& dcell, float* dz, float* d) {
  const i64 H = pass.H, row = pass.steps.first(s) + i, place = pass.steps.place(s, i);
  if (dy) dout += dy[place * H + j];
  const float* g = gates + row * 4 * H + j;
  LstmUnit<float> unit = {g[0], g[H], g[2 * H], g[3 * H], cells[row * H + j], 0.0f};
  const float before = s > 0 ? cells[(pass.steps.first(s - 1) + i) * H + j] : first_c[i * H + j];
  float straight = 0.0f;
  if (pass.plain()) {
    lstm_unit_backward(unit, before, dout, dcell);
  } else {
    straight = lstm_unit_backward(unit, before, dout, dcell, pass.options(place, j));
  }
  const float out[4] = {unit.i, unit.f, unit.g, unit.o};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    d[k * H] = out[k];
    if (dz) dz[(row * 4 + k) * H + j] = out[k];
  }
  return straight;
}

// dz of step s, packed and as the step's own matrix (zeros where a sequence has no such step); dh and dc of the step before.
__global__ void backward_kernel(LstmPass pass, i64 s, const float* first_c, const float* gates, const float* cells,
                                const float* dy, const float* dhn, const float* dcn, float* dh, float* dc, float* dz,
                                float* step) {
  const Steps& steps = pass.steps;
  const i64 H = pass.H, rows = steps.rows(s), later = steps.rows(s + 1);
  for_rows(steps.N, H, [=](i64 i, i64 j) {
    float* d = step + i * 4 * H + j;
    if (i >= rows) {
      for (int k = 0; k < 4; ++k) d[k * H] = 0.0f;
      return;
    }
    const i64 at = i * H + j, end = pass.steps.sequence(i) * H + j;
    const float dout = i < later ? dh[at] : dhn ? dhn[end] : 0.0f;
    float dcell = i < later ? dc[at] : dcn ? dcn[end] : 0.0f;
    dh[at] = backward_unit(pass, s, i, j, first_c, gates, cells, dy, dout, dcell, dz, d);
    dc[at] = dcell;
  });
}

// A block a sequence; dh, dc: what is left at its beginning.
__global__ void __launch_bounds__(512)
    sequence_backward_kernel(LstmPass pass, const float* u, const float* first_c, const float* gates, const float* cells,
                             const float* dy, const float* dhn, const float* dcn, int first_too, float* dh, float* dc,
                             float* dz) {
  const SequenceMemory m(pass.H, 4 * pass.H, pass.H);
  backward_sequences(pass.steps, m, u, first_too, 1.0f, dhn, dh, dcn, dc, [&](i64 s, i64 i, i64 j) {
    m.state[j] = backward_unit(pass, s, i, j, first_c, gates, cells, dy, m.state[j], m.more[j], dz, m.step + j);
  });
}

// A thread a unit: chunks of 256 rows, added in order.
__global__ void peephole_kernel(LstmPass pass, const float* first_c, const float* gates, const float* cells, const float* dz,
                                float beta, float* dp) {
  const i64 H = pass.H;
  for_rows(1, H, [=](i64, i64 j) {
    float total[3], sum[3] = {0.0f, 0.0f, 0.0f};
    for (int k = 0; k < 3; ++k) total[k] = beta == 0.0f ? 0.0f : beta * dp[k * H + j];
    i64 count = 0;
    for (i64 s = 0; s < pass.steps.T; ++s) {
      const i64 rows = pass.steps.rows(s);
      for (i64 i = 0; i < rows; ++i) {
        const i64 row = pass.steps.first(s) + i;
        const float *z = gates + row * 4 * H + j, *d = dz + row * 4 * H + j;
        const float before = s > 0 ? cells[(pass.steps.first(s - 1) + i) * H + j] : first_c[i * H + j];
        const float drop = pass.drop ? pass.drop[pass.steps.place(s, i) * H + j] : 1.0f;
        sum[0] += d[0] * before;
        sum[1] += d[H] * before;
        sum[2] += d[3 * H] * (z[H] * before + z[0] * (z[2 * H] * drop));
        if (++count % kChunk == 0) {
          for (int k = 0; k < 3; ++k) {
            total[k] += sum[k];
            sum[k] = 0.0f;
          }
        }
      }
    }
    for (int k = 0; k < 3; ++k) dp[k * H + j] = total[k] + sum[k];
  });
}

}  // namespace

i64 lstm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * I) + 3 * carved(N * H) + carved(N * 4 * H);
}

void lstm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                  const float* h0, const float* c0, const int64_t* lengths, const float* p, const float* drop,
                  const float* keep_h, const float* keep_c, int reverse, float* work, float* y, float* hn, float* cn,
                  float* gates, float* cells, void* stream) {
  const i64 G = 4 * H;
  Carver carver(work);
  const LstmPass pass = {make_steps(N, T, lengths, reverse, carver, stream), H, b, p, drop, keep_h, keep_c};
  float *xs = carver.take(N * T * I), *first_c = carver.take(N * H), *z = carver.take(N * G);
  float* h[2] = {carver.take(N * H), carver.take(N * H)};
  pack_steps(pass.steps, I, x, false, nullptr, xs, stream);
  gemm(matrix(gates, N * T, G, I, G), KMajor{xs, I}, MNMajor{w, G}, BiasActivation{}, stream);
  if (lengths) clear(N * T * H, y, stream);
  pack_state(pass.steps, H, c0, first_c, stream);
  if (by_sequences(N, H, G, H)) {
    launch(sequence_forward_kernel, static_cast<unsigned>(N), sequence_threads(G), sequence_bytes(H, G, 0), stream, pass, u, h0,
           first_c, y, gates, cells);
  } else {
    clear(N * H, h[0], stream);
    pack_state(pass.steps, H, h0, h[1], stream);
    const Gather<false> by_units = {u, Axis{1, 4, 0, {1, 0, H}, 0, 0, {}, {}}, linear_axis(G), 1, 1};
    for (i64 s = 0; s < T; ++s) {
      const float* before = h[(s + 1) & 1];
      gemm(matrix(z, N, G, H, G), KMajor{before, H}, by_units,
           LstmStep{pass, s, first_c, before, h[s & 1], y, gates, cells}, stream);
    }
  }
  last_rows(pass.steps, H, y, false, h0, hn, stream);
  last_rows(pass.steps, H, cells, true, c0, cn, stream);
}

i64 lstm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * (I > H ? I : H)) + carved(N * T * 4 * H) + carved(N * 4 * H) +
         3 * carved(N * H) + weights_floats(N * T, I, H, 4 * H);
}

void lstm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                   const float* c0, const int64_t* lengths, const float* p, const float* drop, const float* keep_h,
                   const float* keep_c, const float* y, const float* gates, const float* cells, const float* dy,
                   const float* dhn, const float* dcn, int reverse, float* work, float* dx, float beta_dx, float* dw,
                   float beta_dw, float* du, float beta_du, float* db, float beta_db, float* dp, float beta_dp,
                   float* dh0, float beta_dh0, float* dc0, float beta_dc0, void* stream) {
  const i64 G = 4 * H, rows = N * T;
  Carver carver(work);
  const LstmPass pass = {make_steps(N, T, lengths, reverse, carver, stream), H, nullptr, p, drop, keep_h, keep_c};
  const Steps& steps = pass.steps;
  float *packed = carver.take(rows * (I > H ? I : H)), *dz = carver.take(rows * G), *step = carver.take(N * G);
  float *dh = carver.take(N * H), *dc = carver.take(N * H), *first_c = carver.take(N * H);
  float* parts = carver.take(weights_floats(rows, I, H, G));
  if (lengths) clear(rows * G, dz, stream);
  pack_state(steps, H, c0, first_c, stream);
  if (by_sequences(N, H, G, H)) {
    launch(sequence_backward_kernel, static_cast<unsigned>(N), sequence_threads(G), sequence_bytes(H, G, H), stream, pass, u,
           first_c, gates, cells, dy, dhn, dcn, dh0 != nullptr, dh, dc, dz);
  } else {
    clear(N * H, dh, stream);
    const RowGrid g(N, H);
    for (i64 s = T - 1; s >= 0; --s) {
      launch(backward_kernel, g.grid, g.block, 0, stream, pass, s, first_c, gates, cells, dy, dhn, dcn, dh, dc, dz, step);
      if (s > 0 || dh0) gemm(matrix(dh, N, H, G, H, 1.0f), KMajor{step, G}, KMajor{u, G}, BiasActivation{}, stream);
    }
  }
  if (dh0) unpack_state(steps, H, dh, dhn, beta_dh0, dh0, stream);
  if (dc0) unpack_state(steps, H, dc, dcn, beta_dc0, dc0, stream);
  if (dw) {
    pack_steps(steps, I, x, false, nullptr, packed, stream);
    gemm_split(matrix(dw, I, G, rows, G, beta_dw), MNMajor{packed, I}, MNMajor{dz, G}, parts, stream);
  }
  if (du) {
    pack_steps(steps, H, y, true, h0, packed, stream);
    gemm_split(matrix(du, H, G, rows, G, beta_du), MNMajor{packed, H}, MNMajor{dz, G}, parts, stream);
  }
  if (db) column_sums(rows, G, dz, beta_db, parts, db, stream);
  if (dp) {
    const RowGrid units(1, H);
    launch(peephole_kernel, units.grid, units.block, 0, stream, pass, first_c, gates, cells, dz, beta_dp, dp);
  }
  if (dx) {
    gemm(matrix(packed, rows, I, G, I), KMajor{dz, G}, KMajor{w, G}, BiasActivation{}, stream);
    unpack_steps(steps, I, packed, beta_dx, dx, stream);
  }
}

void lstm_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                       const float* u, const float* b, float* y, float* c_new, float* gates, void* stream) {
  const i64 G = 4 * H;
  const LstmPass pass = {{N, 1, nullptr, nullptr, nullptr, 0}, H, b, nullptr, nullptr, nullptr, nullptr};
  gemm(matrix(gates, N, G, I, G), KMajor{x, I}, MNMajor{w, G}, BiasActivation{}, stream);
  gemm(matrix(gates, N, G, H, G, 1.0f), KMajor{h, H}, MNMajor{u, G}, BiasActivation{}, stream);
  const RowGrid g(N, H);
  launch(cell_kernel, g.grid, g.block, 0, stream, pass, c, y, gates, c_new);
}

i64 lstm_cell_backward_workspace(i64 N, i64 I, i64 H) {
  return 4 + carved(N * 4 * H) + 2 * carved(N * H) + weights_floats(N, I, H, 4 * H);
}

void lstm_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                        const float* u, const float* gates, const float* c_new, const float* dy, const float* dc_new,
                        float* work, float* dx, float beta_dx, float* dh, float beta_dh, float* dc, float beta_dc,
                        float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db, void* stream) {
  const i64 G = 4 * H;
  const LstmPass pass = {{N, 1, nullptr, nullptr, nullptr, 0}, H, nullptr, nullptr, nullptr, nullptr, nullptr};
  Carver carver(work);
  float *dz = carver.take(N * G), *straight = carver.take(N * H), *dcell = carver.take(N * H);
  float* parts = carver.take(weights_floats(N, I, H, G));
  const RowGrid g(N, H);
  launch(backward_kernel, g.grid, g.block, 0, stream, pass, 0, c, gates, c_new, dy, nullptr, dc_new, straight, dcell, nullptr,
         dz);
  if (dx) gemm(matrix(dx, N, I, G, I, beta_dx), KMajor{dz, G}, KMajor{w, G}, BiasActivation{}, stream);
  if (dh) gemm(matrix(dh, N, H, G, H, beta_dh), KMajor{dz, G}, KMajor{u, G}, BiasActivation{}, stream);
  if (dc) put_slice(N * H, dcell, beta_dc, dc, stream);
  if (dw) gemm_split(matrix(dw, I, G, N, G, beta_dw), MNMajor{x, I}, MNMajor{dz, G}, parts, stream);
  if (du) gemm_split(matrix(du, H, G, N, G, beta_du), MNMajor{h, H}, MNMajor{dz, G}, parts, stream);
  if (db) column_sums(N, G, dz, beta_db, parts, db, stream);
}

}  // namespace fastdl
