// LSTM with layer normalisation (Ba, Kiros & Hinton 2016), gate by gate: the passes of lstm.cpp, with each row's means and
// variances taken while it is in L1. The norms are kept for the way back.
#include "../cells.h"
#include "recurrent.h"

namespace fastdl {
namespace {

constexpr i64 kNorms = 5;  // i f g o c

// y = (x - mean x) r, r = 1 / sqrt(var x + eps), over H numbers; returns r.
FASTDL_INLINE float normalise(i64 H, const float* x, float eps, float* y) {
  const float count = static_cast<float>(H);
  vec s = {}, squares = {};
  for_vectors(0, H, [&](i64 j, auto lanes) { s += lanes.load(x + j); });
  const float m = sum_lanes(s) / count;
  for_vectors(0, H, [&](i64 j, auto lanes) {
    const vec d = lanes.only(lanes.load(x + j) - m);
    squares += d * d;
  });
  const float r = 1.0f / __builtin_sqrtf(sum_lanes(squares) / count + eps);
  for_vectors(0, H, [=](i64 j, auto lanes) { lanes.store(y + j, (lanes.load(x + j) - m) * r); });
  return r;
}

// dx = r (g - mean g - y mean(g y)), g = d gain, + dx where `add`.
FASTDL_INLINE void normalise_backward(i64 H, const float* y, float r, const float* d, const float* gain, bool add,
                                      float* dx) {
  const float count = static_cast<float>(H);
  vec s = {}, products = {};
  for_vectors(0, H, [&](i64 j, auto lanes) {
    const vec g = lanes.load(d + j) * lanes.load(gain + j);
    s += g;
    products += g * lanes.load(y + j);
  });
  const float mean_g = sum_lanes(s) / count, mean_gy = sum_lanes(products) / count;
  for_vectors(0, H, [=](i64 j, auto lanes) {
    const vec v = (lanes.load(d + j) * lanes.load(gain + j) - mean_g - lanes.load(y + j) * mean_gy) * r;
    lanes.store(dx + j, add ? lanes.load(dx + j) + v : v);
  });
}

// One row: gates z[4H] from the sums of products.
void forward_row(i64 H, const float* gain, const float* b, float eps, const float* c_before, float* z, float* c,
                 float* normed, float* scales, float* h, float* y) {
  for (i64 k = 0; k < 4; ++k) scales[k] = normalise(H, z + k * H, eps, normed + k * H);
  for_vectors(0, H, [=](i64 j, auto lanes) {
    const auto pre = [=](i64 k) {
      return lanes.load(normed + k * H + j) * lanes.load(gain + k * H + j) + lanes.load(b + k * H + j);
    };
    LstmUnit<vec> unit = {pre(0), pre(1), pre(2), pre(3), vec{}, vec{}};
    lstm_cell_only(unit, lanes.load(c_before + j));
    lanes.store(z + j, unit.i);
    lanes.store(z + H + j, unit.f);
    lanes.store(z + 2 * H + j, unit.g);
    lanes.store(z + 3 * H + j, unit.o);
    lanes.store(c + j, unit.c);
  });
  scales[4] = normalise(H, c, eps, normed + 4 * H);
  for_vectors(0, H, [=](i64 j, auto lanes) {
    const i64 at = 4 * H + j;
    const vec q = lanes.load(normed + at) * lanes.load(gain + at) + lanes.load(b + at);
    const vec out = lanes.load(z + 3 * H + j) * fastdl::tanh(q);
    lanes.store(h + j, out);
    lanes.store(y + j, out);
  });
}

// One row: d[5H], the gradients behind the norms, and dz[4H], those before, from dh (+ dy) and dc, which becomes that of the
// cell before.
void backward_row(i64 H, const float* gain, const float* b, const float* z, const float* c_before, const float* normed,
                  const float* scales, const float* dy, const float* dh, float* dc, float* d, float* dz) {
  for_vectors(0, H, [=](i64 j, auto lanes) {
    const i64 at = 4 * H + j;
    const vec t = fastdl::tanh(lanes.load(normed + at) * lanes.load(gain + at) + lanes.load(b + at));
    const vec o = lanes.load(z + 3 * H + j);
    vec dout = lanes.load(dh + j);
    if (dy) dout += lanes.load(dy + j);
    lanes.store(d + at, dout * o * tanh_slope(t));
    lanes.store(d + 3 * H + j, dout * t * sigmoid_slope(o));
  });
  normalise_backward(H, normed + 4 * H, scales[4], d + 4 * H, gain + 4 * H, true, dc);
  for_vectors(0, H, [=](i64 j, auto lanes) {
    LstmUnit<vec> unit = {lanes.load(z + j), lanes.load(z + H + j), lanes.load(z + 2 * H + j), vec{}, vec{}, vec{}};
    vec dcell = lanes.load(dc + j);
    lstm_cell_only_backward(unit, lanes.load(c_before + j), dcell);
    lanes.store(dc + j, dcell);
    lanes.store(d + j, unit.i);
    lanes.store(d + H + j, unit.f);
    lanes.store(d + 2 * H + j, unit.g);
  });
  for (i64 k = 0; k < 4; ++k) {
    normalise_backward(H, normed + k * H, scales[k], d + k * H, gain + k * H, false, dz + k * H);
  }
}

}  // namespace

i64 lstm_norm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + recurrent_floats(N, T, H, 4 * H) + 3 * N * H;
}

