// Packed rows of sequences, and the recurrent product: recurrent.h says what they are.
#include "recurrent.h"

namespace fastdl {

i64 steps_floats(i64 N, i64 T) { return 2 * (N + 2 * T + 4); }

Steps make_steps(i64 N, i64 T, const i64* lengths, bool reverse, float*& work) {
  Steps steps = {N, T, nullptr, nullptr, nullptr, reverse};
  if (!lengths) return steps;
  bool full = true;
  for (i64 n = 0; n < N; ++n) full = full && lengths[n] == T;
  if (full) return steps;
  // 64-bit numbers in the caller's floats: the border's memory begins on 16 bytes, the caller's may begin on 4.
  i64* order = reinterpret_cast<i64*>((reinterpret_cast<uintptr_t>(work) + 7) & ~uintptr_t(7));
  i64 *begin = order + N, *next = begin + T + 1;
  work += steps_floats(N, T);
  for (i64 s = 0; s <= T; ++s) begin[s] = next[s] = 0;
  for (i64 n = 0; n < N; ++n) ++next[lengths[n]];
  // next[l]: how many are longer than l, which is where those of length l go, and how many rows step l has.
  i64 longer = 0;
  for (i64 l = T; l >= 0; --l) {
    const i64 here = next[l];
    next[l] = longer;
    longer += here;
  }
  for (i64 s = 0; s < T; ++s) begin[s + 1] = begin[s] + next[s];
  for (i64 n = 0; n < N; ++n) order[next[lengths[n]]++] = n;
  steps.lengths = lengths;
  steps.order = order;
  steps.begin = begin;
  return steps;
}

namespace {
void copy_row(float* to, const float* from, i64 W) {
  if (from) {
    memcpy(to, from, size_t(W) * sizeof(float));
  } else {
    memset(to, 0, size_t(W) * sizeof(float));
  }
}
void add_row(float* to, const float* from, float beta, i64 W) {
  if (beta == 0.0f) return copy_row(to, from, W);
  for_vectors(0, W, [=](i64 j, auto lanes) {
    const vec old = beta * lanes.load(to + j);
    lanes.store(to + j, from ? lanes.load(from + j) + old : old);
  });
}
}  // namespace

const float* pack_steps(const Steps& steps, i64 W, const float* x, float* buffer) {
  if (steps.direct()) return x;
  for_rows(steps.T, steps.N * W, [=](i64 s) {
    float* to = buffer + steps.first(s) * W;
    for (i64 i = 0; i < steps.rows(s); ++i) copy_row(to + i * W, x + steps.place(s, i) * W, W);
  });
  return buffer;
}

void unpack_steps(const Steps& steps, i64 W, const float* packed, float beta, float* x) {
  if (packed == x) return;
  for_rows(steps.T, steps.N * W, [=](i64 s) {
    const i64 rows = steps.rows(s);
    const float* from = packed + steps.first(s) * W;
    for (i64 i = 0; i < rows; ++i) add_row(x + steps.place(s, i) * W, from + i * W, beta, W);
    // Sequences without a step s: their row s is padding.
    for (i64 i = rows; i < steps.N; ++i) add_row(x + (steps.sequence(i) * steps.T + s) * W, nullptr, beta, W);
  });
}

void clear_padding(const Steps& steps, i64 W, float* y) {
  if (!steps.lengths) return;
  for (i64 n = 0; n < steps.N; ++n) {
    const i64 length = steps.lengths[n];
    memset(y + (n * steps.T + length) * W, 0, size_t((steps.T - length) * W) * sizeof(float));
  }
}

void pack_state(const Steps& steps, i64 W, const float* state, float* out) {
  for (i64 i = 0; i < steps.N; ++i) copy_row(out + i * W, state ? state + steps.sequence(i) * W : nullptr, W);
}

void unpack_state(const Steps& steps, i64 W, const float* packed, float beta, float* state) {
  for (i64 i = 0; i < steps.N; ++i) add_row(state + steps.sequence(i) * W, packed + i * W, beta, W);
}

void pack_met(const Steps& steps, i64 I, i64 H, const float* x, const float* y, const float* states, const float* h0,
              float* rows) {
  const i64 width = I + 1 + H;
  for_rows(steps.T, steps.N * width, [=](i64 s) {
    float* row = rows + steps.first(s) * width;
    for (i64 i = 0; i < steps.rows(s); ++i, row += width) {
      const float* h = s == 0   ? (h0 ? h0 + steps.sequence(i) * H : nullptr)
                       : states ? states + (steps.first(s - 1) + i) * H
                                : y + steps.place(s - 1, i) * H;
      copy_row(row, x + steps.place(s, i) * I, I);
      row[I] = 1.0f;
      copy_row(row + I + 1, h, H);
    }
  });
}

void put_block(i64 rows, i64 cols, const float* block, i64 block_step, float beta, float* to, i64 to_step) {
  if (!to) return;
  for_rows(rows, cols, [=](i64 i) { add_row(to + i * to_step, block + i * block_step, beta, cols); });
}

i64 weight_gradient_floats(i64 N, i64 T, i64 I, i64 H, i64 G) { return (N * T + G) * (I + 1 + H); }

void weight_gradients(const Steps& steps, i64 I, i64 H, i64 G, const float* x, const float* y, const float* states,
                      const float* h0, const float* dz, float* work, const WeightGradients& out) {
  if (!out.dw && !out.du && !out.db) return;
  const i64 width = I + 1 + H, total = steps.total();
  float *rows = work, *sums = work + total * width;
  pack_met(steps, I, H, x, y, states, h0, rows);
  gemm_strided(width, G, total, rows, width, 1, dz, G, 0, 0.0f, sums, G);
  put_block(I, G, sums, G, out.beta_dw, out.dw, G);
  put_block(1, G, sums + I * G, G, out.beta_db, out.db, G);
  put_block(H, G, sums + (I + 1) * G, G, out.beta_du, out.du, G);
}

namespace {

// Columns that gemm_row_sums keeps the sums of in registers.
constexpr i64 kStrip = (kLanes == 16 ? 4 : 8) * kLanes;

void multiply_strips(const Recurrent& weights, i64 rows, const float* a, float beta, float* c, i64 c_step, i64 turn) {
  const i64 K = weights.K, N = weights.N, count = (N + kStrip - 1) / kStrip;
  parallel_for(count, 500000 / (rows * K * kStrip) + 1, [=, &weights](i64 begin, i64 end) {
    float sums[2 * kStrip], pairs[2 * kChunk];
    for (i64 i = begin; i < end; ++i) {
      const i64 n = (turn % 2 == 0 ? i : begin + end - 1 - i) * kStrip, cols = smaller(kStrip, N - n);
      for (i64 k0 = 0; k0 < K; k0 += kChunk) {
        const i64 depth = smaller(kChunk, K - k0);
        if (rows == 2) {
          for (i64 k = 0; k < depth; ++k) {
            pairs[2 * k] = a[k0 + k];
            pairs[2 * k + 1] = a[K + k0 + k];
          }
        }
        gemm_row_sums(int(rows), rows == 2 ? pairs : a + k0, rows, depth, weights.strips + n * K + k0 * kStrip, kStrip,
                      kStrip, sums, kStrip);
        for (i64 r = 0; r < rows; ++r) add_row(c + r * c_step + n, sums + r * kStrip, k0 == 0 ? beta : 1.0f, cols);
      }
    }
  });
}

}  // namespace

i64 recurrent_floats(i64 N, i64 T, i64 K, i64 G) {
  if (T < 2) return 0;
  return N < 3 ? (G + kStrip - 1) / kStrip * kStrip * K : panel_floats(K, G);
}

Recurrent make_recurrent(i64 N, i64 T, i64 K, i64 G, const float* u, int transposed, float*& work) {
  Recurrent r = {K, G, u, transposed ? K : G, transposed, nullptr, nullptr};
  if (T < 2) return r;
  if (N < 3) {
    for (i64 n = 0; n < G; n += kStrip) {
      const i64 cols = smaller(kStrip, G - n);
      if (transposed) {
        pack_transposed<kStrip>(u + n * K, K, cols, K, work + n * K);
      } else {
        pack_copied<kStrip>(u + n, G, cols, K, work + n * K);
      }
    }
    r.strips = work;
  } else {
    pack_panels(K, G, u, r.plain_step, transposed, work);
    r.panels = work;
  }
  work += recurrent_floats(N, T, K, G);
  return r;
}

void multiply(const Recurrent& weights, i64 rows, const float* a, float beta, float* c, i64 c_step, i64 turn) {
  const i64 K = weights.K, N = weights.N;
  if (weights.panels) {
    gemm_panels(rows, N, K, a, K, weights.panels, beta, c, c_step);
  } else if (weights.strips && K > 0) {
    multiply_strips(weights, rows, a, beta, c, c_step, turn);
  } else {
    gemm_strided(rows, N, K, a, K, 0, weights.plain, weights.plain_step, weights.transposed, beta, c, c_step);
  }
}

}  // namespace fastdl
