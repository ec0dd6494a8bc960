// Batch and layer normalisation.
//
//   sums of columns, 32 columns and a chunk of 256 rows a block:       x y y y      thread (x, y): column x, rows y, y + 8, ...,
//                                                                      x            read once, into registers; then the 8 sums of
//   work[chunk][2][C]  ->  merged, 8 channels and 32 lines of chunks   x            a column are added in order
//   a block, each line its chunks in order, then the lines in order
//
// so a channel's statistics depend on its column alone, and no difference of large sums is taken: a chunk's mean is counted from
// the column's first value, squares from the chunk's mean, and what is between chunks from the mean of all.
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kColumns = 32, kLines = 8;
constexpr i64 kChunk = 256;  // rows

i64 chunks_of(i64 n) { return (n + kChunk - 1) / kChunk; }

template <int Lines, int Columns>
struct Sums {
  float line[2][Lines][Columns];
};
using ColumnSums = Sums<kLines, kColumns>;

// The block's sums of a column, the lines' added in order: every line comes with its part of both.
template <int Lines, int Columns>
__device__ __forceinline__ void add_lines(Sums<Lines, Columns>& s, float& a, float& b) {
  s.line[0][threadIdx.y][threadIdx.x] = a;
  s.line[1][threadIdx.y][threadIdx.x] = b;
  __syncthreads();
  a = b = 0.0f;
#pragma unroll 8
  for (int k = 0; k < Lines; ++k) {
    a += s.line[0][k][threadIdx.x];
    b += s.line[1][k][threadIdx.x];
  }
  __syncthreads();
}

struct Chunk {
  i64 c, begin, end;
  bool inside;
  __device__ __forceinline__ Chunk(i64 n, i64 C, i64 chunk)
      : c(static_cast<i64>(blockIdx.x) * kColumns + threadIdx.x),
        begin(chunk * kChunk),
        end(begin + kChunk < n ? begin + kChunk : n),
        inside(c < C) {}
};

// A chunk's mean, counted from the column's first value, and sum of squares about it -> work.
__global__ void __launch_bounds__(kThreads) moments_kernel(i64 n, i64 C, i64 chunks, const float* x, float* work) {
  ColumnSums& s = shared_memory<ColumnSums>();
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const Chunk k(n, C, chunk);
    const float* column = x + k.c;
    const float pivot = k.inside ? column[k.begin * C] : 0.0f;  // small sums even where the data lie far from zero
    float v[kChunk / kLines], total = 0.0f, unused = 0.0f, m2 = 0.0f;
    const int rows = k.inside ? static_cast<int>(k.end - k.begin) - static_cast<int>(threadIdx.y) : 0;  // from this line's on
    const float* p = column + (k.begin + threadIdx.y) * C;
#pragma unroll
    for (int i = 0; i < kChunk / kLines; ++i) v[i] = i * kLines < rows ? p[i * kLines * C] - pivot : 0.0f;
#pragma unroll
    for (int i = 0; i < kChunk / kLines; ++i) total += v[i];
    add_lines(s, total, unused);
    const float mean = total / static_cast<float>(k.end - k.begin);
#pragma unroll
    for (int i = 0; i < kChunk / kLines; ++i) {
      const float d = v[i] - mean;
      m2 += i * kLines < rows ? d * d : 0.0f;
    }
    add_lines(s, m2, unused);
    if (k.inside && threadIdx.y == 0) {
      work[(2 * chunk) * C + k.c] = (pivot - column[0]) + mean;
      work[(2 * chunk + 1) * C + k.c] = m2;
    }
  }
}

// Merging: 8 channels a block, 32 lines of chunks.
constexpr int kMergeColumns = 8, kMergeLines = kThreads / kMergeColumns;
using MergeSums = Sums<kMergeLines, kMergeColumns>;

