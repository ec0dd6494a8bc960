// GRU, reset gate after the product: whole sequences and single steps, in the passes of lstm.cpp. The recurrent product of
// a step goes to scratch s[rows,3H], because the candidate's two shares meet only after the reset gate:
//
//   gates  r z n q        after the input product: a_r a_z a_n -; after the step: r, z, n and q = s_n + bn
//   dgates dr dz dn dq    dq = r dn; inputs' gradients use the first three, recurrent ones r, z and q
//
// Source: Cho et al. (2014); the form with the reset after the product is that of cuDNN.
#include "../cells.h"
#include "recurrent.h"

namespace fastdl {
namespace {

FASTDL_INLINE void forward_row(i64 H, const float* b, const float* bn, const float* s, const float* h_before, float* z,
                               float* h, float* y) {
  for_chains(0, H, [=](i64 j, auto lanes) {
    GruUnit<typename decltype(lanes)::vector> unit = {lanes.load(z + j), lanes.load(z + H + j),
                                                      lanes.load(z + 2 * H + j), lanes.load(s + 2 * H + j)};
    unit.r += lanes.load(s + j);
    unit.z += lanes.load(s + H + j);
    if (b) {
      unit.r += lanes.load(b + j);
      unit.z += lanes.load(b + H + j);
      unit.n += lanes.load(b + 2 * H + j);
    }
    if (bn) unit.q += lanes.load(bn + j);
    const auto out = gru_unit(unit, lanes.load(h_before + j));
    lanes.store(z + j, unit.r);
    lanes.store(z + H + j, unit.z);
    lanes.store(z + 2 * H + j, unit.n);
    lanes.store(z + 3 * H + j, unit.q);
    lanes.store(y + j, out);
    if (h) lanes.store(h + j, out);
  });
}

// d[4H] and ds[3H] = dr dz dq, from dh (+ dy); dh becomes what goes straight to the output before.
FASTDL_INLINE void backward_row(i64 H, const float* z, const float* h_before, const float* dy, float* dh, float* d,
                                float* ds) {
  for_vectors(0, H, [=](i64 j, auto lanes) {
    GruUnit<vec> unit = {lanes.load(z + j), lanes.load(z + H + j), lanes.load(z + 2 * H + j),
                         lanes.load(z + 3 * H + j)};
    vec dout = lanes.load(dh + j);
    if (dy) dout += lanes.load(dy + j);
    lanes.store(dh + j, gru_unit_backward(unit, h_before ? lanes.load(h_before + j) : vec{}, dout));
    lanes.store(d + j, unit.r);
    lanes.store(d + H + j, unit.z);
    lanes.store(d + 2 * H + j, unit.n);
    lanes.store(d + 3 * H + j, unit.q);
    lanes.store(ds + j, unit.r);
    lanes.store(ds + H + j, unit.z);
    lanes.store(ds + 2 * H + j, unit.q);
  });
}

}  // namespace

i64 gru_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + recurrent_floats(N, T, H, 3 * H) + 5 * N * H;
}

void gru_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* bn, const float* h0, const int64_t* lengths, int reverse, float* work, float* y,
                 float* hn, float* gates, void*) {
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  const float* xs = pack_steps(steps, I, x, work);
  gemm_strided(steps.total(), 3 * H, I, xs, I, 0, w, 3 * H, 0, 0.0f, gates, 4 * H);
  work += N * T * I;
  const Recurrent recurrent = make_recurrent(N, T, H, 3 * H, u, 0, work);
  float *h = work, *sums = work + 2 * N * H;
  pack_state(steps, H, h0, h + N * H);
  for_sequences(N, [&, N, T, H](i64 begin, i64 end) {
    float* sum = sums + begin * 3 * H;
    for (i64 s = 0; s < T; ++s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) break;
      const float* before = h + (((s + 1) & 1) * N + begin) * H;
      float* now = h + ((s & 1) * N + begin) * H;
      multiply(recurrent, rows, before, 0.0f, sum, 3 * H, s);
      for (i64 i = 0; i < rows; ++i) {
        forward_row(H, b, bn, sum + i * 3 * H, before + i * H, gates + (steps.first(s) + begin + i) * 4 * H,
                    now + i * H, y + steps.place(s, begin + i) * H);
      }
    }
  });
  clear_padding(steps, H, y);
  for (i64 i = 0; i < N; ++i) {
    const i64 n = steps.sequence(i);
    memcpy(hn + n * H, h + (((steps.length(n) + 1) & 1) * N + i) * H, size_t(H) * sizeof(float));
  }
}

i64 gru_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + N * T * 4 * H + recurrent_floats(N, T, 3 * H, H) + 4 * N * H +
         weight_gradient_floats(N, T, I, H, 3 * H) + H;
}

