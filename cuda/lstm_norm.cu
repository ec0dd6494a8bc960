// LSTM with layer normalisation, gate by gate. A step forward is the product h u and one launch in which a team of threads, a
// warp or a block, has a row: it takes the means and variances of the row's gates and of its cell. A step backward is one such
// launch and the product with u^T.
#include "recurrent.cuh"
#include "cells.h"

namespace fastdl {
namespace {

struct NormPass {
  Steps steps;
  i64 H;
  const float *gain, *b;
};

// y = (x - mean) r over the H numbers that the team's threads each see their part of; returns r in all of them.
template <int T>
__device__ __forceinline__ float normalise(const Team<T>& team, i64 H, const float* x, float eps, float* y) {
  const float count = static_cast<float>(H);
  float s = 0.0f, squares = 0.0f;
  for (i64 j = team.lane; j < H; j += T) s += x[j];
  const float m = team.sum(s) / count;
  for (i64 j = team.lane; j < H; j += T) {
    const float d = x[j] - m;
    squares += d * d;
  }
  const float r = 1.0f / square_root(team.sum(squares) / count + eps);
  for (i64 j = team.lane; j < H; j += T) y[j] = (x[j] - m) * r;
  return r;
}

// put(j, r (g - mean g - y mean(g y))), g = d gain.
template <int T, class Put>
__device__ __forceinline__ void normalise_backward(const Team<T>& team, i64 H, const float* y, float r, const float* d,
                                                   const float* gain, const Put& put) {
  const float count = static_cast<float>(H);
  float s = 0.0f, products = 0.0f;
  for (i64 j = team.lane; j < H; j += T) {
    const float g = d[j] * gain[j];
    s += g;
    products += g * y[j];
  }
  const float mean_g = team.sum(s) / count, mean_gy = team.sum(products) / count;
  for (i64 j = team.lane; j < H; j += T) put(j, (d[j] * gain[j] - mean_g - y[j] * mean_gy) * r);
}

// A thread writes and reads the same units of a row throughout; only sums pass between threads.
template <int T>
__global__ void forward_kernel(NormPass pass, i64 s, float eps, const float* z, const float* first_c, float* h, float* y,
                               float* gates, float* cells, float* normed, float* scales) {
  const Team<T> team;
  const i64 H = pass.H, rows = pass.steps.rows(s);
  for (i64 i = team.row; i < rows; i += team.stride) {
    const i64 row = pass.steps.first(s) + i, place = pass.steps.place(s, i);
    float *g = gates + row * 4 * H, *n = normed + row * 5 * H, *c = cells + row * H;
    const float* c_before = s > 0 ? cells + (pass.steps.first(s - 1) + i) * H : first_c + i * H;
    for (i64 k = 0; k < 4; ++k) {
      for (i64 j = team.lane; j < H; j += T) g[k * H + j] += z[(i * 4 + k) * H + j];
      const float r = normalise(team, H, g + k * H, eps, n + k * H);
      if (team.lane == 0) scales[row * 5 + k] = r;
    }
    for (i64 j = team.lane; j < H; j += T) {
      float pre[4];
      for (i64 k = 0; k < 4; ++k) pre[k] = n[k * H + j] * pass.gain[k * H + j] + pass.b[k * H + j];
      LstmUnit<float> unit = {pre[0], pre[1], pre[2], pre[3], 0.0f, 0.0f};
      lstm_cell_only(unit, c_before[j]);
      g[j] = unit.i;
      g[H + j] = unit.f;
      g[2 * H + j] = unit.g;
      g[3 * H + j] = unit.o;
      c[j] = unit.c;
    }
    const float r = normalise(team, H, c, eps, n + 4 * H);
    if (team.lane == 0) scales[row * 5 + 4] = r;
    for (i64 j = team.lane; j < H; j += T) {
      const i64 at = 4 * H + j;
      const float out = g[3 * H + j] * tanh(n[at] * pass.gain[at] + pass.b[at]);
      h[i * H + j] = out;
      y[place * H + j] = out;
    }
  }
}

// d[5H] and dz[4H] of step s, packed, dz also as the step's own matrix (zeros where a sequence has no such step); dc of the
// step before, and dh = 0 for the product to add to.
template <int T>
__global__ void backward_kernel(NormPass pass, i64 s, const float* first_c, const float* gates, const float* cells,
                                const float* normed, const float* scales, const float* dy, const float* dhn,
                                const float* dcn, float* dh, float* dc, float* d, float* dz, float* step) {
  const Team<T> team;
  const Steps& steps = pass.steps;
  const i64 H = pass.H, rows = steps.rows(s), later = steps.rows(s + 1);
  for (i64 i = team.row; i < steps.N; i += team.stride) {
    float* own = step + i * 4 * H;
    if (i >= rows) {
      for (i64 j = team.lane; j < 4 * H; j += T) own[j] = 0.0f;
      continue;
    }
    const i64 row = steps.first(s) + i, place = steps.place(s, i), sequence = steps.sequence(i);
    const float *g = gates + row * 4 * H, *n = normed + row * 5 * H, *r = scales + row * 5;
    const float* c_before = s > 0 ? cells + (steps.first(s - 1) + i) * H : first_c + i * H;
    float *out = d + row * 5 * H, *dcell = dc + i * H;
    for (i64 j = team.lane; j < H; j += T) {
      const i64 at = 4 * H + j;
      float dout = i < later ? dh[i * H + j] : dhn ? dhn[sequence * H + j] : 0.0f;
      if (i >= later) dcell[j] = dcn ? dcn[sequence * H + j] : 0.0f;
      if (dy) dout += dy[place * H + j];
      const float t = tanh(n[at] * pass.gain[at] + pass.b[at]), o = g[3 * H + j];
      out[at] = dout * o * tanh_slope(t);
      out[3 * H + j] = dout * t * sigmoid_slope(o);
      dh[i * H + j] = 0.0f;
    }
    normalise_backward(team, H, n + 4 * H, r[4], out + 4 * H, pass.gain + 4 * H, [=](i64 j, float v) { dcell[j] += v; });
    for (i64 j = team.lane; j < H; j += T) {
      LstmUnit<float> unit = {g[j], g[H + j], g[2 * H + j], 0.0f, 0.0f, 0.0f};
      float through = dcell[j];
      lstm_cell_only_backward(unit, c_before[j], through);
      dcell[j] = through;
      out[j] = unit.i;
      out[H + j] = unit.f;
      out[2 * H + j] = unit.g;
    }
    for (i64 k = 0; k < 4; ++k) {
      normalise_backward(team, H, n + k * H, r[k], out + k * H, pass.gain + k * H, [=](i64 j, float v) {
        own[k * H + j] = v;
        dz[(row * 4 + k) * H + j] = v;
      });
    }
  }
}

__global__ void times_kernel(i64 n, const float* x, float* y) {
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += i64(gridDim.x) * blockDim.x) y[i] *= x[i];
}

}  // namespace

