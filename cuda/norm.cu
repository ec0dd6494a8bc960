// Batch and layer normalisation.
//
//   sums of columns, 32 columns and a chunk of 256 rows a block:       x y y y      thread (x, y): column x, rows y, y + 8, ...
//                                                                      x            then the 8 sums of a column are added in
//   work[chunk][2][C]  ->  merged in the chunks' order, a thread a     x            order
//   channel (Chan, Golub & LeVeque 1979)
//
// so a channel's statistics depend on its column alone, and no difference of large sums is taken.
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kColumns = 32, kLines = 8;
constexpr i64 kChunk = 256;  // rows

i64 chunks_of(i64 n) { return (n + kChunk - 1) / kChunk; }

struct ColumnSums {
  float line[2][kLines][kColumns];
};

// The block's sums of a column: every line comes with its part of both.
__device__ __forceinline__ void add_lines(ColumnSums& s, float& a, float& b) {
  s.line[0][threadIdx.y][threadIdx.x] = a;
  s.line[1][threadIdx.y][threadIdx.x] = b;
  __syncthreads();
  a = b = 0.0f;
#pragma unroll
  for (int k = 0; k < kLines; ++k) {
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
__global__ void moments_kernel(i64 n, i64 C, i64 chunks, const float* x, float* work) {
  ColumnSums& s = shared_memory<ColumnSums>();
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const Chunk k(n, C, chunk);
    const float* column = x + k.c;
    const float pivot = k.inside ? column[k.begin * C] : 0.0f;  // small sums even where the data lie far from zero
    float total = 0.0f, unused = 0.0f, m2 = 0.0f;
    if (k.inside) {
      for (i64 r = k.begin + threadIdx.y; r < k.end; r += kLines) total += column[r * C] - pivot;
    }
    add_lines(s, total, unused);
    const float mean = total / static_cast<float>(k.end - k.begin);
    if (k.inside) {
      for (i64 r = k.begin + threadIdx.y; r < k.end; r += kLines) {
        const float d = (column[r * C] - pivot) - mean;
        m2 += d * d;
      }
    }
    add_lines(s, m2, unused);
    if (k.inside && threadIdx.y == 0) {
      work[(2 * chunk) * C + k.c] = (pivot - column[0]) + mean;
      work[(2 * chunk + 1) * C + k.c] = m2;
    }
  }
}

__global__ void merge_moments_kernel(i64 n, i64 C, i64 chunks, const float* x, const float* work, float eps, float momentum,
                                     float* running_mean, float* running_var, float* mean, float* rstd) {
  const i64 c = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  float centre = 0.0f, squares = 0.0f;
  for (i64 chunk = 0; chunk < chunks; ++chunk) {
    const i64 begin = chunk * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
    const float part = static_cast<float>(end - begin) / static_cast<float>(end);
    const float between = static_cast<float>(begin) * part;
    const float d = work[(2 * chunk) * C + c] - centre;
    centre = centre + d * part;
    squares = squares + work[(2 * chunk + 1) * C + c] + d * d * between;
  }
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

// y = (x - mean) scale + shift, scale = gamma / sqrt(spread + eps), or gamma spread with spread_is_rstd. `groups`: of W channels.
template <int W>
__global__ void normalise_kernel(i64 n, i64 groups, const float* x, const float* gamma, const float* shift, const float* mean,
                                 const float* spread, int spread_is_rstd, float eps, float* y) {
  for_rows(n, groups, [=](i64 r, i64 group) {
    const i64 c = group * W, at = r * groups * W + c;
    const Floats<W> m = load<W>(mean + c), s = load<W>(spread + c);
    Floats<W> v = load<W>(x + at), g = {}, b = {};
    if (gamma != nullptr) g = load<W>(gamma + c);
    if (shift != nullptr) b = load<W>(shift + c);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float rstd = spread_is_rstd ? s.v[k] : 1.0f / square_root(s.v[k] + eps);
      const float scale = gamma != nullptr ? g.v[k] * rstd : rstd;
      v.v[k] = (v.v[k] - m.v[k]) * scale + b.v[k];
    }
    store(y + at, v);
  });
}

void normalise(i64 n, i64 C, const float* x, const float* gamma, const float* shift, const float* mean, const float* spread,
               int spread_is_rstd, float eps, float* y, void* stream) {
  const bool quads = C % 4 == 0 && aligned(x, gamma, shift, mean, spread, y);
  const i64 groups = quads ? C / 4 : C;
  const RowGrid g(n, groups);
  launch(quads ? normalise_kernel<4> : normalise_kernel<1>, g.grid, g.block, 0, stream, n, groups, x, gamma, shift, mean,
         spread, spread_is_rstd, eps, y);
}

// Over a chunk's rows: sum of dy and of dy (x - mean) (batch norm), or dy (x - mean) rstd with a row's own (layer norm) -> work.
__global__ void gradient_sums_kernel(i64 n, i64 C, i64 chunks, const float* x, const float* mean, const float* rstd,
                                     const float* dy, int by_row, float* work) {
  ColumnSums& s = shared_memory<ColumnSums>();
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const Chunk k(n, C, chunk);
    float s0 = 0.0f, s1 = 0.0f;
    if (k.inside) {
      const float centre = by_row ? 0.0f : mean[k.c];
      for (i64 r = k.begin + threadIdx.y; r < k.end; r += kLines) {
        const float d = dy[r * C + k.c], v = x[r * C + k.c];
        s0 += d;
        s1 += d * (by_row ? (v - mean[r]) * rstd[r] : v - centre);
      }
    }
    add_lines(s, s0, s1);
    if (k.inside && threadIdx.y == 0) {
      work[(2 * chunk) * C + k.c] = s0;
      work[(2 * chunk + 1) * C + k.c] = s1;
    }
  }
}

