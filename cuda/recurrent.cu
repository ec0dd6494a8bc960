// Packed rows of sequences on the device: one thread an element of a row.
#include "recurrent.cuh"

namespace fastdl {
namespace {

// One block. A sequence's place is the number of longer ones, and of equal ones before it.
__global__ void order_kernel(i64 N, i64 T, const int64_t* lengths, int64_t* order, int64_t* begin) {
  for (i64 n = threadIdx.x; n < N; n += kThreads) {
    i64 place = 0;
    for (i64 m = 0; m < N; ++m) place += lengths[m] > lengths[n] || (lengths[m] == lengths[n] && m < n);
    order[place] = n;
  }
  for (i64 s = threadIdx.x; s <= T; s += kThreads) {
    i64 rows = 0;  // of all steps before s
    for (i64 n = 0; n < N; ++n) rows += lengths[n] < s ? lengths[n] : s;
    begin[s] = rows;
  }
}

__global__ void pack_kernel(Steps steps, i64 W, const float* x, int before, const float* h0, float* out) {
  for_rows(steps.N * steps.T, W, [=](i64 q, i64 j) {
    const i64 s = q / steps.N, i = q % steps.N;
    if (i < steps.rows(s)) {
      float v = 0.0f;
      if (!before || s > 0) {
        v = x[steps.place(s - before, i) * W + j];
      } else if (h0) {
        v = h0[steps.sequence(i) * W + j];
      }
      out[(steps.first(s) + i) * W + j] = v;
    }
    if (q >= steps.first(steps.T)) out[q * W + j] = 0.0f;
  });
}

__global__ void unpack_kernel(Steps steps, i64 W, const float* packed, float beta, float* x) {
  for_rows(steps.N * steps.T, W, [=](i64 q, i64 j) {
    const i64 s = q / steps.N, i = q % steps.N;
    const bool there = i < steps.rows(s);
    const i64 place = there ? steps.place(s, i) : steps.sequence(i) * steps.T + s;
    put(x + place * W + j, there ? packed[(steps.first(s) + i) * W + j] : 0.0f, beta);
  });
}

__global__ void pack_state_kernel(Steps steps, i64 W, const float* state, float* out) {
  for_rows(steps.N, W, [=](i64 i, i64 j) { out[i * W + j] = state ? state[steps.sequence(i) * W + j] : 0.0f; });
}

__global__ void unpack_state_kernel(Steps steps, i64 W, const float* packed, const float* none, float beta, float* state) {
  for_rows(steps.N, W, [=](i64 i, i64 j) {
    const i64 n = steps.sequence(i), k = n * W + j;
    put(state + k, steps.length(n) > 0 ? packed[i * W + j] : none ? none[k] : 0.0f, beta);
  });
}

__global__ void last_kernel(Steps steps, i64 W, const float* y, int packed, const float* h0, float* hn) {
  for_rows(steps.N, W, [=](i64 i, i64 j) {
    const i64 n = steps.sequence(i), last = steps.length(n) - 1, k = n * W + j;
    const i64 row = last < 0 ? 0 : packed ? steps.first(last) + i : steps.place(last, i);
    hn[k] = last >= 0 ? y[row * W + j] : h0 ? h0[k] : 0.0f;
  });
}

__global__ void clear_kernel(i64 n, float* y) {
  for_elements(n, 0, [=](i64 i, auto) { y[i] = 0.0f; });
}

__global__ void put_kernel(i64 n, const float* x, float beta, float* y) {
  for_elements(n, 0, [=](i64 i, auto) { put(y + i, x[i], beta); });
}

}  // namespace

bool by_sequences(i64 N, i64 H, i64 G, i64 more) {
  if (N > 256 || H == 0 || H > 512 || device_matmul_precision() != kHighest) return false;
  int device = 0, most = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
    return false;
  return sequence_bytes(H, G, more) <= most;
}

Steps make_steps(i64 N, i64 T, const int64_t* lengths, int reverse, Carver& work, void* stream) {
  Steps steps = {N, T, lengths, nullptr, nullptr, reverse};
  if (!lengths) return steps;
  int64_t* order = reinterpret_cast<int64_t*>(work.take(2 * (N + T + 1)));
  int64_t* begin = order + N;
  launch(order_kernel, 1, kThreads, 0, stream, N, T, lengths, order, begin);
  steps.order = order;
  steps.begin = begin;
  return steps;
}

void pack_steps(const Steps& steps, i64 W, const float* x, bool before, const float* h0, float* out, void* stream) {
  const RowGrid g(steps.N * steps.T, W);
  launch(pack_kernel, g.grid, g.block, 0, stream, steps, W, x, before, h0, out);
}
void unpack_steps(const Steps& steps, i64 W, const float* packed, float beta, float* x, void* stream) {
  const RowGrid g(steps.N * steps.T, W);
  launch(unpack_kernel, g.grid, g.block, 0, stream, steps, W, packed, beta, x);
}
void pack_state(const Steps& steps, i64 W, const float* state, float* out, void* stream) {
  const RowGrid g(steps.N, W);
  launch(pack_state_kernel, g.grid, g.block, 0, stream, steps, W, state, out);
}
void unpack_state(const Steps& steps, i64 W, const float* packed, const float* none, float beta, float* state, void* stream) {
  const RowGrid g(steps.N, W);
  launch(unpack_state_kernel, g.grid, g.block, 0, stream, steps, W, packed, none, beta, state);
}
void last_rows(const Steps& steps, i64 W, const float* y, bool packed, const float* h0, float* hn, void* stream) {
  const RowGrid g(steps.N, W);
  launch(last_kernel, g.grid, g.block, 0, stream, steps, W, y, packed, h0, hn);
}
void clear(i64 n, float* y, void* stream) { launch(clear_kernel, element_blocks(n), kThreads, 0, stream, n, y); }
void put_slice(i64 C, const float* total, float beta, float* out, void* stream) {
  launch(put_kernel, element_blocks(C), kThreads, 0, stream, C, total, beta, out);
}

}  // namespace fastdl
