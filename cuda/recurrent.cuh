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

// ------------------------------------------------------------------------------------------------- whole sequences
// Where u fits into shared memory and the batch is small, one block takes a sequence through all of its steps: nothing but u is
// shared by sequences, so there is no grid to wait for, and a step takes two barriers instead of launches. Sums have the order
// of the products that they stand for, so which way is taken changes no bits; products that tensor cores round stay products.

// Bytes of shared memory: u with rows of G floats and one of padding where G is even (rows and columns are both read by
// neighbouring threads), a state of H, a step of G, and what a kernel has besides.
inline i64 sequence_bytes(i64 H, i64 G, i64 more) { return 4 * (H * (G | 1) + H + G + more + 8); }
// Whether sequences go by blocks.
bool by_sequences(i64 N, i64 H, i64 G, i64 more);
inline unsigned sequence_threads(i64 G) { return static_cast<unsigned>(G >= 512 ? 512 : (G + 31) / 32 * 32); }

struct SequenceMemory {
  float *step, *state, *more, *u;
  int H, G, pitch;
  __device__ __forceinline__ SequenceMemory(i64 H_, i64 G_, i64 more_)
      : step(&shared_memory<float>()), state(step + (G_ + 3) / 4 * 4), more(state + (H_ + 3) / 4 * 4), u(more + more_),
        H(static_cast<int>(H_)), G(static_cast<int>(G_)), pitch(static_cast<int>(G_ | 1)) {}

  // u[H,G] comes in; a barrier has to follow.
  __device__ __forceinline__ void load(const float* from) const {
    for (int k = static_cast<int>(threadIdx.x); k < H * G; k += static_cast<int>(blockDim.x)) u[k / G * pitch + k % G] = from[k];
  }
  // step = state u, a thread a column.
  __device__ __forceinline__ void multiply() const {
    for (int n = static_cast<int>(threadIdx.x); n < G; n += static_cast<int>(blockDim.x)) {
      float total = 0.0f;
      for (int begin = 0; begin < H; begin += kChunk) {
        const int end = H - begin < kChunk ? H : begin + kChunk;
        float sum = 0.0f;
        int k = begin;
#pragma unroll 4
        for (; k + 4 <= end; k += 4) {
          const Floats<4> h = fastdl::load<4>(state + k);  // one access for all threads and four k
#pragma unroll
          for (int l = 0; l < 4; ++l) sum = fma(h.v[l], u[(k + l) * pitch + n], sum);
        }
        for (; k < end; ++k) sum = fma(state[k], u[k * pitch + n], sum);
        total = begin == 0 ? sum : total + sum;
      }
      step[n] = total;
    }
  }
  // state = step u^T + beta state.
  __device__ __forceinline__ void multiply_back(float beta) const {
    for (int k = static_cast<int>(threadIdx.x); k < H; k += static_cast<int>(blockDim.x)) {
      float total = beta == 0.0f ? 0.0f : beta * state[k];
      for (int begin = 0; begin < G; begin += kChunk) {
        const int end = G - begin < kChunk ? G : begin + kChunk;
        float sum = 0.0f;
        int n = begin;
#pragma unroll 4
        for (; n + 4 <= end; n += 4) {
          const Floats<4> d = fastdl::load<4>(step + n);
#pragma unroll
          for (int l = 0; l < 4; ++l) sum = fma(d.v[l], u[k * pitch + n + l], sum);
        }
        for (; n < end; ++n) sum = fma(step[n], u[k * pitch + n], sum);
        total = begin == 0 && beta == 0.0f ? sum : total + sum;
      }
      state[k] = total;
    }
  }
};

// A block takes sequences through all steps: after each product unit(s, i, j) turns m.step, the state's share of it, into
// m.state[j] and writes what the step leaves. h0: null for 0.
template <class Unit>
__device__ __forceinline__ void forward_sequences(const Steps& steps, const SequenceMemory& m, const float* u, const float* h0,
                                                  const Unit& unit) {
  m.load(u);
  for (i64 i = blockIdx.x; i < steps.N; i += gridDim.x) {
    const i64 n = steps.sequence(i), length = steps.length(n);
    for (int j = static_cast<int>(threadIdx.x); j < m.H; j += static_cast<int>(blockDim.x))
      m.state[j] = h0 ? h0[n * m.H + j] : 0.0f;
    __syncthreads();
    for (i64 s = 0; s < length; ++s) {
      m.multiply();
      __syncthreads();
      for (int j = static_cast<int>(threadIdx.x); j < m.H; j += static_cast<int>(blockDim.x)) unit(s, i, j);
      __syncthreads();
    }
  }
}

// And back: unit(s, i, j) turns the gradient of the output, m.state[j], into m.step and what of it goes straight to the output
// before, of which beta is kept when the product is added. dhn: gradients of the last outputs (null: 0); dh[i]: those of the
// first states, without the last product unless first_too. dcn, dc: the same of m.more; dc null: there is none.
template <class Unit>
__device__ __forceinline__ void backward_sequences(const Steps& steps, const SequenceMemory& m, const float* u, int first_too,
                                                   float beta, const float* dhn, float* dh, const float* dcn, float* dc,
                                                   const Unit& unit) {
  m.load(u);
  for (i64 i = blockIdx.x; i < steps.N; i += gridDim.x) {
    const i64 n = steps.sequence(i), length = steps.length(n);
    for (int j = static_cast<int>(threadIdx.x); j < m.H; j += static_cast<int>(blockDim.x)) {
      m.state[j] = length > 0 && dhn ? dhn[n * m.H + j] : 0.0f;
      if (dc) m.more[j] = length > 0 && dcn ? dcn[n * m.H + j] : 0.0f;
    }
    __syncthreads();
    for (i64 s = length - 1; s >= 0; --s) {
      for (int j = static_cast<int>(threadIdx.x); j < m.H; j += static_cast<int>(blockDim.x)) unit(s, i, j);
      __syncthreads();
      if (s > 0 || first_too) m.multiply_back(beta);
      __syncthreads();
    }
    for (int j = static_cast<int>(threadIdx.x); j < m.H; j += static_cast<int>(blockDim.x)) {
      dh[i * m.H + j] = m.state[j];
      if (dc) dc[i * m.H + j] = m.more[j];
    }
    __syncthreads();
  }
}

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