void gru_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* y, const float* gates, const float* dy, const float* dhn,
                  int reverse, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du,
                  float beta_du, float* db, float beta_db, float* dbn, float beta_dbn, float* dh0, float beta_dh0,
                  void*) {
  const i64 G = 4 * H;
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  float* rows_of = work;
  work += N * T * I;
  float* d = work;
  work += N * T * G;
  const Recurrent recurrent = make_recurrent(N, T, 3 * H, H, u, 1, work);
  float *dh = work, *sums = work + N * H;
  pack_state(steps, H, dhn, dh);
  for_sequences(N, [&, T, H, G](i64 begin, i64 end) {
    float* sum = sums + begin * 3 * H;
    for (i64 s = T - 1; s >= 0; --s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      for (i64 i = 0; i < rows; ++i) {
        const i64 r = begin + i, at = steps.first(s) + r, place = steps.place(s, r);
        const float* before = s > 0 ? y + steps.place(s - 1, r) * H : h0 ? h0 + steps.sequence(r) * H : nullptr;
        backward_row(H, gates + at * G, before, dy ? dy + place * H : nullptr, dh + r * H, d + at * G, sum + i * 3 * H);
      }
      if (rows > 0 && (s > 0 || dh0)) multiply(recurrent, rows, sum, 1.0f, dh + begin * H, H, s);
    }
  });
  if (dh0) unpack_state(steps, H, dh, beta_dh0, dh0);
  const i64 total = steps.total();
  if (dw || du || db || dbn) {
    // dr and dz meet all of a row, dn its front (x | 1), dq its end (1 | h).
    const i64 width = I + 1 + H, Z = 2 * H;
    float *met = work + 4 * N * H, *both = met + total * width, *front = both + width * Z, *end = front + (I + 1) * H;
    pack_met(steps, I, H, x, y, nullptr, h0, met);
    gemm_strided(width, Z, total, met, width, 1, d, G, 0, 0.0f, both, Z);
    gemm_strided(I + 1, H, total, met, width, 1, d + Z, G, 0, 0.0f, front, H);
    gemm_strided(1 + H, H, total, met + I, width, 1, d + Z + H, G, 0, 0.0f, end, H);
    put_block(I, Z, both, Z, beta_dw, dw, 3 * H);
    put_block(I, H, front, H, beta_dw, dw ? dw + Z : nullptr, 3 * H);
    put_block(1, Z, both + I * Z, Z, beta_db, db, 3 * H);
    put_block(1, H, front + I * H, H, beta_db, db ? db + Z : nullptr, 3 * H);
    put_block(1, H, end, H, beta_dbn, dbn, H);
    put_block(H, Z, both + (I + 1) * Z, Z, beta_du, du, 3 * H);
    put_block(H, H, end + H, H, beta_du, du ? du + Z : nullptr, 3 * H);
  }
  if (dx) {
    float* packed = steps.direct() ? dx : rows_of;
    gemm_strided(total, I, 3 * H, d, G, 0, w, 3 * H, 1, steps.direct() ? beta_dx : 0.0f, packed, I);
    unpack_steps(steps, I, packed, beta_dx, dx);
  }
}

i64 gru_cell_forward_workspace(i64 N, i64, i64 H) { return N * 3 * H; }

void gru_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                      const float* b, const float* bn, float* work, float* y, float* gates, void*) {
  gemm_strided(N, 3 * H, I, x, I, 0, w, 3 * H, 0, 0.0f, gates, 4 * H);
  gemm_strided(N, 3 * H, H, h, H, 0, u, 3 * H, 0, 0.0f, work, 3 * H);
  for_rows(N, 64 * H,
           [=](i64 n) { forward_row(H, b, bn, work + n * 3 * H, h + n * H, gates + n * 4 * H, nullptr, y + n * H); });
}

i64 gru_cell_backward_workspace(i64 N, i64, i64 H) { return N * 8 * H; }

void gru_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* gates, const float* dy, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       float* dbn, float beta_dbn, void*) {
  float *d = work, *sums = work + N * 4 * H, *straight = sums + N * 3 * H;
  copy_or_clear(N * H, nullptr, straight);
  for_rows(N, 64 * H, [=](i64 n) {
    backward_row(H, gates + n * 4 * H, h + n * H, dy + n * H, straight + n * H, d + n * 4 * H, sums + n * 3 * H);
  });
  if (dx) gemm_strided(N, I, 3 * H, d, 4 * H, 0, w, 3 * H, 1, beta_dx, dx, I);
  if (dh) {
    gemm_strided(N, H, 3 * H, sums, 3 * H, 0, u, 3 * H, 1, 1.0f, straight, H);
    unpack_state(Steps{N, 1, nullptr, nullptr, nullptr, false}, H, straight, beta_dh, dh);
  }
  if (dw) gemm_strided(I, 3 * H, N, x, I, 1, d, 4 * H, 0, beta_dw, dw, 3 * H);
  if (du) {  // whose candidate's columns have gradients of their own
    gemm_strided(H, 2 * H, N, h, H, 1, d, 4 * H, 0, beta_du, du, 3 * H);
    gemm_strided(H, H, N, h, H, 1, d + 3 * H, 4 * H, 0, beta_du, du + 2 * H, 3 * H);
  }
  if (db) sum_columns(N, 3 * H, d, 4 * H, beta_db, db);
  if (dbn) sum_columns(N, H, d + 3 * H, 4 * H, beta_dbn, dbn);
}

}  // namespace fastdl
