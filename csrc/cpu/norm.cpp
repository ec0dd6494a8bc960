// Batch and layer normalisation.
//
//   batch norm, 64 channels at a time:      rows  0..255 | 256..511 | ...      one chunk: sums that stay in the cache
//                                          mean, M2 of each chunk, then merged in order (Chan, Golub & LeVeque 1979)
//
// so a channel's statistics depend on its column alone, and no difference of large sums is taken.
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"
#include "unroll.h"

namespace fastdl {
namespace {

constexpr i64 kBlock = 64;   // channels
constexpr i64 kChunks = 32;  // chunks of rows between two merges
static_assert(kBlock % kLanes == 0, "a block is whole vectors");

struct Sums {  // of a block's channels over a chunk of rows
  float first[kBlock];
  float second[kBlock];
};

// Calls chunk(r0, r1, sums) for chunks of 256 rows, on any thread, and merge(r0, r1, sums) for each in order.
template <class Chunk, class Merge>
FASTDL_INLINE void over_chunks(i64 n, const Chunk& chunk, const Merge& merge) {
  alignas(64) Sums held[kChunks];
  Sums* const sums = held;
  for (i64 first = 0; first < n; first += kChunks * kSumChunk) {
    const i64 left = (n - first + kSumChunk - 1) / kSumChunk;
    const i64 count = left < kChunks ? left : kChunks;
    const auto end_of = [=](i64 k) { return n < first + (k + 1) * kSumChunk ? n : first + (k + 1) * kSumChunk; };
    parallel_for(count, 4, [&](i64 begin, i64 end) {
      for (i64 k = begin; k < end; ++k) chunk(first + k * kSumChunk, end_of(k), sums[k]);
    });
    for (i64 k = 0; k < count; ++k) merge(first + k * kSumChunk, end_of(k), sums[k]);
  }
}

// The channels of a block, vectors of them: f(c within the block, lanes).
template <class F>
FASTDL_INLINE void for_channels(i64 width, const F& f) {
  for_vectors(0, width, f);
}

// The same by strips of kStrip vectors, for what runs down the rows: the lines that a row gives are neighbours, and as many sums
// wait for each other. f(c, lanes, Constant<vectors>).
constexpr int kStrip = 4;
template <class F>
FASTDL_INLINE void for_strips(i64 width, const F& f) {
  i64 c = 0;
  for (; c + kStrip * kLanes <= width; c += kStrip * kLanes) f(c, Whole{}, Constant<kStrip>{});
  for (; c + kLanes <= width; c += kLanes) f(c, Whole{}, Constant<1>{});
  if (c < width) f(c, Part{width - c}, Constant<1>{});
}

// f(row) for all rows, the last blocks first: the sums were made from first to last, so those are in the cache.
template <class F>
FASTDL_INLINE void for_rows_backwards(i64 n, i64 width, const F& f) {
  parallel_for(n, kElementGrain / 2 / (width > 0 ? width : 1) + 1, [=](i64 begin, i64 end) {
    for (i64 r = n - end; r < n - begin; ++r) f(r);
  });
}

// y = (x - mean) scale + shift for columns [c0, c0 + width) of all rows.
void normalise(i64 n, i64 C, i64 c0, i64 width, const float* x, const float* mean, const float* scale,
               const float* shift, float* y) {
  for_rows_backwards(n, width, [=](i64 r) {
    const float* xr = x + r * C + c0;
    float* yr = y + r * C + c0;
    for_channels(width, [=](i64 c, auto lanes) {
      lanes.store(yr + c, (lanes.load(xr + c) - load(mean + c)) * load(scale + c) + load(shift + c));
    });
  });
}

// dx = a dy + b x + c per channel, for columns [c0, c0 + width).
template <class Put>
void combine(i64 n, i64 C, i64 c0, i64 width, const float* x, const float* dy, const float* mean, const float* a,
             const float* b, const float* c, float* dx, const Put& put) {
  for_rows_backwards(n, width, [=](i64 r) {
    const i64 at = r * C + c0;
    for_channels(width, [=](i64 k, auto lanes) {
      const vec d = lanes.load(x + at + k) - load(mean + k);
      put(lanes, dx + at + k, load(a + k) * (lanes.load(dy + at + k) - load(c + k) - d * load(b + k)));
    });
  });
}

FASTDL_INLINE void fill(float* to, const float* from, i64 width, float otherwise) {
  for (i64 k = 0; k < kBlock; ++k) to[k] = from != nullptr && k < width ? from[k] : otherwise;
}

}  // namespace

// Sums wait on the stack.
i64 batch_norm_forward_workspace(i64, i64) { return 0; }
i64 batch_norm_backward_workspace(i64, i64) { return 0; }
i64 layer_norm_backward_workspace(i64, i64) { return 0; }

void batch_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float momentum,
                        float*, float* running_mean, float* running_var, float* y, float* mean, float* rstd, void*) {
  for (i64 c0 = 0; c0 < C; c0 += kBlock) {
    const i64 width = C - c0 < kBlock ? C - c0 : kBlock;
    alignas(64) float centre[kBlock] = {}, squares[kBlock] = {}, scale[kBlock] = {}, offset[kBlock];
    over_chunks(
        n,
        [=](i64 r0, i64 r1, Sums& s) {
          const float count = static_cast<float>(r1 - r0);
          for_strips(width, [&](i64 c, auto lanes, auto vectors) {
            constexpr int V = vectors;
            const float* const column = x + c0 + c;
            vec pivot[V], m[V], m2[V];
            unrolled<V>([&](auto v) FASTDL_INLINED {
              pivot[v] = lanes.load(column + r0 * C + v * kLanes);  // small sums even where the data lie far from zero
              m[v] = m2[v] = vec{};
            });
            for (i64 r = r0; r < r1; ++r) {
              const float* const row = column + r * C;
              unrolled<V>([&](auto v) FASTDL_INLINED { m[v] += lanes.load(row + v * kLanes) - pivot[v]; });
            }
            unrolled<V>([&](auto v) FASTDL_INLINED { m[v] = m[v] / count; });
            for (i64 r = r0; r < r1; ++r) {
              const float* const row = column + r * C;
              unrolled<V>([&](auto v) FASTDL_INLINED {
                const vec d = (lanes.load(row + v * kLanes) - pivot[v]) - m[v];
                m2[v] += d * d;
              });
            }
            // From the column's first value: the difference of two chunks' means keeps its digits.
            unrolled<V>([&](auto v) FASTDL_INLINED {
              store(s.first + c + v * kLanes, (pivot[v] - lanes.load(column + v * kLanes)) + m[v]);
              store(s.second + c + v * kLanes, m2[v]);
            });
          });
        },
        [&](i64 r0, i64 r1, const Sums& s) {
          const float part = static_cast<float>(r1 - r0) / static_cast<float>(r1);
          const float between = static_cast<float>(r0) * part;
          for (i64 c = 0; c < kBlock && c < width; ++c) {
            const float d = s.first[c] - centre[c];
            centre[c] = centre[c] + d * part;
            squares[c] = squares[c] + s.second[c] + d * d * between;
          }
        });
    for (i64 c = 0; c < width; ++c) {
      if (n > 0) centre[c] = x[c0 + c] + centre[c];
      const float var = squares[c] / static_cast<float>(n);
      const float r = 1.0f / __builtin_sqrtf(var + eps);
      mean[c0 + c] = n > 0 ? centre[c] : __builtin_nanf("");
      rstd[c0 + c] = r;
      if (n > 0 && running_mean != nullptr) {
        running_mean[c0 + c] = (1.0f - momentum) * running_mean[c0 + c] + momentum * centre[c];
      }
      if (n > 0 && running_var != nullptr) {
        const float unbiased = squares[c] / static_cast<float>(n > 1 ? n - 1 : 1);
        running_var[c0 + c] = (1.0f - momentum) * running_var[c0 + c] + momentum * unbiased;
      }
      scale[c] = gamma == nullptr ? r : gamma[c0 + c] * r;
    }
    fill(offset, shift == nullptr ? nullptr : shift + c0, width, 0.0f);
    normalise(n, C, c0, width, x, centre, scale, offset, y);
  }
}

