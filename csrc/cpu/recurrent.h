// What the recurrent layers (lstm.cpp, gru.cpp, rnn.cpp) share: which rows a step has, the packed rows, the product with
// the recurrent weights.
//
//   sequences by length      packed rows: step 0   step 1   step 2  step 3
//     a  . . . .                          a b c d  a b c    a b     a
//     b  . . .
//     c  . .                 The rows of a step are neighbours, a row's predecessor has the same place in the step before,
//     d  .                   and no row stands for padding: every product is one plain matrix product.
//
// docs/kernels/lstm.md derives the passes.
#pragma once
#include "../formulas.h"
#include "../kernels.h"
#include "chains.h"
#include "column_sums.h"
#include "loops.h"

namespace fastdl {

struct Steps {
  int64_t N, T;
  const int64_t *lengths, *order, *begin;  // null: all T, in the order given
  bool reverse;

  int64_t length(int64_t n) const { return lengths ? lengths[n] : T; }
  int64_t sequence(int64_t i) const { return order ? order[i] : i; }   // which one row i of every step belongs to
  int64_t first(int64_t s) const { return begin ? begin[s] : s * N; }  // packed row where step s begins
  int64_t rows(int64_t s) const { return begin ? begin[s + 1] - begin[s] : N; }
  int64_t total() const { return first(T); }
  // Row of [N,T] that row i of step s is.
  int64_t place(int64_t s, int64_t i) const {
    const int64_t n = sequence(i);
    return n * T + (reverse ? length(n) - 1 - s : s);
  }
  // Whether packed rows are the rows of [N,T] as they are.
  bool direct() const { return !order && !reverse && (N == 1 || T == 1); }
};

// Sorts by length; takes steps_floats(N, T) floats from work.
int64_t steps_floats(int64_t N, int64_t T);
Steps make_steps(int64_t N, int64_t T, const int64_t* lengths, bool reverse, float*& work);

// Rows of x[N,T,W] in packed order, in buffer, or x itself where that is the same.
const float* pack_steps(const Steps& steps, int64_t W, const float* x, float* buffer);
// x = packed rows + beta x; 0 + beta x in the padding. packed may be x where steps.direct().
void unpack_steps(const Steps& steps, int64_t W, const float* packed, float beta, float* x);
// y = 0 where there is no step.
void clear_padding(const Steps& steps, int64_t W, float* y);
// out[i] = state[sequence(i)], 0 if state is null; and back with beta.
void pack_state(const Steps& steps, int64_t W, const float* state, float* out);
void unpack_state(const Steps& steps, int64_t W, const float* packed, float beta, float* state);
// What weights and bias have met at every step: rows (x | 1 | h before) of I + 1 + H floats, whose transpose times dz[total,G] is all
// their gradients in one product, for which dz is read and packed once. `states` are h of all steps as packed rows; null: they are
// in y[N,T,H].
void pack_met(const Steps& steps, int64_t I, int64_t H, const float* x, const float* y, const float* states,
              const float* h0, float* rows);
// to = block of [rows,cols] + beta to; nothing where `to` is null.
void put_block(int64_t rows, int64_t cols, const float* block, int64_t block_step, float beta, float* to,
               int64_t to_step);
struct WeightGradients {
  float *dw, *du, *db;
  float beta_dw, beta_du, beta_db;
};
int64_t weight_gradient_floats(int64_t N, int64_t T, int64_t I, int64_t H, int64_t G);
void weight_gradients(const Steps& steps, int64_t I, int64_t H, int64_t G, const float* x, const float* y,
                      const float* states, const float* h0, const float* dz, float* work, const WeightGradients& out);

// The recurrent weights u[H,G], or their transpose, as every step multiplies by them: packed once where several steps meet them.
struct Recurrent {
  int64_t K, N;        // of the product
  const float* plain;  // [K,N] with steps of plain_step, or its transpose
  int64_t plain_step;
  int transposed;
  const float* panels;  // or null
  const float* strips;  // for one or two sequences: as many columns as the sums of a row fit in registers; or null
};
int64_t recurrent_floats(int64_t N, int64_t T, int64_t K, int64_t G);
Recurrent make_recurrent(int64_t N, int64_t T, int64_t K, int64_t G, const float* u, int transposed, float*& work);
// c[rows,N] = a[rows,K] times the weights + beta c. `turn`, odd in every other step, turns the order of strips round: those that
// came last in the step before are still in L1.
void multiply(const Recurrent& weights, int64_t rows, const float* a, float beta, float* c, int64_t c_step,
              int64_t turn = 0);

namespace {

// body(first sequence, last) on parts of the batch that run side by side from the first step to the last: sequences do not
// meet, so threads need no barrier between steps.
template <class F>
inline void for_sequences(i64 N, const F& body) {
  constexpr i64 kLeast = 2 * kTileRows;
  const i64 threads = num_threads();
  const i64 share = threads > 1 ? (N + threads - 1) / threads : N;
  parallel_for(N, share < kLeast ? N : share, [&](i64 begin, i64 end) { body(begin, end); });
}

inline void copy_or_clear(i64 n, const float* from, float* to) {
  if (n == 0) return;  // then `to` may be null
  if (from) {
    memcpy(to, from, size_t(n) * sizeof(float));
  } else {
    memset(to, 0, size_t(n) * sizeof(float));
  }
}

}  // namespace
}  // namespace fastdl
