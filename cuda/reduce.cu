// Reductions over the middle axis of [A,B,C], places of the largest, sums of squares.
//
//   C > 1:   a block takes 32 columns; threads along y take chunks of 256 rows, whose sums are added in order:
//
//                         32 columns
//              y = 0   rows    0 ..  255   --> part[0]
//              y = 1   rows  256 ..  511   --> part[1]     total = ((total + part[0]) + part[1]) + ...
//                ...
//   C == 1:  a lane takes a chunk of 256 floats of a row; the warp reads the chunks of its 32 lanes together, 32 x 32 floats at a
//            time, and transposes them in shared memory.
//
// Both are the order, and so the rounding, of the CPU's kernel.
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kColumns = 32, kChunksAtOnce = 8;
constexpr i64 kSumChunk = 256;

__device__ __forceinline__ float first_of(int op) {
  return op == kMax ? -__builtin_inff() : op == kMin ? __builtin_inff() : 0.0f;
}
__device__ __forceinline__ float take(float a, float b, int op) {
  return op == kMax ? max_or_nan(a, b) : op == kMin ? min_or_nan(a, b) : a + b;
}

struct ColumnParts {
  float part[kChunksAtOnce][kColumns];
};

// Grid: groups of columns along x, A along y.
__global__ void reduce_columns_kernel(i64 A, i64 B, i64 C, const float* x, int op, float* y) {
  ColumnParts& s = shared_memory<ColumnParts>();
  const i64 c = static_cast<i64>(blockIdx.x) * kColumns + threadIdx.x;
  for (i64 a = blockIdx.y; a < A; a += gridDim.y) {
    const float* column = x + a * B * C + c;
    float total = first_of(op);
    for (i64 begin = 0; begin < B; begin += kChunksAtOnce * kSumChunk) {
      const i64 from = begin + threadIdx.y * kSumChunk, to = from + kSumChunk < B ? from + kSumChunk : B;
      float part = first_of(op);
      if (c < C) {
        for (i64 b = from; b < to; ++b) part = take(part, column[b * C], op);
      }
      s.part[threadIdx.y][threadIdx.x] = part;
      __syncthreads();
      if (threadIdx.y == 0) {
        for (int k = 0; k < kChunksAtOnce && begin + k * kSumChunk < B; ++k) total = take(total, s.part[k][threadIdx.x], op);
      }
      __syncthreads();
    }
    if (threadIdx.y == 0 && c < C) y[a * C + c] = op == kMean ? total / static_cast<float>(B) : total;
  }
}

struct RowTiles {
  float tile[kThreads / 32][32][33];  // one a warp; 33: neither reads nor writes meet in a bank
  float part[kThreads];
};

// Each lane's reduction of its own `step` (at most kSumChunk) floats from x[begin + lane step] on, those before x[limit], in
// order. The warp reads them 32 neighbours at a time and hands them over through its tile.
__device__ __forceinline__ float reduce_chunks(float (&tile)[32][33], const float* x, i64 begin, i64 step, i64 limit, int op) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const i64 left = limit - (begin + lane * step), mine = left < step ? left : step;
  float r = first_of(op);
  for (i64 at = 0; at < step; at += 32) {
#pragma unroll 8
    for (int k = 0; k < 32; ++k) {
      const i64 i = at + lane, from = begin + k * step + i;
      tile[k][lane] = i < step && from < limit ? x[from] : 0.0f;
    }
    __syncwarp();
    for (int k = 0; k < 32 && at + k < mine; ++k) r = take(r, tile[lane][k], op);
    __syncwarp();
  }
  return r;
}

// Rows of at most kSumChunk, a lane each.
__global__ void reduce_short_rows_kernel(i64 A, i64 B, const float* x, int op, float* y) {
  RowTiles& s = shared_memory<RowTiles>();
  const Team<32> warp;
  for (i64 a = warp.row * 32; a < A; a += warp.stride * 32) {
    const float r = take(first_of(op), reduce_chunks(s.tile[threadIdx.x / 32], x, a * B, B, A * B, op), op);
    if (a + warp.lane < A) y[a + warp.lane] = op == kMean ? r / static_cast<float>(B) : r;
  }
}

