// Softmax and losses: a team of threads for each row of classes, slices and their sums for losses of single elements.
#include "loops.cuh"

namespace fastdl {
namespace {

// Largest of the team's row, and sum of e^(x - top); the exponentials go to y (which may be x; null: nowhere).
template <int T>
__device__ __forceinline__ float top_of_row(const Team<T>& team, i64 C, const float* x) {
  float top = -__builtin_inff();
  for (i64 c = team.lane; c < C; c += T) top = max_or_nan(top, x[c]);
  return team.max(top);
}
template <int T>
__device__ __forceinline__ float exponentials(const Team<T>& team, i64 C, const float* x, float top, float* y) {
  float s = 0.0f;
  for (i64 c = team.lane; c < C; c += T) {
    const float e = exp(x[c] - top);
    if (y != nullptr) y[c] = e;
    s += e;
  }
  return team.sum(s);
}

// The lane's share of a row, in registers where K > 0 (rows of at most 32 K; a warp each), so that the row is read once.
template <int K>
struct Share {
  float v[K];
  __device__ __forceinline__ Share(int lane, i64 C, const float* x) {
#pragma unroll
    for (int k = 0; k < K; ++k) v[k] = 32 * k + lane < C ? x[32 * k + lane] : 0.0f;
  }
};
// f(k, column) of the lane's columns.
template <int K, class F>
__device__ __forceinline__ void for_share(int lane, i64 C, const F& f) {
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (32 * k + lane < C) f(k, 32 * k + lane);
}

template <int K>
__global__ void __launch_bounds__(kThreads, 2) softmax_short_kernel(i64 n, i64 C, const float* x, int log_of_it, float* y) {
  const Team<32> team;
  for (i64 r = team.row; r < n; r += team.stride) {
    Share<K> row(team.lane, C, x + r * C);
    float top = -__builtin_inff(), s = 0.0f;
    for_share<K>(team.lane, C, [&](int k, int) { top = max_or_nan(top, row.v[k]); });
    top = team.max(top);
    if (log_of_it) {
      for_share<K>(team.lane, C, [&](int k, int) {
        row.v[k] = row.v[k] - top;
        s += exp(row.v[k]);
      });
      const float shift = log(team.sum(s));
      for_share<K>(team.lane, C, [&](int k, int c) { y[r * C + c] = row.v[k] - shift; });
    } else {
      for_share<K>(team.lane, C, [&](int k, int) {
        row.v[k] = exp(row.v[k] - top);
        s += row.v[k];
      });
      const float scale = 1.0f / team.sum(s);
      for_share<K>(team.lane, C, [&](int k, int c) { y[r * C + c] = row.v[k] * scale; });
    }
  }
}

__global__ void softmax_long_kernel(i64 n, i64 C, const float* x, int log_of_it, float* y) {
  const Team<kThreads> team;
  for (i64 r = team.row; r < n; r += team.stride) {
    const float* xr = x + r * C;
    float* yr = y + r * C;
    const float top = top_of_row(team, C, xr);
    const float s = exponentials(team, C, xr, top, log_of_it ? nullptr : yr);
    if (log_of_it) {
      const float shift = log(s);
      for (i64 c = team.lane; c < C; c += kThreads) yr[c] = (xr[c] - top) - shift;
    } else {
      const float scale = 1.0f / s;
      for (i64 c = team.lane; c < C; c += kThreads) yr[c] = yr[c] * scale;
    }
  }
}

// softmax: dx = y (dy - sum dy y); log_softmax: dx = dy - e^y sum dy.
__device__ __forceinline__ float softmax_slope(float y, float dy, float s, int log_of_it) {
  return log_of_it ? dy - exp(y) * s : y * (dy - s);
}
template <int K>
__global__ void __launch_bounds__(kThreads, 2)
    softmax_backward_short_kernel(i64 n, i64 C, const float* y, const float* dy, int log_of_it, float* dx, float beta) {
  const Team<32> team;
  for (i64 r = team.row; r < n; r += team.stride) {
    const Share<K> yr(team.lane, C, y + r * C), dr(team.lane, C, dy + r * C);
    float s = 0.0f;
    for_share<K>(team.lane, C, [&](int k, int) { s += log_of_it ? dr.v[k] : yr.v[k] * dr.v[k]; });
    s = team.sum(s);
    for_share<K>(team.lane, C,
                 [&](int k, int c) { put(dx + r * C + c, softmax_slope(yr.v[k], dr.v[k], s, log_of_it), beta); });
  }
}
template <int T>
__global__ void softmax_backward_kernel(i64 n, i64 C, const float* y, const float* dy, int log_of_it, float* dx, float beta) {
  const Team<T> team;
  for (i64 r = team.row; r < n; r += team.stride) {
    const float *yr = y + r * C, *dr = dy + r * C;
    float s = 0.0f;
    for (i64 c = team.lane; c < C; c += T) s += log_of_it ? dr[c] : yr[c] * dr[c];
    s = team.sum(s);
    for (i64 c = team.lane; c < C; c += T) put(dx + r * C + c, softmax_slope(yr[c], dr[c], s, log_of_it), beta);
  }
}

// row_loss[n]: each row's loss times its weight.
template <int T>
__global__ void cross_entropy_kernel(i64 n, i64 C, const float* x, const int64_t* labels, const float* weights,
                                     float smoothing, float* rows, float* p, float* row_loss) {
  const Team<T> team;
  for (i64 r = team.row; r < n; r += team.stride) {
    const float* xr = x + r * C;
    const int64_t label = labels[r];
    float* pr = p == nullptr ? nullptr : p + r * C;
    float l = 0.0f;
    if (label >= 0 || pr != nullptr) {  // the same for the whole team
      const float top = top_of_row(team, C, xr);
      const float s = exponentials(team, C, xr, top, pr);
      if (pr != nullptr) {
        const float scale = 1.0f / s;
        for (i64 c = team.lane; c < C; c += T) pr[c] = pr[c] * scale;
      }
      if (label >= 0) {
        l = log(s) - (1.0f - smoothing) * (xr[label] - top);
        if (smoothing != 0.0f) {
          float below = 0.0f;
          for (i64 c = team.lane; c < C; c += T) below += xr[c] - top;
          l -= smoothing / static_cast<float>(C) * team.sum(below);
        }
      }
    }
    if (team.lane == 0) {
      if (rows != nullptr) rows[r] = l;
      row_loss[r] = weights == nullptr || label < 0 ? l : weights[r] * l;
    }
  }
}

// The weight of element i in a mean; labels and weights may be null.
__device__ __forceinline__ float weight_of(i64 i, const int64_t* labels, const float* weights) {
  if (labels != nullptr && labels[i] < 0) return 0.0f;
  return weights == nullptr ? 1.0f : weights[i];
}

// loss (may be null) from the sums; total weight (may be null): what a mean divides by, 1 for a sum and where nothing counts.
__device__ __forceinline__ void finish(float total, float weight, int reduction, float* loss, float* total_weight) {
  const float count = reduction == kReduceMean && weight != 0.0f ? weight : 1.0f;
  if (threadIdx.x != 0) return;
  if (loss != nullptr) loss[0] = total / count;
  if (total_weight != nullptr) total_weight[0] = count;
}

// Slices' sums of l[i] (may be null) and of the weights -> part[0][slices], part[1][slices]; of one slice, all that is wanted.
__global__ void slice_sums_kernel(i64 n, const float* l, const int64_t* labels, const float* weights, float* part,
                                  int reduction, float* loss, float* total_weight) {
  const float of_losses = l == nullptr ? 0.0f : sum_of_block(sum_of_slice(n, [=](i64 i) { return l[i]; }));
  const float of_weights = sum_of_block(sum_of_slice(n, [=](i64 i) { return weight_of(i, labels, weights); }));
  if (gridDim.x == 1) return finish(of_losses, of_weights, reduction, loss, total_weight);
  if (threadIdx.x != 0) return;
  part[blockIdx.x] = of_losses;
  part[gridDim.x + blockIdx.x] = of_weights;
}

__global__ void finish_kernel(i64 slices, const float* part, int reduction, float* loss, float* total_weight) {
  const float total = sum_of_parts(slices, part);
  finish(total, sum_of_parts(slices, part + slices), reduction, loss, total_weight);
}

void reduce_losses(i64 n, const float* l, const int64_t* labels, const float* weights, float* part, int reduction, float* loss,
                   float* total_weight, void* stream) {
  const i64 slices = sum_slices(n);
  launch(slice_sums_kernel, static_cast<unsigned>(slices), kThreads, sizeof(TeamScratch), stream, n, l, labels, weights, part,
         reduction, loss, total_weight);
  if (slices != 1)
    launch(finish_kernel, 1u, kThreads, sizeof(TeamScratch), stream, slices, part, reduction, loss, total_weight);
}

// What backward passes divide by -> work[0]; work[1 ..] is scratch.
void total_weight(i64 n, const int64_t* labels, const float* weights, float* work, void* stream) {
  reduce_losses(n, nullptr, labels, weights, work + 1, kReduceMean, nullptr, work, stream);
}
i64 total_weight_workspace(i64 n) { return 2 * sum_slices(n) + 1; }

// count: null, or one float that divides dloss.
__global__ void cross_entropy_backward_kernel(i64 n, i64 C, const float* p, const int64_t* labels, const float* weights,
                                              const float* dloss, float smoothing, int by_row, const float* count, float* dx,
                                              float beta) {
  const float rest = smoothing / static_cast<float>(C);
  for_rows(n, C, [=](i64 r, i64 c) {
    const int64_t label = labels[r];
    float v = 0.0f;
    if (label >= 0) {
      float factor = by_row ? dloss[r] : dloss[0];
      if (count != nullptr) factor = factor / count[0];
      if (!by_row && weights != nullptr) factor = factor * weights[r];
      const float pc = p[r * C + c];
      v = ((c == label ? pc - (1.0f - smoothing) : pc) - rest) * factor;
    }
    put(dx + r * C + c, v, beta);
  });
}

__device__ __forceinline__ float element_loss(float x, float t, int kind, float delta) {
  switch (kind) {
    case kBinaryCrossEntropy:
      return binary_cross_entropy(x, t);
    case kSquaredError:
      return (x - t) * (x - t);
    case kAbsoluteError:
      return absolute(x - t);
    case kHuber:
      return huber(x - t, delta);
    default:
      return hinge(x, t);
  }
}
__device__ __forceinline__ float element_slope(float x, float t, int kind, float delta) {
  switch (kind) {
    case kBinaryCrossEntropy:
      return sigmoid(x) - t;
    case kSquaredError:
      return 2.0f * (x - t);
    case kAbsoluteError:
      return sign(x - t);
    case kHuber:
      return huber_slope(x - t, delta);
    default:
      return hinge_slope(x, t);
  }
}

// Elements' losses, and slices' sums of them and of the weights.
__global__ void loss_kernel(i64 n, const float* x, const float* t, const float* weights, int kind, float delta,
                            float* elements, float* part) {
  const float of_losses = sum_of_block(sum_of_slice(n, [=](i64 i) {
    const float l = element_loss(x[i], t[i], kind, delta);
    if (elements != nullptr) elements[i] = l;
    return weights == nullptr ? l : l * weights[i];
  }));
  float of_weights = 0.0f;
  if (weights != nullptr) of_weights = sum_of_block(sum_of_slice(n, [=](i64 i) { return weights[i]; }));
  if (threadIdx.x != 0) return;
  part[blockIdx.x] = of_losses;
  part[gridDim.x + blockIdx.x] = of_weights;
}
__global__ void finish_loss_kernel(i64 n, i64 slices, const float* part, int weighted, int reduction, float* loss) {
  float total = sum_of_parts(slices, part);
  const float weight = weighted ? sum_of_parts(slices, part + slices) : static_cast<float>(n);
  if (reduction == kReduceMean && weight != 0.0f) total /= weight;
  if (threadIdx.x == 0) loss[0] = total;
}

__global__ void loss_backward_kernel(i64 n, int quads, const float* x, const float* t, const float* weights,
                                     const float* dloss, int kind, float delta, float count, const float* total_weight,
                                     int by_element, float* dx, float beta) {
  float share = 1.0f;
  if (!by_element) share = dloss[0] / (total_weight != nullptr ? total_weight[0] : count);
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    const Floats<W> a = load<W>(x + i), b = load<W>(t + i);
    Floats<W> factor, r;
    if (by_element) {
      factor = load<W>(dloss + i);
    } else if (weights != nullptr) {
      factor = each(load<W>(weights + i), [=](float w) { return share * w; });
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k) factor.v[k] = share;
    }
#pragma unroll
    for (int k = 0; k < W; ++k) r.v[k] = element_slope(a.v[k], b.v[k], kind, delta) * factor.v[k];
    put(dx + i, r, beta);
  });
}

}  // namespace

