// The loops that element-wise kernels, losses, norms and optimisers share: single elements with 128-bit accesses, rows by
// columns, and rows each with a team of threads that adds up over it.
#pragma once
#include "formulas.h"
#include "warp.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 256;  // of a block, where nothing else is said

// W neighbouring floats of one thread: with W = 4 (all addresses then aligned to 16) a single access.
template <int W>
struct Floats {
  float v[W];
};
template <int W>
__device__ __forceinline__ Floats<W> load(const float* p) {
  Floats<W> r;
  if constexpr (W == 4) {
    const float4 q = *reinterpret_cast<const float4*>(p);
    r.v[0] = q.x;
    r.v[1] = q.y;
    r.v[2] = q.z;
    r.v[3] = q.w;
  } else {
    r.v[0] = *p;
  }
  return r;
}
template <int W>
__device__ __forceinline__ void store(float* p, const Floats<W>& r) {
  if constexpr (W == 4) {
    *reinterpret_cast<float4*>(p) = make_float4(r.v[0], r.v[1], r.v[2], r.v[3]);
  } else {
    *p = r.v[0];
  }
}
// buffer = new + beta * buffer; beta == 0 never reads the buffer.
template <int W>
__device__ __forceinline__ void put(float* p, Floats<W> r, float beta) {
  if (beta != 0.0f) {
    const Floats<W> held = load<W>(p);
#pragma unroll
    for (int k = 0; k < W; ++k) r.v[k] = r.v[k] + beta * held.v[k];
  }
  store(p, r);
}
__device__ __forceinline__ void put(float* p, float v, float beta) { *p = beta == 0.0f ? v : v + beta * *p; }

template <int W, class F>
__device__ __forceinline__ Floats<W> each(Floats<W> a, const F& f) {
#pragma unroll
  for (int k = 0; k < W; ++k) a.v[k] = f(a.v[k]);
  return a;
}
template <int W, class F>
__device__ __forceinline__ Floats<W> each(Floats<W> a, const Floats<W>& b, const F& f) {
#pragma unroll
  for (int k = 0; k < W; ++k) a.v[k] = f(a.v[k], b.v[k]);
  return a;
}

// Whether all of these arrays (null ones count for nothing) begin at a multiple of 16 bytes.
template <class... T>
bool aligned(const T*... p) {
  return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...);
}

// ------------------------------------------------------------------------------------------------ elements
// f(i, Width<W>) for all elements [0, n): quads, and the last few (all, if not aligned) one by one.

template <int W>
struct Width {
  static constexpr int value = W;
};

inline unsigned element_blocks(i64 n) { return blocks_for(n, 4 * kThreads); }

template <class F>
__device__ __forceinline__ void for_elements(i64 n, int quads_allowed, const F& f) {
  const i64 first = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 stride = static_cast<i64>(gridDim.x) * blockDim.x;
  const i64 quads = quads_allowed ? n / 4 : 0;
  for (i64 q = first; q < quads; q += stride) f(4 * q, Width<4>{});
  for (i64 i = 4 * quads + first; i < n; i += stride) f(i, Width<1>{});
}

// ---------------------------------------------------------------------------------------------------- rows
// f(row, column) for `rows` rows of `width` columns: threads along x take neighbouring columns, a thread keeps its column.

struct RowGrid {
  dim3 grid, block;
  RowGrid(i64 rows, i64 width) : grid(0, 0, 1), block(1, 1, 1) {
    while (block.x < kThreads && static_cast<i64>(block.x) < width) block.x *= 2;
    block.y = kThreads / block.x;
    const i64 high = (rows + block.y - 1) / block.y;
    grid.x = static_cast<unsigned>((width + block.x - 1) / block.x);
    grid.y = static_cast<unsigned>(high < 65535 ? high : 65535);
  }
};

template <class F>
__device__ __forceinline__ void for_rows(i64 rows, i64 width, const F& f) {
  const i64 column = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const i64 stride = static_cast<i64>(gridDim.y) * blockDim.y;
  for (i64 r = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; r < rows; r += stride) f(r, column);
}

// --------------------------------------------------------------------------------------------------- teams
// Rows that are added up: a warp each, or a block each where rows are long. Which of them is for the row's length alone to
// say, and the order of its sums with it.

constexpr i64 kLongRow = 1024;

struct TeamScratch {
  float sums[kThreads / 32];
};

template <int T>  // threads of a team: 32 or kThreads
struct Team {
  static_assert(T == 32 || T == kThreads, "a warp or a block");
  i64 row, stride;
  int lane;
  __device__ __forceinline__ Team()
      : row((static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / T),
        stride(static_cast<i64>(gridDim.x) * (kThreads / T)),
        lane(static_cast<int>(threadIdx.x) % T) {}
  __device__ __forceinline__ float sum(float x) const {
    if constexpr (T == 32) return warp_sum(x);
    return block_sum<T>(x, shared_memory<TeamScratch>().sums);
  }
  __device__ __forceinline__ float max(float x) const {
    if constexpr (T == 32) return warp_max(x);
    return block_max<T>(x, shared_memory<TeamScratch>().sums);
  }
};

// Launches kernel_of_warps or kernel_of_blocks, two instances of one kernel, for n rows of C.
template <class... P, class... A>
void launch_teams(void (*kernel_of_warps)(P...), void (*kernel_of_blocks)(P...), i64 n, i64 C, void* stream, A... args) {
  const bool blocks = C > kLongRow;
  launch(blocks ? kernel_of_blocks : kernel_of_warps, blocks_for(n, blocks ? 1 : kThreads / 32), kThreads,
         blocks ? sizeof(TeamScratch) : 0, stream, args...);
}

// ---------------------------------------------------------------------------------------------------- sums
// A sum over all elements: slices, one a block, each to a float of scratch, then one block adds those. How many slices there
// are depends on n alone.

inline i64 sum_slices(i64 n) { return blocks_for(n, 16 * kThreads, 1024); }

// Sum over the block's threads, who come with their part of it; the same in all of them.
__device__ __forceinline__ float sum_of_block(float x) { return block_sum<kThreads>(x, shared_memory<TeamScratch>().sums); }

// Sum of piece(i) over the block's slice of [0, n): every thread's part of it.
template <class F>
__device__ __forceinline__ float sum_of_slice(i64 n, const F& piece) {
  float s = 0.0f;
  for (i64 i = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += static_cast<i64>(gridDim.x) * kThreads)
    s += piece(i);
  return s;
}
// The sum of `count` floats, by one block.
__device__ __forceinline__ float sum_of_parts(i64 count, const float* part) {
  float s = 0.0f;
  for (i64 i = threadIdx.x; i < count; i += kThreads) s += part[i];
  return sum_of_block(s);
}

}  // namespace

// y[C] = x[0] + x[1] + ... + x[rows - 1], one after another, + beta y. rows >= 1.
void add_rows(i64 rows, i64 C, const float* x, float beta, float* y, void* stream);
// y[0] = sum of x^2, or its root. work: sum_squares_workspace(n) floats.
void sum_of_squares(i64 n, const float* x, int root, float* work, float* y, void* stream);

}  // namespace fastdl
