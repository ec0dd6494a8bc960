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

void pack_previous(const Steps& steps, i64 H, const float* h, const float* h0, float* out) {
  for_rows(steps.T, steps.N * H, [=](i64 s) {
    float* to = out + steps.first(s) * H;
    for (i64 i = 0; i < steps.rows(s); ++i) {
      const float* from = s > 0 ? h + steps.place(s - 1, i) * H : h0 ? h0 + steps.sequence(i) * H : nullptr;
      copy_row(to + i * H, from, H);
    }
  });
}

i64 recurrent_floats(i64 N, i64 T, i64 K, i64 G) { return T < 2 ? 0 : N < 3 ? K * G : panel_floats(K, G); }

Recurrent make_recurrent(i64 N, i64 T, i64 K, i64 G, const float* u, int transposed, float*& work) {
  Recurrent r = {K, G, u, transposed ? K : G, transposed, nullptr};
  if (T < 2 || (N < 3 && !transposed)) return r;
  if (N < 3) {
    // One or two sequences: products of vectors with the rows of the transpose, written out once.
    for (i64 k = 0; k < K; ++k) {
      for (i64 g = 0; g < G; ++g) work[k * G + g] = u[g * K + k];
    }
    r.plain = work;
    r.plain_step = G;
    r.transposed = 0;
  } else {
    pack_panels(K, G, u, r.plain_step, transposed, work);
    r.panels = work;
  }
  work += recurrent_floats(N, T, K, G);
  return r;
}

void multiply(const Recurrent& weights, i64 rows, const float* a, float beta, float* c, i64 c_step) {
  const i64 K = weights.K, N = weights.N;
  if (weights.panels) {
    gemm_panels(rows, N, K, a, K, weights.panels, beta, c, c_step);
  } else {
    gemm_strided(rows, N, K, a, K, 0, weights.plain, weights.plain_step, weights.transposed, beta, c, c_step);
  }
}

}  // namespace fastdl