void softmax_forward(i64 n, i64 C, const float* x, int log_of_it, float* y, void* stream) {
  static_assert(kLongRow <= 32 * 32, "a warp's rows lie in registers");
  const auto of_warps = C <= 32    ? softmax_short_kernel<1>
                        : C <= 128 ? softmax_short_kernel<4>
                        : C <= 512 ? softmax_short_kernel<16>
                                   : softmax_short_kernel<32>;
  launch_teams(of_warps, softmax_long_kernel, n, C, stream, n, C, x, log_of_it, y);
}

void softmax_backward(i64 n, i64 C, const float* y, const float* dy, int log_of_it, float* dx, float beta, void* stream) {
  const auto of_warps = C <= 32    ? softmax_backward_short_kernel<1>
                        : C <= 128 ? softmax_backward_short_kernel<4>
                                   : softmax_backward_kernel<32>;  // both rows have no room in registers
  launch_teams(of_warps, softmax_backward_kernel<kThreads>, n, C, stream, n, C, y, dy, log_of_it, dx, beta);
}

i64 softmax_cross_entropy_forward_workspace(i64 n, i64, i64) { return n + 2 * sum_slices(n); }

void softmax_cross_entropy_forward(i64 n, i64 C, const float* x, const int64_t* labels, const float* weights, float smoothing,
                                   int reduction, float* work, float* loss, float* rows, float* p, void* stream) {
  launch_teams(cross_entropy_kernel<32>, cross_entropy_kernel<kThreads>, n, C, stream, n, C, x, labels, weights, smoothing,
               rows, p, work);
  reduce_losses(n, work, labels, weights, work + n, reduction, loss, nullptr, stream);
}

