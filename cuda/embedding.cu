// Rows picked out of a table by index, and their gradient. Copies, bound by memory.
//
// Several i may name one row of the table, and their gradients are to be added in the order of i, without atomics.
//
//   few i    the warp of the first i that names a row adds all of them, finding the others 32 at a time; all other warps see a
//            smaller i of the same row and leave
//   many i   are sorted by row, stably, by 8 bits of it at a time (digits: counted, summed up, moved), a stretch of 2^20 at most:
//
//                order    5 9 | 0 | 2 3 7 ..... | 1 4        positions; runs of one row
//                         a thread of each column adds a run, unless it is long: then a block fetches its rows ahead, and one
//                         warp adds them
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kColumnsOfLane = 4;
constexpr int kStrip = 32 * kColumnsOfLane;  // columns that a warp adds

template <int W>
__global__ void gather_kernel(i64 n, i64 groups, const float* table, const int64_t* index, float* y) {
  for_rows(n, groups, [=](i64 i, i64 group) {
    store(y + (i * groups + group) * W, load<W>(table + (index[i] * groups + group) * W));
  });
}

__global__ void gather_u8_kernel(i64 n, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y) {
  for_rows(n, D, [=](i64 i, i64 d) { y[i * D + d] = scale * static_cast<float>(table[index[i] * D + d]); });
}

__global__ void scale_kernel(i64 n, int quads, float beta, float* y) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    Floats<W> r = {};
    if (beta != 0.0f) r = each(load<W>(y + i), [=](float v) { return beta * v; });
    store(y + i, r);
  });
}

// ---------------------------------------------------------------------------------------------------------- few

constexpr i64 kFew = 1024;

// Warps along x take an i each, blocks along y strips of columns. dtable holds what is to be added to.
__global__ void scatter_kernel(i64 n, i64 D, const int64_t* index, const float* dy, float* dtable) {
  const Team<32> team;
  for (i64 i = team.row; i < n; i += team.stride) {
    const int64_t row = index[i];
    bool first = true;
    for (i64 end = i; first && end > 0; end -= 32) {
      const i64 j = end - 1 - team.lane;
      first = __ballot_sync(kFullWarp, j >= 0 && index[j >= 0 ? j : 0] == row) == 0;
    }
    if (!first) continue;
    float* to = dtable + row * D;
    for (i64 d0 = static_cast<i64>(blockIdx.y) * kStrip + team.lane; d0 - team.lane < D; d0 += gridDim.y * kStrip) {
      float s[kColumnsOfLane];
#pragma unroll
      for (int k = 0; k < kColumnsOfLane; ++k) s[k] = d0 + 32 * k < D ? to[d0 + 32 * k] : 0.0f;
      for (i64 begin = i; begin < n; begin += 32) {
        const i64 j = begin + team.lane;
        unsigned named = __ballot_sync(kFullWarp, j < n && index[j < n ? j : i] == row);
        while (named != 0) {
          const float* from = dy + (begin + __ffs(static_cast<int>(named)) - 1) * D;
#pragma unroll
          for (int k = 0; k < kColumnsOfLane; ++k)
            if (d0 + 32 * k < D) s[k] = s[k] + from[d0 + 32 * k];
          named &= named - 1;
        }
      }
#pragma unroll
      for (int k = 0; k < kColumnsOfLane; ++k)
        if (d0 + 32 * k < D) to[d0 + 32 * k] = s[k];
    }
  }
}

// --------------------------------------------------------------------------------------------------------- many

constexpr i64 kStretch = 1 << 20;
constexpr int kTile = 2048, kDigits = 256, kRounds = kTile / kThreads;  // a block sorts a tile, a warp 32 kRounds of it in a row
static_assert(kDigits == kThreads, "a thread a digit");

i64 tiles_of(i64 n) { return (n + kTile - 1) / kTile; }

// Position p of the order so far, and the digit of its row; the first pass finds the positions as they are.
__device__ __forceinline__ unsigned at_position(const unsigned* order, i64 p) {
  return order == nullptr ? static_cast<unsigned>(p) : order[p];
}
__device__ __forceinline__ int digit_of(const int64_t* index, unsigned i, int shift) {
  return static_cast<int>(index[i] >> shift & (kDigits - 1));
}