void batch_norm_inference(i64 n, i64 C, const float* x, const float* gamma, const float* shift, const float* mean,
                          const float* var, float eps, float* y, void*) {
  for (i64 c0 = 0; c0 < C; c0 += kBlock) {
    const i64 width = C - c0 < kBlock ? C - c0 : kBlock;
    alignas(64) float centre[kBlock], scale[kBlock] = {}, offset[kBlock];
    fill(centre, mean + c0, width, 0.0f);
    fill(offset, shift == nullptr ? nullptr : shift + c0, width, 0.0f);
    for (i64 c = 0; c < width; ++c) {
      const float r = 1.0f / __builtin_sqrtf(var[c0 + c] + eps);
      scale[c] = gamma == nullptr ? r : gamma[c0 + c] * r;
    }
    normalise(n, C, c0, width, x, centre, scale, offset, y);
  }
}

// With h = (x - mean) rstd:  dshift = sum dy,  dgamma = sum dy h,  dx = gamma rstd (dy - dshift / n - h dgamma / n).
void batch_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float*, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void*) {
  for (i64 c0 = 0; c0 < C; c0 += kBlock) {
    const i64 width = C - c0 < kBlock ? C - c0 : kBlock;
    alignas(64) float centre[kBlock], sum_dy[kBlock] = {}, sum_dyd[kBlock] = {}, a[kBlock] = {}, b[kBlock] = {},
                                      c[kBlock] = {};
    fill(centre, mean + c0, width, 0.0f);
    const float* const m = centre;
    over_chunks(
        n,
        [=](i64 r0, i64 r1, Sums& s) {
          for_strips(width, [&](i64 k, auto lanes, auto vectors) {
            constexpr int V = vectors;
            vec s0[V], s1[V];
            unrolled<V>([&](auto v) FASTDL_INLINED { s0[v] = s1[v] = vec{}; });
            for (i64 r = r0; r < r1; ++r) {
              const i64 at = r * C + c0 + k;
              unrolled<V>([&](auto v) FASTDL_INLINED {
                const vec d = lanes.load(dy + at + v * kLanes);
                s0[v] += d;
                s1[v] += d * (lanes.load(x + at + v * kLanes) - load(m + k + v * kLanes));
              });
            }
            unrolled<V>([&](auto v) FASTDL_INLINED {
              store(s.first + k + v * kLanes, s0[v]);
              store(s.second + k + v * kLanes, s1[v]);
            });
          });
        },
        [&](i64, i64, const Sums& s) {
          for (i64 k = 0; k < kBlock && k < width; ++k) {
            sum_dy[k] += s.first[k];
            sum_dyd[k] += s.second[k];
          }
        });
    for (i64 k = 0; k < width; ++k) {
      const float r = rstd[c0 + k];
      a[k] = gamma == nullptr ? r : gamma[c0 + k] * r;
      b[k] = sum_dyd[k] * r * r / static_cast<float>(n);
      c[k] = sum_dy[k] / static_cast<float>(n);
      const float g = n > 0 ? sum_dyd[k] * r : 0.0f;  // of no rows, rstd is not a number
      if (dgamma != nullptr) dgamma[c0 + k] = beta_dgamma == 0.0f ? g : g + beta_dgamma * dgamma[c0 + k];
      if (dshift != nullptr)
        dshift[c0 + k] = beta_dshift == 0.0f ? sum_dy[k] : sum_dy[k] + beta_dshift * dshift[c0 + k];
    }
    if (dx == nullptr) continue;
    with_beta(beta_dx, [&](auto put) { combine(n, C, c0, width, x, dy, centre, a, b, c, dx, put); });
  }
}