i64 softmax_cross_entropy_backward_workspace(i64 n, i64, i64, i64 reduction, i64 by_row) {
  return by_row || reduction != kReduceMean ? 0 : total_weight_workspace(n);
}

void softmax_cross_entropy_backward(i64 n, i64 C, i64, const float* p, const int64_t* labels, const float* weights,
                                    const float* dloss, float smoothing, int reduction, int by_row, float* work, float* dx,
                                    float beta, void* stream) {
  const float* count = nullptr;
  if (!by_row && reduction == kReduceMean) {
    total_weight(n, labels, weights, work, stream);
    count = work;
  }
  const RowGrid g(n, C);
  launch(cross_entropy_backward_kernel, g.grid, g.block, 0, stream, n, C, p, labels, weights, dloss, smoothing, by_row, count,
         dx, beta);
}

i64 loss_forward_workspace(i64 n, i64, i64) { return 2 * sum_slices(n); }

void loss_forward(i64 n, const float* x, const float* t, const float* weights, int kind, float delta, int reduction,
                  float* work, float* loss, float* elements, void* stream) {
  const i64 slices = sum_slices(n);
  launch(loss_kernel, static_cast<unsigned>(slices), kThreads, sizeof(TeamScratch), stream, n, x, t, weights, kind, delta,
         elements, work);
  launch(finish_loss_kernel, 1u, kThreads, sizeof(TeamScratch), stream, n, slices, work, weights != nullptr, reduction, loss);
}

i64 loss_backward_workspace(i64 n, i64, i64, i64 reduction, i64 by_element) {
  return by_element || reduction != kReduceMean ? 0 : total_weight_workspace(n);
}

void loss_backward(i64 n, i64, const float* x, const float* t, const float* weights, const float* dloss, int kind,
                   float delta, int reduction, int by_element, float* work, float* dx, float beta, void* stream) {
  const bool mean = !by_element && reduction == kReduceMean;
  const float* count = nullptr;
  if (mean && weights != nullptr) {
    total_weight(n, nullptr, weights, work, stream);
    count = work;
  }
  launch(loss_backward_kernel, element_blocks(n), kThreads, 0, stream, n,
         aligned(x, t, weights, by_element ? dloss : nullptr, dx), x, t, weights, dloss, kind, delta,
         mean ? static_cast<float>(n) : 1.0f, count, by_element, dx, beta);
}

}  // namespace fastdl