struct Counts {
  unsigned of[kThreads / 32][kDigits];
};

// counts[digit][tile].
__global__ void count_kernel(i64 n, i64 tiles, const int64_t* index, const unsigned* order, int shift, unsigned* counts) {
  Counts& s = shared_memory<Counts>();
  const int t = static_cast<int>(threadIdx.x);
  for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    s.of[0][t] = 0;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kRounds; ++k) {
      const i64 p = tile * kTile + k * kThreads + t;
      if (p < n) atomicAdd(&s.of[0][digit_of(index, at_position(order, p), shift)], 1u);
    }
    __syncthreads();
    counts[t * tiles + tile] = s.of[0][t];
    __syncthreads();
  }
}

// Sum of x over the threads before this one; `total` that of all. Free again when it returns.
__device__ __forceinline__ unsigned sum_before(unsigned x, unsigned* scratch, unsigned& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  unsigned sum = x;
#pragma unroll
  for (unsigned by = 1; by < 32; by *= 2) {
    const unsigned other = __shfl_up_sync(kFullWarp, sum, by);
    if (lane >= static_cast<int>(by)) sum += other;
  }
  if (lane == 31) scratch[warp] = sum;
  __syncthreads();
  unsigned before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) {
    before += w < warp ? scratch[w] : 0u;
    total += scratch[w];
  }
  __syncthreads();
  return before + sum - x;
}

// A block a digit: its counts become sums of those of the tiles before; totals[digit].
__global__ void sum_counts_kernel(i64 tiles, unsigned* counts, unsigned* totals) {
  Counts& s = shared_memory<Counts>();
  unsigned* mine = counts + blockIdx.x * tiles;
  unsigned before = 0, total = 0;
  for (i64 begin = 0; begin < tiles; begin += kThreads) {
    const i64 tile = begin + threadIdx.x;
    const unsigned sum = before + sum_before(tile < tiles ? mine[tile] : 0u, s.of[0], total);
    if (tile < tiles) mine[tile] = sum;
    before += total;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

// Positions go to where their digits stand: after all of smaller digits, and of their own in tiles, warps and rounds before.
__global__ void move_kernel(i64 n, i64 tiles, const int64_t* index, const unsigned* order, int shift, const unsigned* counts,
                            const unsigned* totals, unsigned* moved) {
  Counts& s = shared_memory<Counts>();
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  unsigned all;
  const unsigned smaller = sum_before(totals[t], s.of[0], all);
  for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) s.of[w][t] = 0;
    __syncthreads();
    unsigned i[kRounds], rank[kRounds];
    int digit[kRounds];
#pragma unroll
    for (int k = 0; k < kRounds; ++k) {
      const i64 p = tile * kTile + (warp * kRounds + k) * 32 + lane;
      i[k] = p < n ? at_position(order, p) : 0u;
      digit[k] = p < n ? digit_of(index, i[k], shift) : -1;
    }
#pragma unroll
    for (int k = 0; k < kRounds; ++k) {
      unsigned same = __ballot_sync(kFullWarp, digit[k] >= 0);
#pragma unroll
      for (int bit = 1; bit < kDigits; bit *= 2) {
        const unsigned set = __ballot_sync(kFullWarp, (digit[k] & bit) != 0);
        same &= digit[k] & bit ? set : ~set;
      }
      const unsigned before = same & ((1u << lane) - 1);
      unsigned counted = 0;
      if (digit[k] >= 0) counted = s.of[warp][digit[k]];
      __syncwarp();
      if (digit[k] >= 0 && before == 0) s.of[warp][digit[k]] = counted + static_cast<unsigned>(__popc(same));
      __syncwarp();
      rank[k] = counted + static_cast<unsigned>(__popc(before));
    }
    __syncthreads();
    unsigned sum = smaller + counts[t * tiles + tile];
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
      const unsigned of_warp = s.of[w][t];
      s.of[w][t] = sum;
      sum += of_warp;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kRounds; ++k)
      if (digit[k] >= 0) moved[s.of[warp][digit[k]] + rank[k]] = i[k];
    __syncthreads();
  }
}