// A block a row: chunks side by side, then added in order.
__global__ void reduce_long_rows_kernel(i64 A, i64 B, const float* x, int op, float* y) {
  RowTiles& s = shared_memory<RowTiles>();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (i64 a = blockIdx.x; a < A; a += gridDim.x) {
    float total = first_of(op);
    for (i64 begin = 0; begin < B; begin += kThreads * kSumChunk) {
      const i64 from = begin + warp * 32 * kSumChunk;
      if (from < B) s.part[threadIdx.x] = reduce_chunks(s.tile[warp], x + a * B, from, kSumChunk, B, op);
      __syncthreads();
      for (int k = 0; k < kThreads && begin + k * kSumChunk < B; ++k) total = take(total, s.part[k], op);
      __syncthreads();
    }
    if (threadIdx.x == 0) y[a] = op == kMean ? total / static_cast<float>(B) : total;
  }
}

__global__ void spread_kernel(i64 rows, i64 B, i64 C, const float* dy, float count, float* dx, float beta) {
  for_rows(rows, C, [=](i64 r, i64 c) { put(dx + r * C + c, dy[r / B * C + c] / count, beta); });
}

// The same for C == 1: rows of B.
__global__ void spread_rows_kernel(i64 A, i64 B, const float* dy, float count, float* dx, float beta) {
  for_rows(A, B, [=](i64 a, i64 b) { put(dx + a * B + b, dy[a] / count, beta); });
}

__device__ __forceinline__ bool same(float a, float b) { return a == b || (a != a && b != b); }

__global__ void spread_to_first_kernel(i64 A, i64 B, i64 C, const float* x, const float* y, const float* dy, float* dx,
                                       float beta) {
  for_rows(A, C, [=](i64 a, i64 c) {
    const float held = y[a * C + c], d = dy[a * C + c];
    bool given = false;
    for (i64 b = 0; b < B; ++b) {
      const i64 at = (a * B + b) * C + c;
      const bool here = !given && same(x[at], held);
      put(dx + at, here ? d : 0.0f, beta);
      given = given || here;
    }
  });
}

// C == 1: a warp a row; the first lane that holds y in the first 32 that have one.
__global__ void spread_to_first_rows_kernel(i64 A, i64 B, const float* x, const float* y, const float* dy, float* dx,
                                            float beta) {
  const Team<32> team;
  for (i64 a = team.row; a < A; a += team.stride) {
    const float held = y[a], d = dy[a];
    bool given = false;
    for (i64 begin = 0; begin < B; begin += 32) {
      const i64 b = begin + team.lane, at = a * B + b;
      const unsigned holders = __ballot_sync(kFullWarp, b < B && same(x[b < B ? at : a * B], held));
      const bool here = !given && holders != 0 && __ffs(static_cast<int>(holders)) - 1 == team.lane;
      if (b < B) put(dx + at, here ? d : 0.0f, beta);
      given = given || holders != 0;
    }
  }
}

// Whether b is larger than a, a NaN being largest.
__device__ __forceinline__ bool larger(float b, float a) { return b > a || (b != b && a == a); }

__global__ void argmax_kernel(i64 A, i64 B, i64 C, const float* x, int64_t* index) {
  for_rows(A, C, [=](i64 a, i64 c) {
    const float* column = x + a * B * C + c;
    i64 best = 0;
    float held = column[0];
    for (i64 b = 1; b < B; ++b) {
      const float here = column[b * C];
      if (!larger(here, held)) continue;
      best = b;
      held = here;
    }
    index[a * C + c] = best;
  });
}

