// Reductions over the middle axis of [A,B,C], places of the largest, sums of squares.
//
// B is cut into chunks of 256, the chunks' results into chunks of 256 again, until one is left: the order, and so the rounding,
// of the CPU's kernel. A launch takes x[A,B,C] to [A,B/256,C], so that few outputs fill a GPU too; scratch holds what is between.
//
//   C > 1:   a thread a chunk of a column, neighbours along the columns
//   C == 1:  a lane a chunk of a row; the warp reads the chunks of its 32 lanes together, 32 x 32 floats at a time, and transposes
//            them in shared memory
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr i64 kSumChunk = 256;

__device__ __forceinline__ float first_of(int op) {
  return op == kMax ? -__builtin_inff() : op == kMin ? __builtin_inff() : 0.0f;
}
__device__ __forceinline__ float take(float a, float b, int op) {
  return op == kMax ? max_or_nan(a, b) : op == kMin ? min_or_nan(a, b) : a + b;
}

i64 sum_chunks_of(i64 B) { return B > kSumChunk ? (B + kSumChunk - 1) / kSumChunk : 1; }

// y[A,chunks,C]; `count` divides it. Blocks: columns along x, chunks along y, A along z.
__global__ void __launch_bounds__(kThreads)
    reduce_columns_kernel(i64 A, i64 B, i64 C, i64 chunks, const float* x, int op, float count, float* y) {
  const i64 c = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  for (i64 a = blockIdx.z; a < A; a += gridDim.z) {
    for (i64 chunk = blockIdx.y * blockDim.y + threadIdx.y; chunk < chunks; chunk += gridDim.y * blockDim.y) {
      const i64 begin = chunk * kSumChunk, end = begin + kSumChunk < B ? begin + kSumChunk : B;
      const float* p = x + (a * B + begin) * C + c;
      float r = first_of(op);
      i64 left = end - begin;
      for (; left >= 16; left -= 16, p += 16 * C) {
        float v[16];
#pragma unroll
        for (int k = 0; k < 16; ++k) v[k] = p[k * C];
#pragma unroll
        for (int k = 0; k < 16; ++k) r = take(r, v[k], op);
      }
      for (; left > 0; --left, p += C) r = take(r, *p, op);
      r = take(first_of(op), r, op);
      y[(a * chunks + chunk) * C + c] = op == kMean ? r / count : r;
    }
  }
}

struct RowTiles {
  float tile[kThreads / 32][32][33];  // one a warp; 33: neither reads nor writes meet in a bank
};

// y[A,chunks], a lane each; `count` divides it. A warp's 32 chunks may be of several rows.
__global__ void __launch_bounds__(kThreads)
    reduce_rows_kernel(i64 A, i64 B, i64 chunks, const float* x, int op, float count, float* y) {
  const Team<32> warp;
  float(&tile)[32][33] = shared_memory<RowTiles>().tile[threadIdx.x / 32];
  for (i64 first = warp.row * 32; first < A * chunks; first += warp.stride * 32) {
    const i64 mine = first + warp.lane, a = mine / chunks, at = (mine - a * chunks) * kSumChunk;
    const int size = mine >= A * chunks ? 0 : static_cast<int>(B - at < kSumChunk ? B - at : kSumChunk);
    const long long begin = a * B + at;
    float r = first_of(op);
    const int longest = static_cast<int>(B < kSumChunk ? B : kSumChunk);
    for (int part = 0; part < longest; part += 32) {
      float v[32];
#pragma unroll
      for (int k = 0; k < 32; ++k) {
        const i64 from = __shfl_sync(kFullWarp, begin, k);
        const int left = __shfl_sync(kFullWarp, size, k) - part;
        v[k] = warp.lane < left ? x[from + part + warp.lane] : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < 32; ++k) tile[k][warp.lane] = v[k];
      __syncwarp();
      if (size - part >= 32) {
#pragma unroll
        for (int k = 0; k < 32; ++k) r = take(r, tile[warp.lane][k], op);
      } else {
        for (int k = 0; k < size - part; ++k) r = take(r, tile[warp.lane][k], op);
      }
      __syncwarp();
    }
    r = take(first_of(op), r, op);
    if (mine < A * chunks) y[mine] = op == kMean ? r / count : r;
  }
}