// Rows in order, as the sorted positions name them.
struct Sorted {
  i64 n;
  const int64_t* index;
  const unsigned* order;
  __device__ __forceinline__ int64_t row(i64 p) const { return index[order[p]]; }
  __device__ __forceinline__ bool has(i64 p, int64_t row_) const { return p >= 0 && p < n && row(p) == row_; }
};

constexpr int kLongRun = 64;

// A thread a column (or four) of a position: those where a run begins add it. fresh: dtable holds zeros.
template <int W>
__global__ void add_runs_kernel(Sorted sorted, i64 groups, const float* dy, int fresh, float* dtable) {
  for_rows(sorted.n, groups, [=](i64 begin, i64 group) {
    const int64_t row = sorted.row(begin);
    if (sorted.has(begin - 1, row) || sorted.has(begin + kLongRun, row)) return;
    float* to = dtable + (row * groups + group) * W;
    Floats<W> sum = {};
    if (!fresh) sum = load<W>(to);
    for (i64 p = begin; p == begin || sorted.has(p, row); ++p)
      sum = each(sum, load<W>(dy + (sorted.order[p] * groups + group) * W), [](float a, float b) { return a + b; });
    store(to, sum);
  });
}

constexpr int kStages = 3, kRowsAtOnce = 128, kStripOfRun = 32;
struct RunTiles {
  float tile[kStages][kRowsAtOnce][kStripOfRun];
};

// Runs longer than kLongRun: the block at the first multiple of kLongRun inside one takes it, blocks along y strips of columns.
__global__ void __launch_bounds__(kThreads)
    add_long_runs_kernel(Sorted sorted, i64 D, const float* dy, int fresh, float* dtable) {
  const i64 inside = static_cast<i64>(blockIdx.x) * kLongRun;
  const int64_t row = sorted.row(inside);
  if (!sorted.has(inside + 1, row) || sorted.has(inside - kLongRun, row)) return;
  RunTiles& s = shared_memory<RunTiles>();
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const i64 begin = inside + 1 - __syncthreads_count(t < kLongRun && sorted.has(inside - t, row));
  if (!sorted.has(begin + kLongRun, row)) return;
  i64 end = begin, limit = sorted.n;  // the run's last position is at or after the one and before the other
  for (i64 step = limit; step > 1;) {
    step = (limit - end + kThreads - 1) / kThreads;
    const i64 p = end + t * step;
    end += (__syncthreads_count(p < limit && sorted.has(p, row)) - 1) * step;
    limit = end + step < limit ? end + step : limit;
  }
  ++end;
  for (i64 strip = blockIdx.y; strip * kStripOfRun < D; strip += gridDim.y) {
    const i64 d = strip * kStripOfRun + lane;
    const bool there = d < D;
    const auto fetch = [&](i64 tile) {
      constexpr int kEach = kRowsAtOnce / (kThreads / 32);
      const i64 first = begin + tile * kRowsAtOnce + warp * kEach;
      unsigned mine = 0;
      if (lane < kEach && first + lane < end) mine = sorted.order[first + lane];
      for (int k = 0; k < kEach; ++k) {
        const i64 i = __shfl_sync(kFullWarp, mine, k);
        const bool fetched = there && first + k < end;
        copy_async4(&s.tile[tile % kStages][warp * kEach + k][lane], fetched ? dy + i * D + d : dy, fetched);
      }
    };
    for (int k = 0; k < kStages - 1; ++k) {
      fetch(k);
      copy_async_commit();
    }
    float sum = 0.0f;
    if (!fresh && there) sum = dtable[row * D + d];
    for (i64 tile = 0; begin + tile * kRowsAtOnce < end; ++tile) {
      copy_async_wait<kStages - 2>();
      __syncthreads();
      fetch(tile + kStages - 1);
      copy_async_commit();
      if (warp != 0) continue;
      const i64 left = end - (begin + tile * kRowsAtOnce);
      const float(&rows)[kRowsAtOnce][kStripOfRun] = s.tile[tile % kStages];
      if (left >= kRowsAtOnce) {
#pragma unroll 16
        for (int k = 0; k < kRowsAtOnce; ++k) sum = sum + rows[k][lane];
      } else {
        for (int k = 0; k < left; ++k) sum = sum + rows[k][lane];
      }
    }
    if (warp == 0 && there) dtable[row * D + d] = sum;
    copy_async_wait<0>();
    __syncthreads();
  }
}

