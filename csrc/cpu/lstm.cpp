// LSTM: whole sequences and single steps. Forward, after one product for the inputs of all steps:
//
//   step s:   gates[rows of s] += h[rows of s-1] u   (packed panels, or row times matrix for one or two sequences)
//             gates, cells, h, y of those rows in one pass: 4H numbers in, activations, 4H + 3H out
//
// Backward, from the last step: dgates of a step from dh, dc in one pass; dh of the step before = dgates u^T. The gradients
// of the weights and of x are then products over all packed rows.
// Source: Hochreiter & Schmidhuber (1997); Gers, Schmidhuber & Cummins (2000); peepholes: Gers & Schmidhuber (2000);
// dropout of the candidate: Semeniuta, Severyn & Barth (2016); zoneout: Krueger et al. (2017).
#include "../cells.h"
#include "recurrent.h"

namespace fastdl {
namespace {

struct Options {
  const float *p, *drop, *keep_h, *keep_c;
  bool any() const { return p || drop || keep_h || keep_c; }

  template <class L>
  FASTDL_INLINE LstmOptions<vec> at(i64 H, i64 row, i64 j, L lanes) const {
    const i64 k = row * H + j;
    return {p ? lanes.load(p + j) : vec{},           p ? lanes.load(p + H + j) : vec{},
            p ? lanes.load(p + 2 * H + j) : vec{},   drop ? lanes.load(drop + k) : splat(1.0f),
            keep_h ? lanes.load(keep_h + k) : vec{}, keep_c ? lanes.load(keep_c + k) : vec{}};
  }
};

// One row: gates z[4H] from pre-activations without bias, and from the row before the new cell and output.
template <bool kPlain>
FASTDL_INLINE void forward_row(i64 H, const float* b, const Options& options, i64 place, const float* c_before,
                               const float* h_before, float* z, float* c, float* h, float* y) {
  for_chains<kPlain>(0, H, [=, &options](i64 j, auto lanes) {
    using V = typename decltype(lanes)::vector;
    LstmUnit<V> unit = {
        lanes.load(z + j), lanes.load(z + H + j), lanes.load(z + 2 * H + j), lanes.load(z + 3 * H + j), V{}, V{}};
    if (b) {
      unit.i += lanes.load(b + j);
      unit.f += lanes.load(b + H + j);
      unit.g += lanes.load(b + 2 * H + j);
      unit.o += lanes.load(b + 3 * H + j);
    }
    if constexpr (kPlain) {
      lstm_unit(unit, lanes.load(c_before + j));
    } else {
      lstm_unit(unit, lanes.load(c_before + j), lanes.load(h_before + j), options.at(H, place, j, lanes));
    }
    lanes.store(z + j, unit.i);
    lanes.store(z + H + j, unit.f);
    lanes.store(z + 2 * H + j, unit.g);
    lanes.store(z + 3 * H + j, unit.o);
    lanes.store(c + j, unit.c);
    lanes.store(y + j, unit.h);
    if (h) lanes.store(h + j, unit.h);
  });
}

// One row: dz[4H] from dh (+ dy) and dc; dc becomes that of the cell before, dh what goes straight to the output before.
template <bool kPlain>
FASTDL_INLINE void backward_row(i64 H, const Options& options, i64 place, const float* z, const float* c_before,
                                const float* c, const float* dy, float* dh, float* dc, float* dz) {
  for_chains<kPlain>(0, H, [=, &options](i64 j, auto lanes) {
    using V = typename decltype(lanes)::vector;
    LstmUnit<V> unit = {lanes.load(z + j),         lanes.load(z + H + j), lanes.load(z + 2 * H + j),
                        lanes.load(z + 3 * H + j), lanes.load(c + j),     V{}};
    V d = lanes.load(dh + j), dcell = lanes.load(dc + j);
    if (dy) d += lanes.load(dy + j);
    if constexpr (kPlain) {
      lstm_unit_backward(unit, lanes.load(c_before + j), d, dcell);
    } else {
      lanes.store(dh + j, lstm_unit_backward(unit, lanes.load(c_before + j), d, dcell, options.at(H, place, j, lanes)));
    }
    lanes.store(dc + j, dcell);
    lanes.store(dz + j, unit.i);
    lanes.store(dz + H + j, unit.f);
    lanes.store(dz + 2 * H + j, unit.g);
    lanes.store(dz + 3 * H + j, unit.o);
  });
}

template <bool kPlain>
void forward_steps(const Steps& steps, i64 H, const Recurrent& u, const float* b, const Options& options, bool has_h0,
                   const float* first_c, float* h, float* y, float* gates, float* cells) {
  const i64 N = steps.N, G = 4 * H;
  for_sequences(N, [&, N, H, G](i64 begin, i64 end) {
    for (i64 s = 0; s < steps.T; ++s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) break;
      const i64 at = steps.first(s) + begin;
      float* z = gates + at * G;
      const float* before = h + (((s + 1) & 1) * N + begin) * H;
      float* now = h + ((s & 1) * N + begin) * H;
      if (s > 0 || has_h0) multiply(u, rows, before, 1.0f, z, G, s);
      const float* c_before = s > 0 ? cells + (steps.first(s - 1) + begin) * H : first_c + begin * H;
      for (i64 i = 0; i < rows; ++i) {
        const i64 place = steps.place(s, begin + i);
        forward_row<kPlain>(H, b, options, place, c_before + i * H, before + i * H, z + i * G, cells + (at + i) * H,
                            now + i * H, y + place * H);
      }
    }
  });
}

template <bool kPlain>
void backward_steps(const Steps& steps, i64 H, const Recurrent& u, const Options& options, const float* first_c,
                    const float* gates, const float* cells, const float* dy, bool first_wanted, float* dh, float* dc,
                    float* dz) {
  const i64 G = 4 * H;
  for_sequences(steps.N, [&, H, G](i64 begin, i64 end) {
    for (i64 s = steps.T - 1; s >= 0; --s) {
      const i64 rows = smaller(steps.rows(s), end) - begin;
      if (rows <= 0) continue;
      const i64 at = steps.first(s) + begin;
      const float* c_before = s > 0 ? cells + (steps.first(s - 1) + begin) * H : first_c + begin * H;
      for (i64 i = 0; i < rows; ++i) {
        const i64 place = steps.place(s, begin + i), r = begin + i;
        backward_row<kPlain>(H, options, place, gates + (at + i) * G, c_before + i * H, cells + (at + i) * H,
                             dy ? dy + place * H : nullptr, dh + r * H, dc + r * H, dz + (at + i) * G);
      }
      if (s > 0 || first_wanted) multiply(u, rows, dz + at * G, kPlain ? 0.0f : 1.0f, dh + begin * H, H, s);
    }
  });
}

// dp[3,H]: what the gradients of the gates i, f and o sum to with the cells that they look at.
void backward_peepholes(const Steps& steps, i64 H, const Options& options, const float* first_c, const float* gates,
                        const float* cells, const float* dz, float beta, float* dp) {
  parallel_for(H, 64, [=, &steps](i64 j0, i64 j1) {
    for_vectors(j0, j1, [=, &steps](i64 j, auto lanes) {
      vec total[3], sum[3] = {};
      for (int k = 0; k < 3; ++k) total[k] = beta == 0.0f ? vec{} : beta * lanes.load(dp + k * H + j);
      i64 count = 0;
      for (i64 s = 0; s < steps.T; ++s) {
        const float* c_before = s > 0 ? cells + steps.first(s - 1) * H : first_c;
        for (i64 i = 0; i < steps.rows(s); ++i) {
          const i64 at = steps.first(s) + i;
          const float *z = gates + at * 4 * H + j, *d = dz + at * 4 * H + j;
          const vec before = lanes.load(c_before + i * H + j);
          const vec drop = options.drop ? lanes.load(options.drop + steps.place(s, i) * H + j) : splat(1.0f);
          const vec fresh = lanes.load(z + H) * before + lanes.load(z) * (lanes.load(z + 2 * H) * drop);
          sum[0] += lanes.load(d) * before;
          sum[1] += lanes.load(d + H) * before;
          sum[2] += lanes.load(d + 3 * H) * fresh;
          if (++count % kChunk == 0) {
            for (int k = 0; k < 3; ++k) {
              total[k] += sum[k];
              sum[k] = vec{};
            }
          }
        }
      }
      for (int k = 0; k < 3; ++k) lanes.store(dp + k * H + j, total[k] + sum[k]);
    });
  });
}

}  // namespace

