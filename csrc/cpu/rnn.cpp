// Elman's recurrent network: whole sequences and single steps, in the passes of lstm.cpp. The packed rows that begin as the
// inputs' share end as the states themselves, which are all that the backward pass needs.
// Source: Elman (1990).
#include "recurrent.h"

namespace fastdl {
namespace {

template <bool kTanhAct>
FASTDL_INLINE void forward_row(i64 H, const float* b, float* z, float* y) {
  for_chains(0, H, [=](i64 j, auto lanes) {
    auto v = lanes.load(z + j);
    if (b) v += lanes.load(b + j);
    v = kTanhAct ? fastdl::tanh(v) : relu(v);
    lanes.store(z + j, v);
    lanes.store(y + j, v);
  });
}

template <bool kTanhAct>
FASTDL_INLINE void backward_row(i64 H, const float* h, const float* dy, const float* dh, float* dz) {
  for_vectors(0, H, [=](i64 j, auto lanes) {
    const vec out = lanes.load(h + j);
    vec d = dh ? lanes.load(dh + j) : vec{};
    if (dy) d += lanes.load(dy + j);
    lanes.store(dz + j, kTanhAct ? d * tanh_slope(out) : relu_backward(d, out));
  });
}

template <bool kTanhAct>
void forward_steps(const Steps& steps, i64 H, const Recurrent& u, const float* b, const float* h0, float* y,
                   float* states) {
  for_sequences(steps.N, [&, H](i64 begin, i64 end) {
    for (i64 s = 0; s < steps.T; ++s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) break;
      float* z = states + (steps.first(s) + begin) * H;
      const float* before = s > 0 ? states + (steps.first(s - 1) + begin) * H : h0 ? h0 + begin * H : nullptr;
      if (before) multiply(u, rows, before, 1.0f, z, H, s);
      for (i64 i = 0; i < rows; ++i) forward_row<kTanhAct>(H, b, z + i * H, y + steps.place(s, begin + i) * H);
    }
  });
}

template <bool kTanhAct>
void backward_steps(const Steps& steps, i64 H, const Recurrent& u, const float* states, const float* dy,
                    bool first_wanted, float* dh, float* dz) {
  for_sequences(steps.N, [&, H](i64 begin, i64 end) {
    for (i64 s = steps.T - 1; s >= 0; --s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) continue;
      const i64 at = steps.first(s) + begin;
      for (i64 i = 0; i < rows; ++i) {
        const i64 place = steps.place(s, begin + i);
        backward_row<kTanhAct>(H, states + (at + i) * H, dy ? dy + place * H : nullptr, dh + (begin + i) * H,
                               dz + (at + i) * H);
      }
      if (s > 0 || first_wanted) multiply(u, rows, dz + at * H, 0.0f, dh + begin * H, H, s);
    }
  });
}

}  // namespace

i64 rnn_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64, i64) {
  return steps_floats(N, T) + N * T * I + recurrent_floats(N, T, H, H) + N * H;
}

void rnn_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* h0, const int64_t* lengths, int act, int reverse, float* work, float* y, float* hn,
                 float* states, void*) {
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  const float* xs = pack_steps(steps, I, x, work);
  gemm_strided(steps.total(), H, I, xs, I, 0, w, H, 0, 0.0f, states, H);
  work += N * T * I;
  const Recurrent recurrent = make_recurrent(N, T, H, H, u, 0, work);
  pack_state(steps, H, h0, work);
  (act == kElmanTanh ? forward_steps<true> : forward_steps<false>)(steps, H, recurrent, b, h0 ? work : nullptr, y,
                                                                   states);
  clear_padding(steps, H, y);
  for (i64 i = 0; i < N; ++i) {
    const i64 n = steps.sequence(i), length = steps.length(n);
    copy_or_clear(H, length > 0 ? states + (steps.first(length - 1) + i) * H : h0 ? h0 + n * H : nullptr, hn + n * H);
  }
}

i64 rnn_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64, i64) {
  return steps_floats(N, T) + N * T * I + N * T * H + recurrent_floats(N, T, H, H) + N * H +
         weight_gradient_floats(N, T, I, H, H);
}

void rnn_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* states, const float* dy, const float* dhn, int act, int reverse,
                  float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* db,
                  float beta_db, float* dh0, float beta_dh0, void*) {
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  float* rows = work;
  work += N * T * I;
  float* dz = work;
  work += N * T * H;
  const Recurrent recurrent = make_recurrent(N, T, H, H, u, 1, work);
  float* dh = work;
  pack_state(steps, H, dhn, dh);
  (act == kElmanTanh ? backward_steps<true> : backward_steps<false>)(steps, H, recurrent, states, dy, dh0, dh, dz);
  if (dh0) unpack_state(steps, H, dh, beta_dh0, dh0);
  const i64 total = steps.total();
  weight_gradients(steps, I, H, H, x, nullptr, states, h0, dz, work + N * H, {dw, du, db, beta_dw, beta_du, beta_db});
  if (dx) {
    float* packed = steps.direct() ? dx : rows;
    gemm_strided(total, I, H, dz, H, 0, w, H, 1, steps.direct() ? beta_dx : 0.0f, packed, I);
    unpack_steps(steps, I, packed, beta_dx, dx);
  }
}

void rnn_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                      const float* b, int act, float* y, void*) {
  gemm_strided(N, H, I, x, I, 0, w, H, 0, 0.0f, y, H);
  gemm_strided(N, H, H, h, H, 0, u, H, 0, 1.0f, y, H);
  for_rows(N, 16 * H, [=](i64 n) {
    if (act == kElmanTanh) {
      forward_row<true>(H, b, y + n * H, y + n * H);
    } else {
      forward_row<false>(H, b, y + n * H, y + n * H);
    }
  });
}

i64 rnn_cell_backward_workspace(i64 N, i64, i64 H, i64) { return N * H; }

void rnn_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* y, const float* dy, int act, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       void*) {
  for_rows(N, 4 * H, [=](i64 n) {
    if (act == kElmanTanh) {
      backward_row<true>(H, y + n * H, dy + n * H, nullptr, work + n * H);
    } else {
      backward_row<false>(H, y + n * H, dy + n * H, nullptr, work + n * H);
    }
  });
  if (dx) gemm_strided(N, I, H, work, H, 0, w, H, 1, beta_dx, dx, I);
  if (dh) gemm_strided(N, H, H, work, H, 0, u, H, 1, beta_dh, dh, H);
  if (dw) gemm_strided(I, H, N, x, I, 1, work, H, 0, beta_dw, dw, H);
  if (du) gemm_strided(H, H, N, h, H, 1, work, H, 0, beta_du, du, H);
  if (db) sum_columns(N, H, work, beta_db, db);
}

}  // namespace fastdl
