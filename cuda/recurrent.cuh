// What the recurrent layers (lstm.cu, gru.cu, rnn.cu) share: csrc/cpu/recurrent.h on the device. How long the sequences are is
// known there alone, so a step's product has a row for every sequence, and the pass after it, which asks, looks at those that
// have the step; the products over all steps have N T rows, the packed ones first and zeros after them.
#pragma once
#include "gemm.cuh"
#include "loops.cuh"

namespace fastdl {

struct Steps {
  i64 N, T;
  const int64_t* lengths;      // null: all T
  const int64_t *order, *begin;  // on the device; null: as they come
  int reverse;

  __device__ i64 length(i64 n) const { return lengths ? lengths[n] : T; }
  __device__ i64 sequence(i64 i) const { return order ? order[i] : i; }
  __device__ i64 first(i64 s) const { return begin ? begin[s] : s * N; }
  __device__ i64 rows(i64 s) const { return s >= T ? 0 : begin ? begin[s + 1] - begin[s] : N; }
  __device__ i64 place(i64 s, i64 i) const {
    const i64 n = sequence(i);
    return n * T + (reverse ? length(n) - 1 - s : s);
  }
};

// Hands out the caller's scratch by pieces that begin on 16 bytes.
struct Carver {
  float* at;
  explicit Carver(float* work) : at(reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(work) + 15) & ~uintptr_t(15))) {}
  float* take(i64 n) {
    float* p = at;
    at += (n + 3) / 4 * 4;
    return p;
  }
};
inline i64 carved(i64 n) { return (n + 3) / 4 * 4; }
inline i64 steps_floats(i64 N, i64 T) { return 4 + carved(2 * (N + T + 1)); }

Steps make_steps(i64 N, i64 T, const int64_t* lengths, int reverse, Carver& work, void* stream);
// out[N T,W]: rows of x[N,T,W] in packed order, and zeros; with `before`, of the step before each (h0, null: 0, at step 0).
void pack_steps(const Steps& steps, i64 W, const float* x, bool before, const float* h0, float* out, void* stream);
// x = packed rows + beta x, 0 + beta x in the padding.
void unpack_steps(const Steps& steps, i64 W, const float* packed, float beta, float* x, void* stream);
// out[i] = state[sequence(i)], or 0.
void pack_state(const Steps& steps, i64 W, const float* state, float* out, void* stream);
// state[sequence(i)] = (its length > 0 ? packed[i] : none[sequence(i)], 0 if null) + beta state.
void unpack_state(const Steps& steps, i64 W, const float* packed, const float* none, float beta, float* state, void* stream);
// hn: the last row that each sequence has, of y[N,T,W] or of packed rows; h0 (null: 0) where it has none.
void last_rows(const Steps& steps, i64 W, const float* y, bool packed, const float* h0, float* hn, void* stream);
// y = 0 and packed rows = 0 before the steps write what there is.
void clear(i64 n, float* y, void* stream);
// put(out[rows,C], columns [at, at + C) of total[W]).
void put_slice(i64 C, const float* total, float beta, float* out, void* stream);

// Scratch of the gradients of w and u: parts of the products, chunks of the columns' sums, and the sums. A narrower product may
// go in more parts and need more than a wider one, so every width is asked, also those of GRUs alone (G = 4 H): dw of 3 H
// columns, du of 2 H and H.
inline i64 weights_floats(i64 rows, i64 I, i64 H, i64 G) {
  const i64 sizes[6] = {split_workspace(I, G, rows, 1),         split_workspace(H, G, rows, 1),
                        split_workspace(I, G / 4 * 3, rows, 1), split_workspace(H, G / 2, rows, 1),
                        split_workspace(H, G / 4, rows, 1),     column_sums_workspace(rows, G)};
  i64 most = 0;
  for (i64 n : sizes) most = n > most ? n : most;
  return carved(most) + carved(G);
}

}  // namespace fastdl