i64 lstm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + recurrent_floats(N, T, H, 4 * H) + 3 * N * H;
}

void lstm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                  const float* h0, const float* c0, const int64_t* lengths, const float* p, const float* drop,
                  const float* keep_h, const float* keep_c, int reverse, float* work, float* y, float* hn, float* cn,
                  float* gates, float* cells, void*) {
  const Options options = {p, drop, keep_h, keep_c};
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  const float* xs = pack_steps(steps, I, x, work);
  gemm_strided(steps.total(), 4 * H, I, xs, I, 0, w, 4 * H, 0, 0.0f, gates, 4 * H);
  work += N * T * I;
  const Recurrent recurrent = make_recurrent(N, T, H, 4 * H, u, 0, work);
  float *h = work, *first_c = work + 2 * N * H;
  pack_state(steps, H, h0, h + N * H);
  pack_state(steps, H, c0, first_c);
  (options.any() ? forward_steps<false> : forward_steps<true>)(steps, H, recurrent, b, options, h0, first_c, h, y,
                                                               gates, cells);
  clear_padding(steps, H, y);
  for (i64 i = 0; i < N; ++i) {
    const i64 n = steps.sequence(i), length = steps.length(n);
    const size_t bytes = size_t(H) * sizeof(float);
    memcpy(hn + n * H, h + (((length + 1) & 1) * N + i) * H, bytes);
    memcpy(cn + n * H, length > 0 ? cells + (steps.first(length - 1) + i) * H : first_c + i * H, bytes);
  }
}