void lstm_norm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                       const float* b, const float* h0, const float* c0, const int64_t* lengths, float eps, int reverse,
                       float* work, float* y, float* hn, float* cn, float* gates, float* cells, float* normed,
                       float* scales, void*) {
  const i64 G = 4 * H;
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  const float* xs = pack_steps(steps, I, x, work);
  gemm_strided(steps.total(), G, I, xs, I, 0, w, G, 0, 0.0f, gates, G);
  work += N * T * I;
  const Recurrent recurrent = make_recurrent(N, T, H, G, u, 0, work);
  float *h = work, *first_c = work + 2 * N * H;
  pack_state(steps, H, h0, h + N * H);
  pack_state(steps, H, c0, first_c);
  for_sequences(N, [&, N, H, G](i64 begin, i64 end) {
    for (i64 s = 0; s < T; ++s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) break;
      const i64 at = steps.first(s) + begin;
      const float* before = h + (((s + 1) & 1) * N + begin) * H;
      float* now = h + ((s & 1) * N + begin) * H;
      if (s > 0 || h0) multiply(recurrent, rows, before, 1.0f, gates + at * G, G, s);
      const float* c_before = s > 0 ? cells + (steps.first(s - 1) + begin) * H : first_c + begin * H;
      for (i64 i = 0; i < rows; ++i) {
        forward_row(H, gain, b, eps, c_before + i * H, gates + (at + i) * G, cells + (at + i) * H,
                    normed + (at + i) * kNorms * H, scales + (at + i) * kNorms, now + i * H,
                    y + steps.place(s, begin + i) * H);
      }
    }
  });
  clear_padding(steps, H, y);
  for (i64 i = 0; i < N; ++i) {
    const i64 n = steps.sequence(i), length = steps.length(n);
    copy_or_clear(H, h + (((length + 1) & 1) * N + i) * H, hn + n * H);
    copy_or_clear(H, length > 0 ? cells + (steps.first(length - 1) + i) * H : first_c + i * H, cn + n * H);
  }
}

i64 lstm_norm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + N * T * (4 + kNorms) * H + recurrent_floats(N, T, 4 * H, H) + 3 * N * H +
         weight_gradient_floats(N, T, I, H, 4 * H);
}

void lstm_norm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                        const float* b, const float* h0, const float* c0, const int64_t* lengths, const float* y,
                        const float* gates, const float* cells, const float* normed, const float* scales,
                        const float* dy, const float* dhn, const float* dcn, int reverse, float* work, float* dx,
                        float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* dgain,
                        float beta_dgain, float* db, float beta_db, float* dh0, float beta_dh0, float* dc0,
                        float beta_dc0, void*) {
  const i64 G = 4 * H, W = kNorms * H;
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  float* rows = work;
  work += N * T * I;
  float *dz = work, *d = work + N * T * G;
  work += N * T * (G + W);
  const Recurrent recurrent = make_recurrent(N, T, G, H, u, 1, work);
  float *dh = work, *dc = work + N * H, *first_c = work + 2 * N * H;
  pack_state(steps, H, dhn, dh);
  pack_state(steps, H, dcn, dc);
  pack_state(steps, H, c0, first_c);
  for_sequences(N, [&, H, G, W](i64 begin, i64 end) {
    for (i64 s = T - 1; s >= 0; --s) {
      const i64 count = smaller(steps.rows(s), end) - begin;
      if (count <= 0) continue;
      const i64 at = steps.first(s) + begin;
      const float* c_before = s > 0 ? cells + (steps.first(s - 1) + begin) * H : first_c + begin * H;
      for (i64 i = 0; i < count; ++i) {
        const i64 r = at + i, own = (begin + i) * H;
        backward_row(H, gain, b, gates + r * G, c_before + i * H, normed + r * W, scales + r * kNorms,
                     dy ? dy + steps.place(s, begin + i) * H : nullptr, dh + own, dc + own, d + r * W, dz + r * G);
      }
      if (s > 0 || dh0) multiply(recurrent, count, dz + at * G, 0.0f, dh + begin * H, H, s);
    }
  });
  if (dh0) unpack_state(steps, H, dh, beta_dh0, dh0);
  if (dc0) unpack_state(steps, H, dc, beta_dc0, dc0);
  const i64 total = steps.total();
  weight_gradients(steps, I, H, G, x, y, nullptr, h0, dz, work + 3 * N * H, {dw, du, nullptr, beta_dw, beta_du, 0.0f});
  if (db) sum_columns(total, W, d, beta_db, db);
  if (dgain) {
    for_elements(total * W, [=](i64 i, auto lanes) { lanes.store(d + i, lanes.load(d + i) * lanes.load(normed + i)); });
    sum_columns(total, W, d, beta_dgain, dgain);
  }
  if (dx) {
    float* packed = steps.direct() ? dx : rows;
    gemm_strided(total, I, G, dz, G, 0, w, G, 1, steps.direct() ? beta_dx : 0.0f, packed, I);
    unpack_steps(steps, I, packed, beta_dx, dx);
  }
}

}  // namespace fastdl
