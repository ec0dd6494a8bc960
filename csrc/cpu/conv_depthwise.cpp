// Depthwise convolution, whose output is an image: one filter for each channel. No product, but a channel's sum in a lane of its
// own, the order of the taps that of conv.h.
#include "../kernels.h"
#include "conv_image.h"

namespace fastdl {
namespace {

// Sums of R output pixels, V vectors of channels from c on; pixel r reads from at + r * apart.
template <int kAct, int R, int V>
FASTDL_INLINE void depthwise_tile(const Grid& grid, const Band& band, const float* at, i64 apart, const float* w,
                                  i64 padded, i64 c, const Finish& f, const float* bias, i64 out, i64 out_step,
                                  i64 channels) {
  vec sum[R][V] = {};
  for (i64 r = 0; r < grid.R; ++r) {
    for (i64 s = 0; s < grid.S; ++s, w += padded) {
      const float* x = at + r * grid.step_y * band.pitch + s * grid.step_x * band.pixel + c;
      for (int v = 0; v < V; ++v) {
        const vec wv = load(w + c + v * kLanes);
        for (int i = 0; i < R; ++i) sum[i][v] = fma(load(x + i * apart + v * kLanes), wv, sum[i][v]);
      }
    }
  }
  if (!f.z && f.beta == 0.0f && c + V * kLanes <= channels) {
    for (int i = 0; i < R; ++i) {
      for (int v = 0; v < V; ++v) {
        store(f.out + out + i * out_step + c + v * kLanes,
              activate<kAct>(sum[i][v] + load(bias + c + v * kLanes), f.slope));
      }
    }
    return;
  }
  for (int i = 0; i < R; ++i) {
    float sums[V * kLanes];
    for (int v = 0; v < V; ++v) store(sums + v * kLanes, sum[i][v]);
    finish_span<kAct>(f, sums, bias + c, smaller<i64>(V * kLanes, channels - c), 0, out + i * out_step + c);
  }
}

template <int kAct, int R>
FASTDL_INLINE void depthwise_pixels(const Grid& grid, const Band& band, const float* at, i64 apart, const float* w,
                                    const Finish& f, const float* bias, i64 out, i64 out_step) {
  const i64 C = grid.C, padded = round_up(C, kLanes);
  i64 c = 0;
  for (; c + kLanes < padded; c += 2 * kLanes) {
    depthwise_tile<kAct, R, 2>(grid, band, at, apart, w, padded, c, f, bias, out, out_step, C);
  }
  if (c < padded) depthwise_tile<kAct, R, 1>(grid, band, at, apart, w, padded, c, f, bias, out, out_step, C);
}

// Rows g0 .. g1; bias has whole vectors.
template <int kAct>
void depthwise_rows(const Grid& grid, const float* image, const float* w, const Placement& place, const Finish& f,
                    const float* bias, i64 g0, i64 g1) {
  Band band;
  band.load(grid, image, 0, grid.C, g0, g1, 0, grid.Q, grid.C % kLanes != 0);
  const i64 apart = grid.stride_x * grid.C, out_step = place.step_x * place.C;
  for (i64 g = g0; g < g1; ++g) {
    const i64 y = g / grid.P * place.Y + place.first_y + g % grid.P * place.step_y;
    i64 out = (y * place.X + place.first_x) * place.C;
    const float* at = band.base + band.start[g - g0];
    i64 q = 0;
    for (; q + 4 <= grid.Q; q += 4, at += 4 * apart, out += 4 * out_step) {
      depthwise_pixels<kAct, 4>(grid, band, at, apart, w, f, bias, out, out_step);
    }
    for (; q < grid.Q; ++q, at += apart, out += out_step) {
      depthwise_pixels<kAct, 1>(grid, band, at, apart, w, f, bias, out, out_step);
    }
  }
}

}  // namespace

void convolve_depthwise(const Grid& grid, const float* image, float* w, const Placement& place, const Finish& f) {
  const i64 rows = grid.rows();
  if (rows <= 0 || grid.Q <= 0) return;
  float* bias = w + grid.R * grid.S * round_up(grid.C, kLanes);
  for (i64 c = 0; c < round_up(grid.C, kLanes); ++c) bias[c] = f.bias && c < grid.C ? f.bias[c] : 0.0f;
  const i64 grain = smaller(kBlockPixels, larger<i64>(1, 32768 / (grid.Q * grid.C)));
  parallel_for(rows, grain, [&](i64 g0, i64 g1) {
    for (i64 g = g0; g < g1; g += grain) {
      const i64 end = smaller(g + grain, g1);
      switch (f.act) {
        case kRelu: depthwise_rows<kRelu>(grid, image, w, place, f, bias, g, end); break;
        case kLeakyRelu: depthwise_rows<kLeakyRelu>(grid, image, w, place, f, bias, g, end); break;
        case kSigmoid: depthwise_rows<kSigmoid>(grid, image, w, place, f, bias, g, end); break;
        case kTanh: depthwise_rows<kTanh>(grid, image, w, place, f, bias, g, end); break;
        case kGelu: depthwise_rows<kGelu>(grid, image, w, place, f, bias, g, end); break;
        default: depthwise_rows<kNone>(grid, image, w, place, f, bias, g, end); break;
      }
    }
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
