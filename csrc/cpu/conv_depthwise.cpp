// Depthwise convolution, whose output is an image: one filter for each channel. No product, but a channel's sum in a lane of its
// own, the order of the taps that of conv.h.
//
//            s=0 s=1 s=2           neighbours in a row share what they read of a row of the image: four of them six vectors
//   image   |  a   b   c  |  ..    instead of twelve for three taps each. The image is read where it lies; rows and
//   out          0   1   2   3     columns of the filter that would leave it are left out.
#include "../kernels.h"
#include "conv_image.h"
#include "unroll.h"

namespace fastdl {
namespace {

// What all pixels have in common. `base` is the image, or a copy of some rows of it.
struct Depthwise {
  const float* base;
  i64 row_step, tap_step, pixel_step;  // floats from one filter row, filter column, output pixel to the next
  const float* w;                      // taps of S a row, `padded` channels each
  i64 S, padded, C;
  const float* bias;
  const Finish* f;
  i64 out_step;
  bool simple;  // only a bias and perhaps a rectifier
};

// Taps r0 <= r < r1, s0 <= s < s1 of a filter; tap (0, 0) of the first pixel lies at base + at.
struct Reached {
  i64 at, r0, r1, s0, s1;
};

__attribute__((noinline)) void finish_lanes(const Finish& f, const float* sums, const float* bias, i64 lanes, i64 at) {
  switch (f.act) {
    case kRelu: return finish_span<kRelu>(f, sums, bias, lanes, 0, at);
    case kLeakyRelu: return finish_span<kLeakyRelu>(f, sums, bias, lanes, 0, at);
    case kSigmoid: return finish_span<kSigmoid>(f, sums, bias, lanes, 0, at);
    case kTanh: return finish_span<kTanh>(f, sums, bias, lanes, 0, at);
    case kGelu: return finish_span<kGelu>(f, sums, bias, lanes, 0, at);
    default: return finish_span<kNone>(f, sums, bias, lanes, 0, at);
  }
}

template <int T>
FASTDL_INLINE void finish(const Depthwise& d, vec (&sum)[T], i64 c, i64 out) {
  const Finish& f = *d.f;
  if (d.simple && c + kLanes <= d.C) {
    const vec bias = load(d.bias + c);
    unrolled<T>([&](auto t) FASTDL_INLINED {
      const vec z = sum[t] + bias;
      store(f.out + out + t * d.out_step + c, f.act == kRelu ? relu(z) : z);
    });
    return;
  }
  for (int t = 0; t < T; ++t) {
    float sums[kLanes];
    store(sums, sum[t]);
    finish_lanes(f, sums, d.bias + c, smaller<i64>(kLanes, d.C - c), out + t * d.out_step + c);
  }
}

// T neighbours under any filter.
template <int T>
void any_pixels(const Depthwise& d, const Reached& k, i64 out) {
  for (i64 c = 0; c < d.padded; c += kLanes) {
    vec sum[T] = {};
    for (i64 r = k.r0; r < k.r1; ++r) {
      for (i64 s = k.s0; s < k.s1; ++s) {
        const float* const x = d.base + (k.at + r * d.row_step + s * d.tap_step + c);
        const vec w = load(d.w + (r * d.S + s) * d.padded + c);
        unrolled<T>([&](auto t) FASTDL_INLINED { sum[t] = fma(load(x + t * d.pixel_step), w, sum[t]); });
      }
    }
    finish(d, sum, c, out);
  }
}

// T neighbours under a filter of S columns, kStride image pixels apart.
template <int T, int S, int kStride>
void neighbours(const Depthwise& d, const Reached& k, i64 out) {
  for (i64 c = 0; c < d.padded; c += kLanes) {
    vec sum[T] = {};
    for (i64 r = k.r0; r < k.r1; ++r) {
      const float* const x = d.base + (k.at + r * d.row_step + c);
      vec w[S];
      unrolled<S>([&](auto s) FASTDL_INLINED { w[s] = load(d.w + (r * S + s) * d.padded + c); });
      unrolled<(T - 1) * kStride + S>([&](auto j) FASTDL_INLINED {
        const vec v = load(x + j * d.tap_step);
        unrolled<T>([&](auto t) FASTDL_INLINED {
          constexpr int s = j - t * kStride;
          if constexpr (s >= 0 && s < S) sum[t] = fma(v, w[s], sum[t]);
        });
      });
    }
    finish(d, sum, c, out);
  }
}

// For 6 neighbours, whose sums hide the latency of fma, and for 4.
using Pixels = void (*)(const Depthwise&, const Reached&, i64);
struct Ways {
  Pixels six, four;
};

Ways ways_of(i64 S, i64 stride, i64 dilation) {
  if (dilation == 1 && stride == 1) {
    switch (S) {
      case 1: return {neighbours<6, 1, 1>, neighbours<4, 1, 1>};
      case 2: return {neighbours<6, 2, 1>, neighbours<4, 2, 1>};
      case 3: return {neighbours<6, 3, 1>, neighbours<4, 3, 1>};
      case 5: return {neighbours<6, 5, 1>, neighbours<4, 5, 1>};
      default: break;
    }
  }
  if (dilation == 1 && stride == 2 && S == 3) return {neighbours<6, 3, 2>, neighbours<4, 3, 2>};
  if (dilation == 1 && stride == 2 && S == 5) return {neighbours<6, 5, 2>, neighbours<4, 5, 2>};
  return {any_pixels<6>, any_pixels<4>};
}

// Steps from 0 on that keep first + i * step within [0, size): of `count`, from .. to - 1.
FASTDL_INLINE void inside(i64 first, i64 step, i64 count, i64 size, i64* from, i64* to) {
  *from = first < 0 ? smaller(count, (-first + step - 1) / step) : 0;
  *to = first >= size ? *from : larger(*from, smaller(count, (size - 1 - first) / step + 1));
}

// Rows g0 .. g1; bias has whole vectors.
void depthwise_rows(const Grid& grid, const float* image, Depthwise d, const Ways& ways, const Placement& place, i64 g0,
                    i64 g1) {
  const i64 C = grid.C;
  d.pixel_step = grid.stride_x * C;
  d.tap_step = grid.step_x * C;
  // A last vector that hangs over a pixel may leave the image: then rows are copied, with the zeros of the padding. So they
  // are at a stride, where reading them from memory takes most of the time and the copy reads them in order.
  Band band;
  const bool copied = C % kLanes != 0 || grid.stride_x > 1;
  if (copied) band.load(grid, image, 0, C, g0, g1, 0, grid.Q, true);
  d.base = copied ? band.base : image;
  d.row_step = grid.step_y * (copied ? band.pitch : grid.W * C);
  // Output columns whole_from .. whole_to - 1 meet all columns of the filter.
  i64 whole_from = 0, whole_to = grid.Q;
  if (!copied) {
    i64 none = 0;
    inside(grid.first_x, grid.stride_x, grid.Q, grid.W, &whole_from, &none);
    inside(grid.first_x + (grid.S - 1) * grid.step_x, grid.stride_x, grid.Q, grid.W, &none, &whole_to);
    whole_to = larger(whole_from, whole_to);
  }
  for (i64 g = g0; g < g1; ++g) {
    const i64 n = g / grid.P, p = g % grid.P, top = grid.first_y + p * grid.stride_y;
    const i64 row = ((n * place.Y + place.first_y + p * place.step_y) * place.X + place.first_x) * place.C;
    Reached k = {0, 0, grid.R, 0, grid.S};
    if (!copied) inside(top, grid.step_y, grid.R, grid.H, &k.r0, &k.r1);
    const i64 start = copied ? band.start[g - g0] : ((n * grid.H + top) * grid.W + grid.first_x) * C;
    for (i64 q = 0; q < grid.Q;) {
      k.at = start + q * d.pixel_step;
      if (q >= whole_from && q < whole_to) {
        k.s0 = 0;
        k.s1 = grid.S;
        const i64 left = whole_to - q;
        if (left >= 4) {
          (left >= 6 ? ways.six : ways.four)(d, k, row + q * d.out_step);
          q += left >= 6 ? 6 : 4;
          continue;
        }
      } else {
        inside(grid.first_x + q * grid.stride_x, grid.step_x, grid.S, grid.W, &k.s0, &k.s1);
      }
      any_pixels<1>(d, k, row + q * d.out_step);
      ++q;
    }
  }
}

}  // namespace

void convolve_depthwise(const Grid& grid, const float* image, float* w, const Placement& place, const Finish& f) {
  const i64 rows = grid.rows(), padded = round_up(grid.C, kLanes);
  if (rows <= 0 || grid.Q <= 0) return;
  float* bias = w + grid.R * grid.S * padded;
  for (i64 c = 0; c < padded; ++c) bias[c] = f.bias && c < grid.C ? f.bias[c] : 0.0f;
  const bool simple = !f.z && f.beta == 0.0f && (f.act == kNone || f.act == kRelu);
  const Depthwise d = {nullptr, 0, 0, 0, w, grid.S, padded, grid.C, bias, &f, place.step_x * place.C, simple};
  const Ways ways = ways_of(grid.S, grid.stride_x, grid.step_x);
  const i64 grain = smaller(kBlockPixels, larger<i64>(1, 32768 / (grid.Q * grid.C)));
  parallel_for(rows, grain, [&](i64 g0, i64 g1) {
    for (i64 g = g0; g < g1; g += grain) depthwise_rows(grid, image, d, ways, place, g, smaller(g + grain, g1));
  });
}

void pack_depthwise(const float* w, i64 S, i64 C, i64 taps_y, i64 taps_x, i64 last_y, i64 last_x, i64 apart_y,
                    i64 apart_x, float* out) {
  for (i64 i = 0; i < taps_y; ++i) {
    for (i64 j = 0; j < taps_x; ++j, out += round_up(C, kLanes)) {
      const float* from = w + ((last_y - i * apart_y) * S + last_x - j * apart_x) * C;
      for (i64 c = 0; c < round_up(C, kLanes); ++c) out[c] = c < C ? from[c] : 0.0f;
    }
  }
}

}  // namespace fastdl