// One stretch of n: order[2][n], counts[kDigits][tiles], totals[kDigits] in work.
void add_stretch(i64 n, i64 L, i64 D, const int64_t* index, const float* dy, bool fresh, float* work, float* dtable,
                 void* stream) {
  const i64 tiles = tiles_of(n);
  unsigned *order[2] = {reinterpret_cast<unsigned*>(work), reinterpret_cast<unsigned*>(work) + n}, *counts = order[1] + n;
  unsigned* totals = counts + kDigits * tiles;
  const unsigned* before = nullptr;
  int pass = 0;
  for (int shift = 0; shift == 0 || (L - 1) >> shift != 0; shift += 8, ++pass) {
    launch(count_kernel, blocks_for(tiles, 1), kThreads, sizeof(Counts), stream, n, tiles, index, before, shift, counts);
    launch(sum_counts_kernel, kDigits, kThreads, sizeof(Counts), stream, tiles, counts, totals);
    launch(move_kernel, blocks_for(tiles, 1), kThreads, sizeof(Counts), stream, n, tiles, index, before, shift, counts, totals,
           order[pass % 2]);
    before = order[pass % 2];
  }
  const Sorted sorted = {n, index, before};
  const bool quads = D % 4 == 0 && aligned(dy, dtable);
  const i64 groups = quads ? D / 4 : D;
  const RowGrid g(n, groups);
  launch(quads ? add_runs_kernel<4> : add_runs_kernel<1>, g.grid, g.block, 0, stream, sorted, groups, dy, fresh, dtable);
  const dim3 grid(blocks_for(n, kLongRun, INT32_MAX), blocks_for(D, kStripOfRun, 65535));
  launch(add_long_runs_kernel, grid, kThreads, sizeof(RunTiles), stream, sorted, D, dy, fresh, dtable);
}

}  // namespace

void embedding_forward(i64 n, i64, i64 D, const float* table, const int64_t* index, float* y, void* stream) {
  const bool quads = D % 4 == 0 && aligned(table, y);
  const i64 groups = quads ? D / 4 : D;
  const RowGrid g(n, groups);
  launch(quads ? gather_kernel<4> : gather_kernel<1>, g.grid, g.block, 0, stream, n, groups, table, index, y);
}

i64 embedding_backward_workspace(i64 n, i64, i64) {
  const i64 most = n < kStretch ? n : kStretch;
  return n <= kFew ? 0 : 2 * most + kDigits * (tiles_of(most) + 1);
}

void embedding_backward(i64 n, i64 L, i64 D, const int64_t* index, const float* dy, float* work, float* dtable, float beta,
                        void* stream) {
  if (beta != 1.0f) launch(scale_kernel, element_blocks(L * D), kThreads, 0, stream, L * D, aligned(dtable), beta, dtable);
  if (n <= kFew) {
    const dim3 grid(blocks_for(n, kThreads / 32), blocks_for(D, kStrip, 65535));
    launch(scatter_kernel, grid, kThreads, 0, stream, n, D, index, dy, dtable);
    return;
  }
  for (i64 begin = 0; begin < n; begin += kStretch)
    add_stretch(n - begin < kStretch ? n - begin : kStretch, L, D, index + begin, dy + begin * D, beta == 0.0f && begin == 0,
                work, dtable, stream);
}

void gather_u8(i64 n, i64, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y, void* stream) {
  const RowGrid g(n, D);
  launch(gather_u8_kernel, g.grid, g.block, 0, stream, n, D, table, index, scale, y);
}

}  // namespace fastdl