i64 lstm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64) {
  return steps_floats(N, T) + N * T * I + N * T * 4 * H + recurrent_floats(N, T, 4 * H, H) + 3 * N * H +
         weight_gradient_floats(N, T, I, H, 4 * H);
}

void lstm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                   const float* c0, const int64_t* lengths, const float* p, const float* drop, const float* keep_h,
                   const float* keep_c, const float* y, const float* gates, const float* cells, const float* dy,
                   const float* dhn, const float* dcn, int reverse, float* work, float* dx, float beta_dx, float* dw,
                   float beta_dw, float* du, float beta_du, float* db, float beta_db, float* dp, float beta_dp,
                   float* dh0, float beta_dh0, float* dc0, float beta_dc0, void*) {
  const i64 G = 4 * H;
  const Options options = {p, drop, keep_h, keep_c};
  const Steps steps = make_steps(N, T, lengths, reverse, work);
  float* rows = work;
  work += N * T * I;
  float* dz = work;
  work += N * T * G;
  const Recurrent recurrent = make_recurrent(N, T, G, H, u, 1, work);
  float *dh = work, *dc = work + N * H, *first_c = work + 2 * N * H;
  pack_state(steps, H, dhn, dh);
  pack_state(steps, H, dcn, dc);
  pack_state(steps, H, c0, first_c);
  (options.any() ? backward_steps<false> : backward_steps<true>)(steps, H, recurrent, options, first_c, gates, cells,
                                                                 dy, dh0, dh, dc, dz);
  if (dh0) unpack_state(steps, H, dh, beta_dh0, dh0);
  if (dc0) unpack_state(steps, H, dc, beta_dc0, dc0);
  const i64 total = steps.total();
  weight_gradients(steps, I, H, G, x, y, nullptr, h0, dz, work + 3 * N * H, {dw, du, db, beta_dw, beta_du, beta_db});
  if (dp) backward_peepholes(steps, H, options, first_c, gates, cells, dz, beta_dp, dp);
  if (dx) {
    float* packed = steps.direct() ? dx : rows;
    gemm_strided(total, I, G, dz, G, 0, w, G, 1, steps.direct() ? beta_dx : 0.0f, packed, I);
    unpack_steps(steps, I, packed, beta_dx, dx);
  }
}

void lstm_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                       const float* u, const float* b, float* y, float* c_new, float* gates, void*) {
  const i64 G = 4 * H;
  gemm_strided(N, G, I, x, I, 0, w, G, 0, 0.0f, gates, G);
  gemm_strided(N, G, H, h, H, 0, u, G, 0, 1.0f, gates, G);
  const Options none = {};
  for_rows(N, 64 * H, [=, &none](i64 n) {
    forward_row<true>(H, b, none, n, c + n * H, nullptr, gates + n * G, c_new + n * H, nullptr, y + n * H);
  });
}

i64 lstm_cell_backward_workspace(i64 N, i64, i64 H) { return N * 6 * H; }

void lstm_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                        const float* u, const float* gates, const float* c_new, const float* dy, const float* dc_new,
                        float* work, float* dx, float beta_dx, float* dh, float beta_dh, float* dc, float beta_dc,
                        float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db, void*) {
  const i64 G = 4 * H;
  float *dz = work, *none = work + N * G, *dcell = none + N * H;
  const Options plain = {};
  copy_or_clear(N * H, nullptr, none);
  copy_or_clear(N * H, dc_new, dcell);
  for_rows(N, 64 * H, [=, &plain](i64 n) {
    backward_row<true>(H, plain, n, gates + n * G, c + n * H, c_new + n * H, dy ? dy + n * H : nullptr, none + n * H,
                       dcell + n * H, dz + n * G);
  });
  const Steps steps = {N, 1, nullptr, nullptr, nullptr, false};
  if (dx) gemm_strided(N, I, G, dz, G, 0, w, G, 1, beta_dx, dx, I);
  if (dh) gemm_strided(N, H, G, dz, G, 0, u, G, 1, beta_dh, dh, H);
  if (dc) unpack_state(steps, H, dcell, beta_dc, dc);
  if (dw) gemm_strided(I, G, N, x, I, 1, dz, G, 0, beta_dw, dw, G);
  if (du) gemm_strided(H, G, N, h, H, 1, dz, G, 0, beta_du, du, G);
  if (db) sum_columns(N, G, dz, beta_db, db);
}

}  // namespace fastdl