// The chunks' sums added in order; for batch norm (rstd not null) also what dx needs of them -> coefficients[2][C].
__global__ void merge_gradients_kernel(i64 n, i64 C, i64 chunks, const float* work, const float* rstd, float* coefficients,
                                       float* dgamma, float beta_dgamma, float* dshift, float beta_dshift) {
  const i64 c = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  float s0 = 0.0f, s1 = 0.0f;
  for (i64 chunk = 0; chunk < chunks; ++chunk) {
    s0 += work[(2 * chunk) * C + c];
    s1 += work[(2 * chunk + 1) * C + c];
  }
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
__global__ void batch_norm_dx_kernel(i64 n, i64 groups, const float* x, const float* gamma, const float* mean,
                                     const float* rstd, const float* dy, const float* coefficients, float* dx, float beta) {
  for_rows(n, groups, [=](i64 r, i64 group) {
    const i64 C = groups * W, c = group * W, at = r * C + c;
    const Floats<W> m = load<W>(mean + c), b = load<W>(coefficients + c), d = load<W>(dy + at), v = load<W>(x + at);
    const Floats<W> mean_dy = load<W>(coefficients + C + c);
    Floats<W> a = load<W>(rstd + c);
    if (gamma != nullptr) a = each(load<W>(gamma + c), a, [](float g, float s) { return g * s; });
#pragma unroll
    for (int k = 0; k < W; ++k) a.v[k] = a.v[k] * (d.v[k] - mean_dy.v[k] - (v.v[k] - m.v[k]) * b.v[k]);
    put(dx + at, a, beta);
  });
}

void sum_gradients(i64 n, i64 C, const float* x, const float* mean, const float* rstd, const float* dy, int by_row,
                   float* work, float* dgamma, float beta_dgamma, float* dshift, float beta_dshift, void* stream) {
  const i64 chunks = chunks_of(n);
  const dim3 grid(static_cast<unsigned>((C + kColumns - 1) / kColumns), static_cast<unsigned>(chunks < 65535 ? chunks : 65535));
  launch(gradient_sums_kernel, grid, dim3(kColumns, kLines), sizeof(ColumnSums), stream, n, C, chunks, x, mean, rstd, dy,
         by_row, work);
  launch(merge_gradients_kernel, blocks_for(C, 64), 64u, 0, stream, n, C, chunks, work, by_row ? nullptr : rstd,
         work + 2 * chunks * C, dgamma, beta_dgamma, dshift, beta_dshift);
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
  launch(merge_moments_kernel, blocks_for(C, 64), 64u, 0, stream, n, C, chunks, x, work, eps, momentum, running_mean,
         running_var, mean, rstd);
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
  const RowGrid g(n, groups);
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