void reduce_chunks(i64 A, i64 B, i64 C, const float* x, int op, float count, float* y, void* stream) {
  const i64 chunks = sum_chunks_of(B);
  if (C == 1) {
    launch(reduce_rows_kernel, blocks_for(A * chunks, kThreads), kThreads, sizeof(RowTiles), stream, A, B, chunks, x, op, count,
           y);
    return;
  }
  const RowGrid g(chunks, C);
  const dim3 grid(g.grid.x, g.grid.y, static_cast<unsigned>(A < 65535 ? A : 65535));
  launch(reduce_columns_kernel, grid, g.block, 0, stream, A, B, C, chunks, x, op, count, y);
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

constexpr int kRowsAtOnce = 128, kLines = kThreads / 32;
struct RowsOfColumns {
  float tile[kRowsAtOnce][32];
};

// 32 columns a block: all of it fetches rows, its first warp adds them.
__global__ void __launch_bounds__(kThreads) add_rows_kernel(i64 rows, i64 C, const float* x, float beta, float* y) {
  RowsOfColumns& s = shared_memory<RowsOfColumns>();
  const i64 c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x;
  float sum = 0.0f;
  for (i64 begin = 0; begin < rows; begin += kRowsAtOnce) {
#pragma unroll
    for (int k = 0; k < kRowsAtOnce / kLines; ++k) {
      const int line = k * kLines + static_cast<int>(threadIdx.y);
      s.tile[line][threadIdx.x] = c < C && begin + line < rows ? x[(begin + line) * C + c] : 0.0f;
    }
    __syncthreads();
    if (threadIdx.y == 0 && c < C) {
      const int here = static_cast<int>(rows - begin < kRowsAtOnce ? rows - begin : kRowsAtOnce);
      int k = 0;
      if (begin == 0) {
        sum = beta == 0.0f ? s.tile[0][threadIdx.x] : beta * y[c] + s.tile[0][threadIdx.x];
        k = 1;
      }
#pragma unroll 8
      for (; k < here; ++k) sum += s.tile[k][threadIdx.x];
    }
    __syncthreads();
  }
  if (threadIdx.y == 0 && c < C) y[c] = sum;
}

// Of one slice, y is the result.
__global__ void squares_kernel(i64 n, const float* x, float* part, int root, float* y) {
  const float s = sum_of_block(sum_of_slice(n, [=](i64 i) { return x[i] * x[i]; }));
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    y[0] = root ? square_root(s) : s;
  } else {
    part[blockIdx.x] = s;
  }
}

__global__ void sum_kernel(i64 count, const float* part, int root, float* y) {
  const float s = sum_of_parts(count, part);
  if (threadIdx.x == 0) y[0] = root ? square_root(s) : s;
}

}  // namespace

// Results of chunks, and behind them those of chunks of chunks: no more than a 256th of the former.
i64 reduce_forward_workspace(i64 A, i64 B, i64 C, i64) {
  const i64 chunks = sum_chunks_of(B);
  return chunks == 1 ? 0 : A * (chunks + sum_chunks_of(chunks)) * C;
}

void reduce_forward(i64 A, i64 B, i64 C, const float* x, int op, float* work, float* y, void* stream) {
  const float count = static_cast<float>(B);
  float *next = work, *other = work + A * sum_chunks_of(B) * C;
  while (B > kSumChunk) {
    reduce_chunks(A, B, C, x, op == kMean ? static_cast<int>(kSum) : op, 1.0f, next, stream);
    x = next;
    next = other;
    other = const_cast<float*>(x);
    B = sum_chunks_of(B);
  }
  reduce_chunks(A, B, C, x, op, count, y, stream);
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

void add_rows(i64 rows, i64 C, const float* x, float beta, float* y, void* stream) {
  launch(add_rows_kernel, blocks_for(C, 32, INT32_MAX), dim3(32, kLines), sizeof(RowsOfColumns), stream, rows, C, x, beta, y);
}

i64 sum_squares_workspace(i64 n) { return sum_slices(n); }

void sum_of_squares(i64 n, const float* x, int root, float* work, float* y, void* stream) {
  const i64 slices = sum_slices(n);
  launch(squares_kernel, static_cast<unsigned>(slices), kThreads, sizeof(TeamScratch), stream, n, x, work, root, y);
  if (slices == 1) return;
  launch(sum_kernel, 1u, kThreads, sizeof(TeamScratch), stream, slices, work, root, y);
}

void sum_squares(i64 n, const float* x, float* work, float* y, void* stream) {
  sum_of_squares(n, x, 0, work, y, stream);
}

}  // namespace fastdl