__global__ void __launch_bounds__(kThreads)
    merge_moments_kernel(i64 n, i64 C, i64 chunks, const float* x, const float* work, float eps, float momentum,
                         float* running_mean, float* running_var, float* mean, float* rstd) {
  MergeSums& s = shared_memory<MergeSums>();
  const i64 c = static_cast<i64>(blockIdx.x) * kMergeColumns + threadIdx.x;
  const i64 mine = c < C ? chunks : 0;
  const auto rows_of = [=](i64 chunk) { return static_cast<float>(n - chunk * kChunk < kChunk ? n - chunk * kChunk : kChunk); };
  float centre = 0.0f, unused = 0.0f, between = 0.0f, squares = 0.0f;
#pragma unroll 8
  for (i64 chunk = threadIdx.y; chunk < mine; chunk += kMergeLines) centre += rows_of(chunk) * work[(2 * chunk) * C + c];
  add_lines(s, centre, unused);
  centre = centre / static_cast<float>(n);
#pragma unroll 8
  for (i64 chunk = threadIdx.y; chunk < mine; chunk += kMergeLines) {
    const float d = work[(2 * chunk) * C + c] - centre;
    squares += work[(2 * chunk + 1) * C + c];
    between += rows_of(chunk) * (d * d);
  }
  add_lines(s, squares, between);
  if (c >= C || threadIdx.y != 0) return;
  squares += between;
  rstd[c] = 1.0f / square_root(squares / static_cast<float>(n) + eps);
  if (n == 0) {
    mean[c] = __builtin_nanf("");
    return;
  }
  centre = x[c] + centre;
  mean[c] = centre;
  if (running_mean != nullptr) running_mean[c] = (1.0f - momentum) * running_mean[c] + momentum * centre;
  if (running_var != nullptr) {
    const float unbiased = squares / static_cast<float>(n > 1 ? n - 1 : 1);
    running_var[c] = (1.0f - momentum) * running_var[c] + momentum * unbiased;
  }
}

unsigned merge_blocks(i64 C) { return blocks_for(C, kMergeColumns, INT32_MAX); }

// Rows of channels whose parameters a thread keeps: fewer blocks than rows, several rows a thread.
struct ChannelGrid {
  dim3 grid, block;
  ChannelGrid(i64 n, i64 groups) : grid(RowGrid(n, groups).grid), block(RowGrid(n, groups).block) {
    const i64 most = 4096 / (grid.x == 0 ? 1 : grid.x < 4096 ? grid.x : 4096);  // no channels: an empty grid
    if (grid.y > most) grid.y = static_cast<unsigned>(most);
  }
};

// y = (x - mean) scale + shift, scale = gamma / sqrt(spread + eps), or gamma spread with spread_is_rstd. `groups`: of W channels.
template <int W>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(i64 n, i64 groups, const float* x, const float* gamma, const float* shift, const float* mean,
                     const float* spread, int spread_is_rstd, float eps, float* y) {
  const i64 group = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group >= groups) return;
  const i64 stride = static_cast<i64>(gridDim.y) * blockDim.y;
  const Floats<W> m = load<W>(mean + group * W), s = load<W>(spread + group * W);
  Floats<W> scale = {}, b = {};
  if (gamma != nullptr) scale = load<W>(gamma + group * W);
  if (shift != nullptr) b = load<W>(shift + group * W);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    const float rstd = spread_is_rstd ? s.v[k] : 1.0f / square_root(s.v[k] + eps);
    scale.v[k] = gamma != nullptr ? scale.v[k] * rstd : rstd;
  }
#pragma unroll 4
  for (i64 r = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; r < n; r += stride) {
    const i64 at = (r * groups + group) * W;
    Floats<W> v = load<W>(x + at);
#pragma unroll
    for (int k = 0; k < W; ++k) v.v[k] = (v.v[k] - m.v[k]) * scale.v[k] + b.v[k];
    store(y + at, v);
  }
}

void normalise(i64 n, i64 C, const float* x, const float* gamma, const float* shift, const float* mean, const float* spread,
               int spread_is_rstd, float eps, float* y, void* stream) {
  const bool quads = C % 4 == 0 && aligned(x, gamma, shift, mean, spread, y);
  const i64 groups = quads ? C / 4 : C;
  const ChannelGrid g(n, groups);
  launch(quads ? normalise_kernel<4> : normalise_kernel<1>, g.grid, g.block, 0, stream, n, groups, x, gamma, shift, mean,
         spread, spread_is_rstd, eps, y);
}

// Over a chunk's rows: sum of dy and of dy (x - mean) (batch norm), or dy (x - mean) rstd with a row's own (layer norm) -> work.
template <bool ByRow>
__global__ void __launch_bounds__(kThreads) gradient_sums_kernel(i64 n, i64 C, i64 chunks, const float* x, const float* mean,
                                                                 const float* rstd, const float* dy, float* work) {
  ColumnSums& s = shared_memory<ColumnSums>();
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const Chunk k(n, C, chunk);
    float s0 = 0.0f, s1 = 0.0f;
    if (k.inside) {
      const float centre = ByRow ? 0.0f : mean[k.c];
#pragma unroll 8
      for (i64 r = k.begin + threadIdx.y; r < k.end; r += kLines) {
        const float d = dy[r * C + k.c], v = x[r * C + k.c];
        s0 += d;
        s1 += d * (ByRow ? (v - mean[r]) * rstd[r] : v - centre);
      }
    }
    add_lines(s, s0, s1);
    if (k.inside && threadIdx.y == 0) {
      work[(2 * chunk) * C + k.c] = s0;
      work[(2 * chunk + 1) * C + k.c] = s1;
    }
  }
}