i64 lstm_norm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * I) + 3 * carved(N * H) + carved(N * 4 * H);
}

void lstm_norm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                       const float* b, const float* h0, const float* c0, const int64_t* lengths, float eps, int reverse,
                       float* work, float* y, float* hn, float* cn, float* gates, float* cells, float* normed,
                       float* scales, void* stream) {
  const i64 G = 4 * H;
  Carver carver(work);
  const NormPass pass = {make_steps(N, T, lengths, reverse, carver, stream), H, gain, b};
  float *xs = carver.take(N * T * I), *first_c = carver.take(N * H), *z = carver.take(N * G);
  float* h[2] = {carver.take(N * H), carver.take(N * H)};
  pack_steps(pass.steps, I, x, false, nullptr, xs, stream);
  gemm(matrix(gates, N * T, G, I, G), KMajor{xs, I}, MNMajor{w, G}, BiasActivation{}, stream);
  if (lengths) {
    clear(N * T * H, y, stream);
    clear(N * T * 5 * H, normed, stream);  // the rows of no step are multiplied by gradients of 0
  }
  clear(N * H, h[0], stream);
  pack_state(pass.steps, H, h0, h[1], stream);
  pack_state(pass.steps, H, c0, first_c, stream);
  for (i64 s = 0; s < T; ++s) {
    gemm(matrix(z, N, G, H, G), KMajor{h[(s + 1) & 1], H}, MNMajor{u, G}, BiasActivation{}, stream);
    launch_teams(forward_kernel<32>, forward_kernel<kThreads>, N, H, stream, pass, s, eps, z, first_c, h[s & 1], y, gates,
                 cells, normed, scales);
  }
  last_rows(pass.steps, H, y, false, h0, hn, stream);
  last_rows(pass.steps, H, cells, true, c0, cn, stream);
}

i64 lstm_norm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + carved(N * T * (I > H ? I : H)) + carved(N * T * 4 * H) + carved(N * T * 5 * H) +
         carved(N * 4 * H) + 3 * carved(N * H) + weights_floats(N * T, I, H, 4 * H) +
         carved(column_sums_workspace(N * T, 5 * H));
}

void lstm_norm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                        const float* b, const float* h0, const float* c0, const int64_t* lengths, const float* y,
                        const float* gates, const float* cells, const float* normed, const float* scales,
                        const float* dy, const float* dhn, const float* dcn, int reverse, float* work, float* dx,
                        float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* dgain,
                        float beta_dgain, float* db, float beta_db, float* dh0, float beta_dh0, float* dc0,
                        float beta_dc0, void* stream) {
  const i64 G = 4 * H, W = 5 * H, rows = N * T;
  Carver carver(work);
  const NormPass pass = {make_steps(N, T, lengths, reverse, carver, stream), H, gain, b};
  const Steps& steps = pass.steps;
  float *packed = carver.take(rows * (I > H ? I : H)), *dz = carver.take(rows * G), *d = carver.take(rows * W);
  float *step = carver.take(N * G), *dh = carver.take(N * H), *dc = carver.take(N * H), *first_c = carver.take(N * H);
  float *parts = carver.take(weights_floats(rows, I, H, G)), *sums = carver.take(column_sums_workspace(rows, W));
  if (lengths) {
    clear(rows * G, dz, stream);
    clear(rows * W, d, stream);
  }
  clear(N * H, dh, stream);
  pack_state(steps, H, c0, first_c, stream);
  for (i64 s = T - 1; s >= 0; --s) {
    launch_teams(backward_kernel<32>, backward_kernel<kThreads>, N, H, stream, pass, s, first_c, gates, cells, normed,
                 scales, dy, dhn, dcn, dh, dc, d, dz, step);
    if (s > 0 || dh0) gemm(matrix(dh, N, H, G, H, 1.0f), KMajor{step, G}, KMajor{u, G}, BiasActivation{}, stream);
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
  if (db) column_sums(rows, W, d, beta_db, sums, db, stream);
  if (dgain) {
    launch(times_kernel, blocks_for(rows * W, 256), 256, 0, stream, rows * W, normed, d);
    column_sums(rows, W, d, beta_dgain, sums, dgain, stream);
  }
  if (dx) {
    gemm(matrix(packed, rows, I, G, I), KMajor{dz, G}, KMajor{w, G}, BiasActivation{}, stream);
    unpack_steps(steps, I, packed, beta_dx, dx, stream);
  }
}

}  // namespace fastdl