// C == 1: each lane keeps the first largest of its own, then the lanes find the first of all.
__global__ void argmax_rows_kernel(i64 A, i64 B, const float* x, int64_t* index) {
  const Team<32> team;
  for (i64 a = team.row; a < A; a += team.stride) {
    const float* row = x + a * B;
    long long best = team.lane < B ? team.lane : 0;
    float held = row[best];
    for (i64 b = best + 32; b < B; b += 32) {
      const float here = row[b];
      if (!larger(here, held)) continue;
      best = b;
      held = here;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, held, step);
      const long long place = __shfl_xor_sync(kFullWarp, best, step);
      if (larger(other, held) || (same(other, held) && place < best)) {
        held = other;
        best = place;
      }
    }
    if (team.lane == 0) index[a] = best;
  }
}

__global__ void squares_kernel(i64 n, const float* x, float* part) {
  const float s = sum_of_block(sum_of_slice(n, [=](i64 i) { return x[i] * x[i]; }));
  if (threadIdx.x == 0) part[blockIdx.x] = s;
}

__global__ void sum_kernel(i64 count, const float* part, int root, float* y) {
  const float s = sum_of_parts(count, part);
  if (threadIdx.x == 0) y[0] = root ? square_root(s) : s;
}

}  // namespace

void reduce_forward(i64 A, i64 B, i64 C, const float* x, int op, float* y, void* stream) {
  if (C == 1) {
    const bool one_chunk = B <= kSumChunk;
    launch(one_chunk ? reduce_short_rows_kernel : reduce_long_rows_kernel, blocks_for(A, one_chunk ? kThreads : 1), kThreads,
           sizeof(RowTiles), stream, A, B, x, op, y);
    return;
  }
  const dim3 grid(static_cast<unsigned>((C + kColumns - 1) / kColumns), static_cast<unsigned>(A < 65535 ? A : 65535));
  launch(reduce_columns_kernel, grid, dim3(kColumns, kChunksAtOnce), sizeof(ColumnParts), stream, A, B, C, x, op, y);
}

void reduce_backward(i64 A, i64 B, i64 C, const float* x, const float* y, const float* dy, int op, float* dx, float beta,
                     void* stream) {
  if (op == kSum || op == kMean) {
    const float count = op == kMean ? static_cast<float>(B) : 1.0f;
    const RowGrid g(C == 1 ? A : A * B, C == 1 ? B : C);
    if (C == 1) {
      launch(spread_rows_kernel, g.grid, g.block, 0, stream, A, B, dy, count, dx, beta);
    } else {
      launch(spread_kernel, g.grid, g.block, 0, stream, A * B, B, C, dy, count, dx, beta);
    }
  } else if (C == 1) {
    launch(spread_to_first_rows_kernel, blocks_for(A, kThreads / 32), kThreads, 0, stream, A, B, x, y, dy, dx, beta);
  } else {
    const RowGrid g(A, C);
    launch(spread_to_first_kernel, g.grid, g.block, 0, stream, A, B, C, x, y, dy, dx, beta);
  }
}

void argmax(i64 A, i64 B, i64 C, const float* x, int64_t* index, void* stream) {
  if (C == 1) {
    launch(argmax_rows_kernel, blocks_for(A, kThreads / 32), kThreads, 0, stream, A, B, x, index);
  } else {
    const RowGrid g(A, C);
    launch(argmax_kernel, g.grid, g.block, 0, stream, A, B, C, x, index);
  }
}

i64 sum_squares_workspace(i64 n) { return sum_slices(n); }

void sum_of_squares(i64 n, const float* x, int root, float* work, float* y, void* stream) {
  const i64 slices = sum_slices(n);
  launch(squares_kernel, static_cast<unsigned>(slices), kThreads, sizeof(TeamScratch), stream, n, x, work);
  launch(sum_kernel, 1u, kThreads, sizeof(TeamScratch), stream, slices, work, root, y);
}

void sum_squares(i64 n, const float* x, float* work, float* y, void* stream) {
  sum_of_squares(n, x, 0, work, y, stream);
}

}  // namespace fastdl