// The chunks' sums; for batch norm (rstd not null) also what dx needs of them -> coefficients[2][C].
__global__ void __launch_bounds__(kThreads)
    merge_gradients_kernel(i64 n, i64 C, i64 chunks, const float* work, const float* rstd, float* coefficients, float* dgamma,
                           float beta_dgamma, float* dshift, float beta_dshift) {
  MergeSums& s = shared_memory<MergeSums>();
  const i64 c = static_cast<i64>(blockIdx.x) * kMergeColumns + threadIdx.x;
  const i64 mine = c < C ? chunks : 0;
  float s0 = 0.0f, s1 = 0.0f;
#pragma unroll 8
  for (i64 chunk = threadIdx.y; chunk < mine; chunk += kMergeLines) {
    s0 += work[(2 * chunk) * C + c];
    s1 += work[(2 * chunk + 1) * C + c];
  }
  add_lines(s, s0, s1);
  if (c >= C || threadIdx.y != 0) return;
  if (rstd != nullptr) {
    const float r = rstd[c];
    coefficients[c] = s1 * r * r / static_cast<float>(n);
    coefficients[C + c] = s0 / static_cast<float>(n);
    s1 = n > 0 ? s1 * r : 0.0f;  // of no rows, rstd is not a number
  }
  if (dgamma != nullptr) put(dgamma + c, s1, beta_dgamma);
  if (dshift != nullptr) put(dshift + c, s0, beta_dshift);
}

// dx = gamma rstd (dy - mean of dy - (x - mean) coefficient).
template <int W>
__global__ void __launch_bounds__(kThreads)
    batch_norm_dx_kernel(i64 n, i64 groups, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, const float* coefficients, float* dx, float beta) {
  const i64 group = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group >= groups) return;
  const i64 stride = static_cast<i64>(gridDim.y) * blockDim.y, c = group * W;
  const Floats<W> m = load<W>(mean + c), b = load<W>(coefficients + c), mean_dy = load<W>(coefficients + groups * W + c);
  Floats<W> scale = load<W>(rstd + c);
  if (gamma != nullptr) scale = each(load<W>(gamma + c), scale, [](float g, float s) { return g * s; });
#pragma unroll 2
  for (i64 r = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; r < n; r += stride) {
    const i64 at = (r * groups + group) * W;
    const Floats<W> v = load<W>(x + at);
    Floats<W> d = load<W>(dy + at);
#pragma unroll
    for (int k = 0; k < W; ++k) d.v[k] = scale.v[k] * (d.v[k] - mean_dy.v[k] - (v.v[k] - m.v[k]) * b.v[k]);
    put(dx + at, d, beta);
  }
}

void sum_gradients(i64 n, i64 C, const float* x, const float* mean, const float* rstd, const float* dy, int by_row,
                   float* work, float* dgamma, float beta_dgamma, float* dshift, float beta_dshift, void* stream) {
  const i64 chunks = chunks_of(n);
  const dim3 grid(static_cast<unsigned>((C + kColumns - 1) / kColumns), static_cast<unsigned>(chunks < 65535 ? chunks : 65535));
  launch(by_row ? gradient_sums_kernel<true> : gradient_sums_kernel<false>, grid, dim3(kColumns, kLines), sizeof(ColumnSums),
         stream, n, C, chunks, x, mean, rstd, dy, work);
  launch(merge_gradients_kernel, merge_blocks(C), dim3(kMergeColumns, kMergeLines), sizeof(MergeSums), stream, n, C, chunks,
         work, by_row ? nullptr : rstd, work + 2 * chunks * C, dgamma, beta_dgamma, dshift, beta_dshift);
}