void layer_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float* y,
                        float* mean, float* rstd, void*) {
  const float count = static_cast<float>(C);
  for_rows(n, 2 * C, [=](i64 i) {
    const float* xr = x + i * C;
    float* yr = y + i * C;
    vec s = {};
    for_vectors(0, C, [&](i64 c, auto lanes) { s += lanes.load(xr + c); });
    const float m = sum_lanes(s) / count;
    vec squares = {};
    for_vectors(0, C, [&](i64 c, auto lanes) {
      const vec d = lanes.only(lanes.load(xr + c) - m);
      squares += d * d;
    });
    const float r = 1.0f / __builtin_sqrtf(sum_lanes(squares) / count + eps);
    mean[i] = m;
    rstd[i] = r;
    for_vectors(0, C, [=](i64 c, auto lanes) {
      vec v = (lanes.load(xr + c) - m) * r;
      if (gamma != nullptr) v = v * lanes.load(gamma + c);
      if (shift != nullptr) v = v + lanes.load(shift + c);
      lanes.store(yr + c, v);
    });
  });
}

// With h = (x - mean) rstd and g = dy gamma:  dx = rstd (g - mean g - h mean(g h)).
void layer_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float*, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void*) {
  const float count = static_cast<float>(C);
  if (dgamma != nullptr || dshift != nullptr) {
    for (i64 c0 = 0; c0 < C; c0 += kBlock) {
      const i64 width = C - c0 < kBlock ? C - c0 : kBlock;
      float sum_dy[kBlock] = {}, sum_dyh[kBlock] = {};
      over_chunks(
          n,
          [=](i64 r0, i64 r1, Sums& s) {
            for_channels(width, [&](i64 k, auto lanes) {
              vec s0 = {}, s1 = {};
              for (i64 r = r0; r < r1; ++r) {
                const vec d = lanes.load(dy + r * C + c0 + k);
                s0 += d;
                s1 += d * ((lanes.load(x + r * C + c0 + k) - mean[r]) * rstd[r]);
              }
              store(s.first + k, s0);
              store(s.second + k, s1);
            });
          },
          [&](i64, i64, const Sums& s) {
            for (i64 k = 0; k < kBlock && k < width; ++k) {
              sum_dy[k] += s.first[k];
              sum_dyh[k] += s.second[k];
            }
          });
      for (i64 k = 0; k < width; ++k) {
        const i64 c = c0 + k;
        if (dgamma != nullptr) dgamma[c] = beta_dgamma == 0.0f ? sum_dyh[k] : sum_dyh[k] + beta_dgamma * dgamma[c];
        if (dshift != nullptr) dshift[c] = beta_dshift == 0.0f ? sum_dy[k] : sum_dy[k] + beta_dshift * dshift[c];
      }
    }
  }
  if (dx == nullptr) return;
  with_beta(beta_dx, [=](auto put) {
    for_rows(n, 3 * C, [=](i64 i) {
      const float *xr = x + i * C, *dr = dy + i * C;
      float* to = dx + i * C;
      const float m = mean[i], r = rstd[i];
      const auto weighted = [=](i64 c, auto lanes) {
        return gamma == nullptr ? lanes.load(dr + c) : lanes.load(dr + c) * lanes.load(gamma + c);
      };
      vec s0 = {}, s1 = {};
      for_vectors(0, C, [&](i64 c, auto lanes) {
        const vec g = weighted(c, lanes);  // zero in lanes that are not there
        s0 += g;
        s1 += g * ((lanes.load(xr + c) - m) * r);
      });
      const float mean_g = sum_lanes(s0) / count, mean_gh = sum_lanes(s1) / count;
      for_vectors(0, C, [=](i64 c, auto lanes) {
        const vec h = (lanes.load(xr + c) - m) * r;
        put(lanes, to + c, r * (weighted(c, lanes) - mean_g - h * mean_gh));
      });
    });
  });
}

}  // namespace fastdl