template <int T>
__global__ void layer_norm_forward_kernel(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps,
                                          float* y, float* mean, float* rstd) {
  const Team<T> team;
  const float count = static_cast<float>(C);
  for (i64 i = team.row; i < n; i += team.stride) {
    const float* xr = x + i * C;
    float s = 0.0f, squares = 0.0f;
    for (i64 c = team.lane; c < C; c += T) s += xr[c];
    const float m = team.sum(s) / count;
    for (i64 c = team.lane; c < C; c += T) {
      const float d = xr[c] - m;
      squares += d * d;
    }
    const float r = 1.0f / square_root(team.sum(squares) / count + eps);
    if (team.lane == 0) {
      mean[i] = m;
      rstd[i] = r;
    }
    for (i64 c = team.lane; c < C; c += T) {
      float v = (xr[c] - m) * r;
      if (gamma != nullptr) v = v * gamma[c];
      if (shift != nullptr) v = v + shift[c];
      y[i * C + c] = v;
    }
  }
}

template <int T>
__global__ void layer_norm_dx_kernel(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                                     const float* dy, float* dx, float beta) {
  const Team<T> team;
  const float count = static_cast<float>(C);
  for (i64 i = team.row; i < n; i += team.stride) {
    const float *xr = x + i * C, *dr = dy + i * C;
    const float m = mean[i], r = rstd[i];
    float s0 = 0.0f, s1 = 0.0f;
    for (i64 c = team.lane; c < C; c += T) {
      const float g = gamma == nullptr ? dr[c] : dr[c] * gamma[c];
      s0 += g;
      s1 += g * ((xr[c] - m) * r);
    }
    const float mean_g = team.sum(s0) / count, mean_gh = team.sum(s1) / count;
    for (i64 c = team.lane; c < C; c += T) {
      const float g = gamma == nullptr ? dr[c] : dr[c] * gamma[c];
      put(dx + i * C + c, r * (g - mean_g - ((xr[c] - m) * r) * mean_gh), beta);
    }
  }
}

}  // namespace

i64 batch_norm_forward_workspace(i64 n, i64 C) { return 2 * chunks_of(n) * C; }
i64 batch_norm_backward_workspace(i64 n, i64 C) { return 2 * (chunks_of(n) + 1) * C; }
i64 layer_norm_backward_workspace(i64 n, i64 C) { return 2 * chunks_of(n) * C; }

void batch_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float momentum,
                        float* work, float* running_mean, float* running_var, float* y, float* mean, float* rstd,
                        void* stream) {
  const i64 chunks = chunks_of(n);
  const dim3 grid(static_cast<unsigned>((C + kColumns - 1) / kColumns), static_cast<unsigned>(chunks < 65535 ? chunks : 65535));
  launch(moments_kernel, grid, dim3(kColumns, kLines), sizeof(ColumnSums), stream, n, C, chunks, x, work);
  launch(merge_moments_kernel, merge_blocks(C), dim3(kMergeColumns, kMergeLines), sizeof(MergeSums), stream, n, C, chunks, x,
         work, eps, momentum, running_mean, running_var, mean, rstd);
  normalise(n, C, x, gamma, shift, mean, rstd, 1, eps, y, stream);
}

void batch_norm_inference(i64 n, i64 C, const float* x, const float* gamma, const float* shift, const float* mean,
                          const float* var, float eps, float* y, void* stream) {
  normalise(n, C, x, gamma, shift, mean, var, 0, eps, y, stream);
}

void batch_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* work, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void* stream) {
  sum_gradients(n, C, x, mean, rstd, dy, 0, work, dgamma, beta_dgamma, dshift, beta_dshift, stream);
  if (dx == nullptr) return;
  const float* coefficients = work + 2 * chunks_of(n) * C;
  const bool quads = C % 4 == 0 && aligned(x, gamma, mean, rstd, dy, coefficients, dx);
  const i64 groups = quads ? C / 4 : C;
  const ChannelGrid g(n, groups);
  launch(quads ? batch_norm_dx_kernel<4> : batch_norm_dx_kernel<1>, g.grid, g.block, 0, stream, n, groups, x, gamma, mean,
         rstd, dy, coefficients, dx, beta_dx);
}

void layer_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float* y,
                        float* mean, float* rstd, void* stream) {
  launch_teams(layer_norm_forward_kernel<32>, layer_norm_forward_kernel<kThreads>, n, C, stream, n, C, x, gamma, shift, eps,
               y, mean, rstd);
}

void layer_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* work, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void* stream) {
  if (dgamma != nullptr || dshift != nullptr)
    sum_gradients(n, C, x, mean, rstd, dy, 1, work, dgamma, beta_dgamma, dshift, beta_dshift, stream);
  if (dx == nullptr) return;
  launch_teams(layer_norm_dx_kernel<32>, layer_norm_dx_kernel<kThreads>, n, C, stream, n, C, x, gamma, mean, rstd, dy, dx,
               beta_dx);
}

}  // namespace fastdl
